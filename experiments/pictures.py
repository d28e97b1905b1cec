"""The comparison as inline pictures, each with the words that stand for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from experiments import figures, panels
from experiments.figures import NARROW, WIDE, Mark, Paths
from experiments.runs import Run
from experiments.summary import agent_labels, paths, sharpe_by_seed
from experiments.svg import to_svg
from market import measures

CURVES = {"eval/sharpe": "validation Sharpe ratio", "eval/loss": "validation loss"}


@dataclass(frozen=True)
class Picture:
    """A picture in its two cuts, with the words that stand for it."""

    wide: Markup
    narrow: Markup


@dataclass(frozen=True)
class Exhibit:
    """Everything the page is drawn from.

    Attributes:
        runs: All runs, failed ones too.
        frame: The summary.
        agents: Finished runs by agent, in the summary's order; agents without any left out.
        marks: How each agent is drawn, by agent, for all of them.
    """

    runs: Sequence[Run]
    frame: pd.DataFrame
    agents: dict[str, list[Run]]
    marks: dict[str, Mark]

    @classmethod
    def of(cls, runs: Sequence[Run], frame: pd.DataFrame) -> "Exhibit":
        """Settle order and colours."""
        groups = agent_labels(runs)
        finished = {name: [run for run in groups[name] if run.finished] for name in frame.index}
        is_reference = frame["verdict"] == "reference"
        marks = {name: Mark(i, bool(is_reference[name])) for i, name in enumerate(groups)}
        return cls(runs, frame, {name: done for name, done in finished.items() if done}, marks)

    @property
    def days(self) -> pd.DatetimeIndex:
        """Ends of the test periods."""
        return pd.DatetimeIndex(next(iter(self.agents.values()))[0].backtest.index)

    def lines(self, column: str, change: Callable[[np.ndarray], Any] = np.asarray) -> list[Paths]:
        """One column of every agent's back-tests, to be drawn."""
        return [
            Paths(self.marks[name], np.asarray(change(paths(runs, column))))
            for name, runs in self.agents.items()
        ]


def _both(name: str, label: str, draw: Callable[[int], Figure]) -> Picture:
    return Picture(
        to_svg(draw(WIDE), f"{name}-wide", label), to_svg(draw(NARROW), f"{name}-narrow", label)
    )


def all_agents(exhibit: Exhibit) -> dict[str, Picture]:
    """Sharpe ratios with intervals; value and drawdown; cost and turnover."""
    days, frame = exhibit.days, exhibit.frame.loc[list(exhibit.agents)]
    span = f"{len(frame)} agents from {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}"
    values = exhibit.lines("value")
    falls = exhibit.lines("portfolio_return", measures.drawdowns)
    costs, turnover = exhibit.lines("cost"), exhibit.lines("turnover")
    seeds = {
        name: sharpe_by_seed(runs, frame.attrs["periods_per_year"])
        for name, runs in exhibit.agents.items()
    }
    several = {name: scores for name, scores in seeds.items() if len(scores) > 1}
    several = {name: scores for name, scores in several.items() if np.isfinite(scores).all()}
    best, deepest = str(frame["final_value"].idxmax()), str(frame["max_drawdown"].idxmax())
    profile = {}
    if several:
        profile["profile"] = _both(
            "profile",
            f"Share of the runs of {', '.join(several)} above each Sharpe ratio.",
            lambda width: panels.profile(several, exhibit.marks, width),
        )
    return profile | {
        "evidence": _both(
            "evidence",
            f"Sharpe ratios of {span} with intervals; the numbers are in the table above.",
            lambda width: panels.evidence(frame, exhibit.marks, seeds, width),
        ),
        "performance": _both(
            "performance",
            f"Value and drawdown of {span}. Highest final value: {best}, "
            f"{frame['final_value'][best]:.3f}. Deepest drawdown: {deepest}, "
            f"{frame['max_drawdown'][deepest]:.1%}.",
            lambda width: figures.performance(days, values, falls, width),
        ),
        "trading": _both(
            "trading",
            f"Cost paid and turnover since the start of {span}; yearly numbers are in the table.",
            lambda width: figures.trading(days, costs, turnover, width),
        ),
    }


