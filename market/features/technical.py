"""Features of prices and volume: pure functions of the past, vectorised over assets.

Each takes a raw market and returns (T, N) float64 whose row t needs rows <= t alone; nan marks rows
without enough history (warm-up) and assets that are not listed. All are free of scale: prices times
7 give the same numbers. Cash is an asset like any other. Volatilities are per period.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from market.errors import SettingError
from market.market import Market

_SEED_WEIGHT = 1e-4


def past_return(market: Market, days: int = 1) -> np.ndarray:
    """Simple return over the last `days` periods.

    price[t] / price[t-days] - 1

    One period is `market.returns`, which is 0 on the first row.
    """
    if days == 1:
        return np.where(np.isfinite(market.prices), market.returns, np.nan)
    return _prices(market).pct_change(days, fill_method=None).to_numpy()


def moving_average_ratio(market: Market, window: int = 50) -> np.ndarray:
    """Price against its simple moving average.

    price[t] / mean(price[t-window+1 .. t]) - 1

    Source: Brock, Lakonishok & LeBaron, Journal of Finance 47 (1992).
    """
    prices = _prices(market)
    return (prices / prices.rolling(window).mean() - 1.0).to_numpy()


def volatility(market: Market, window: int = 20) -> np.ndarray:
    """Standard deviation of returns, close to close, per period.

    std(return[t-window+1 .. t], ddof=1)
    """
    _at_least(2, "volatility", window)
    return _returns(market).rolling(window).std().to_numpy()


def relative_strength(market: Market, window: int = 14) -> np.ndarray:
    """Relative strength index, 0 to 100; 50 where the price never moved.

    100 * up / (up + down), Wilder means of the gains and losses of price

    Source: Wilder, New Concepts in Technical Trading Systems (1978). Same number as TA-Lib `RSI`.
    """
    change = _prices(market).diff()
    up, down = (
        wilder_mean(change.clip(lower=0.0), window),
        wilder_mean(-change.clip(upper=0), window),
    )
    total = up + down
    ratio = np.divide(up, total, out=np.full_like(total, 0.5), where=total > 0)
    return np.where(np.isnan(total), np.nan, 100.0 * ratio)


def wilder_mean(values: pd.DataFrame, window: int) -> np.ndarray:
    """Wilder's smoothing: mean[t] = mean[t-1] + (value[t] - mean[t-1]) / window.

    The mean of the first `window` values seeds it; rows in which that seed still weighs more than
    1e-4 are nan, so that where the data begin cannot be seen in the result.
    """
    _at_least(2, "Wilder mean", window)
    seen = values.notna().cumsum()
    seeded = values.where(seen > window, values.rolling(window).mean())
    smooth = seeded.ewm(alpha=1.0 / window, adjust=False).mean()
    settled = int(np.ceil(np.log(_SEED_WEIGHT) / np.log1p(-1.0 / window)))
    return smooth.where(seen >= window + settled).to_numpy()


def _prices(market: Market) -> pd.DataFrame:
    return pd.DataFrame(market.prices)


def _returns(market: Market) -> pd.DataFrame:
    """Simple returns, nan on an asset's first row, where no return is known."""
    return _prices(market).pct_change(fill_method=None)


def _at_least(least: int, name: str, window: int) -> None:
    if window < least:
        raise SettingError(f"feature '{name}': window must be >= {least}, got {window}")
