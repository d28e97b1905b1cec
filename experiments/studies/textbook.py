"""The textbook example: does an LSTM's forecast of returns make a portfolio better than 1/N?

S&P 500, NASDAQ Composite, 10-year Treasury and gold, daily, 1999-2018. An LSTM of two layers of 64
predicts next-day returns from 60 days of all four; weights are proportional to the positive
predictions, and what exceeds 10 % volatility a year is moved to cash. It is fitted anew every 252
days on the five years before, the last of which stops the training. Beside it stand equal weights,
and the same rule fed with the mean of those years instead of a network.

Metric: Sharpe ratio over the cash rate on all days after the first five years, with and without
costs of 0.1 % of what is traded, with 95 % intervals by stationary block bootstrap; R2 of the
forecasts against the historical mean.

    python -m experiments.studies.textbook [--seeds 3] [--docs docs]

Source: the set-up that introductions to deep learning for portfolios use; Fischer & Krauss, Deep
learning with long short-term memory networks for financial market predictions (2018).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.compare import compare
from experiments.forecast_notes import cells, forecast_rows
from experiments.report import write_report
from experiments.run_dir import Run, write_atomic
from experiments.statistics import interquartile_mean, stationary_bootstrap_interval
from experiments.studies.pages import made_by, write_section
from experiments.studies.study_command import StudyParser, exit_with
from experiments.summary import agent_labels, summarise
from experiments.walk_config import WalkConfig, WalkForwardConfig
from market import measures

MEAN = "forecast(forecaster=mean, rule=proportional, volatility=0.10, label=mean_forecast)"
SETTINGS: dict[str, Any] = {
    "experiment": "textbook",
    "agents": ["lstm", MEAN, "equal_weight"],
    "walk": WalkConfig(start="2004-08-16", refit_every=252, train_days=1008, valid_days=252),
}
HEADINGS = (
    "| | costs | return | volatility | Sharpe | 95 % interval | drawdown | turnover | value |"
)
YEAR = 252
AREAS = ("#2b6ca3", "#8fc1e3", "#e08a2e", "#f4cf6b", "#c9d0d8")
COLOURS = {"lstm": "#1f77b4", "mean_forecast": "#d98f00", "equal_weight": "#444444"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study, print its tables and write tables and chart.

    Args:
        argv: Options; those of the process when None.

    Returns:
        The exit status.

    """
    parser = StudyParser("textbook", __doc__)
    parser.add_argument("--seeds", type=int, default=3, help="of the LSTM")
    parser.add_argument("--results", default="results", help="folder of all experiments")
    parser.add_argument("--workers", type=int, default=None, help="runs at the same time")
    parser.add_argument("--docs", type=Path, default=None, help="folder for tables and chart")
    parser.add_argument("--write", action="store_true", help="renew the tables in --results")
    given = parser.parse_args(argv)
    config = WalkForwardConfig(
        **SETTINGS, seeds=given.seeds, results=given.results, workers=given.workers
    )
    done = compare(config, "python -m experiments.studies.textbook")
    finished = [run for run in done.runs if run.finished]
    if len(finished) < len(done.runs):
        for outcome in done.failed:
            print(f"{outcome.spec.name}: {outcome.error}")
        return 1
    text = page(finished)
    text += against(summarise(finished))
    print(text)
    folder = given.docs or done.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "textbook.md", text)
    write_atomic(folder / "textbook.svg", chart(finished))
    if given.write:
        about = made_by("textbook", ["--seeds", str(given.seeds), "--write"])
        write_section(Path(given.results) / "README.md", "textbook", f"{about}\n\n{text}")
    print(f"Report: {write_report(done.runs, done.folder / 'report.html')}")
    return 0


