"""The attribution of returns as text for a terminal and as cells and a picture for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.attribution import COSTS, DELAY, PARTS, TOTAL, Attribution, attribute, average
from experiments.attribution import has_returns as known
from experiments.figures import MINUS, STYLE, canvas
from experiments.runs import Run
from experiments.svg import INK, MUTED, area_colour, to_svg

NOTE = (
    "Return over these days, in parts that add up to it: `equal` is what its money would have made "
    "spread equally over the risky assets, `selection` what the mean weights made beyond that, "
    "`timing` what the day's weights made beyond the mean ones."
)
MANY = 12  # assets beyond which a picture shows the largest contributions
_WIDTH = 340
_AREAS = dict(zip((*PARTS, DELAY, COSTS), (0, 2, 4, 5, 6), strict=True))


def print_attributions(found: Mapping[str, Attribution]) -> None:
    """Parts of each run's return; of a single run asset by asset as well."""
    console = Console(width=100, highlight=False)
    if len(found) == 1:
        console.print(_by_asset(next(iter(found.values()))))
    else:
        delayed = any(abs(each.delay) > 1e-9 for each in found.values())
        rows = {title: _shown(each.parts(), delayed) for title, each in found.items()}
        table = _table("run", next(iter(rows.values())))
        for title, parts in rows.items():
            table.add_row(Text(title), *map(_percent, parts.values()))
        console.print(table)
    console.print(NOTE)


def _by_asset(found: Attribution) -> Table:
    headings = ("mean weight", *PARTS, TOTAL)
    table = _table("asset", headings)
    for asset, row in found.assets.iterrows():
        weight, *parts = (row[name] for name in ("weight", *PARTS, TOTAL))
        table.add_row(Text(str(asset)), f"{weight:.1%}", *map(_percent, parts))
    blank = [""] * len(PARTS)
    if abs(found.delay) > 1e-9:
        table.add_row("delay to the open", "", *blank, _percent(found.delay))
    table.add_row(COSTS, "", *blank, _percent(found.costs))
    sums = found.parts()
    table.add_row(TOTAL, "", *(_percent(sums[part]) for part in (*PARTS, TOTAL)), style="bold")
    return table


def _table(first: str, headings: Sequence[str] | Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _shown(parts: dict[str, float], delayed: bool) -> dict[str, float]:
    return {key: part for key, part in parts.items() if key != DELAY or delayed}


def _percent(part: float) -> str:
    return f"{part:+.2%}"


def report_attribution(agents: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Headings, rows and a panel an agent for the report; empty where no run can be attributed."""
    found = {
        name: average([attribute(run.backtest) for run in runs])
        for name, runs in agents.items()
        if all(known(run.backtest) for run in runs)
    }
    if not found:
        return {}
    delayed = any(abs(each.delay) > 1e-9 for each in found.values())
    rows = {name: _shown(each.parts(), delayed) for name, each in found.items()}
    return {
        "headings": list(next(iter(rows.values()))),
        "rows": [
            (name, [_percent(part) for part in parts.values()]) for name, parts in rows.items()
        ],
        "panels": {name: _panel(n, name, each) for n, (name, each) in enumerate(found.items())},
        "legend": {part: _AREAS[part] for part in (*PARTS, COSTS)},
        "without": [name for name in agents if name not in found],
    }


def _panel(number: int, name: str, found: Attribution) -> Markup:
    largest = found.assets.reindex(found.assets[TOTAL].abs().nlargest(MANY).index)
    words = ", ".join(f"{asset} {row[TOTAL]:+.1%}" for asset, row in largest.iterrows())
    label = f"Return of {name} by asset: {words}, costs {found.costs:+.1%}."
    return to_svg(_bars(found), f"attribution-{number}", label)


@mpl.rc_context(STYLE)
def _bars(found: Attribution) -> Figure:
    """A bar an asset, its parts side by side from zero; costs below them."""
    order = found.assets[TOTAL].abs().nlargest(MANY).index
    kept = found.assets.loc[[asset for asset in found.assets.index if asset in order]]
    figure, axes = canvas(_WIDTH, 26 * (len(kept) + 1) + 50)
    rows = np.arange(len(kept))
    above, below = np.zeros(len(kept)), np.zeros(len(kept))
    for part in PARTS:
        values = kept[part].to_numpy(float)
        start = np.where(values >= 0.0, above, below)
        axes.barh(rows, values, 0.62, left=start, color=area_colour(_AREAS[part]))
        above, below = above + values.clip(min=0.0), below + values.clip(max=0.0)
    axes.plot(kept[TOTAL], rows, "|", color=INK, ms=17, mew=2.5)
    axes.barh(len(kept), found.costs, 0.62, color=area_colour(_AREAS[COSTS]))
    axes.axvline(0, color=MUTED, lw=0.8)
    names = [*(str(asset)[:16] for asset in kept.index), COSTS]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda part, _: f"{100 * part:.3g}%".replace("-", MINUS))
    )
    return figure
