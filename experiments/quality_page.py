"""The data-quality page: one self-contained HTML file that loads nothing and runs no script.

The same data give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.figures import LINE_POINTS, NARROW, STYLE, WIDE, canvas, thin, time_axis
from experiments.page import render_page
from experiments.run_dir import write_atomic
from experiments.svg import INK, area_colour, line_colour, to_svg
from market import Market
from market.quality import LEVELS, Quality, outlying
from market.sources.repair import jumps

PANELS = 40  # assets drawn
PANEL_WIDTH = 340
TITLES = {"fix": "Must be fixed", "look": "Worth a look", "note": "Good to know"}
COLUMNS = {
    "asset": "asset",
    "first": "from",
    "last": "to",
    "rows": "rows",
    "suspended": "gaps",
    "stale": "longest standstill",
    "jumps": "jumps",
    "outliers": "outliers",
    "no_volume": "no volume",
}


def write_quality_page(quality: Quality, path: str | Path) -> Path:
    """Write the page; an older one stays until the new one is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, render_quality_page(quality))
    return path


def render_quality_page(quality: Quality) -> str:
    """The page as text."""
    return render_page(
        "quality.html",
        name=quality.name,
        headline=headline(quality),
        facts=span_facts(quality),
        issues={TITLES[level]: quality.of_level(level) for level in LEVELS},
        headings=COLUMNS.values(),
        rows=asset_rows(quality),
        **_pictures(quality),
    )


def headline(quality: Quality) -> str:
    """The verdict in a sentence."""
    fixes, looks = (len(quality.of_level(level)) for level in ("fix", "look"))
    if quality.market is None:
        return "Refused: the data cannot be used as they are."
    if fixes:
        return f"{fixes} {'thing' if fixes == 1 else 'things'} must be fixed."
    return f"Nothing must be fixed; {looks or 'nothing'} worth a look."


def span_facts(quality: Quality) -> list[str]:
    """Span, rows and assets, a phrase each."""
    market = quality.market
    if market is None:
        return []
    span = f"{market.dates[0]:%Y-%m-%d} to {market.dates[-1]:%Y-%m-%d}"
    count = len(quality.assets)
    rows = f"{market.n_periods} rows, {market.periods_per_year} a year"
    return [span, rows, f"{count} {'asset' if count == 1 else 'assets'}"]


def asset_rows(quality: Quality) -> list[list[str]]:
    """The figures of each asset as text, in the order of `COLUMNS`."""
    return [[_cell(getattr(entry, key)) for key in COLUMNS] for entry in quality.assets]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:%Y-%m-%d}" if hasattr(value, "strftime") else str(value)


def _pictures(quality: Quality) -> dict[str, Any]:
    market = quality.market
    if market is None:
        return {"availability": {}, "panels": {}, "left_out": 0}
    worst = sorted(
        range(len(quality.assets)),
        key=lambda i: (-quality.assets[i].jumps - quality.assets[i].outliers, i),
    )
    shown = sorted(worst[:PANELS])
    label = "When each asset has a price one can trade at"
    return {
        "availability": {
            cut: to_svg(_availability(market, shown, width), f"availability-{cut}", label)
            for cut, width in (("wide", WIDE), ("narrow", NARROW))
        },
        "panels": {market.assets[i]: _panel(market, i) for i in shown},
        "left_out": len(quality.assets) - len(shown),
    }


@mpl.rc_context(STYLE)
def _availability(market: Market, columns: list[int], width: int) -> Figure:
    """A bar an asset where it can be traded, thin where it is listed and cannot."""
    figure, axes = canvas(width, 22 * len(columns) + 50)
    days = date2num(market.dates)
    for place, column in enumerate(columns):
        listed = np.isfinite(market.prices[:, column])
        for rows, height in ((listed, 0.12), (market.tradable[:, column], 0.6)):
            bars = [(days[a], days[b] - days[a]) for a, b in _stretches(rows)]
            axes.broken_barh(bars, (place - height / 2, height), facecolors=area_colour(0))
    names = [_plain(market.assets[column]) for column in columns]
    axes.set_yticks(range(len(columns)), names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(columns) - 0.4, -0.6)
    axes.grid(visible=False)
    time_axis(axes, market.dates, width)
    return figure


def _stretches(rows: np.ndarray) -> list[tuple[int, int]]:
    """First and last row of each run of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rows, [False]]).astype(int)))
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]


@mpl.rc_context(STYLE)
def _panel(market: Market, column: int) -> Markup:
    """The price of one asset on a log scale; rings where it jumps, dots at outliers."""
    figure, axes = canvas(PANEL_WIDTH, 150)
    prices, days = market.prices[:, column], date2num(market.dates)
    listed = np.flatnonzero(np.isfinite(prices))
    some = listed[thin(prices[listed], LINE_POINTS[NARROW])]
    axes.plot(days[some], prices[some], color=line_colour(0), lw=1.2)
    far = np.flatnonzero(outlying(market.returns[:, column]) & np.isfinite(prices))
    axes.plot(days[far], prices[far], "o", color=line_colour(3), ms=3)
    steps = [row for row, i, _ in jumps(market.prices[:, [column]]) if i == 0]
    axes.plot(days[steps], prices[steps], "o", mfc="none", mec=line_colour(1), ms=8)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axes.yaxis.set_minor_formatter(lambda *_: "")
    time_axis(axes, market.dates, PANEL_WIDTH)
    name = market.assets[column]
    return to_svg(figure, f"asset-{column}", f"Price of {name}")


def _plain(name: str) -> str:
    """Letters the drawing font has, and not too many."""
    letters = "".join(letter if " " <= letter <= "~" else "?" for letter in name)
    return letters if len(letters) <= 16 else letters[:15] + ".."
