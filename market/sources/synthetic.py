"""Seeded markets: some look like real ones, some have a best policy that is known.

`KINDS` maps a kind to its generator. A `Market` of a kind whose optimum is known carries it as
`.optimum` (see `market.sources.optimum`); for the others it is None. On paths dealt in hands, the
default of kelly, regimes and merton, it is the best of policies without memory of earlier outcomes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError
from market.market import CASH, Market
from market.names import unknown_name
from market.sources.chain import Chain
from market.sources.known_answers import (
    alternating,
    kelly,
    merton,
    noise,
    product_nodes,
    regimes,
)
from market.sources.optimum import Optimum
from market.sources.paths import check_number, check_periods, market_of_returns
from market.sources.raw import RawData

_QUADRATURE_ASSETS = 7


def synthetic(
    kind: str = "gbm", seed: int = 0, periods: int | None = None, **options: Any
) -> RawData:
    """A seeded market: the same kind, options and seed give the same market to the bit.

    What a kind shows beside returns, such as "signal", is a feature of the market, and a table of
    that name for when other features are asked for: `features=["return(5)", "table('signal')"]`.

    Args:
        kind: One of `KINDS`: gbm, regimes, mean_reverting, bootstrap, noise, kelly, alternating,
            merton.
        seed: A whole number >= 0.
        periods: Rows; the kind's own default when not given.
        options: Of the kind itself, for instance `accuracy` of "regimes".

    Raises:
        SettingError: If the kind or an option is unknown or out of range.

    """
    if kind not in KINDS:
        raise unknown_name("kind of synthetic market", kind, KINDS)
    if type(seed) is not int or seed < 0:
        raise SettingError(f"seed: must be a whole number >= 0, got {seed!r}")
    own = inspect.signature(KINDS[kind]).parameters
    for option in options:
        if option not in own:
            raise unknown_name(f"option of synthetic market '{kind}'", option, own)
    periods = own["periods"].default if periods is None else periods
    check_periods(periods, options.get("n_assets", 1))
    market = KINDS[kind](seed=seed, periods=periods, **options)
    return RawData(market, {name: _table(market, name) for name in market.feature_names[1:]})


def gbm(
    seed: int = 0,
    periods: int = 2520,
    *,
    n_assets: int = 4,
    drift: float = 0.06,
    volatility: float = 0.2,
    correlation: float = 0.3,
    cash_rate: float = 0.02,
) -> Market:
    """Geometric Brownian motion, and cash.

    log(p[t] / p[t-1]) = (drift_i - volatility_i^2 / 2) / 252 + volatility_i * z / sqrt(252)

    Drift and volatility rise evenly over the assets, from half to one and a half times the number
    given. The optimum, for up to 7 assets, is the constant weights of largest expected log growth,
    the expectation being Gauss-Hermite quadrature with 3 nodes an asset.

    Args:
        seed: Of the path.
        periods: Rows, days of a year of 252.
        n_assets: Risky assets.
        drift: Mean over the assets, a year.
        volatility: The same, a year.
        correlation: Between any two assets, in [0, 1).
        cash_rate: What cash earns a year, compounded.

    """
    check_number("volatility", volatility, 0.0, 10.0, "(]")
    scale = np.linspace(0.5, 1.5, n_assets) if n_assets > 1 else np.ones(1)
    mean = (drift * scale - (volatility * scale) ** 2 / 2.0) / 252.0
    mix = _root(n_assets, correlation) * (volatility * scale / np.sqrt(252.0))[:, None]
    cash = (1.0 + cash_rate) ** (1.0 / 252.0) - 1.0
    rng = np.random.default_rng(seed)
    returns = _simple(mean + rng.standard_normal((periods, n_assets)) @ mix.T, cash)
    optimum = None
    if n_assets <= _QUADRATURE_ASSETS:
        nodes, chances = product_nodes(3, n_assets)
        chain = Chain.independent(_simple(mean + nodes @ mix.T, cash), chances)
        optimum = Optimum.solve("gbm", chain, note=", by Gauss-Hermite quadrature")
    return market_of_returns("gbm", returns, _names(n_assets), cash, optimum=optimum)


def mean_reverting(
    seed: int = 0,
    periods: int = 2520,
    *,
    n_assets: int = 4,
    half_life: float = 20.0,
    volatility: float = 0.2,
    correlation: float = 0.3,
    cash_rate: float = 0.02,
) -> Market:
    """Log prices drawn back to a level, and cash; the feature "gap" is how far below it they are.

    x[t] = (1 - k) x[t-1] + volatility * z / sqrt(252),   k = 1 - 2^(-1 / half_life)

    with x the log price over its level and gap = -x: the expected log return is k * gap. The state
    is continuous, and no optimum is stated.

    Args:
        seed: Of the path; x starts in its stationary distribution.
        periods: Rows, days of a year of 252.
        n_assets: Risky assets.
        half_life: Days in which half of a gap is closed.
        volatility: Of daily shocks, a year.
        correlation: Between the shocks of any two assets, in [0, 1).
        cash_rate: What cash earns a year, compounded.

    """
    check_number("half_life", half_life, 0.0, 1e9, "(]")
    check_number("volatility", volatility, 0.0, 10.0, "(]")
    kept = 2.0 ** (-1.0 / half_life)
    mix = _root(n_assets, correlation) * volatility / np.sqrt(252.0)
    shocks = np.random.default_rng(seed).standard_normal((periods, n_assets)) @ mix.T
    level = np.empty_like(shocks)
    level[0] = shocks[0] / np.sqrt(1.0 - kept**2)
    for t in range(1, periods):
        level[t] = kept * level[t - 1] + shocks[t]
    cash = (1.0 + cash_rate) ** (1.0 / 252.0) - 1.0
    returns = _simple(np.diff(level, axis=0, prepend=level[:1]), cash)
    gap = np.column_stack([-level, np.zeros(periods)])
    return market_of_returns(
        "mean_reverting",
        returns,
        _names(n_assets),
        cash,
        features=np.stack([returns, gap], axis=-1).astype(np.float32),
        feature_names=("return", "gap"),
    )


def bootstrap(
    seed: int = 0,
    periods: int = 2520,
    *,
    of: str | Market = "multi_asset",
    block: float = 20.0,
) -> Market:
    """Rows of a real market in blocks of random length: its fat tails and its correlations.

    Blocks start at random rows and go on with probability 1 - 1 / block, from the last row to the
    first again; all assets of a row stay together. No optimum is stated.

    Args:
        seed: Of the blocks.
        periods: Rows.
        of: A market, or the name of one that needs no options.
        block: Mean length of a block, >= 1.

    Source: Politis & Romano, The stationary bootstrap (1994).

    """
    check_number("block", block, 1.0, 1e9)
    from market.sources import load_market  # this module is part of what load_market reads

    source = load_market(of) if isinstance(of, str) else of
    held = source.tradable[1:]
    if not held.all():
        asset = source.assets[int(np.flatnonzero(~held.all(axis=0))[0])]
        raise DataError(f"{source.name}: '{asset}' is not tradable throughout; leave it out")
    rows = stationary_rows(source.n_periods - 1, periods, block, np.random.default_rng(seed)) + 1
    return market_of_returns(
        f"bootstrap of {source.name}",
        source.returns[rows],
        source.assets,
        0.0,
        sectors=source.sectors,
        notes=(*source.notes, f"rows are drawn in blocks of {block:g} on average; dates are not"),
    )


def stationary_rows(size: int, periods: int, block: float, rng: np.random.Generator) -> np.ndarray:
    """Rows 0 .. size - 1 in blocks of geometric length, going round at the end, (periods,)."""
    fresh = rng.random(periods) < 1.0 / block
    fresh[0] = True
    starts = rng.integers(size, size=periods)
    began = np.maximum.accumulate(np.where(fresh, np.arange(periods), 0))
    return (starts[began] + np.arange(periods) - began) % size


KINDS: dict[str, Callable[..., Market]] = {
    "gbm": gbm,
    "regimes": regimes,
    "mean_reverting": mean_reverting,
    "bootstrap": bootstrap,
    "noise": noise,
    "kelly": kelly,
    "alternating": alternating,
    "merton": merton,
}


def _table(market: Market, name: str) -> pd.DataFrame:
    """A feature as a table: known on its own date."""
    values = market.features[:, :, market.feature_names.index(name)].astype(np.float64)
    long = pd.DataFrame(values, market.dates, market.assets).rename_axis("date").reset_index()
    table = long.melt("date", var_name="asset", value_name="value")
    return table.assign(published=table["date"])


def _root(size: int, correlation: float) -> np.ndarray:
    """Cholesky root of the matrix with one correlation, (size, size)."""
    check_number("correlation", correlation, 0.0, 1.0, "[)")
    return np.linalg.cholesky(correlation + (1.0 - correlation) * np.eye(size))


def _simple(log_returns: np.ndarray, cash: float) -> np.ndarray:
    return np.column_stack([np.expm1(log_returns), np.full(len(log_returns), cash)])


def _names(n_assets: int) -> tuple[str, ...]:
    return (*(f"asset_{i}" for i in range(n_assets)), CASH)
