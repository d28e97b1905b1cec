"""What `envs.group_newton` and `envs.group_newton_row` share: the problem and its constants."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOLERANCE = 1e-14
INSIDE = 1e-12  # by how much the sums of weights that are left alone may miss their limits
MAX_STEPS = 14
WORSE = 2.0  # growth of the miss at which a step is halved
SINGULAR = 1e-9  # below this the 2 x 2 system has lost a dimension; its entries are about 1 or more
LOST = 0.25  # then sigma changes by this part of itself, to find another piece
KEEP_SIGMA = 16.0  # room / sigma from which turnover that has a price is taken to be free
KEEP_PRICE = 4.0  # the same for the sums of groups


class Problem(NamedTuple):
    """B problems of N assets in G groups; parts without B hold for all of them."""

    point: Array  # y, (B, N)
    held: Array  # (B, N), with 0 for cash; (N,) zeros where turnover has no limit
    lower: Array  # (N,) or (B, N)
    upper: Array  # (N,) or (B, N)
    floors: Array  # (G,) or (B, G)
    caps: Array  # (G,) or (B, G)
    limit: float  # on the sum of |x - held| over risky assets; may be infinite

    def row(self, i: int) -> "Problem":
        """The problem of one row, its arrays 1-D."""
        point, held, lower, upper, floors, caps = (a[i] if a.ndim == 2 else a for a in self[:6])
        return Problem(point, held, lower, upper, floors, caps, self.limit)


class Split:
    """N assets split into G disjoint groups.

    Args:
        groups: Asset indices of each group; every asset is in one.
        has_cash: Whether the last group is cash alone, whose trade is no turnover.

    """

    def __init__(self, groups: Sequence[Sequence[int]], has_cash: bool) -> None:
        self.groups = [list(group) for group in groups]
        self.has_cash = has_cash
        n_assets, n_groups = sum(map(len, groups)), len(groups)
        # assets stand in a (depth, G) table, so that one reduction sums every group of every row
        self.table = np.full((max(map(len, groups)), n_groups), n_assets)
        for g, group in enumerate(self.groups):
            self.table[: len(group), g] = group
        self.places = np.argsort(self.table, axis=None, kind="stable")[:n_assets]
        self.order = [asset for group in self.groups for asset in group]
        stops = np.cumsum([len(group) for group in groups]).tolist()
        flags = [1.0] * (n_groups - has_cash) + [0.0] * has_cash
        self.spans = list(zip([0, *stops[:-1]], stops, flags, strict=True))
        self.risky = np.array(flags)[:, None]  # (G, 1)
        self._rate = 0.65 / max(n_assets - has_cash, 1)

    def spread(self, values: Array) -> Array:
        """(B, N) or (N,) as a table (depth, G, B) or (depth, G, 1), 0 where there is no asset."""
        columns = np.zeros((values.shape[-1] + 1, values.size // values.shape[-1]))
        columns[:-1] = values.T if values.ndim == 2 else values[:, None]
        return columns[self.table]

    def gather(self, table: Array) -> Array:
        """A table (depth, G, B) as rows (B, N)."""
        return table.reshape(-1, table.shape[-1])[self.places].T

    def first_sigma(self, asked: Any, limit: Any) -> Any:
        """A guess at sigma: two thirds of what is right where trades spread exponentially.

        From below, Newton's steps go straight to sigma. The logarithm of asked / limit is a
        rational one, made of operations that give the same bits on every machine.
        """
        x = asked / limit
        return asked * (self._rate * (3.0 * (x * x - 1.0) / (x * x + 4.0 * x + 1.0)))
