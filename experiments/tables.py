"""What commands print: measures of runs and paths, and what market data there are."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.evaluate import Evaluation
from experiments.forecast_notes import print_forecasts
from experiments.runs import Run
from market import SOURCES, Market, load_market, measures
from market.sources.bundled import UNIVERSES

MEASURES = {
    "return": ".1%",
    "volatility": ".1%",
    "sharpe": ".2f",
    "drawdown": ".1%",
    "turnover": ".2f",
    "cost": ".2%",
    "final_value": ".3f",
}
NOTE = (
    "A year, after costs; Sharpe ratio over the cash rate; drawdown is the greatest; turnover is "
    "half the traded weight."
)


def print_runs(runs: Sequence[Run]) -> None:
    """The test span's measures of finished runs, as their last line of metrics has them."""
    rows = []
    for run in runs:
        last = run.metrics.iloc[-1]
        rows.append({key: _number(last[f"test/{key}"]) for key in MEASURES})
    days = runs[0].backtest.index
    _print_measures([_title(run) for run in runs], rows)
    Console(width=100, highlight=False).print(
        f"Test days {days[0]:%Y-%m-%d} .. {days[-1]:%Y-%m-%d}. {NOTE}"
    )


def _number(value: float | None) -> float:
    """What was measured; nan where the file has null, as for a Sharpe ratio of cash alone."""
    return float("nan") if value is None else float(value)


def print_paths(made: Sequence[Evaluation]) -> None:
    """Measures of evaluations, their days and their caveats."""
    _print_measures([_title(one.run) for one in made], [one.backtest.metrics() for one in made])
    console = Console(width=100, highlight=False)
    for days in dict.fromkeys((one.backtest.dates[0], one.backtest.dates[-1]) for one in made):
        console.print(f"From the close of {days[0]:%Y-%m-%d} to {days[1]:%Y-%m-%d}. {NOTE}")
    for note in dict.fromkeys(note for one in made for note in one.notes):
        console.print(Text(f"Note: {note}."))
    print_forecasts({_title(one.run): one.forecasts for one in made if one.forecasts})


def print_sources() -> None:
    """Every bundled universe with span and assets; every other source by name."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for heading in ("universe", "from", "to", "days", "assets"):
        table.add_column(heading, justify="right" if heading == "days" else "left")
    for name in UNIVERSES:
        market = load_market(name)
        table.add_row(name, *_span(market), str(market.n_periods), ", ".join(market.assets))
    console = Console(width=100, highlight=False)
    console.print(table)
    others = [name for name in SOURCES if name not in UNIVERSES]
    if others:
        console.print(f"Other sources: {', '.join(others)}.")
    if "synthetic" in others:
        console.print(
            "Synthetic kelly, regimes and merton deal outcomes in shuffled hands by default: their "
            "optimum is that of policies which do not count them; with hand=None, of all."
        )
    console.print("More about one: allocgym data show NAME, its options too. Use: --data NAME.")


def print_options(name: str) -> None:
    """What a source is, and the options it takes."""
    text, _, rest = (inspect.getdoc(SOURCES[name]) or "").partition("\nArgs:\n")
    options = rest.partition("\nRaises:")[0].partition("\nReturns:")[0].rstrip()
    print(f"{text.strip()}\n\nOptions, each --data.options.NAME of other commands:\n{options}")


def print_market(market: Market) -> None:
    """Span, assets with their return and risk, features, caveats."""
    console = Console(width=100, highlight=False)
    per_year = market.periods_per_year
    start, end = _span(market)
    unit = "days" if per_year > 100 else "periods"
    head = f"{market.name}: {market.n_periods} {unit}, {start} .. {end}, {per_year} a year"
    console.print(Text(head))
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for heading in ("asset", "group", "return a year", "volatility", "greatest drawdown"):
        table.add_column(heading, justify="left" if heading in ("asset", "group") else "right")
    for column, asset in enumerate(market.assets):
        listed = np.isfinite(market.prices[:, column])
        returns = market.returns[1:, column][listed[1:] & listed[:-1]]
        figures = (
            measures.annualised_return(returns, periods_per_year=per_year),
            measures.annualised_volatility(returns, periods_per_year=per_year),
            measures.max_drawdown(returns),
        )
        name = Text(asset), Text(market.sectors.get(asset, ""))
        table.add_row(*name, *(f"{x:.1%}" if math.isfinite(x) else "n/a" for x in figures))
    console.print(table)
    console.print(Text(f"Features: {', '.join(market.feature_names)}."))
    console.print(Text(f"Shared by all assets: {', '.join(market.context_names) or 'none'}."))
    if market.optimum is not None:
        growths = (market.optimum.growth, market.optimum.growth_equal)
        best, even = (math.expm1(per_year * growth) for growth in growths)
        words = f"grows by {best:.1%} a year, equal weight by {even:.1%}"
        console.print(Text(f"Best policy: {words}; by {market.optimum.method}."))
    for note in market.notes:
        console.print(Text(f"Note: {note}."))


def _print_measures(titles: Sequence[str], rows: Sequence[dict[str, float]]) -> None:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("run", no_wrap=True)
    for heading in MEASURES:
        table.add_column(heading.replace("_", " "), justify="right", no_wrap=True)
    for title, row in zip(titles, rows, strict=True):
        cells = (
            format(row[key], form) if math.isfinite(row[key]) else "n/a"
            for key, form in MEASURES.items()
        )
        table.add_row(Text(title), *cells)
    Console(width=100, highlight=False).print(table)


def _title(run: Run) -> str:
    return f"{run.agent} seed {run.seed}"


def _span(market: Market) -> tuple[str, str]:
    return f"{market.dates[0]:%Y-%m-%d}", f"{market.dates[-1]:%Y-%m-%d}"
