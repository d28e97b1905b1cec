"""Exact Euclidean projection onto the simplex, and onto its part within linear limits.

A `Region` holds the limits on weights and turnover. Weights within all of them come back bit for
bit; disjoint groups go to `envs.group_newton`; rows that stall there, and groups that overlap, go
to `envs.general_projection`. The bits of a row depend on that row alone, not on its batch.

Limits on weights come before the limit on turnover: where no weights within the first are near
enough to what is held, turnover is cut to the least they allow, and of the weights that reach it
the nearest are taken.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from envs.general_projection import Bounds, Request, project_rows
from envs.group_split import Problem, Split
from envs.simulator import holds_true

__all__ = ["Bounds", "Region", "project_simplex"]

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

LARGE = 16.0  # scores beyond this are projected twice: rounding leaves the first pass inexact
INSIDE = 1e-12  # by how much the sums of weights that are left alone may miss their limits
FARTHEST = 1e6  # scores this far below the highest one are not told apart


def project_simplex(scores: Array) -> Array:
    """The nearest weights, non-negative and of sum 1, to any finite scores (*B, N).

    w = max(s - threshold, 0), the threshold found by sorting.

    Source: Held, Wolfe & Crowder, Validation of subgradient optimization (1974).
    """
    shifted = scores - scores.max(axis=-1, keepdims=True)
    ordered = -np.sort(-shifted, axis=-1)
    counts = np.arange(1, scores.shape[-1] + 1)
    thresholds = (np.cumsum(ordered, axis=-1) - 1.0) / counts
    kept = np.add.reduce(ordered > thresholds, axis=-1, dtype=np.int64)[..., None]
    threshold = np.take_along_axis(thresholds, kept - 1, axis=-1)
    return np.maximum(shifted - threshold, 0.0)


@dataclass(frozen=True, eq=False)
class Region:
    """Weights of sum 1 within bounds, and not too far from what is held.

    Attributes:
        bounds: Bounds of every row that brings none of its own.
        members: Which assets form which group, (G, N) of 0 and 1; cash is in none.
        turnover: Limit on half the sum of |target - held| over risky assets; may be infinite.
        has_cash: Whether the last asset is cash.

    """

    bounds: Bounds
    members: Array
    turnover: float = np.inf
    has_cash: bool = True

    def project(
        self, point: Array, held: Array | None = None, bounds: Bounds | None = None
    ) -> tuple[Array, Flags]:
        """The nearest weights to each row of `point`, (B, N); without `held` at any turnover.

        Returns:
            Weights (B, N), and whether there are any within the limits on weights, (B,); a row
            without any is meaningless.

        """
        limit = 2.0 * self.turnover if held is not None else np.inf
        near_to = held if np.isfinite(limit) else None
        request = Request(point, near_to, self.bounds if bounds is None else bounds, limit)
        if np.maximum.reduce(np.abs(point), axis=None) <= LARGE:
            return self._nearest(request)
        large = np.abs(point).max(axis=-1) > LARGE
        close = np.maximum(point - point.max(axis=-1, keepdims=True), -FARTHEST)
        first, _ = self._nearest(request._replace(point=np.where(large[:, None], close, point)))
        weights, found = self._nearest(request._replace(point=first))
        return np.where(large[:, None], weights, first), found

    @cached_property
    def _split(self) -> Split | None:
        """The groups completed to a partition of the assets; None where they overlap."""
        if (self.members.sum(axis=0) > 1).any():
            return None
        n_risky = self.members.shape[1] - self.has_cash
        groups = [np.flatnonzero(row).tolist() for row in self.members]
        rest = np.flatnonzero(self.members[:, :n_risky].sum(axis=0) == 0).tolist()
        groups += [rest] if rest else []
        return Split(groups + [[n_risky]] * self.has_cash, self.has_cash)

    def _nearest(self, request: Request) -> tuple[Array, Flags]:
        if self._split is None:
            solved = self._inside(request)
            weights, stand = request.point, np.zeros((len(solved), len(self.members) + 2))
        else:
            weights, solved, stand = self._quick(self._split, request)
        if not holds_true(~solved):
            return weights, solved
        left = np.flatnonzero(~solved)
        start = np.column_stack([stand[left, : len(self.members) + 1], stand[left, -1]])
        weights = weights.copy()
        weights[left], solved[left] = project_rows(
            request.rows(left), self.members, self.has_cash, start
        )
        return weights, solved

    def _quick(self, split: Split, request: Request) -> tuple[Array, Flags, Array]:
        """By `group_newton`: weights, which rows are solved, and where the others stand."""
        from envs.group_newton import solve  # with numba, which takes a while

        point, held, bounds, limit = request
        if held is None:
            held = np.zeros((1, point.shape[1]))
        elif self.has_cash:
            held = held.copy()
            held[:, -1] = 0.0
        rows = self._own_rows if bounds is self.bounds else self._rows(bounds)
        return solve(split, Problem(point, held, *rows, limit))

    @cached_property
    def _own_rows(self) -> Bounds:
        return self._rows(self.bounds)

    def _rows(self, bounds: Bounds) -> Bounds:
        """Bounds as rows, groups completed by those without a floor or a cap."""
        assert self._split is not None
        lower, upper, floors, caps = (np.atleast_2d(part) for part in bounds)
        loose = np.full((len(caps), len(self._split.groups) - len(self.members)), np.inf)
        return Bounds(lower, upper, np.hstack([floors, -loose]), np.hstack([caps, loose]))

    def _inside(self, request: Request) -> Flags:
        """Whether the points lie within all limits, (B,)."""
        point, held, bounds, limit = request
        sums = point @ self.members.T
        inside = ((point >= bounds.lower) & (point <= bounds.upper)).all(axis=-1)
        inside &= np.abs(point.sum(axis=-1) - 1.0) <= INSIDE
        inside &= ((sums >= bounds.floors - INSIDE) & (sums <= bounds.caps + INSIDE)).all(axis=-1)
        if held is not None:
            n_risky = point.shape[1] - self.has_cash
            inside &= np.abs(point - held)[:, :n_risky].sum(axis=-1) <= limit + INSIDE
        return inside
