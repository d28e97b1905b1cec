"""How good an agent's forecasts were, in its run folder and on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.forecast_quality import Forecasting, joined_forecasts, quality
from experiments.run_dir import RunFolder
from experiments.runs import Run
from experiments.tracking import RunMonitor
from market import Market

MEASURES = ("forecast_r2", "forecast_ic", "forecast_ic_error", "forecast_hit_rate")
HEADINGS = ("R2", "IC", "its error", "hits")
NOTE = (
    "Forecasts on the test days. R2: squared error against that of the historical mean known at "
    "the decision (Campbell & Thompson 2008), 0 is no better. IC: rank correlation across assets, "
    "mean over days and its standard error. Hits: right side of zero (of the mean, for volatility)."
)


def note_forecasts(
    agents: Sequence[Any], spans: Sequence[tuple[Any, Any]], market: Market
) -> dict[str, float]:
    """Quality of the forecasts of agents, each at the decisions of its own dates, as of one agent.

    Empty where they do not forecast.
    """
    parts = [
        agent.forecasts(market, *span)
        for agent, span in zip(agents, spans, strict=True)
        if isinstance(agent, Forecasting)
    ]
    return quality(joined_forecasts(parts)) if parts else {}


def write_forecasts(values: Mapping[str, float], run: RunFolder, monitor: RunMonitor) -> None:
    """To metrics, TensorBoard and the manifest; nothing where there is nothing."""
    if values:
        monitor.record(monitor.last_step, {f"test/{key}": found for key, found in values.items()})
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        run.update(forecasts=finite)


def forecast_rows(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Mean over finished seeds of each measure, by agent that forecasts, in the order given."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        if run.finished and run.manifest.get("forecasts"):
            found.setdefault(run.agent, []).append(run.manifest["forecasts"])
    return {agent: _mean(values) for agent, values in found.items()}


def _mean(values: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Over seeds, of what is known."""
    means = {}
    for key in MEASURES:
        known = [one[key] for one in values if one.get(key) is not None]
        means[key] = float(np.mean(known)) if known else math.nan
    return means


def print_forecasts(rows: Mapping[str, Mapping[str, float]]) -> None:
    """A line an agent; nothing where none forecasts."""
    if not rows:
        return
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for heading in ("forecasts of", *HEADINGS):
        table.add_column(heading, justify="left" if heading == "forecasts of" else "right")
    for agent, row in rows.items():
        table.add_row(Text(agent), *cells(row))
    console = Console(width=100, highlight=False)
    console.print()
    console.print(table)
    console.print(Text(NOTE, style="dim"))


def report_forecasts(runs: Sequence[Run]) -> dict[str, Any]:
    """The same for a page."""
    rows = [(agent, cells(row)) for agent, row in forecast_rows(runs).items()]
    return {"headings": HEADINGS, "rows": rows, "note": NOTE}


def cells(row: Mapping[str, float]) -> list[str]:
    """The measures as text, in their order; n/a where there is none."""
    forms = (".2%", "+.3f", ".3f", ".1%")
    return [
        format(row[key], form) if math.isfinite(row.get(key, math.nan)) else "n/a"
        for key, form in zip(MEASURES, forms, strict=True)
    ]
