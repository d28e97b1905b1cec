"""The report's pictures that compare agents at a glance or show one agent each; see `figures`."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.figures import STYLE, WIDE, Mark, canvas, percent_axis, time_axis
from experiments.statistics import performance_profile
from experiments.svg import INK, MUTED, PANEL, area_colour

PANEL_WIDTH, AREA_POINTS = 340, 160
N_AREAS = 7
CASH_AREA, OTHER_AREA = N_AREAS, N_AREAS + 1
EVIDENCE = {
    "sharpe": "Sharpe ratio",
    "difference": "Difference to the reference",
}


@mpl.rc_context(STYLE)
def evidence(
    frame: pd.DataFrame, marks: dict[str, Mark], seeds: dict[str, np.ndarray], width: int
) -> Figure:
    """Sharpe ratios and their differences to the reference, with intervals; a row an agent.

    Args:
        frame: The summary, best first; agents without finished runs left out.
        marks: How each agent is drawn.
        seeds: Sharpe ratio of each seed, by agent.
        width: WIDE or NARROW.
    """
    columns = [name for name in EVIDENCE if frame[name].notna().any()] or ["sharpe"]
    height, n = 26 * len(frame) + 70, len(columns)
    if width == WIDE:
        figure, axes_list = canvas(width, height, 1, n, sharey=True, squeeze=False)
    else:
        figure, axes_list = canvas(width, height * n, n, 1, squeeze=False)
    for axes, column in zip(axes_list.flat, columns, strict=True):
        lowest, highest = f"{column}_low", f"{column}_high"
        for row, (agent, line) in enumerate(frame.iterrows()):
            mark = marks[str(agent)]
            if np.isfinite(line[lowest]):
                axes.plot([line[lowest], line[highest]], [row, row], color=mark.colour, lw=2.2)
            axes.plot(line[column], row, "o", color=mark.colour, ms=7, mec=PANEL, mew=1, zorder=3)
            if column == "sharpe" and len(seeds[str(agent)]) > 1:
                rings = seeds[str(agent)]
                axes.plot(
                    rings, np.full(len(rings), row + 0.3), "o", mfc="none", mec=mark.colour, ms=3
                )
        axes.axvline(0, color=MUTED, lw=1, zorder=1)
        axes.set_title(EVIDENCE[column])
        axes.set_ylim(len(frame) - 0.4, -0.6)
        axes.set_yticks(range(len(frame)), [_short_name(str(agent)) for agent in frame.index])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(axis="x")
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        for text in axes.get_yticklabels():
            text.set_parse_math(False)
    return figure


@mpl.rc_context(STYLE)
def profile(scores: dict[str, np.ndarray], marks: dict[str, Mark], width: int) -> Figure:
    """Share of each agent's runs above every Sharpe ratio, as steps.

    Args:
        scores: Sharpe ratio of each seed, by agent.
        marks: How each agent is drawn.
        width: WIDE or NARROW.
    """
    figure, axes = canvas(width, 240)
    every = np.unique(np.concatenate(list(scores.values())))
    room = 0.05 * max(float(np.ptp(every)), 0.1)
    edges = np.concatenate([[every[0] - room], every, [every[-1] + room]])
    for agent, ratios in scores.items():
        mark = marks[agent]
        share = performance_profile(ratios, edges)
        axes.step(edges, share, where="post", color=mark.colour, linestyle=mark.dashes, lw=1.8)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlim(edges[0], edges[-1])
    percent_axis(axes)
    axes.set_title("Runs above it")
    axes.set_xlabel("Sharpe ratio")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure


def _short_name(name: str) -> str:
    """Short enough for an axis and in letters the drawing font has."""
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in name)
    return plain if len(plain) <= 22 else plain[:21] + ".."


@mpl.rc_context(STYLE)
def allocation(days: pd.DatetimeIndex, weights: np.ndarray, areas: Sequence[int]) -> Figure:
    """Target weights through time, stacked.

    Args:
        days: Shape (T,).
        weights: Shape (T, K), rows adding to 1; averaged over stretches of days to fit.
        areas: Number of each column's colour.
    """
    figure, axes = canvas(PANEL_WIDTH, 170)
    stretches = np.array_split(np.arange(len(days)), min(AREA_POINTS, len(days)))
    level = np.cumsum([weights[part].mean(axis=0) for part in stretches], axis=1)
    level = np.concatenate([np.zeros((len(level), 1)), level], axis=1)
    edges = date2num(days[[*(part[0] for part in stretches), len(days) - 1]])
    level = level[[*range(len(level)), -1]]
    for column, area in enumerate(areas):
        axes.fill_between(
            edges,
            level[:, column],
            level[:, column + 1],
            step="post",
            facecolor=area_colour(area),
            edgecolor=area_colour(area),
            linewidth=0.3,  # closes the hairlines between neighbours
        )
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    percent_axis(axes)
    axes.grid(visible=False)
    time_axis(axes, days, PANEL_WIDTH)
    return figure


@mpl.rc_context(STYLE)
def learning(
    mark: Mark, curves: pd.DataFrame, title: str, limits: tuple[float, float] | None
) -> Figure:
    """A measure on validation over training: each seed thin, their mean thick, bests dotted.

    Args:
        mark: How the agent is drawn.
        curves: Index step, one column a seed; NaN where a seed logged nothing.
        title: What is measured.
        limits: Of the vertical axis, where more is better; None for a loss, on a scale of its own.
    """
    figure, axes = canvas(PANEL_WIDTH, 190)
    for name in curves:
        seed = curves[name].dropna()
        best = seed.nsmallest(1) if limits is None else seed.nlargest(1)
        axes.plot(seed.index, seed, color=mark.colour, lw=0.9, alpha=0.45)
        axes.plot(best.index, best, "o", color=mark.colour, ms=5, mec=PANEL, mew=1, zorder=3)
    if curves.shape[1] > 1:
        mean = curves.dropna().mean(axis=1)
        axes.plot(mean.index, mean, color=mark.colour, lw=2)
    if limits is not None:
        axes.axhline(0, color=MUTED, lw=0.8, zorder=1)
        axes.set_ylim(*limits)
    axes.set_title(title)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.set_xlabel("training step")
    return figure
