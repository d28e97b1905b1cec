"""Mean-variance programmes, written down as matrices: from what is held, or straight to Clarabel.

The modelling layer that general optimisers need costs many times what the solver itself does; for
these problems the matrices are built here. The optima are those of skfolio's `MeanRisk`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from agents.active_set import Programme, follow

LEAST_SCALE = 1e-6  # of the objective: makes the largest of several equally good ratios the answer

TOLERANCES = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11) | dict.fromkeys(
    ("reduced_tol_gap_abs", "reduced_tol_gap_rel", "reduced_tol_feas"), 1e-9
)  # of Clarabel: what it aims at, and what it must reach


class Trading(NamedTuple):
    """What changing holdings costs, in units of the objective (return per period)."""

    held: np.ndarray  # (k,)
    buy: np.ndarray  # (k,) rate over the number of periods a position is expected to be held
    sell: np.ndarray  # (k,)


Limits = tuple[np.ndarray, np.ndarray]  # G (g, k) and h (g,) of limits G w <= h


class _Rows(NamedTuple):
    """Linear conditions on the variables: matrix @ x = level, or <= level."""

    matrix: np.ndarray  # (r, n); narrower ones leave the last variables out
    level: np.ndarray  # (r,)


def best_utility(
    mean: np.ndarray,
    covariance: np.ndarray,
    risk_aversion: float,
    *,
    full: bool,
    trading: Trading | None = None,
    limits: Limits | None = None,
    budget: float = 1.0,
    reach: float = np.inf,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Long-only weights that maximise w.mu - lambda/2 w.S.w less the costs of getting there.

    With costs, w = held + b - s, b and s >= 0, and buy.b + sell.s is subtracted.

    Args:
        mean: mu, (k,).
        covariance: S, (k, k); all zeros make it a linear programme.
        risk_aversion: lambda > 0.
        full: Whether weights sum to the budget, or to at most that.
        trading: Holdings and rates; None: trades are free.
        limits: G (g, k) and h (g,) of further limits G w <= h.
        budget: Sum of the weights.
        reach: Largest sum of |w - held|; needs `trading`.
        start: Weights near the optimum, (k,), which make the answer quick and change it by rounding
            alone: see `active_set`; where that does not end, and without them, Clarabel solves.

    Raises:
        ArithmeticError: If there is no solution; says why.

    """
    count = len(mean)
    scale = 1.0 / (risk_aversion * (float(np.diag(covariance).mean()) or 1.0))
    if start is not None:
        rows, level = np.ones((1, count)), np.array([budget])
        if limits is not None:
            rows, level = np.concatenate([rows, limits[0]]), np.append(level, limits[1])
        paid = trading is not None and bool(trading.buy.any() or trading.sell.any())
        held, buy, sell = trading if trading is not None and paid else np.zeros((3, count))
        scaled = (scale * risk_aversion * covariance, -scale * mean)
        costs = (held, scale * buy, scale * sell)
        found = follow(Programme(*scaled, *costs, rows, level, full), start)
        if found is not None and (trading is None or np.abs(found - trading.held).sum() <= reach):
            return found
    equal: list[_Rows] = []
    at_most = [_Rows(*limits)] if limits is not None else []
    (equal if full else at_most).append(_Rows(np.ones((1, count)), np.array([budget])))
    linear = -scale * mean
    if trading is not None:
        linear = np.concatenate([linear, scale * trading.buy, scale * trading.sell])
        trade = np.eye(count)
        equal.append(_Rows(np.hstack([trade, -trade, trade]), trading.held))
        if np.isfinite(reach):
            at_most.append(_Rows(_moved(count), np.array([reach])))
    return _solve(scale * risk_aversion * covariance, linear, equal, at_most)[:count]


