"""Nearest point of a box cut by a few linear limits, for a batch of rows: the general solver.

    minimise |z - a|^2 / 2   subject to   0 <= z <= width,   lower <= C z <= upper

The dual has one multiplier per row of C and is concave, once differentiable and piecewise
quadratic, so an active-set ascent with Newton directions and an exact line search ends after
finitely many steps: z = clip(a - C' multipliers, 0, width). Every row is solved by itself; what
stands beside it in the batch changes no bit of it.

Source: Lawson & Hanson, Solving Least Squares Problems (1974), ch. 23 (the active set); Bertsekas,
Nonlinear Programming (1999), sec. 6.1 (the dual of a separable problem).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

TOLERANCE = 1e-13
ROUNDING = 0.01  # of the tolerance: a smaller slope is noise and no direction to go
NEAR = 100.0  # of the tolerance: here only rounding bends the dual, and a line search would stall
MAX_STEPS = 2000
RIDGE = 1e-9  # makes flat directions long steps, which the line search then cuts


@dataclass(frozen=True)
class BoxProblem:
    """A batch of B nearest-point problems in M variables with K linear limits.

    Attributes:
        matrix: C, shape (K, M); a row with lower == upper is an equation.
        lower, upper: Limits on C z, shape (B, K); may be infinite.
        point: a, shape (B, M).
        width: Upper bounds of z, shape (B, M).
    """

    matrix: Array
    lower: Array
    upper: Array
    point: Array
    width: Array

    @property
    def accuracy(self) -> Array:
        """Miss of a limit that counts as rounding, (B, 1)."""
        return TOLERANCE * np.maximum(1.0, np.abs(self.point).max(axis=-1, keepdims=True))

    def rows(self, keep: Flags) -> "BoxProblem":
        """The problems of the rows in `keep`, shape (B,)."""
        parts = (self.lower, self.upper, self.point, self.width)
        return BoxProblem(self.matrix, *(part[keep] for part in parts))


def nearest(problem: BoxProblem, multipliers: Array) -> tuple[Array, Flags]:
    """Solve every row, starting from the given multipliers.

    Args:
        problem: The batch.
        multipliers: First guess, shape (B, K); zeros will do.

    Returns:
        z of shape (B, M), and which rows were solved, shape (B,); a row without any feasible z is
        not solved.
    """
    solution = np.empty_like(problem.point)
    solved = np.ones(len(solution), bool)
    live = np.arange(len(multipliers))
    for _ in range(MAX_STEPS):
        slack = problem.point - _combine(multipliers, problem.matrix)  # (B, M)
        z = np.clip(slack, 0.0, problem.width)
        gradient = _gradient(problem, multipliers, z)
        work = _working_set(problem, multipliers, gradient)
        solution[live] = z
        keep: Flags = np.asarray(work.any(axis=-1))
        if not keep.all():
            live, problem = live[keep], problem.rows(keep)
            multipliers, gradient, work = multipliers[keep], gradient[keep], work[keep]
            slack = slack[keep]
        if not live.size:
            break
        step = _newton(problem, slack, gradient, work)
        multipliers, bounded = _line_search(problem, multipliers, slack, gradient, step)
        solved[live[~bounded]] = False
        live, problem, multipliers = live[bounded], problem.rows(bounded), multipliers[bounded]
    solved[live] = False
    return solution, solved


def _combine(multipliers: Array, matrix: Array) -> Array:
    """C' multipliers, added up limit by limit so that a row's sum has one order; (B, M)."""
    return np.add.reduce(multipliers[:, :, None] * matrix, axis=1)


def _gradient(problem: BoxProblem, multipliers: Array, z: Array) -> Array:
    """Slope of the dual: by how much C z leaves the limit its multiplier pushes to; (B, K)."""
    reached = np.add.reduce(z[:, None, :] * problem.matrix, axis=-1)
    above, below = reached - problem.upper, reached - problem.lower
    idle = np.maximum(above, 0.0) + np.minimum(below, 0.0)
    gradient = np.where(multipliers > 0, above, np.where(multipliers < 0, below, idle))
    return np.where(problem.lower == problem.upper, above, gradient)


def _working_set(problem: BoxProblem, multipliers: Array, gradient: Array) -> Flags:
    """Limits that move now: the active ones, or else these and the most violated idle one."""
    size = np.abs(gradient)
    active = (multipliers != 0) | (problem.lower == problem.upper)
    unsettled = (active & (size > problem.accuracy)).any(axis=-1)
    idle = np.where(active, 0.0, size)
    worst = idle.argmax(axis=-1)
    entering = ~unsettled & (idle > problem.accuracy).any(axis=-1)
    work = active & (unsettled | entering)[:, None]
    work[entering, worst[entering]] = True
    return work


def _newton(problem: BoxProblem, slack: Array, gradient: Array, work: Flags) -> Array:
    """Newton direction of the dual within the working set; (B, K)."""
    free = ((slack > 0) & (slack < problem.width)).astype(float)
    scaled = free[:, None, :] * problem.matrix  # (B, K, M)
    curvature = scaled @ problem.matrix.T  # whole numbers: exact in any order of summation
    curvature = np.where(work[:, :, None] & work[:, None, :], curvature, 0.0)
    diagonal = np.where(work, RIDGE, 1.0)
    curvature += diagonal[:, :, None] * np.eye(len(problem.matrix))
    known = work & (np.abs(gradient) > ROUNDING * problem.accuracy)
    step: Array = np.linalg.solve(curvature, np.where(known, gradient, 0.0)[..., None])[..., 0]
    return step


def _line_search(
    problem: BoxProblem, multipliers: Array, slack: Array, gradient: Array, step: Array
) -> tuple[Array, Flags]:
    """Maximise the dual along `step`, no further than the first multiplier to reach zero.

    Returns the multipliers there and whether there is a maximum: a dual that rises for ever has no
    feasible point behind it.
    """
    rate = _combine(step, problem.matrix)  # the slack falls by rate * length
    divisor = np.where(rate == 0, 1.0, rate)
    first, second = slack / divisor, (slack - problem.width) / divisor
    # between its two knots an entry of z moves and adds rate^2 to the fall of the slope
    knots = np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1)
    bend = rate * rate
    bends = np.concatenate([bend, -bend], axis=-1)
    start = np.add.reduce(gradient * step, axis=-1)
    length = _crossing(np.maximum(knots, 0.0), bends, start)
    bound = (problem.lower != problem.upper) & (multipliers * step < 0)
    ends = np.where(bound, -multipliers / np.where(bound, step, 1.0), np.inf)
    slope = np.where(step == 0, 0.0, np.abs(gradient)).max(axis=-1, keepdims=True)
    length = np.where((slope <= NEAR * problem.accuracy)[:, 0], 1.0, length)
    length = np.minimum(length, ends.min(axis=-1))
    bounded = np.isfinite(length)
    moved = multipliers + np.where(bounded, length, 0.0)[:, None] * step
    return np.where(ends <= length[:, None], 0.0, moved), bounded


def _crossing(knots: Array, bends: Array, start: Array) -> Array:
    """Where a piecewise linear slope, `start` at 0 and then falling, is zero; inf if nowhere."""
    order = np.argsort(knots, axis=-1)
    knots = np.take_along_axis(knots, order, axis=-1)
    falls = np.cumsum(np.take_along_axis(bends, order, axis=-1), axis=-1)[:, :-1]
    drops = np.cumsum(falls * np.diff(knots, axis=-1), axis=-1)
    reached = drops >= start[:, None]
    piece = reached.argmax(axis=-1)
    rows = np.arange(len(start))
    fall = np.where(reached[rows, piece], falls[rows, piece], np.nan)
    beyond = drops[rows, piece] - start
    return np.nan_to_num(knots[rows, piece + 1] - beyond / fall, nan=np.inf)
