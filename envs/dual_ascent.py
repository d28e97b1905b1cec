"""Nearest point of a box cut by a few linear limits, for a batch of rows: the general solver.

    minimise |z - a|^2 / 2   subject to   0 <= z <= width,   lower <= C z <= upper

The dual has one multiplier per row of C and is concave, once differentiable and piecewise
quadratic, so an active-set ascent with Newton directions and an exact line search ends after
finitely many steps: z = clip(a - C' multipliers, 0, width). Every row is solved by itself; what
stands beside it in the batch changes no bit of it.

Source: Lawson & Hanson, Solving Least Squares Problems (1974), ch. 23 (the active set); Bertsekas,
Nonlinear Programming (1999), sec. 6.1 (the dual of a separable problem).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

TOLERANCE = 1e-13
ROUNDING = 0.01  # of the tolerance: a smaller slope is noise and no direction to go
NEAR = 100.0  # of the tolerance: here only rounding bends the dual, and a line search would stall
MAX_STEPS = 1000
RIDGE = 1e-9  # makes flat directions long steps, which the line search then cuts


class BoxProblem(NamedTuple):
    """B problems of M variables under K linear limits."""

    matrix: Array  # C, (K, M)
    lower: Array  # (B, K); may be infinite
    upper: Array  # (B, K)
    point: Array  # a, (B, M)
    width: Array  # (B, M), >= 0


class _Rows(NamedTuple):
    """The rows not solved yet."""

    place: NDArray[np.int64]  # in the batch, (B,)
    lower: Array
    upper: Array
    point: Array
    width: Array
    fixed: Flags  # lower == upper, (B, K)
    accuracy: Array  # miss of a limit that counts as rounding, (B, 1)
    multipliers: Array  # (B, K)

    def keep(self, rows: Flags) -> "_Rows":
        return _Rows(*(part[rows] for part in self))  # type: ignore[arg-type]  # one for each field


def nearest(problem: BoxProblem, multipliers: Array) -> tuple[Array, Flags]:
    """Solve every row, starting from the given multipliers.

    Args:
        problem: The batch.
        multipliers: First guess, shape (B, K); zeros will do.

    Returns:
        z of shape (B, M), and which rows were solved, shape (B,); a row without any feasible z is
        not solved.

    """
    matrix, lower, upper, point, width = problem
    scale = np.maximum(np.abs(point).max(axis=-1, keepdims=True), 1.0)
    place = np.arange(len(point))
    fixed, accuracy = lower == upper, TOLERANCE * scale
    rows = _Rows(place, lower, upper, point, width, fixed, accuracy, multipliers)
    solution, solved = np.zeros_like(point), np.zeros(len(point), bool)
    for _ in range(MAX_STEPS):
        slack = rows.point - _combine(rows.multipliers, matrix)  # (B, M)
        z = np.minimum(np.maximum(slack, 0.0), rows.width)
        gradient = _gradient(rows, np.add.reduce(z[:, None, :] * matrix, axis=-1))
        work = _working_set(rows, gradient)
        left = np.asarray(work.any(axis=-1))
        if not left.all():
            done = rows.place[~left]
            solution[done], solved[done] = z[~left], True
            rows, slack, gradient, work = rows.keep(left), slack[left], gradient[left], work[left]
        if not len(rows.place):
            break
        step = _newton(rows, matrix, slack, gradient, work)
        length = _length(rows, _combine(step, matrix), slack, gradient, step)
        rows = _moved(rows, step, length)
    return solution, solved


def _combine(multipliers: Array, matrix: Array) -> Array:
    """C' multipliers, added up limit by limit so that a row's sum has one order; (B, M)."""
    return np.add.reduce(multipliers[:, :, None] * matrix, axis=1)


def _gradient(rows: _Rows, reached: Array) -> Array:
    """Slope of the dual: by how much C z leaves the limit its multiplier pushes to; (B, K)."""
    limit = np.minimum(np.maximum(reached, rows.lower), rows.upper)
    limit = np.where(rows.multipliers < 0.0, rows.lower, limit)
    limit = np.where((rows.multipliers > 0.0) | rows.fixed, rows.upper, limit)
    return reached - limit


def _working_set(rows: _Rows, gradient: Array) -> Flags:
    """Limits that move now: the active ones, or else these and the most violated idle one."""
    size = np.abs(gradient)
    unsettled = size > rows.accuracy
    active = (rows.multipliers != 0.0) | rows.fixed
    ready = ~(unsettled & active).any(axis=-1, keepdims=True)
    idle = np.where(active, 0.0, size)
    worst = idle.argmax(axis=-1)[:, None] == np.arange(size.shape[1])
    entering = unsettled & ready & worst & ~active
    return (active & (~ready | entering.any(axis=-1, keepdims=True))) | entering


def _newton(rows: _Rows, matrix: Array, slack: Array, gradient: Array, work: Flags) -> Array:
    """Newton direction of the dual within the working set; (B, K)."""
    free = ((slack > 0.0) & (slack < rows.width)).astype(float)
    scaled = free[:, None, :] * matrix  # (B, K, M)
    curvature = scaled @ matrix.T  # whole numbers: exact in any order of summation
    curvature *= work[:, :, None] & work[:, None, :]
    diagonal = np.einsum("bkk->bk", curvature)
    diagonal += np.where(work, RIDGE, 1.0)
    slope = gradient * (work & (np.abs(gradient) > ROUNDING * rows.accuracy))
    return np.asarray(np.linalg.solve(curvature, slope[..., None])[..., 0], np.float64)


def _length(rows: _Rows, rate: Array, slack: Array, gradient: Array, step: Array) -> Array:
    """How far to go along `step` to the highest dual; inf where it rises for ever, (B,)."""
    divisor = np.where(rate == 0.0, 1.0, rate)  # the slack falls by rate * length
    first, second = slack / divisor, (slack - rows.width) / divisor
    # between its two knots an entry of z moves, and the slope falls by rate^2 more than without
    knots = np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1)
    bend = rate * rate
    start = np.add.reduce(gradient * step, axis=-1)
    length = _crossing(np.maximum(knots, 0.0), np.concatenate([bend, -bend], axis=-1), start)
    slope = np.where(step == 0.0, 0.0, np.abs(gradient))
    near = (slope <= NEAR * rows.accuracy).all(axis=-1)
    return np.where(near, 1.0, length)


def _crossing(knots: Array, bends: Array, start: Array) -> Array:
    """Where a piecewise linear slope, `start` at 0 and then falling, is zero; inf if nowhere."""
    place = np.arange(len(start))
    order = np.argsort(knots, axis=-1) + knots.shape[-1] * place[:, None]
    knots, falls = knots.ravel()[order], bends.ravel()[order].cumsum(axis=-1)[:, :-1]
    drops = (falls * (knots[:, 1:] - knots[:, :-1])).cumsum(axis=-1)
    reached = drops >= start[:, None]
    piece = reached.argmax(axis=-1)
    found = reached[place, piece]
    fall = np.where(found, falls[place, piece], 1.0)
    crossing = knots[place, piece + 1] - (drops[place, piece] - start) / fall
    return np.where(found, crossing, np.inf)


def _moved(rows: _Rows, step: Array, length: Array) -> _Rows:
    """The rows after the step, which no multiplier takes through zero; unbounded rows are out."""
    falling = ~rows.fixed & (rows.multipliers * step < 0.0)
    ends = np.where(falling, -rows.multipliers / np.where(falling, step, 1.0), np.inf)
    length = np.minimum(length, ends.min(axis=-1))[:, None]
    bounded = np.isfinite(length)
    moved = rows.multipliers + np.where(bounded, length, 0.0) * step
    rows = rows._replace(multipliers=np.where(ends <= length, 0.0, moved))
    return rows if bounded.all() else rows.keep(bounded[:, 0])
