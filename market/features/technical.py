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
_START_WEIGHT = 1e-6
_FLAT = 1e-12


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
    at_least(2, "volatility", window)
    return _returns(market).rolling(window).std().to_numpy()


def relative_strength(market: Market, window: int = 14) -> np.ndarray:
    """Relative strength index, 0 to 100; 50 where the price never moved.

    100 * up / (up + down), Wilder means of the gains and losses of price

    Source: Wilder, New Concepts in Technical Trading Systems (1978). Same number as TA-Lib `RSI`.
    """
    return strength(_prices(market), window)


def macd(market: Market, fast: int = 12, slow: int = 26) -> np.ndarray:
    """Moving average convergence-divergence, as a fraction of the price.

    (EMA_fast[t] - EMA_slow[t]) / price[t],  EMA of span n: weight 2 / (n + 1) on the latest

    Source: Appel, The Moving Average Convergence-Divergence Method (1979). Same number as TA-Lib
    `MACD` over the price.
    """
    prices = _prices(market)
    return _macd_line(prices, fast, slow) / prices.to_numpy()


def macd_histogram(market: Market, fast: int = 12, slow: int = 26, signal: int = 9) -> np.ndarray:
    """MACD less its own exponential average, as a fraction of the price.

    (line[t] - EMA_signal(line)[t]) / price[t],  line = EMA_fast - EMA_slow of prices

    Source: Aspray, Technical Analysis of Stocks & Commodities 6 (1988).
    """
    prices = _prices(market)
    line = _macd_line(prices, fast, slow)
    return (line - exponential_mean(pd.DataFrame(line), signal)) / prices.to_numpy()


def bollinger(market: Market, window: int = 20) -> np.ndarray:
    """Position in the Bollinger bands: 1 on the upper, -1 on the lower, 0 where nothing moved.

    (price[t] - mean) / (2 * std(ddof=0)) of price[t-window+1 .. t]

    Source: Bollinger, Bollinger on Bollinger Bands (2001).
    """
    at_least(2, "bollinger", window)
    rolling = _prices(market).rolling(window)
    mean, width = rolling.mean().to_numpy(), 2.0 * rolling.std(ddof=0).to_numpy()
    flat = width <= _FLAT * mean
    distance = np.where(flat, 0.0, market.prices - mean)
    return distance / np.where(flat, 1.0, width)


def average_true_range(market: Market, window: int = 14) -> np.ndarray:
    """Average true range, as a fraction of the price.

    Wilder mean of max(high, close[t-1]) - min(low, close[t-1]), / price[t]

    Source: Wilder, New Concepts in Technical Trading Systems (1978). Same number as TA-Lib `ATR`
    over the price.
    """
    before = _prices(market).shift(1).to_numpy()
    span = np.maximum(panel(market, "highs"), before) - np.minimum(panel(market, "lows"), before)
    return wilder_mean(pd.DataFrame(span), window) / market.prices


def parkinson_volatility(market: Market, window: int = 20) -> np.ndarray:
    """Volatility per period from the range of each.

    sqrt(mean(ln(high / low)^2) / (4 ln 2)) over t-window+1 .. t

    Source: Parkinson, Journal of Business 53 (1980).
    """
    squared = np.log(panel(market, "highs") / panel(market, "lows")) ** 2
    mean = pd.DataFrame(squared).rolling(window).mean().clip(lower=0.0)
    return np.sqrt(mean / (4.0 * np.log(2.0))).to_numpy()


def momentum(market: Market, window: int = 252, skip: int = 21) -> np.ndarray:
    """Return over the last `window` periods without the last `skip`.

    price[t-skip] / price[t-window] - 1

    Source: Jegadeesh & Titman, Journal of Finance 48 (1993).
    """
    if skip >= window:
        raise SettingError(f"feature 'momentum': skip must be < window, got {skip} >= {window}")
    prices = _prices(market)
    return (prices.shift(skip) / prices.shift(window) - 1.0).to_numpy()


