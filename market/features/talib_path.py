"""The same numbers through TA-Lib, several times faster: `build_features(engine="talib")`.

`TALIB` maps a feature to its twin with the same arguments. Where TA-Lib would answer otherwise (a
price that stands still, panels with gaps) a column is left to pandas. Features that are missing
here have no equal in TA-Lib: its standard deviations, for one, subtract squares that cancel.

TA-Lib starts its exponential means by a simple mean, pandas by the first value. Both are hidden
until that start weighs less than 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType

import numpy as np
import pandas as pd

from market.errors import SettingError
from market.features import technical
from market.market import Market


def moving_average_ratio(market: Market, window: int = 50) -> np.ndarray:
    """Twin of `technical.moving_average_ratio`."""
    if window == 1:
        return technical.moving_average_ratio(market, window)
    return market.prices / _by_column(partial(_library().SMA, timeperiod=window), market) - 1.0


def relative_strength(market: Market, window: int = 14) -> np.ndarray:
    """Twin of `technical.relative_strength`; TA-Lib calls the strength of a still price 0."""
    technical.at_least(2, "Wilder mean", window)
    strength = _by_column(partial(_library().RSI, timeperiod=window), market)
    still = (strength == 0.0).any(axis=0)
    if still.any():
        strength[:, still] = technical.strength(pd.DataFrame(market.prices[:, still]), window)
    settled = technical.wilder_settled(pd.DataFrame(market.prices).diff(), window)
    return np.where(settled, strength, np.nan)


def macd(market: Market, fast: int = 12, slow: int = 26) -> np.ndarray:
    """Twin of `technical.macd`."""
    technical.check_spans(fast, slow)
    return _macd_line(market, fast, slow) / market.prices


def macd_histogram(market: Market, fast: int = 12, slow: int = 26, signal: int = 9) -> np.ndarray:
    """Twin of `technical.macd_histogram`."""
    technical.check_spans(fast, slow)
    line = _macd_line(market, fast, slow)
    return (line - _mean(line, signal)) / market.prices


def average_true_range(market: Market, window: int = 14) -> np.ndarray:
    """Twin of `technical.average_true_range`; panels that differ in their rows go to pandas."""
    technical.at_least(2, "Wilder mean", window)
    highs, lows = technical.panel(market, "highs"), technical.panel(market, "lows")
    ranged = np.isfinite(highs) & np.isfinite(lows)
    alike = (ranged == np.isfinite(market.prices)).all(axis=0) | ~ranged.any(axis=0)
    if not alike.all():
        return technical.average_true_range(market, window)
    spans = np.full(market.prices.shape, np.nan)
    for i in np.flatnonzero(ranged.any(axis=0)):
        bars = (np.ascontiguousarray(panel[:, i]) for panel in (highs, lows, market.prices))
        spans[:, i] = _library().ATR(*bars, timeperiod=window)
    settled = technical.wilder_settled(pd.DataFrame(highs + lows).diff(), window)
    return np.where(settled, spans, np.nan) / market.prices


TALIB: dict[str, Callable[..., np.ndarray]] = {
    "moving_average_ratio": moving_average_ratio,
    "rsi": relative_strength,
    "macd": macd,
    "macd_histogram": macd_histogram,
    "atr": average_true_range,
}


def _macd_line(market: Market, fast: int, slow: int) -> np.ndarray:
    return _mean(market.prices, fast) - _mean(market.prices, slow)


def _mean(values: np.ndarray, span: int) -> np.ndarray:
    """Exponential mean of each column, nan until its start no longer counts."""
    if span == 1:
        return values
    smooth = _columns(partial(_library().EMA, timeperiod=span), values)
    return np.where(technical.exponential_settled(pd.DataFrame(values), span), smooth, np.nan)


def _by_column(function: Callable[[np.ndarray], np.ndarray], market: Market) -> np.ndarray:
    return _columns(function, market.prices)


def _columns(function: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """`function` of each column with any number in it, (T, N)."""
    result = np.full(values.shape, np.nan)
    for i in np.flatnonzero(np.isfinite(values).any(axis=0)):
        result[:, i] = function(np.ascontiguousarray(values[:, i]))
    return result


def _library() -> ModuleType:
    try:
        import talib
    except ImportError:
        raise SettingError("engine 'talib' needs TA-Lib: pip install allocgym[talib]") from None
    return talib
