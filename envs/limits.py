"""Limits on target weights: what a user writes, and what each adds to the feasible set.

Weights are fractions of portfolio value; every target is >= 0 and sums to 1 besides.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from market import Market, SettingError
from market.names import unknown_name

EVERY_SECTOR = "*"


@dataclass(frozen=True)
class Part:
    """What a limit says about N assets, indices in place of names.

    Attributes:
        lower: Least weight of some assets.
        upper: Largest weight of some assets.
        groups: Name, members, floor and cap of each group.
        turnover: Largest half sum of |target - held| over risky assets.
        count: Largest number of risky assets with a weight.

    """

    lower: Mapping[int, float] | None = None
    upper: Mapping[int, float] | None = None
    groups: tuple[tuple[str, tuple[int, ...], float, float], ...] = ()
    turnover: float = np.inf
    count: int | None = None


class Limit(ABC):
    """A limit on weights."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Key under which it is logged."""

    @abstractmethod
    def part(self, market: Market) -> Part:
        """What it says about this market; raises SettingError where it does not fit."""

    def fraction(self, **values: float) -> None:
        """Refuse values outside [0, 1]."""
        for key, value in values.items():
            if not 0.0 <= value <= 1.0:
                raise SettingError(f"{type(self).__name__}: {key} must be in [0, 1], got {value!r}")


def _indices(names: Iterable[str], market: Market) -> tuple[int, ...]:
    for name in names:
        if name not in market.assets:
            raise unknown_name("asset", name, market.assets)
    return tuple(market.assets.index(name) for name in names)


def _each(limit: float | Mapping[str, float], assets: tuple[str, ...], market: Market) -> dict:
    """Asset index -> limit; a number without names means every asset but cash."""
    if isinstance(limit, Mapping):
        return dict(zip(_indices(limit, market), limit.values(), strict=True))
    n_risky = market.n_assets - market.has_cash
    return dict.fromkeys(_indices(assets, market) if assets else range(n_risky), limit)


@dataclass(frozen=True)
class _WeightLimit(Limit):
    """A limit on the weight of assets by themselves."""

    limit: float | Mapping[str, float]
    assets: tuple[str, ...] = ()
    key: ClassVar[str]

    def __post_init__(self) -> None:
        if isinstance(self.limit, Mapping):
            self.fraction(**{f"limit of {name}": value for name, value in self.limit.items()})
        else:
            self.fraction(limit=self.limit)

    @property
    def name(self) -> str:
        """The key, with the assets where they are named."""
        names = tuple(self.limit) if isinstance(self.limit, Mapping) else self.assets
        return f"{self.key}:{','.join(names)}" if names else self.key


@dataclass(frozen=True)
class MaxWeight(_WeightLimit):
    """No asset above `limit`: MaxWeight(0.4), MaxWeight(0.4, ("gold",)), MaxWeight({"gold": 0.1}).

    Args:
        limit: Largest weight, or one for each asset named.
        assets: The assets meant; when not given every asset but cash.

    """

    key = "max_weight"

    def part(self, market: Market) -> Part:
        """Upper bounds."""
        return Part(upper=_each(self.limit, self.assets, market))


@dataclass(frozen=True)
class MinWeight(_WeightLimit):
    """No asset below `limit`; written like `MaxWeight`.

    Args:
        limit: Least weight, or one for each asset named.
        assets: The assets meant; when not given every asset but cash.

    """

    key = "min_weight"

    def part(self, market: Market) -> Part:
        """Lower bounds."""
        return Part(lower=_each(self.limit, self.assets, market))


@dataclass(frozen=True)
class GroupCap(Limit):
    """A group's weights sum to at most `cap` and at least `floor`.

    GroupCap("Energy", 0.2) caps a sector of the market, GroupCap("*", 0.3) each of its sectors, and
    GroupCap("metals", 0.3, floor=0.05, assets=("gold", "silver")) a group of one's own.

    Args:
        group: Sector, "*" for each sector, or a name for the assets given.
        cap: Largest sum.
        floor: Least sum.
        assets: Members, where the group is no sector of the market.

    """

    group: str
    cap: float = 1.0
    floor: float = 0.0
    assets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.fraction(cap=self.cap, floor=self.floor)
        if self.floor > self.cap:
            raise SettingError(
                f"GroupCap {self.group}: floor {self.floor:g} must not exceed cap {self.cap:g}"
            )

    @property
    def name(self) -> str:
        """group_cap with the group."""
        return f"group_cap:{self.group}"

    def part(self, market: Market) -> Part:
        """One group, or one for each sector."""
        if self.assets:
            if len(set(self.assets)) < len(self.assets):
                raise SettingError(
                    f"GroupCap {self.group}: assets must differ, got {', '.join(self.assets)}"
                )
            members = {self.group: self.assets}
        else:
            sectors = sorted(set(market.sectors.values()))
            wanted = sectors if self.group == EVERY_SECTOR else [self.group]
            if not sectors or not set(wanted) <= set(sectors):
                raise unknown_name("group", self.group, sectors)
            members = {
                name: tuple(a for a in market.assets if market.sectors.get(a) == name)
                for name in wanted
            }
        return Part(
            groups=tuple(
                (name, _indices(assets, market), self.floor, self.cap)
                for name, assets in members.items()
            )
        )


@dataclass(frozen=True)
class TurnoverCap(Limit):
    """Turnover of at most `limit` a decision: half the sum of |target - held| over risky assets.

    Held are the drifted weights. Moving all of cash into one asset is a turnover of 0.5.

    Args:
        limit: Largest turnover.

    """

    limit: float
    name = "turnover_cap"

    def __post_init__(self) -> None:
        self.fraction(limit=self.limit)

    def part(self, market: Market) -> Part:
        """The turnover."""
        return Part(turnover=self.limit)


@dataclass(frozen=True)
class CashFloor(Limit):
    """At least `limit` in cash.

    Args:
        limit: Least weight of cash.

    """

    limit: float
    name = "cash_floor"

    def __post_init__(self) -> None:
        self.fraction(limit=self.limit)

    def part(self, market: Market) -> Part:
        """A lower bound."""
        if not market.has_cash:
            raise SettingError(f"CashFloor {self.limit:g} needs cash, and {market.name} has none")
        return Part(lower={market.n_assets - 1: self.limit})


@dataclass(frozen=True)
class Cardinality(Limit):
    """At most `count` assets with a weight, cash not counted.

    The largest weights asked for are kept (of equal ones the first), assets with a floor before
    them, and the rest are projected on the other limits. That is the nearest such portfolio where
    the assets share the same limits; elsewhere it is a rule.

    Args:
        count: Largest number of assets, >= 1.

    Source: Kyrillidis et al., Sparse projections onto the simplex (2013), for the nearest.
    """

    count: int
    name = "cardinality"

    def __post_init__(self) -> None:
        if self.count < 1 or self.count != int(self.count):
            raise SettingError(
                f"Cardinality: count must be a whole number >= 1, got {self.count!r}"
            )

    def part(self, market: Market) -> Part:
        """The count."""
        return Part(count=int(self.count))
