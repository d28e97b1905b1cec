"""The comparison as inline pictures, each with the words that stand for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from experiments import figures
from experiments.figures import NARROW, WIDE, Mark, Paths
from experiments.runs import Run
from experiments.summary import agent_labels, paths, sharpe_by_seed
from experiments.svg import to_svg
from market import measures

CURVE = "eval/sharpe"


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
    best, deepest = str(frame["final_value"].idxmax()), str(frame["max_drawdown"].idxmax())
    return {
        "evidence": _both(
            "evidence",
            f"Sharpe ratios of {span} with intervals; the numbers are in the table above.",
            lambda width: figures.evidence(frame, exhibit.marks, seeds, width),
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
    largest = set(means.loc[risky].mean(axis=1).nlargest(figures.N_AREAS).index)
    risky = [asset for asset in risky if asset in largest]
    areas = {asset: number for number, asset in enumerate(risky)}
    areas |= {"cash": figures.CASH_AREA} if "cash" in assets else {}
    legend, hidden = dict(areas), len(assets) - len(areas)
    if hidden:
        legend[f"{hidden} others"] = figures.OTHER_AREA
    panels = {}
    for number, (name, targets) in enumerate(weights.items()):
        shown = targets.reindex(columns=list(areas), fill_value=0.0)
        words = ", ".join(f"{asset} {share:.0%}" for asset, share in shown.mean().items())
        rest = (1.0 - shown.sum(axis=1)).clip(lower=0.0)
        stack = np.column_stack([shown, rest])[:, : len(legend)]
        figure = figures.allocation(exhibit.days, stack, list(legend.values()))
        panels[name] = to_svg(figure, f"weights-{number}", f"Weights of {name}; mean: {words}.")
    return {"panels": panels, "legend": legend}


def _mean_targets(runs: Sequence[Run]) -> pd.DataFrame:
    """Target weights averaged over seeds, columns the assets."""
    frames = [run.backtest[[f"target:{asset}" for asset in run.assets]] for run in runs]
    mean = sum(frames[1:], frames[0]) / len(frames)
    return mean.rename(columns=lambda name: str(name).removeprefix("target:"))


def curve_by_seed(runs: Sequence[Run]) -> dict[int, pd.Series]:
    """Validation Sharpe ratio by step of each seed that logged one."""
    curves = {}
    for run in runs:
        if CURVE in run.metrics:
            numbers = run.metrics[["step", CURVE]].apply(pd.to_numeric, errors="coerce").dropna()
            curve = numbers.groupby("step")[CURVE].last()
            if len(curve):
                curves[run.seed] = curve
    return curves


def learning_curves(exhibit: Exhibit) -> dict[str, Markup]:
    """A panel an agent that learned, all on one vertical scale."""
    groups = agent_labels(exhibit.runs)
    found = {str(name): curve_by_seed(groups[str(name)]) for name in exhibit.frame.index}
    tables = {name: pd.DataFrame(curves) for name, curves in found.items() if curves}
    if not tables:
        return {}
    low = min(float(table.min().min()) for table in tables.values())
    high = max(float(table.max().max()) for table in tables.values())
    room = 0.08 * (high - low) or 0.5
    panels = {}
    for number, (name, table) in enumerate(tables.items()):
        figure = figures.learning(exhibit.marks[name], table, (low - room, high + room))
        label = (
            f"Validation Sharpe ratio of {name} over {table.index[-1]:,.0f} training steps, "
            f"{table.shape[1]} seeds; best {table.max().max():.2f}."
        )
        panels[name] = to_svg(figure, f"learning-{number}", label)
    return panels
