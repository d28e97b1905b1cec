"""A task's limits and costs as optimisers take them into their own programme.

Limits on weights (bounds, groups, cash, turnover) become linear conditions on what is chosen from;
where cardinality binds, the programme is solved again for the largest weights alone. Risk overlays
are no part of it: they act on every agent's target afterwards. Costs become rates per asset and
side: exact for proportional ones and spreads; for impact and fees those of a trade of 5 % of the
portfolio at the end of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from agents.base import Task
from agents.outlook import Rates, trading_rates
from agents.quadratic import Limits
from agents.room import Room
from envs.constraints import ConstraintSet, Limit
from envs.limits import Part
from envs.weight_limits import WeightLimits
from market import DataError, Market

REACHED = 1e-7  # how near a solution's weights come to a limit that holds them


@dataclass(frozen=True, eq=False)
class Terms:
    """What a task asks, bound to assets, as plain numbers that can be stored.

    Attributes:
        assets: Names, (N,), cash last where there is cash.
        has_cash: Whether there is.
        parts: Name, kind and numbers of each limit on weights.
        rates: What trades cost, (N,) each; None: nothing.

    """

    assets: tuple[str, ...]
    has_cash: bool
    parts: tuple[tuple[str, str, Part], ...]
    rates: Rates | None

    @classmethod
    def of(cls, task: Task, market: Market) -> Terms:
        """The terms of a task on a market.

        Raises:
            SettingError: If a constraint does not fit the market, or limits collide.

        """
        bound = ConstraintSet.build(task.constraints, market).limits
        limits = [limit for limit in task.constraints if isinstance(limit, Limit)]
        names = bound.names if bound is not None else []
        parts = tuple(
            (name, type(limit).__name__, limit.part(market))
            for name, limit in zip(names, limits, strict=True)
        )
        rates = trading_rates(task.cost, market)
        if rates is not None and not any(side.any() for side in rates):
            rates = None
        return cls(market.assets, market.has_cash, parts, rates)

    @cached_property
    def limits(self) -> WeightLimits | None:
        """The limits together, as the environment has them."""
        return WeightLimits(self.parts, self.assets, self.has_cash) if self.parts else None

    def check(self, market: Market) -> None:
        """Refuse other assets than those of `fit`."""
        if market.assets != self.assets:
            raise DataError(f"{market.name}: assets {market.assets} are not those of {self.assets}")

    def floors(self, chosen: np.ndarray, tradable: np.ndarray) -> np.ndarray:
        """What must be held, (N,), of risky assets that can be held but not be chosen from."""
        if self.limits is None:
            return np.zeros(len(chosen))
        return np.where(tradable & ~chosen & self._risky, self.limits.region.bounds.lower, 0.0)

    def room(self, chosen: np.ndarray, tradable: np.ndarray, held: np.ndarray, costs: bool) -> Room:
        """Where the weights of the assets chosen from may lie.

        Args:
            chosen: Risky assets with an estimate, bool (N,).
            tradable: Assets that can be held, bool (N,).
            held: Drifted weights, (N,).
            costs: Whether trades cost anything.

        """
        rates = None
        if costs and self.rates is not None:
            rates = Rates(self.rates.buy[chosen], self.rates.sell[chosen])
        if self.limits is None:
            return Room(held[chosen], not self.has_cash, rates=rates)
        fixed = self.floors(chosen, tradable)
        budget = 1.0 - fixed.sum()
        least, most = self._cash_bounds()
        reach = 2.0 * self.limits.region.turnover
        reach -= float(np.abs(fixed - held)[self._risky & ~chosen].sum())
        matrix, level = self._rows(chosen, fixed)
        room = Room(held[chosen], not self.has_cash, budget - least, None, max(reach, 0.0), rates)
        if most < 1.0:
            matrix = np.concatenate([matrix, -np.ones((1, matrix.shape[1]))])
            level = np.append(level, most - budget)
        return room.with_rows(matrix, level) if len(level) else room

    def kept(self, target: np.ndarray, tradable: np.ndarray) -> np.ndarray:
        """Assets that cardinality leaves, bool (N,): those with floors, then the largest."""
        if self.limits is None or self.limits.merged.count is None:
            return np.ones(len(target), bool)
        floors = np.where(tradable, self.limits.region.bounds.lower, 0.0)
        order = np.lexsort((-target, floors <= 0.0))
        order = order[self._risky[order]]
        kept = ~self._risky
        kept[order[: self.limits.merged.count]] = True
        return kept

    def exact(self, target: np.ndarray, held: np.ndarray, tradable: np.ndarray) -> np.ndarray:
        """The target with a solver's rounding taken off: the nearest within all limits, (N,)."""
        if self.limits is None:
            return target
        open_ = None if tradable.all() else tradable[None]
        return self.limits.project(target[None], held[None], open_)[0]

    def binding(self, target: np.ndarray, held: np.ndarray) -> dict[str, bool]:
        """Which limits the target stands at."""
        risky = self._risky
        traded = 0.5 * float(np.abs(target - held)[risky].sum())
        count = int((target[risky] > 0.0).sum())
        return {name: _stands(part, target, traded, count) for name, _, part in self.parts}

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        parts = [[name, kind, _numbers(part)] for name, kind, part in self.parts]
        rates = None if self.rates is None else [side.tolist() for side in self.rates]
        return {"assets": self.assets, "has_cash": self.has_cash, "parts": parts, "rates": rates}

    @classmethod
    def from_plain(cls, given: Mapping[str, Any]) -> Terms:
        """From what `plain` gave."""
        parts = tuple((name, kind, _part(numbers)) for name, kind, numbers in given["parts"])
        rates = None if given["rates"] is None else Rates(*map(np.array, given["rates"]))
        return cls(tuple(given["assets"]), given["has_cash"], parts, rates)

    @cached_property
    def _risky(self) -> np.ndarray:
        return np.arange(len(self.assets)) < len(self.assets) - self.has_cash

    def _cash_bounds(self) -> tuple[float, float]:
        """Least and largest weight of cash."""
        assert self.limits is not None
        if not self.has_cash:
            return 0.0, 1.0
        bounds = self.limits.region.bounds
        return float(bounds.lower[-1]), float(bounds.upper[-1])

    def _rows(self, chosen: np.ndarray, fixed: np.ndarray) -> Limits:
        """Bounds and groups as G x <= h; floors no higher than what can be held reaches."""
        assert self.limits is not None
        region = self.limits.region
        lower, upper, floors, caps = region.bounds
        eye, members = np.eye(int(chosen.sum())), region.members[:, chosen]
        others = region.members @ fixed
        floors = np.minimum(floors, members @ upper[chosen] + others)
        blocks = [
            (eye, upper[chosen], upper[chosen] < 1.0),
            (-eye, -lower[chosen], lower[chosen] > 0.0),
            (members, caps - others, np.isfinite(caps)),
            (-members, others - floors, np.isfinite(floors) & (floors > others)),
        ]
        matrix = np.concatenate([rows[kept] for rows, _, kept in blocks])
        level = np.concatenate([levels[kept] for _, levels, kept in blocks])
        return matrix, level


