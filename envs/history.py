"""What the last `window` returns say about a portfolio and a safe asset, at any row t.

Rows are those up to and including t; row 0 is left out, as loaded data has no return there. Before
`window` rows exist the rows there are count; `enough` says whether they are at least
min(window, MIN_ROWS).
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from envs.compiled import COMPILES

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]

MIN_ROWS = 20
MAX_BYTES = 200_000_000  # of covariances kept; beyond it they come from the window's returns
CHUNK = 128  # rows of a batch whose windows are gathered at a time


class Moments(NamedTuple):
    """Sample moments of the portfolio's and the safe asset's returns, (B,) each."""

    mean: Any  # or 0.0 where it does not matter
    safe_mean: Any
    variance: Array
    covariance: Array
    safe_variance: Array
    enough: Flags


class RollingMoments:
    """Means and covariances (divisor rows - 1) of the window that ends at t.

    Args:
        returns: (T, N).
        window: Rows of history, >= 2.
        safe: Index of the safe asset.

    """

    def __init__(self, returns: Array, window: int, safe: int) -> None:
        n_rows, n_assets = returns.shape
        self.safe = safe
        self.enough = np.arange(n_rows) >= min(window, MIN_ROWS)
        self.means = np.zeros((n_rows, n_assets))
        self.covariances: Array | None = None
        self._windows: RollingReturns | None = None
        if n_rows * n_assets**2 * 8 > MAX_BYTES:
            self._windows = RollingReturns(returns, window, safe, 0.5)
            return
        self.covariances = np.zeros((n_rows, n_assets, n_assets))
        for t in range(2, min(window, n_rows)):
            self._fill(slice(t, t + 1), returns[None, 1 : t + 1])
        if n_rows > window:
            windows = np.moveaxis(sliding_window_view(returns[1:], window, axis=0), -1, 1)
            for start in range(0, len(windows), CHUNK):
                part = windows[start : start + CHUNK]
                self._fill(slice(window + start, window + start + len(part)), part)

    def _fill(self, rows: slice, windows: Array) -> None:
        assert self.covariances is not None
        means = windows.mean(axis=1, keepdims=True)
        centred = windows - means
        self.means[rows] = means[:, 0]
        self.covariances[rows] = centred.mT @ centred / (windows.shape[1] - 1)

    def __call__(self, weights: Array, t: Any) -> Moments:
        """Moments for weights (B, N) at t, int or (B,)."""
        if self.covariances is None:
            return self._from_windows(weights, t)
        rows = np.asarray(t).reshape(-1)
        if COMPILES:
            from envs.history_row import moments  # with numba, which takes a while

            found = moments(weights, rows, self.means, self.covariances, self.safe)
            return Moments._make([*found, self.enough[rows]])
        with_assets = np.empty(weights.shape)  # covariance of the portfolio with each asset
        rows = np.broadcast_to(rows, len(weights))
        for start in range(0, len(weights), CHUNK):
            part = slice(start, start + CHUNK)
            covariances = np.take(self.covariances, rows[part], axis=0)  # (B, N, N)
            with_assets[part] = np.matmul(weights[part, None, :], covariances)[:, 0]
        means = self.means[rows]
        return Moments(
            np.add.reduce(means * weights, axis=-1),
            means[:, self.safe],
            np.add.reduce(with_assets * weights, axis=-1),
            with_assets[:, self.safe],
            self.covariances[rows, self.safe, self.safe],
            self.enough[rows],
        )

    def _from_windows(self, weights: Array, t: Any) -> Moments:
        assert self._windows is not None
        past = self._windows(weights, t)
        count = np.maximum(past.valid.sum(axis=-1), 2)
        portfolio, safe = (np.where(past.valid, part, 0.0) for part in (past.portfolio, past.safe))
        mean, safe_mean = portfolio.sum(axis=-1) / count, safe.sum(axis=-1) / count
        off = np.where(past.valid, portfolio - mean[:, None], 0.0)
        safe_off = np.where(past.valid, safe - safe_mean[:, None], 0.0)
        products = (off * off, off * safe_off, safe_off * safe_off)
        variance, covariance, safe_variance = (x.sum(axis=-1) / (count - 1) for x in products)
        return Moments(mean, safe_mean, variance, covariance, safe_variance, past.enough)


class Past(NamedTuple):
    """Returns of B windows of W rows, oldest first."""

    portfolio: Array  # (B, W)
    safe: Array  # (B, W)
    valid: Flags  # (B, W): the row exists
    size: Array  # (B,): tail times the number of rows
    rank: Indices  # (B,): its ceiling
    enough: Flags  # (B,)

    def rows(self, keep: Indices) -> "Past":
        """Some of the windows."""
        return Past(*(part[keep] for part in self))  # type: ignore[arg-type]  # one for each field


class RollingReturns:
    """Portfolio returns over the window that ends at t.

    Args:
        returns: (T, N).
        window: Rows of history, >= 2.
        safe: Index of the safe asset.
        tail: Probability whose share of the window is counted.

    """

    def __init__(self, returns: Array, window: int, safe: int, tail: float) -> None:
        self.returns, self.window, self.safe = returns, window, safe
        sizes = [_tail_size(tail, count) for count in range(window + 1)]
        self._sizes = np.array([size for size, _ in sizes])
        self._ranks = np.array([rank for _, rank in sizes], np.int64)

    def __call__(self, weights: Array, t: Any) -> Past:
        """Returns for weights (B, N) at t, int or (B,)."""
        last = np.broadcast_to(np.asarray(t), weights.shape[:1])
        rows = last[:, None] + np.arange(1 - self.window, 1)  # (B, W)
        valid = rows >= 1
        rows = np.maximum(rows, 0)
        portfolio = np.empty(rows.shape)
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            windows = self.returns[rows[part]]  # (B, W, N)
            portfolio[part] = np.add.reduce(windows * weights[part, None, :], axis=-1)
        count = np.minimum(np.maximum(last, 0), self.window)
        return Past(
            portfolio,
            self.returns[rows, self.safe],
            valid,
            self._sizes[count],
            self._ranks[count],
            count >= min(self.window, MIN_ROWS),
        )


def _tail_size(tail: float, n_rows: int) -> tuple[float, int]:
    """`tail * n_rows` and its ceiling; a product within rounding of a whole number is whole."""
    size = tail * n_rows
    if round(size) and abs(size - round(size)) < 1e-9 * round(size):
        size = float(round(size))
    return size, math.ceil(size)
