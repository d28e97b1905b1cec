"""Moments of `envs.history` row by row, to be compiled."""

import numpy as np
from numpy.typing import NDArray

from envs.compiled import compiled

Array = NDArray[np.float64]


@compiled
def moments(
    weights: Array, t: NDArray[np.int64], means: Array, covariances: Array, safe: int
) -> Array:
    """Means of portfolio and safe asset, variance, covariance, variance of the safe asset, (5, B).

    Args:
        weights: (B, N).
        t: Row of the decision, (B,) or (1,).
        means: Of the assets at every row, (T, N).
        covariances: Of the assets at every row, (T, N, N).
        safe: Index of the safe asset.

    """
    n_rows, n_assets = weights.shape
    found, with_assets = np.zeros((5, n_rows)), np.empty(n_assets)
    for i in range(n_rows):
        row = t[i % len(t)]
        for j in range(n_assets):
            with_assets[j] = 0.0  # covariance of the portfolio with each asset
        for j in range(n_assets):
            weight = weights[i, j]
            if weight != 0.0:
                found[0, i] += weight * means[row, j]
                for k in range(n_assets):
                    with_assets[k] += weight * covariances[row, j, k]
        for j in range(n_assets):
            found[2, i] += weights[i, j] * with_assets[j]
        found[1, i], found[3, i] = means[row, safe], with_assets[safe]
        found[4, i] = covariances[row, safe, safe]
    return found
