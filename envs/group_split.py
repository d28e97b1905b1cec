"""The problem that `envs.group_newton` solves, and how its assets are laid out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Problem(NamedTuple):
    """B problems of N assets in G groups; arrays but `point` may have one row for all of them."""

    point: Array  # y, (B, N)
    held: Array  # (B, N), with 0 for cash; zeros where turnover has no limit
    lower: Array  # (B, N)
    upper: Array  # (B, N)
    floors: Array  # (B, G)
    caps: Array  # (B, G)
    limit: float  # on the sum of |x - held| over risky assets; may be infinite


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
        self.order = np.array([asset for group in self.groups for asset in group])
        self.stops = np.cumsum([0, *map(len, self.groups)])
        self.flags = np.array([1.0] * (n_groups - has_cash) + [0.0] * has_cash)
        self.risky = self.flags[:, None]
        self.n_risky = n_assets - has_cash

    def spread(self, values: Array) -> Array:
        """(B, N) as a table (depth, G, B), 0 where there is no asset."""
        columns = np.zeros((values.shape[1] + 1, len(values)))
        columns[:-1] = values.T
        return columns[self.table]

    def gather(self, table: Array) -> Array:
        """A table (depth, G, B) as rows (B, N)."""
        return table.reshape(-1, table.shape[-1])[self.places].T
