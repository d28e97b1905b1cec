"""Where sources bring calendars together, as functions of made-up data that can be audited.

Each is the code its source runs once the data are there: nothing is downloaded.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from market.calendar import resample
from market.leaks import TESTS
from market.market import Market
from market.sample_tables import sample_tables
from market.sources import load_market
from market.sources.assemble import Assembly
from market.sources.bundled import with_treasury
from market.sources.fred import market_of_series
from market.sources.yahoo import market_of_tickers

Frames = Mapping[str, pd.DataFrame]

_LEFT_OUT = 0.05  # of the days of an asset
# data that begin in a gap know their first return a few rows later
_WITH_GAPS = ("truncate", "poison", "scale")


class Join(NamedTuple):
    """Where a source brings two calendars together."""

    make: Callable[[Market, int], Any]  # (market, seed) -> data
    function: Callable[[Any], Any]  # data -> numbers by date
    tests: Sequence[str] = TESTS


def _as_it_is(market: Market, _: int) -> Market:
    return market


def _risky(market: Market) -> slice:
    """Columns but cash; the first where there is nothing else."""
    return slice(max(market.n_assets - market.has_cash, 1))


def _prices_with_holes(market: Market, seed: int) -> pd.DataFrame:
    """Prices as a file has them, without cash: missing on one day in twenty, but for the first."""
    rng = np.random.default_rng(seed)
    prices = market.prices[:, _risky(market)].copy()
    prices[:, 1:][rng.uniform(size=prices[:, 1:].shape) < _LEFT_OUT] = np.nan
    return pd.DataFrame(prices, market.dates, list(market.assets[_risky(market)]))


def _from_file(prices: pd.DataFrame) -> Market:
    """The market a file of these prices becomes."""
    with tempfile.TemporaryDirectory() as folder, _in_silence():
        path = Path(folder, "prices.csv")
        prices.to_csv(path, index_label="date")
        return load_market("files", path=path, max_gap=5, allow_jumps=True)


def _tickers(market: Market, seed: int) -> dict[str, pd.DataFrame]:
    """Answers as Yahoo gives them, each ticker with its own holidays and a dividend factor."""
    holes, rng = _prices_with_holes(market, seed), np.random.default_rng(seed + 1)
    answers = {}
    for asset, close in holes.items():
        known = close.dropna()
        factor = np.exp(np.cumsum(np.abs(rng.normal(0.0, 1e-4, len(known)))))
        bars = {"Open": 1.0, "High": 1.01, "Low": 0.99, "Close": 1.0, "Adj Close": factor}
        frame = pd.DataFrame({field: known * part for field, part in bars.items()})
        answers[str(asset)] = frame.assign(Volume=rng.uniform(1e5, 1e6, len(known)))
    return answers


def _from_yahoo(answers: Frames) -> Market:
    with _in_silence():
        return market_of_tickers(answers, Assembly(allow_jumps=True, calendar="inner"))


def _series(market: Market, seed: int) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Prices by date, and monthly figures by release, each revised after two months."""
    prices = {str(name): known for name, known in _prices_with_holes(market, seed).items()}
    first = sample_tables(market, seed)["cpi"]
    later = first["published"] + pd.Timedelta(days=60)
    both = pd.concat([first, first.assign(published=later, value=1.01 * first["value"])])
    return {name: known.dropna().to_frame("value") for name, known in prices.items()}, {"CPI": both}


def _from_fred(world: tuple[Frames, Frames]) -> Market:
    prices, context = world
    tables = {
        name: frame.rename_axis("date").reset_index().assign(published=frame.index)
        for name, frame in prices.items()
    }
    with _in_silence():
        return market_of_series(tables, context, Assembly(allow_jumps=True)).market


def _yields(market: Market, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prices, and Treasury yields that are published on four days in five."""
    rng = np.random.default_rng(seed)
    prices = pd.DataFrame(
        market.prices[:, _risky(market)], market.dates, list(market.assets[_risky(market)])
    )
    steps = 1e-3 * np.cumsum(rng.normal(size=(market.n_periods, 4)), axis=0)
    table = pd.DataFrame(0.02 + np.abs(steps), columns=["3m", "2y", "5y", "10y"])
    table.insert(0, "date", market.dates)
    published = rng.uniform(size=market.n_periods) < 0.8
    published[0] = True
    return prices, table[published]


def _from_bundle(world: tuple[pd.DataFrame, pd.DataFrame]) -> Market:
    prices, table = world
    return with_treasury(prices, table.set_index("date"), "bundled")


def _rates(market: Market, seed: int) -> tuple[Market, pd.DataFrame]:
    """The market, and a yearly rate that is published every other day."""
    rng = np.random.default_rng(seed)
    rate = 0.02 + 0.001 * np.cumsum(rng.normal(size=market.n_periods))
    return market, pd.DataFrame({"rate": np.abs(rate)}, market.dates)[::2]


def _with_cash(world: tuple[Market, pd.DataFrame]) -> pd.Series:
    """What cash earns at those rates."""
    market, rates = world
    risky = pd.DataFrame({"asset": np.ones(market.n_periods)}, market.dates)
    earned = Market.from_prices(risky, cash_rate=rates["rate"], name="cash rate").returns[:, -1]
    return pd.Series(earned, market.dates)


@contextmanager
def _in_silence() -> Iterator[None]:
    """Of made-up data there is nothing to warn."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


JOINS: dict[str, Join] = {
    "files": Join(_prices_with_holes, _from_file, _WITH_GAPS),
    "yahoo": Join(_tickers, _from_yahoo, _WITH_GAPS),
    "fred": Join(_series, _from_fred, _WITH_GAPS),
    "bundled": Join(_yields, _from_bundle),
    "cash rate": Join(_rates, _with_cash),
    "weekly": Join(_as_it_is, partial(resample, frequency="weekly")),
    "monthly": Join(_as_it_is, partial(resample, frequency="monthly")),
}