def _stands(part: Part, target: np.ndarray, traded: float, count: int) -> bool:
    """Whether weights (N,) have reached a limit; a cap of 1 or a floor of 0 is none."""
    caps = [(target[i], cap) for i, cap in (part.upper or {}).items()]
    floors = [(target[i], floor) for i, floor in (part.lower or {}).items()]
    for _, members, floor, cap in part.groups:
        total = target[list(members)].sum()
        caps, floors = [*caps, (total, cap)], [*floors, (total, floor)]
    caps.append((traded, part.turnover))
    return (
        any(reached >= cap - REACHED for reached, cap in caps if cap < 1.0)
        or any(reached <= floor + REACHED for reached, floor in floors if floor > 0.0)
        or (part.count is not None and count >= part.count)
    )


def _numbers(part: Part) -> dict[str, Any]:
    """A part as JSON has it, which knows no infinity."""
    return asdict(part) | {"turnover": part.turnover if np.isfinite(part.turnover) else None}


def _part(numbers: Mapping[str, Any]) -> Part:
    """What `_numbers` was made of; keys of JSON are text."""
    lower, upper = (
        None if numbers[key] is None else {int(i): x for i, x in numbers[key].items()}
        for key in ("lower", "upper")
    )
    groups = tuple((name, tuple(members), *levels) for name, members, *levels in numbers["groups"])
    turnover = np.inf if numbers["turnover"] is None else numbers["turnover"]
    return Part(lower, upper, groups, turnover, numbers["count"])
