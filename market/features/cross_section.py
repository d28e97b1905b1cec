"""Features that compare assets with each other: pure functions of the past, free of scale."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no types

from market.errors import SettingError
from market.market import Market
from market.names import unknown_name

_RIDGE = 1e-6
_BLOCK = 500
_NUMBERS = 500_000  # of windows in memory at once


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
    """How unusual the day's returns of all assets but cash are, given the days before; about 1.

    (return[t] - mean)' covariance^-1 (return[t] - mean) / n,  moments of t-window .. t-1

    Assets with a gap in the window are left out; 1e-6 of the mean variance is added to each, so
    that assets that move as one do not divide by zero. A sample covariance of n > window / 2 assets
    says little of its small eigenvalues, and from n = window on some are 0: it is then shrunk
    towards the mean variance of all assets, by 1 - window / (2 n).

    Source: Kritzman & Li, Financial Analysts Journal 66 (2010); shrinkage to that target: Ledoit &
    Wolf, Journal of Multivariate Analysis 88 (2004).
    """
    if window < 2:
        raise SettingError(f"feature 'turbulence': window must be >= 2, got {window}")
    returns = _returns(market).to_numpy()[:, _risky(market)]
    score = np.full(market.n_periods, np.nan)
    with threadpool_limits(1):  # threads for thousands of small products wait more than they work
        for first, last, known in _spells(np.isfinite(returns), window):
            rows = returns[first - window : last, known]
            score[first:last] = _distances(rows, window) if known.any() else 0.0
    return score


def _spells(listed: np.ndarray, window: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Stretches of rows (first, last + 1) whose windows have the same assets without a gap.

    They are cut to at most 500 rows, so that their products stay small.
    """
    if len(listed) <= window + 1:
        return
    seen = np.cumsum(np.vstack([np.zeros_like(listed[:1], int), listed]), axis=0)
    whole = seen[window + 1 :] - seen[: -window - 1] == window + 1  # of rows t-window .. t
    whole = whole[1:]  # row 0 has no return
    changes = np.flatnonzero((whole[1:] != whole[:-1]).any(axis=1)) + 1
    for first, last in itertools.pairwise([0, *changes.tolist(), len(whole)]):
        for start in range(first, last, _BLOCK):
            stop = min(start + _BLOCK, last)
            yield start + window + 1, stop + window + 1, whole[start]


def _distances(rows: np.ndarray, window: int) -> np.ndarray:
    """Squared Mahalanobis distance per asset of each row to the `window` rows before it.

    With fewer assets than half a window by the covariance (n, n); with more, by the same numbers
    turned round: for X (window, n) of centred rows, d a row and any a, b > 0,

        d' (a X'X + b I)^-1 d = (d'd - (Xd)' (XX' + b/a I)^-1 Xd) / b
    """
    n = rows.shape[1]
    shrink = max(0.0, 1.0 - window / (2.0 * n))
    if not shrink:
        pasts = np.lib.stride_tricks.sliding_window_view(rows[:-1], window, axis=0)
        size = max(1, _NUMBERS // (window * n))
        firsts = range(0, len(pasts), size)
        return np.concatenate(
            [_distance(pasts[i : i + size], rows[window + i : window + i + size]) for i in firsts]
        )
    centre = rows[:window].mean(axis=0)  # any; keeps the products small
    products = (rows - centre) @ (rows - centre).T
    result = np.empty(len(rows) - window)
    for start in range(len(result)):
        result[start] = _turned(
            products[start : start + window + 1, start : start + window + 1], n, shrink
        )
    return result


def _turned(products: np.ndarray, n: int, shrink: float) -> float:
    """The distance of the last of window + 1 rows of n, from their products with each other."""
    window = len(products) - 1
    mean = products[:window].mean(axis=0)  # of each row with the mean row
    level = mean[:window].mean()
    gram = products[:window, :window] - mean[:window] - mean[:window, None] + level
    variance = float(np.trace(gram)) / (window - 1) / n
    if variance <= 0.0:
        return 0.0
    across = products[:window, window] - mean[window] - mean[:window] + level
    own = products[window, window] - 2.0 * mean[window] + level
    ridge = (shrink + _RIDGE) * variance
    gram[np.diag_indices(window)] += ridge * (window - 1) / (1.0 - shrink)
    return float(own - across @ np.linalg.solve(gram, across)) / ridge / n


def _distance(pasts: np.ndarray, today: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distance per asset, of (B, n) from (B, n, window), shape (B,)."""
    mean = pasts.mean(axis=2)
    centred = pasts - mean[:, :, None]
    covariance = centred @ centred.transpose(0, 2, 1) / (pasts.shape[2] - 1)
    ridge = _RIDGE * np.trace(covariance, axis1=1, axis2=2) / today.shape[1]
    still = ridge == 0.0
    diagonal = np.arange(today.shape[1])
    covariance[:, diagonal, diagonal] += np.where(still, 1.0, ridge)[:, None]
    surprise = today - mean
    solved = np.linalg.solve(covariance, surprise[:, :, None])[:, :, 0]
    return np.where(still, 0.0, (surprise * solved).mean(axis=1))


def _risky(market: Market) -> list[int]:
    """Columns but cash; all where cash is all there is."""
    return list(range(max(market.n_assets - market.has_cash, 1)))


def _returns(market: Market) -> pd.DataFrame:
    """Simple returns, nan on an asset's first row, where no return is known."""
    return pd.DataFrame(market.prices).pct_change(fill_method=None)
