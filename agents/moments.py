"""Means and covariances of returns, shrunk or plain: pure functions, a tenth of a millisecond."""

from __future__ import annotations

from typing import Literal

import numpy as np

CovarianceName = Literal["ledoit_wolf", "oas", "empirical"]
MeanName = Literal["bayes_stein", "empirical"]
LEAST_PIVOT = 1e-7  # of a matrix to be inverted, see `is_sharp`; rounding leaves some 1e-8


def covariance_of(returns: np.ndarray, kind: CovarianceName = "ledoit_wolf") -> np.ndarray:
    """Covariance of returns (T, k), shape (k, k).

    "empirical" divides by T - 1; the others are (1 - a) S + a tr(S)/k I with S divided by T, and
    shrink by what Ledoit & Wolf (A well-conditioned estimator for large-dimensional covariance
    matrices, 2004) or Chen, Wiesel, Eldar & Hero (Shrinkage algorithms for MMSE covariance
    estimation, 2010, oracle approximating) find best. Same numbers as scikit-learn.
    """
    n_rows, count = returns.shape
    centred = returns - returns.mean(axis=0)
    sample = centred.T @ centred / n_rows
    if kind == "empirical":
        return sample * (n_rows / (n_rows - 1))
    level = np.trace(sample) / count
    square = (sample**2).sum()
    if kind == "ledoit_wolf":
        distance = square - count * level**2
        noise = (((centred**2).sum(axis=1) ** 2).mean() - square) / n_rows
    else:
        distance = (n_rows + 1) * (square / count - level**2) / count
        noise = square / count**2 + level**2
    amount = min(noise / distance, 1.0) if distance > 0.0 else 1.0
    return (1.0 - amount) * sample + amount * level * np.eye(count)


def is_sharp(matrix: np.ndarray, least: float) -> bool:
    """Whether a symmetric matrix is positive definite: Cholesky pivots, smallest over largest."""
    try:
        pivots = np.linalg.cholesky(matrix).diagonal()
    except np.linalg.LinAlgError:
        return False
    return bool(pivots.min() > least * pivots.max())


def mean_of(returns: np.ndarray, covariance: np.ndarray, kind: MeanName) -> np.ndarray:
    """Expected returns (k,) from returns (T, k).

    "bayes_stein" shrinks the means towards that of the minimum-variance portfolio, m0:
    a = (k + 2) / (k + 2 + T (m - m0).S^-1 (m - m0)); (1 - a) m + a m0.

    Raises:
        LinAlgError: If that is asked for and S has no inverse.

    Source: Jorion, Bayes-Stein estimation for portfolio analysis (1986).
    """
    n_rows, count = returns.shape
    mean = returns.mean(axis=0)
    if kind == "empirical":
        return mean
    if not is_sharp(covariance, LEAST_PIVOT):
        raise np.linalg.LinAlgError(
            "mean=bayes_stein needs a covariance that is not singular, as ledoit_wolf or oas give"
        )
    safest = np.linalg.solve(covariance, np.ones(count))
    away = mean - safest @ mean / safest.sum()
    amount = (count + 2) / (count + 2 + n_rows * away @ np.linalg.solve(covariance, away))
    return mean - amount * away
