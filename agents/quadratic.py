"""Mean-variance utility as a plain quadratic programme, handed straight to Clarabel.

The modelling layer that general optimisers need costs many times what the solver itself does; for
this one problem the matrices are written down here. The optimum is that of skfolio's `MeanRisk`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Trading(NamedTuple):
    """What changing holdings costs, in units of the objective (return per period)."""

    held: np.ndarray  # (k,)
    buy: np.ndarray  # (k,) rate over the number of periods a position is expected to be held
    sell: np.ndarray  # (k,)


def best_utility(
    mean: np.ndarray,
    covariance: np.ndarray,
    risk_aversion: float,
    *,
    full: bool,
    trading: Trading | None = None,
    limits: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Long-only weights that maximise w.mu - lambda/2 w.S.w less the costs of getting there.

    With costs, w = held + b - s, b and s >= 0, and buy.b + sell.s is subtracted.

    Args:
        mean: mu, (k,).
        covariance: S, (k, k).
        risk_aversion: lambda > 0.
        full: Whether weights sum to 1, or to at most 1.
        trading: Holdings and rates; None: trades are free.
        limits: G (g, k) and h (g,) of further limits G w <= h.

    Raises:
        ArithmeticError: If there is no solution; says why.

    """
    count = len(mean)
    scale = 1.0 / (risk_aversion * np.diag(covariance).mean())
    quadratic = scale * risk_aversion * covariance
    linear = -scale * mean
    sums = np.ones((1, count))
    equal, at_most = (sums, sums[:0]) if full else (sums[:0], sums)
    caps = np.ones(len(at_most))
    if limits is not None:
        at_most, caps = np.concatenate([at_most, limits[0]]), np.concatenate([caps, limits[1]])
    if trading is None:
        return _solve(quadratic, linear, equal, np.ones(len(equal)), at_most, caps)
    trade, free = np.eye(count), np.zeros((count, 2 * count))
    return _solve(
        np.block([[quadratic, free], [free.T, np.zeros((2 * count, 2 * count))]]),
        np.concatenate([linear, scale * trading.buy, scale * trading.sell]),
        np.block([[equal, free[: len(equal)]], [trade, -trade, trade]]),
        np.concatenate([np.ones(len(equal)), trading.held]),
        np.hstack([at_most, np.zeros((len(at_most), 2 * count))]),
        caps,
    )[:count]


def _solve(
    quadratic: np.ndarray,
    linear: np.ndarray,
    equal: np.ndarray,
    level: np.ndarray,
    limits: np.ndarray,
    caps: np.ndarray,
) -> np.ndarray:
    """Minimise x.P.x / 2 + q.x subject to A x = b, G x <= h, x >= 0."""
    import clarabel  # type: ignore[import-untyped]
    from scipy import sparse

    count = len(linear)
    matrix = sparse.csc_matrix(np.concatenate([equal, limits, -np.eye(count)]))
    bounds = np.concatenate([level, caps, np.zeros(count)])
    cones: list[Any] = [clarabel.ZeroConeT(len(level))] if len(level) else []
    cones.append(clarabel.NonnegativeConeT(len(caps) + count))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    upper = sparse.csc_matrix(np.triu(quadratic))
    solution = clarabel.DefaultSolver(upper, linear, matrix, bounds, cones, settings).solve()
    if solution.status not in (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved):
        raise ArithmeticError(f"quadratic programme: {solution.status}")
    return np.asarray(solution.x)