def best_ratio(
    mean: np.ndarray,
    covariance: np.ndarray,
    *,
    full: bool,
    held: np.ndarray | None = None,
    limits: Limits | None = None,
    budget: float = 1.0,
    reach: float = np.inf,
) -> np.ndarray:
    """Long-only weights of the largest w.mu / sqrt(w.S.w), within limits as in `best_utility`.

    Solved for x = c w, c > 0: minimise x.S.x with mu.x = 1, G x <= c h, sum x = c budget (or at
    most that) and sum |x - c held| <= c reach. Where a whole ray is equally good, the largest.

    Raises:
        ArithmeticError: If no weights within the limits expect more than nothing, or the solver
            fails.

    Source: Charnes & Cooper, Programming with linear fractional functionals (1962).
    """
    count, size = len(mean), 1.0 / float(np.diag(covariance).mean())
    one, none = np.ones((1, count)), np.zeros((1, count))
    lead = mean / np.abs(mean).max()
    equal, at_most = [_Rows(lead[None], np.ones(1))], list[_Rows]()
    (equal if full else at_most).append(_Rows(np.append(one, [[-budget]], axis=1), np.zeros(1)))
    if limits is not None:
        at_most.append(_Rows(np.column_stack(limits) * _last_negative(count), 0.0 * limits[1]))
    width = count + 1
    if held is not None and np.isfinite(reach):
        trade, width = np.eye(count), 3 * count + 1
        equal.append(_Rows(np.hstack([trade, -held[:, None], -trade, trade]), np.zeros(count)))
        moved = np.hstack([none, [[-reach]], np.ones((1, 2 * count))])
        at_most.append(_Rows(moved, np.zeros(1)))
    linear = np.zeros(width)
    linear[count] = LEAST_SCALE
    found = _solve(size * covariance, linear, equal, at_most)
    return found[:count] / found[count]


def _last_negative(count: int) -> np.ndarray:
    return np.append(np.ones(count), -1.0)


def _moved(count: int) -> np.ndarray:
    """The row of purchases and sales, (1, 3k)."""
    return np.append(np.zeros((1, count)), np.ones((1, 2 * count)), axis=1)


def _solve(
    quadratic: np.ndarray, linear: np.ndarray, equal: list[_Rows], at_most: list[_Rows]
) -> np.ndarray:
    """Minimise x.P.x / 2 + q.x subject to A x = b, G x <= h, x >= 0; P may leave variables out."""
    import clarabel  # type: ignore[import-untyped]

    width = len(linear)
    rows = [_wide(part.matrix, width) for part in (*equal, *at_most)]
    matrix = np.concatenate([*rows, -np.eye(width)])
    bounds = np.concatenate([*(part.level for part in (*equal, *at_most)), np.zeros(width)])
    n_equal = sum(len(part.level) for part in equal)
    cones: list[Any] = [clarabel.ZeroConeT(n_equal)] if n_equal else []
    cones.append(clarabel.NonnegativeConeT(len(bounds) - n_equal))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    for name, value in TOLERANCES.items():
        setattr(settings, name, value)
    square = np.zeros((width, width))
    square[: len(quadratic), : len(quadratic)] = np.triu(quadratic)
    solver = clarabel.DefaultSolver(
        _sparse(square), linear, _sparse(matrix), bounds, cones, settings
    )
    solution = solver.solve()
    if solution.status not in (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved):
        raise ArithmeticError(f"quadratic programme: {solution.status}")
    return np.asarray(solution.x)


def _wide(matrix: np.ndarray, width: int) -> np.ndarray:
    """Zeros for the variables that the rows leave out."""
    return np.pad(matrix, ((0, 0), (0, width - matrix.shape[1])))


def _sparse(dense: np.ndarray) -> Any:
    """By columns, as the solver takes it; in a quarter of the time of the general constructor."""
    from scipy import sparse

    columns, rows = np.nonzero(dense.T)
    starts = np.concatenate([[0], np.cumsum(np.bincount(columns, minlength=dense.shape[1]))])
    return sparse.csc_matrix((dense[rows, columns], rows, starts), shape=dense.shape)