def page(runs: Sequence[Run]) -> str:
    """Both tables, as Markdown."""
    days = runs[0].backtest.index
    lines = [HEADINGS, "|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for name, group in agent_labels(runs).items():
        for costs in ("0.1 %", "none"):
            returns = paths(group, free=costs == "none")
            lines.append(f"| {name} | {costs} | {' | '.join(_row(group, returns))} |")
    lines += ["", "| forecasts of | R2 | IC | its error | hits |", "|---|---:|---:|---:|---:|"]
    for name, row in forecast_rows(runs).items():
        lines.append(f"| {name} | {' | '.join(cells(row))} |")
    span = f"{days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}, {len(days)} days"
    seeds = max(len(group) for group in agent_labels(runs).values())
    return "\n".join([f"{span}; {seeds} seeds.", "", *lines, ""])


def against(frame: pd.DataFrame) -> str:
    """Sharpe ratios less that of equal weight, with their intervals, as Markdown."""
    columns = {"difference": "costs paid", "gross": "no costs", "a day late": "a day late"}
    lines = ["", f"| Sharpe less equal weight's | {' | '.join(columns.values())} |"]
    lines.append("|---|" + "---:|" * len(columns))
    for name, row in frame[frame["difference"].notna()].iterrows():
        found = [
            f"{row[key]:+.2f} ({row[f'{key}_low']:+.2f} to {row[f'{key}_high']:+.2f})"
            for key in columns
        ]
        lines.append(f"| {name} | {' | '.join(found)} |")
    return "\n".join([*lines, ""])


def paths(runs: Sequence[Run], free: bool) -> np.ndarray:
    """Returns of every seed, (T, S); `free`: as they would have been had trading cost nothing.

    A cost takes a fraction of the whole portfolio, so (1 + return) / (1 - cost) - 1 is exact.
    """
    found = [run.backtest for run in runs]
    returns = np.stack([frame["portfolio_return"].to_numpy() for frame in found], axis=1)
    if not free:
        return returns
    costs = np.stack([frame["cost"].to_numpy() for frame in found], axis=1)
    return (1.0 + returns) / (1.0 - costs) - 1.0


def _row(runs: Sequence[Run], returns: np.ndarray) -> list[str]:
    rate = runs[0].backtest["risk_free"].to_numpy()[:, None]
    turnover = np.stack([run.backtest["turnover"].to_numpy() for run in runs], axis=1)

    def middle(values: Any) -> float:
        return float(interquartile_mean(np.asarray(values)))

    sharpe = stationary_bootstrap_interval(returns - rate)
    return [
        f"{middle(measures.annualised_return(returns, periods_per_year=YEAR)):.1%}",
        f"{middle(measures.annualised_volatility(returns, periods_per_year=YEAR)):.1%}",
        f"{sharpe[0]:.2f}",
        f"{sharpe[1]:.2f} to {sharpe[2]:.2f}",
        f"{middle(measures.max_drawdown(returns)):.1%}",
        f"{middle(turnover.mean(axis=0) * YEAR):.1f}",
        f"{middle((1.0 + returns).prod(axis=0)):.2f}",
    ]


def chart(runs: Sequence[Run]) -> bytes:
    """Value of 1 on a log scale, with costs and without, and the LSTM's weights; an SVG."""
    days = pd.DatetimeIndex(runs[0].backtest.index)
    some = np.unique(np.append(np.arange(0, len(days), 5), len(days) - 1))
    with mpl.rc_context({"svg.hashsalt": "allocgym", "font.size": 9, "svg.fonttype": "none"}):
        figure = Figure(figsize=(8.0, 6.4), layout="constrained")
        top, bottom = figure.subplots(2, sharex=True, gridspec_kw={"height_ratios": (2, 1)})
        for name, group in agent_labels(runs).items():
            for free in (False, True):
                value = np.median(np.cumprod(1.0 + paths(group, free), axis=0), axis=1)
                label = f"{name}, {'free' if free else 'costs paid'}"
                style = {"color": COLOURS[name], "lw": 1.0 if free else 1.7, "label": label}
                top.plot(days[some], value[some], linestyle="--" if free else "-", **style)
        top.set_yscale("log")
        top.yaxis.set_major_formatter(lambda number, _: f"{number:.3g}")
        top.yaxis.set_minor_formatter(lambda number, _: f"{number:.3g}")
        top.set_title("Value of 1 at the start, log scale; median over seeds", loc="left")
        top.legend(fontsize=8, ncols=3, frameon=False)
        lstm = next(run for run in runs if run.agent == "lstm").backtest.filter(like="target:")
        monthly = lstm.resample("ME").mean()
        names = [str(column).removeprefix("target:") for column in monthly]
        shares = monthly.to_numpy().T
        bottom.stackplot(monthly.index, shares, labels=names, colors=AREAS[: len(names)])
        bottom.set_ylim(0, 1)
        bottom.set_xlim(days[0], days[-1])
        bottom.set_title("Weights of the LSTM, first seed", loc="left")
        place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}
        bottom.legend(fontsize=8, ncols=5, frameon=False, columnspacing=1.0, **place)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


if __name__ == "__main__":
    exit_with(main)
