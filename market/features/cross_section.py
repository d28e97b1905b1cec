"""Features that compare assets with each other: pure functions of the past, free of scale."""

from __future__ import annotations

import numpy as np
import pandas as pd

from market.errors import SettingError
from market.market import Market
from market.names import unknown_name

_RIDGE = 1e-6


def correlation(market: Market, window: int = 60, index: str = "") -> np.ndarray:
    """Correlation of returns with an index; 0 where one of them never moved.

    corr(return, index return) over t-window+1 .. t

    Args:
        market: Prices of all assets.
        window: Periods.
        index: An asset's name; the mean return of all listed assets but cash when empty.

    """
    if window < 2:
        raise SettingError(f"feature 'correlation': window must be >= 2, got {window}")
    if index and index not in market.assets:
        raise unknown_name(f"asset of market '{market.name}'", index, market.assets)
    returns = _returns(market)
    if index:
        column = returns.iloc[:, market.assets.index(index)]
    else:
        column = returns.iloc[:, _risky(market)].mean(axis=1)
    against = pd.DataFrame(np.repeat(column.to_numpy()[:, None], market.n_assets, axis=1))
    full = (returns.notna() & against.notna()).rolling(window).sum() == window
    found = returns.rolling(window).corr(against, pairwise=False)
    moved = np.isfinite(found)
    return found.clip(-1.0, 1.0).where(moved, 0.0).where(full).to_numpy()


def turbulence(market: Market, window: int = 252) -> np.ndarray:
    """How unusual the day's returns of all assets but cash are, given the days before; mean 1.

    (return[t] - mean)' covariance^-1 (return[t] - mean) / n,  moments of t-window .. t-1

    Assets with a gap in the window are left out; 1e-6 of the mean variance is added to each, so
    that assets that move as one do not divide by zero.

    Source: Kritzman & Li, Financial Analysts Journal 66 (2010).
    """
    if window < 2:
        raise SettingError(f"feature 'turbulence': window must be >= 2, got {window}")
    returns = _returns(market).to_numpy()[:, _risky(market)]
    score = np.full(market.n_periods, np.nan)
    for t in range(window + 1, market.n_periods):
        past = returns[t - window : t]
        known = np.isfinite(past).all(axis=0) & np.isfinite(returns[t])
        score[t] = _distance(past[:, known], returns[t, known]) if known.any() else 0.0
    return score


def _distance(past: np.ndarray, today: np.ndarray) -> float:
    """Squared Mahalanobis distance per asset, of (n,) from (window, n)."""
    centred = past - past.mean(axis=0)
    covariance = centred.T @ centred / (len(past) - 1)
    ridge = _RIDGE * np.trace(covariance) / len(covariance)
    if ridge == 0.0:
        return 0.0
    surprise = today - past.mean(axis=0)
    covariance[np.diag_indices_from(covariance)] += ridge
    return float(surprise @ np.linalg.solve(covariance, surprise)) / len(surprise)


def _risky(market: Market) -> list[int]:
    """Columns but cash; all where cash is all there is."""
    return list(range(max(market.n_assets - market.has_cash, 1)))


def _returns(market: Market) -> pd.DataFrame:
    """Simple returns, nan on an asset's first row, where no return is known."""
    return pd.DataFrame(market.prices).pct_change(fill_method=None)
