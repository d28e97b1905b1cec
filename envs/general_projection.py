"""Projection where groups may overlap: the problem put in the form of `envs.dual_ascent`.

With a limit on turnover, a risky weight is what is held, cut to its bounds, plus buys minus sells.
Both are >= 0, and their squares and the price of turnover see to it that one of them is 0:

    |held + buy - sell - y|^2 = (buy - v)^2 + (sell + v)^2 - v^2,  buy * sell = 0,  v = y - held
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs import dual_ascent

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Rows = NDArray[np.int64]


class Bounds(NamedTuple):
    """Limits on weights and on sums of groups; arrays with a leading B hold one row each."""

    lower: Array  # (N,) or (B, N), >= 0
    upper: Array  # (N,) or (B, N)
    floors: Array  # (G,) or (B, G)
    caps: Array  # (G,) or (B, G)

    def rows(self, keep: Rows) -> "Bounds":
        """The bounds of some rows."""
        return Bounds(*(part[keep] if part.ndim == 2 else part for part in self))


class Request(NamedTuple):
    """What is to be projected."""

    point: Array  # (B, N)
    held: Array | None  # (B, N); None: turnover has no limit
    bounds: Bounds
    limit: float  # on the sum of |weight - held| over risky assets

    def rows(self, keep: Rows) -> "Request":
        """The requests of some rows."""
        held = None if self.held is None else self.held[keep]
        return Request(self.point[keep], held, self.bounds.rows(keep), self.limit)


def project_rows(
    request: Request, members: Array, has_cash: bool, start: Array
) -> tuple[Array, Flags]:
    """The nearest weights of each row, with the least turnover where the limit is out of reach.

    Args:
        request: B rows.
        members: Groups, (G, N) of 0 and 1.
        has_cash: Whether the last asset is cash, whose trade is no turnover.
        start: First guess of the multipliers of the total, the groups and turnover, (B, G + 2).

    Returns:
        Weights (B, N), and whether there are any within the bounds, (B,).

    """
    if request.held is None:
        return _project_free(request, members, start[:, :-1])
    weights, solved = _project_near(request, members, has_cash, start, np.zeros((len(start), 1)))
    far = np.flatnonzero(~solved)
    if far.size:
        least = request.rows(far)._replace(limit=np.inf)
        zeros = np.zeros((len(far), start.shape[1]))
        # a price above all that a unit of turnover can gain leaves no more of it than must be
        price = 4.0 * start.shape[1] * (1.0 + np.abs(least.point).max(axis=-1, keepdims=True))
        near, _ = _project_near(least, members, has_cash, zeros, price)
        # so high a price costs digits: put the sums right again
        last = least._replace(point=near, held=None)
        weights[far], solved[far] = _project_free(last, members, zeros[:, :-1])
    return weights, solved


def _project_free(request: Request, members: Array, start: Array) -> tuple[Array, Flags]:
    """Without a limit on turnover: z = weights - lower."""
    point, _, bounds, _ = request
    lower = np.broadcast_to(bounds.lower, point.shape)
    upper = np.broadcast_to(bounds.upper, point.shape)
    matrix = np.vstack([np.ones(point.shape[1]), members])
    floors, caps = _room(bounds, members, lower)
    problem = dual_ascent.BoxProblem(matrix, floors, caps, point - lower, upper - lower)
    z, solved = dual_ascent.nearest(problem, _possible(problem, start))
    return np.clip(lower + z, lower, upper), solved


def _project_near(
    request: Request, members: Array, has_cash: bool, start: Array, price: Array
) -> tuple[Array, Flags]:
    """With turnover limited or at a price: z = buys, sells, and cash above its lower bound."""
    point, held, bounds, limit = request
    assert held is not None
    lower = np.broadcast_to(bounds.lower, point.shape)
    upper = np.broadcast_to(bounds.upper, point.shape)
    n_risky = point.shape[1] - has_cash
    risky, cash = np.s_[:, :n_risky], np.s_[:, n_risky:]
    base = np.clip(held, lower, upper)
    base[cash] = lower[cash]
    wanted, up, down = point - base, upper - base, base - lower
    forced = np.add.reduce(np.abs(held - base)[risky], axis=-1)
    sums = np.vstack([np.ones(point.shape[1]), members])
    traded = np.repeat([1.0, 0.0], [2 * n_risky, has_cash])
    matrix = np.vstack([np.hstack([sums[risky], -sums[risky], sums[cash]]), traded])
    floors, caps = _room(bounds, members, base)
    problem = dual_ascent.BoxProblem(
        matrix,
        np.column_stack([floors, np.full(len(point), -np.inf)]),
        np.column_stack([caps, limit - forced]),
        np.hstack([wanted[risky] - price, -wanted[risky] - price, wanted[cash]]),
        np.hstack([up[risky], down[risky], up[cash]]),
    )
    z, solved = dual_ascent.nearest(problem, _possible(problem, start))
    base[risky] += z[risky] - z[:, n_risky : 2 * n_risky]
    base[cash] += z[:, 2 * n_risky :]
    return np.clip(base, lower, upper), solved


def _room(bounds: Bounds, members: Array, base: Array) -> tuple[Array, Array]:
    """Limits on the total and the groups, less what `base` already takes of them, (B, G + 1)."""
    taken = np.add.reduce(base[:, None, :] * members, axis=-1)
    total = 1.0 - np.add.reduce(base, axis=-1)
    floors, caps = bounds.floors - taken, bounds.caps - taken
    return np.column_stack([total, floors]), np.column_stack([total, caps])


def _possible(problem: dual_ascent.BoxProblem, start: Array) -> Array:
    """Multipliers without those that would push away from a limit that does not exist."""
    start = np.where(np.isinf(problem.lower), np.maximum(start, 0.0), start)
    return np.where(np.isinf(problem.upper), np.minimum(start, 0.0), start)
