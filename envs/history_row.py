"""Moments of `envs.history` row by row, to be compiled."""

import numpy as np
from numpy.typing import NDArray

from envs.compiled import compiled

Array = NDArray[np.float64]


@compiled
def moments(
    weights: Array, t: NDArray[np.int64], means: Array, covariances: Array, safe: int
) -> tuple[Array, Array, Array]:
    """Mean and variance of each portfolio, and its covariance with the safe asset, (B,) each.

    Args:
        weights: (B, N).
        t: Row of the decision, (B,) or (1,).
        means: Of the assets at every row, (T, N).
        covariances: Of the assets at every row, (T, N, N).
        safe: Index of the safe asset.

    """
    n_rows, n_assets = weights.shape
    mean, variance, covariance = np.zeros(n_rows), np.zeros(n_rows), np.zeros(n_rows)
    with_assets = np.empty(n_assets)  # covariance of the portfolio with each asset
    for i in range(n_rows):
        row = t[i % len(t)]
        for j in range(n_assets):
            with_assets[j] = 0.0
        for j in range(n_assets):
            weight = weights[i, j]
            if weight != 0.0:
                for k in range(n_assets):
                    with_assets[k] += weight * covariances[row, j, k]
        for j in range(n_assets):
            mean[i] += weights[i, j] * means[row, j]
            variance[i] += weights[i, j] * with_assets[j]
        covariance[i] = with_assets[safe]
    return mean, variance, covariance
