"""All limits on weights of a set together: projection, measures, and which limit was at work."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import NDArray

from envs.compiled import COMPILES
from envs.feasibility import Merged, check, merge, widened
from envs.limits import Part
from envs.projection import Bounds, Region
from envs.simulator import holds_true
from market import DataError

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

TIGHT = 1e-9  # how near a limit counts as reached, and how far beyond it as missed


def region_of(merged: Merged) -> Region:
    """The limits as a `Region`: groups of one asset, of all, or with cash become simpler ones."""
    lower, upper = merged.bounds.lower.copy(), merged.bounds.upper.copy()
    n_assets = len(lower)
    n_risky = n_assets - merged.has_cash
    groups: dict[tuple[int, ...], tuple[float, float]] = {}
    for row, floor, cap in zip(merged.members, *merged.bounds[2:], strict=True):
        inside = row > 0
        if merged.has_cash and inside[-1]:
            inside, floor, cap = ~inside, 1.0 - cap, 1.0 - floor
        assets = tuple(np.flatnonzero(inside).tolist())
        if len(assets) == n_risky and merged.has_cash:
            assets, floor, cap = (n_risky,), 1.0 - cap, 1.0 - floor
        if len(assets) == 1:
            lower[assets[0]] = max(lower[assets[0]], floor)
            upper[assets[0]] = min(upper[assets[0]], cap)
        elif 0 < len(assets) < n_assets and (floor > 0.0 or cap < 1.0):
            least, most = groups.get(assets, (0.0, 1.0))
            groups[assets] = max(least, floor), min(most, cap)
    members = np.zeros((len(groups), n_assets))
    for row, assets in zip(members, groups, strict=True):
        row[list(assets)] = 1.0
    levels = np.array(list(groups.values())).reshape(-1, 2)
    floors = np.where(levels[:, 0] > 0.0, levels[:, 0], -np.inf)
    caps = np.where(levels[:, 1] < 1.0, levels[:, 1], np.inf)
    bounds = Bounds(lower, upper, floors, caps)
    return Region(bounds, members, merged.turnover, merged.has_cash)


class WeightLimits:
    """The limits on weights of one market.

    Args:
        named: Name, kind and part of each limit.
        assets: Names, (N,).
        has_cash: Whether the last asset is cash.

    Raises:
        SettingError: If no weights meet all limits.

    """

    def __init__(
        self, named: Sequence[tuple[str, str, Part]], assets: tuple[str, ...], has_cash: bool
    ) -> None:
        parts = [part for _, _, part in named]
        check([(kind, part) for _, kind, part in named], assets, has_cash)
        self.names = [name for name, _, _ in named]
        self.merged = merge(parts, len(assets), has_cash)
        self.region = region_of(self.merged)
        self.n_risky = len(assets) - has_cash
        edges, self._owners = self._edge_owners(parts)
        self._near, self._beyond = edges - TIGHT, edges + TIGHT
        self._wide: dict[bytes, Bounds] = {}

    def project(self, point: Array, held: Array | None, tradable: Flags | None) -> Array:
        """The nearest weights within the limits to each row of `point`, (B, N).

        Args:
            point: Finite scores or weights.
            held: Weights before the trade, (B, N); None: turnover has no limit.
            tradable: Assets that may be held, (B, N); None: all.

        """
        allowed = self._kept(point, tradable) if self.merged.count is not None else tradable
        bounds = None if allowed is None else self._masked(allowed)
        weights, found = self.region.project(point, held, bounds)
        if not holds_true(~found):
            return weights
        allowed = np.ones(point.shape, bool) if allowed is None else allowed
        for i in np.flatnonzero(~found):
            row = slice(i, i + 1)
            near = None if held is None else held[row]
            weights[row], _ = self.region.project(point[row], near, self._widened(allowed[i]))
        return weights

    def standing(self, weights: Array, held: Array, asked: Array) -> Flags:
        """Where weights stand that were asked for otherwise, all (B, N).

        Returns:
            For each limit which of the rows that were moved have reached it, and last which rows
            miss a limit, (limits + 1, B).

        """
        if COMPILES:
            from envs.limits_row import standing  # with numba, which takes a while

            rows, edges = (weights, held, asked), (self._near, self._beyond)
            return standing(rows, self.merged.members, self.n_risky, edges, self._owners)
        measures = self._measures(weights, held)
        moved = (weights != asked).any(axis=-1, keepdims=True)
        reached = ((measures >= self._near) & moved) @ self._owners
        return np.vstack([reached.T, (measures > self._beyond).any(axis=-1)])

    def _measures(self, weights: Array, held: Array) -> Array:
        """What the limits are on: weights, group sums, turnover and number of assets, (B, M).

        Followed by the same, negated, (B, 2M): every limit is then an upper one.
        """
        risky = np.s_[:, : self.n_risky]
        turnover = 0.5 * np.abs(weights - held)[risky].sum(axis=-1, keepdims=True)
        count = (weights[risky] > 0.0).sum(axis=-1, keepdims=True)
        one = np.concatenate([weights, weights @ self.merged.members.T, turnover, count], axis=-1)
        return np.concatenate([one, -one], axis=-1)

    def violation(self, weights: Any, held: Any) -> Any:
        """Sum of what lies beyond each limit, (*B,); numpy or torch, differentiable."""
        xp = array_namespace(weights)

        def like(values: Any) -> Any:
            return xp.asarray(values, dtype=weights.dtype, device=device(weights))

        def beyond(values: Any, low: Array, high: Array) -> Any:
            excess = xp.clip(values - like(high), min=0.0) + xp.clip(like(low) - values, min=0.0)
            return xp.sum(excess, axis=-1)

        lower, upper, floors, caps = self.merged.bounds
        total = beyond(weights, lower, upper)
        if len(caps):
            total = total + beyond(weights @ like(self.merged.members.T), floors, caps)
        risky = weights[..., : self.n_risky]
        if held is not None and np.isfinite(self.merged.turnover):
            traded = 0.5 * xp.sum(xp.abs(risky - held[..., : self.n_risky]), axis=-1)
            total = total + xp.clip(traded - self.merged.turnover, min=0.0)
        if self.merged.count is not None:
            smallest = xp.sort(risky, axis=-1)[..., : max(self.n_risky - self.merged.count, 0)]
            total = total + xp.sum(smallest, axis=-1)
        return total

    def _kept(self, point: Array, tradable: Flags | None) -> Flags:
        """Assets that cardinality leaves, (B, N): those with floors, then the largest."""
        wanted = point[:, : self.n_risky]
        if tradable is not None:
            wanted = np.where(tradable[:, : self.n_risky], wanted, -np.inf)
        first = np.zeros(wanted.shape, bool)
        first |= self.region.bounds.lower[: self.n_risky] > 0.0
        for row in self.region.members[self.region.bounds.floors > 0.0, : self.n_risky]:
            within = np.where(row > 0, wanted, -np.inf)
            some = np.flatnonzero(np.isfinite(within.max(axis=-1)))
            first[some, within.argmax(axis=-1)[some]] = True
        first &= np.isfinite(wanted)
        order = np.lexsort((-wanted, ~first), axis=-1)[:, : self.merged.count]
        kept = np.zeros(point.shape, bool)
        np.put_along_axis(kept, order, True, axis=-1)
        kept[:, self.n_risky :] = True
        return kept if tradable is None else kept & tradable

    def _masked(self, allowed: Flags) -> Bounds:
        """The bounds with what is not allowed at 0, and floors no higher than the rest reaches."""
        bounds, members = self.region.bounds, self.region.members
        lower, upper = np.where(allowed, bounds.lower, 0.0), np.where(allowed, bounds.upper, 0.0)
        floors = np.minimum(bounds.floors, upper @ members.T)
        return Bounds(lower, upper, floors, np.broadcast_to(bounds.caps, floors.shape))

    def _widened(self, allowed: Flags) -> Bounds:
        """The bounds made wide enough for the assets allowed, (N,)."""
        key = allowed.tobytes()
        if key not in self._wide:
            bounds = Bounds(*(part[0] for part in self._masked(allowed[None])))
            wide = widened(bounds, self.region.members)
            if wide is None:
                raise DataError("no asset can be held: none that the limits allow is tradable")
            self._wide[key] = wide
        return self._wide[key]

    def _edge_owners(self, parts: list[Part]) -> tuple[Array, Flags]:
        """Upper limits on `measures`, (2M,), and which limits they come from, (2M, limits)."""
        merged = self.merged
        lower, upper, floors, caps = merged.bounds
        rows = [tuple(np.flatnonzero(row).tolist()) for row in merged.members]
        count = np.inf if merged.count is None else float(merged.count)
        high, low = [*upper, *caps, merged.turnover, count], [*lower, *floors, 0.0, 0.0]
        n_fixed, size = len(lower) + len(rows), len(high)
        owners = np.zeros((2 * size, len(parts)), bool)
        for j, part in enumerate(parts):
            for i, value in (part.upper or {}).items():
                owners[i, j] = value == upper[i]
            for i, value in (part.lower or {}).items():
                owners[size + i, j] = value == lower[i]
            for _, assets, floor, cap in part.groups:
                g = rows.index(tuple(sorted(assets)))
                owners[len(lower) + g, j] = cap == caps[g]
                owners[size + len(lower) + g, j] = floor == floors[g]
            owners[n_fixed, j] = part.turnover == merged.turnover
            owners[n_fixed + 1, j] = part.count == merged.count
        edges = np.concatenate([high, -np.array(low)])
        # a cap of 1 or a floor of 0 is no limit; reaching it says nothing
        trivial = np.concatenate([np.array(high[:n_fixed]) >= 1.0, [False, False]])
        trivial = np.concatenate([trivial, np.array(low) <= 0.0])
        return np.where(trivial, np.inf, edges), owners