def drawdown(market: Market, window: int = 252) -> np.ndarray:
    """How far the price is below its highest, a positive fraction.

    1 - price[t] / max(price[t-window+1 .. t])
    """
    prices = _prices(market)
    return (1.0 - prices / prices.rolling(window).max()).to_numpy()


def volume_ratio(market: Market, window: int = 20) -> np.ndarray:
    """Volume against its mean; 0 where nothing was traded.

    volume[t] / mean(volume[t-window+1 .. t]) - 1
    """
    volume = pd.DataFrame(panel(market, "volume"))
    mean = volume.rolling(window).mean()
    return (volume / mean.where(mean > 0.0) - 1.0).mask(mean <= 0.0, 0.0).to_numpy()


def strength(prices: pd.DataFrame, window: int) -> np.ndarray:
    """Relative strength index of each column, (T, columns)."""
    change = prices.diff()
    up, down = (
        wilder_mean(change.clip(lower=0.0), window),
        wilder_mean(-change.clip(upper=0), window),
    )
    total = up + down
    ratio = np.divide(up, total, out=np.full_like(total, 0.5), where=total > 0)
    return np.where(np.isnan(total), np.nan, 100.0 * ratio)


def exponential_mean(values: pd.DataFrame, span: int) -> np.ndarray:
    """mean[t] = mean[t-1] + (value[t] - mean[t-1]) * 2 / (span + 1), started by the first value.

    Rows in which that start still weighs more than 1e-6 are nan.
    """
    smooth = values.ewm(alpha=2.0 / (span + 1.0), adjust=False).mean()
    return smooth.where(exponential_settled(values, span)).to_numpy()


def exponential_settled(values: pd.DataFrame, span: int) -> pd.DataFrame:
    """Where the start of an exponential mean weighs no more than 1e-6."""
    weight = 2.0 / (span + 1.0)
    rows = 0 if span == 1 else int(np.ceil(np.log(_START_WEIGHT) / np.log1p(-weight)))
    return values.notna().cumsum() > rows


def wilder_mean(values: pd.DataFrame, window: int) -> np.ndarray:
    """Wilder's smoothing: mean[t] = mean[t-1] + (value[t] - mean[t-1]) / window.

    The mean of the first `window` values seeds it; rows in which that seed still weighs more than
    1e-4 are nan, so that where the data begin cannot be seen in the result.
    """
    at_least(2, "Wilder mean", window)
    seeded = values.where(values.notna().cumsum() > window, values.rolling(window).mean())
    smooth = seeded.ewm(alpha=1.0 / window, adjust=False).mean()
    return smooth.where(wilder_settled(values, window)).to_numpy()


def wilder_settled(values: pd.DataFrame, window: int) -> pd.DataFrame:
    """Where the seed of Wilder's smoothing weighs no more than 1e-4."""
    rows = int(np.ceil(np.log(_SEED_WEIGHT) / np.log1p(-1.0 / window)))
    return values.notna().cumsum() >= window + rows


def _macd_line(prices: pd.DataFrame, fast: int, slow: int) -> np.ndarray:
    check_spans(fast, slow)
    return exponential_mean(prices, fast) - exponential_mean(prices, slow)


def check_spans(fast: int, slow: int) -> None:
    """Refuse a fast span that is not the shorter one."""
    if fast >= slow:
        raise SettingError(f"feature 'macd': fast must be < slow, got {fast} >= {slow}")


def panel(market: Market, name: str) -> np.ndarray:
    """A panel that `Feature.needs` made sure of, (T, N)."""
    found: np.ndarray = getattr(market, name)
    return found


def _prices(market: Market) -> pd.DataFrame:
    return pd.DataFrame(market.prices)


def _returns(market: Market) -> pd.DataFrame:
    """Simple returns, nan on an asset's first row, where no return is known."""
    return _prices(market).pct_change(fill_method=None)


def at_least(least: int, name: str, window: int) -> None:
    """Refuse a window that is too short."""
    if window < least:
        raise SettingError(f"feature '{name}': window must be >= {least}, got {window}")