def allocations(exhibit: Exhibit) -> dict[str, Any]:
    """A panel an agent of mean target weights, and which asset has which colour."""
    weights = {name: _mean_targets(runs) for name, runs in exhibit.agents.items()}
    assets = list(dict.fromkeys(asset for frame in weights.values() for asset in frame))
    risky = [asset for asset in assets if asset != "cash"]
    means = pd.DataFrame({name: frame.mean() for name, frame in weights.items()}).fillna(0.0)
    largest = set(means.loc[risky].mean(axis=1).nlargest(panels.N_AREAS).index)
    risky = [asset for asset in risky if asset in largest]
    areas = {asset: number for number, asset in enumerate(risky)}
    areas |= {"cash": panels.CASH_AREA} if "cash" in assets else {}
    legend, hidden = dict(areas), len(assets) - len(areas)
    if hidden:
        legend[f"{hidden} others"] = panels.OTHER_AREA
    drawn = {}
    for number, (name, targets) in enumerate(weights.items()):
        shown = targets.reindex(columns=list(areas), fill_value=0.0)
        words = ", ".join(f"{asset} {share:.0%}" for asset, share in shown.mean().items())
        rest = (1.0 - shown.sum(axis=1)).clip(lower=0.0)
        stack = np.column_stack([shown, rest])[:, : len(legend)]
        figure = panels.allocation(exhibit.days, stack, list(legend.values()))
        drawn[name] = to_svg(figure, f"weights-{number}", f"Weights of {name}; mean: {words}.")
    return {"panels": drawn, "legend": legend}


def _mean_targets(runs: Sequence[Run]) -> pd.DataFrame:
    """Target weights averaged over seeds, columns the assets."""
    frames = [run.backtest[[f"target:{asset}" for asset in run.assets]] for run in runs]
    mean = sum(frames[1:], frames[0]) / len(frames)
    return mean.rename(columns=lambda name: str(name).removeprefix("target:"))


def curves_of(runs: Sequence[Run]) -> tuple[str, pd.DataFrame]:
    """What one agent logged of `CURVES`, the first that is a curve: by step, a column a seed."""
    point = ("", pd.DataFrame())
    for name in CURVES:
        found = {}
        for run in [run for run in runs if name in run.metrics]:
            numbers = run.metrics[["step", name]].apply(pd.to_numeric, errors="coerce").dropna()
            found[run.seed] = numbers.groupby("step")[name].last()
        table = pd.DataFrame(found).sort_index().dropna(axis=1, how="all")
        if len(table) > 1:
            return name, table
        point = point if table.empty or point[0] else (name, table)
    return point


def learning_curves(exhibit: Exhibit) -> dict[str, Markup]:
    """A panel an agent that logged its validation; Sharpe ratios all on one vertical scale."""
    groups = agent_labels(exhibit.runs)
    curves = {str(name): curves_of(groups[str(name)]) for name in exhibit.frame.index}
    sharpe = [table.to_numpy() for name, table in curves.values() if name == "eval/sharpe"]
    low = min((float(np.nanmin(table)) for table in sharpe), default=0.0)
    high = max((float(np.nanmax(table)) for table in sharpe), default=0.0)
    room = 0.08 * (high - low) or 0.5
    drawn = {}
    for number, (agent, (name, table)) in enumerate(curves.items()):
        if table.empty:
            continue
        is_loss = name == "eval/loss"
        limits = None if is_loss else (low - room, high + room)
        best = float(table.min().min() if is_loss else table.max().max())
        figure = panels.learning(exhibit.marks[agent], table, CURVES[name], limits)
        label = (
            f"{CURVES[name].capitalize()} of {agent} over {table.index[-1]:,.0f} training steps, "
            f"{table.shape[1]} seeds; best {best:.3g}."
        )
        drawn[agent] = to_svg(figure, f"learning-{number}", label)
    return drawn
