"""The report's pictures: arrays in, matplotlib figures out; no file, no global state, no clock.

Every picture over time is cut twice, wide and narrow, so that its text stays readable on a phone
without scaling. Lines keep the highest and the lowest day of every stretch they are thinned to, so
that a thinned drawdown is as deep as the true one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import (
    AutoDateLocator,
    DateLocator,
    MonthLocator,
    YearLocator,
    date2num,
    num2date,
)
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullLocator,
)

from experiments.statistics import interquartile_mean
from experiments.svg import GRID, INK, MUTED, line_colour

WIDE, NARROW = 1040, 360  # user units, about the pixels they are shown at
N_HUES = 7
LINE_POINTS = {WIDE: 600, NARROW: 300}
MINUS = "\N{MINUS SIGN}"
DASHES: tuple[Any, ...] = (  # the first four with every hue, then the next four
    "solid",
    (0, (5, 1.5)),
    (0, (1.2, 1)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (9, 3)),
    (0, (3, 3)),
    (0, (6, 1.5, 1, 1.5, 1, 1.5)),
    (0, (9, 1.5, 3, 1.5)),
    (0, (1.2, 3)),
    (0, (14, 2)),
    (0, (3, 1, 1, 1)),
    (0, (5, 1.5, 5, 4)),
)
STYLE: dict[Any, Any] = {
    "font.size": 12,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": MUTED,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.dash_capstyle": "butt",
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


@dataclass(frozen=True)
class Mark:
    """How one agent is drawn: colour and dashes together repeat only after 84 agents.

    Attributes:
        index: Its number, which names its CSS class.
        is_reference: Drawn in the text's colour, thicker.
    """

    index: int
    is_reference: bool = False

    @property
    def colour(self) -> str:
        """Placeholder that becomes a CSS variable."""
        return INK if self.is_reference else line_colour(self.index % N_HUES)

    @property
    def dashes(self) -> Any:
        """Line style, as matplotlib wants it."""
        if self.is_reference:
            return "solid"
        turn = self.index // (4 * N_HUES)
        return DASHES[(self.index % 4 + 4 * turn) % len(DASHES)]

    @property
    def width(self) -> float:
        """Line width in user units."""
        return 1.9 if self.is_reference else 1.4

    @property
    def css(self) -> str:
        """The same line as CSS, for legends."""
        variable = "--ink" if self.is_reference else f"--line-{self.index % N_HUES}"
        dashes = [] if self.dashes == "solid" else [part * self.width for part in self.dashes[1]]
        pattern = " ".join(f"{part:.2g}" for part in dashes) or "none"
        return f"stroke: var({variable}); stroke-dasharray: {pattern}; stroke-width: {self.width}"

    @property
    def gid(self) -> str:
        """Class of everything drawn for the agent."""
        return f"agent-{self.index}"


@dataclass(frozen=True)
class Paths:
    """One quantity of one agent over the test days.

    Attributes:
        mark: How the agent is drawn.
        values: Shape (T, seeds).
    """

    mark: Mark
    values: np.ndarray


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **grid: Any) -> Any:
    """A figure of so many user units, and its axes (a flat array, if several)."""
    layout = ConstrainedLayoutEngine(w_pad=2 / 72, h_pad=5 / 72, hspace=0.02, wspace=0.02)
    figure = Figure(figsize=(width / 72, height / 72), layout=layout)
    return figure, figure.subplots(rows, columns, **grid)


def thin(values: np.ndarray, points: int) -> np.ndarray:
    """Indices of about `points` of T values: ends, and each stretch's highest and lowest."""
    n = len(values)
    if n <= points:
        return np.arange(n)
    stretches = np.array_split(np.arange(n), max(points // 2, 1))
    low = [part[np.argmin(values[part])] for part in stretches]
    high = [part[np.argmax(values[part])] for part in stretches]
    return np.unique([0, n - 1, *low, *high])


def draw_paths(axes: Axes, days: pd.DatetimeIndex, lines: Sequence[Paths], points: int) -> None:
    """A line an agent (interquartile mean over seeds) and the band from lowest to highest seed."""
    time = date2num(days)
    for line in lines:
        mark, centre = line.mark, np.asarray(interquartile_mean(line.values, axis=1))
        if line.values.shape[1] > 1:
            low, high = line.values.min(axis=1), line.values.max(axis=1)
            some = thin(high - low, points // 2)
            axes.fill_between(
                time[some], low[some], high[some], color=mark.colour, alpha=0.1, lw=0, gid=mark.gid
            )
        some = thin(centre, points)
        axes.plot(
            time[some],
            centre[some],
            color=mark.colour,
            linestyle=mark.dashes,
            linewidth=mark.width,
            zorder=3 if mark.is_reference else 2.5,
            gid=mark.gid,
        )


def time_axis(axes: Axes, days: pd.DatetimeIndex, width: float) -> None:
    """Months or years, as many as there is room for."""
    years, room = (days[-1] - days[0]).days / 365.25, width / 62
    months = [step for step in (1, 2, 3, 6) if years * 12 / step <= room]
    locator: DateLocator = AutoDateLocator()
    if years > 0.3 and months:
        locator = MonthLocator(bymonth=range(1, 13, months[0]))
    elif years > 0.3:
        steps = [step for step in (1, 2, 5, 10) if years / step <= room]
        locator = YearLocator(base=steps[0] if steps else 20)
    axes.xaxis.set_major_locator(locator)
    is_long = isinstance(locator, YearLocator)
    axes.xaxis.set_major_formatter(FuncFormatter(partial(_date, is_long=is_long)))
    axes.set_xlim(*date2num(days[[0, -1]]))


def _date(day: float, position: int | None, is_long: bool) -> str:
    """A year, or a month with the year below the first and every January."""
    date = num2date(day)
    if is_long:
        return f"{date:%Y}"
    if date.day != 1:
        return f"{date.day} {date:%b}"
    return f"{date:%b\n%Y}" if position == 0 or date.month == 1 else f"{date:%b}"


def percent_axis(axes: Axes) -> None:
    """Fractions as percentages, with as many decimals as they need."""
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda part, _: f"{100 * part:.3g}%".replace("-", MINUS))
    )


_LOG_STEPS = (
    (*np.arange(1, 2, 0.1), *np.arange(2, 10, 0.5)),
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
    (1, 1.5, 2, 3, 5, 7),
    (1, 2, 5),
    (1,),
)


def _log_ticks(axes: Axes) -> None:
    """Round numbers on a log axis, five or so, whatever the range."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    for steps in _LOG_STEPS:
        ticks = np.outer(10.0 ** np.arange(-9, 10), steps).ravel()
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) <= 7:
            break
    axes.yaxis.set_major_locator(FixedLocator(ticks.tolist()))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


@mpl.rc_context(STYLE)
def performance(
    days: pd.DatetimeIndex, values: Sequence[Paths], drawdowns: Sequence[Paths], width: int
) -> Figure:
    """Value of 1 on a log scale above, drawdown below, on one time axis."""
    height = 560 if width == WIDE else 470
    figure, (top, bottom) = canvas(
        width, height, 2, sharex=True, gridspec_kw={"height_ratios": (2.1, 1)}
    )
    draw_paths(top, days, values, LINE_POINTS[width])
    _log_ticks(top)
    top.set_title("Value of 1 at the start, log scale")
    falls = [Paths(line.mark, -line.values) for line in drawdowns]
    draw_paths(bottom, days, falls, LINE_POINTS[width])
    bottom.set_ylim(top=0)
    bottom.yaxis.set_major_locator(MaxNLocator(4))
    percent_axis(bottom)
    bottom.set_title("Drawdown: loss from the highest value so far")
    time_axis(bottom, days, width)
    return figure


@mpl.rc_context(STYLE)
def trading(
    days: pd.DatetimeIndex, costs: Sequence[Paths], turnover: Sequence[Paths], width: int
) -> Figure:
    """Cost paid and turnover, both added up since the start."""
    shape = (1, 2) if width == WIDE else (2, 1)
    figure, (left, right) = canvas(width, 300 if width == WIDE else 420, *shape, sharex=True)
    for axes, lines, title in (
        (left, costs, "Cost paid since the start, % of value"),
        (right, turnover, "Turnover since the start, portfolios"),
    ):
        draw_paths(
            axes, days, [Paths(p.mark, p.values.cumsum(0)) for p in lines], LINE_POINTS[NARROW]
        )
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        time_axis(axes, days, width / shape[1])
    percent_axis(left)
    return figure
