"""Constraints: what is done to a target before it is traded, the same wherever targets are traded.

Order:

    target --> nearest weights within all limits --> overlays, in the order given --> traded
               (bounds, groups, cash, turnover;       (each moves towards its safe asset by
               untradable assets at 0)                 the least that meets its limit)

So a risk limit wins over floors and over turnover. Limits on weights win over turnover: where the
two collide on a date, turnover is cut to the least the others allow. Where untradable assets leave
limits on weights that no weights meet, floors are dropped and caps raised by the least common
factor. Whenever the traded weights miss a limit, the date counts as unmet.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.limits import (
    Cardinality,
    CashFloor,
    GroupCap,
    Limit,
    MaxWeight,
    MinWeight,
    Part,
    TurnoverCap,
)
from envs.named import make_named
from envs.overlays import (
    BoundOverlay,
    CVaRLimit,
    Overlay,
    Situation,
    StopLoss,
    ValueAtRiskLimit,
    VolatilityTarget,
)
from envs.simulator import holds_true
from envs.weight_limits import WeightLimits
from market import ActionError, Market, SettingError

__all__ = [
    "CONSTRAINTS",
    "CVaRLimit",
    "Cardinality",
    "CashFloor",
    "ConstraintSet",
    "GroupCap",
    "Limit",
    "MaxWeight",
    "MinWeight",
    "Overlay",
    "StopLoss",
    "TurnoverCap",
    "ValueAtRiskLimit",
    "VolatilityTarget",
]

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Memory = dict[str, np.ndarray]

CONSTRAINTS: dict[str, type[Limit] | type[Overlay]] = {
    "max_weight": MaxWeight,
    "min_weight": MinWeight,
    "group_cap": GroupCap,
    "turnover_cap": TurnoverCap,
    "cash_floor": CashFloor,
    "cardinality": Cardinality,
    "volatility_target": VolatilityTarget,
    "value_at_risk_limit": ValueAtRiskLimit,
    "cvar_limit": CVaRLimit,
    "stop_loss": StopLoss,
}


def make_constraint(text: str) -> Limit | Overlay:
    """A limit from text such as "max_weight(0.4)", or a user's own "module:Name(3)".

    Raises:
        SettingError: If a name or setting is unknown or out of range.

    """
    made: Limit | Overlay = make_named("constraint", text, CONSTRAINTS, (Limit, Overlay))
    return made


@dataclass(frozen=True, eq=False)
class ConstraintSet:
    """Constraints bound to a market; falsy where there are none.

    Attributes:
        market: The market whose returns up to t the overlays see.
        limits: Limits on weights, or None.
        overlays: Name and bound overlay, in the order applied.

    """

    market: Market
    limits: WeightLimits | None
    overlays: tuple[tuple[str, BoundOverlay], ...]

    @classmethod
    def build(cls, constraints: Iterable[Limit | Overlay], market: Market) -> "ConstraintSet":
        """Bind constraints to a market.

        Raises:
            SettingError: If one is no constraint or does not fit the market, or if they collide.

        """
        named: list[tuple[str, str, Part]] = []
        overlays: list[tuple[str, BoundOverlay]] = []
        taken: set[str] = set()
        for constraint in constraints:
            if not isinstance(constraint, Limit | Overlay):
                raise SettingError(
                    f"constraint {constraint!r} must be one of {', '.join(sorted(CONSTRAINTS))}"
                )
            name = _unused(constraint.name, taken)
            if isinstance(constraint, Limit):
                named.append((name, type(constraint).__name__, constraint.part(market)))
            else:
                overlays.append((name, constraint.bind(market)))
        limits = WeightLimits(named, market.assets, market.has_cash) if named else None
        return cls(market, limits, tuple(overlays))

    def __bool__(self) -> bool:
        return bool(self.limits or self.overlays)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Keys of `binding`, in order."""
        return (*(self.limits.names if self.limits else ()), *(name for name, _ in self.overlays))

    def initial(self, shape: tuple[int, ...] = ()) -> Memory:
        """Memory before the first decision; arrays of leading shape `shape`."""
        return {
            f"{name}.{key}": value
            for name, overlay in self.overlays
            for key, value in overlay.initial(shape).items()
        }

    def project(self, weights: Any, held: Any = None, tradable: Any = None) -> Array:
        """The nearest weights within all limits on weights, (*B, N); exact, see `envs.projection`.

        Args:
            weights: Finite scores or weights, (*B, N).
            held: Weights before the trade, (*B, N); when not given turnover has no limit.
            tradable: Which assets may be held, (*B, N) or (N,); all when not given.

        Raises:
            ActionError: If a score is not finite or the shape is wrong.

        """
        point = np.asarray(weights, np.float64)
        if point.ndim < 1 or point.shape[-1] != self.market.n_assets:
            raise ActionError(
                f"weights must have a last dimension of {self.market.n_assets}, got {point.shape}"
            )
        if not np.isfinite(point).all():
            raise ActionError(f"weights must be finite, got {point[~np.isfinite(point)][0]}")
        rows = point.reshape(-1, self.market.n_assets)
        given = (held, tradable)
        near, open_ = (None if x is None else _rows_like(x, point, rows.shape) for x in given)
        return self._limits.project(rows, near, open_).reshape(point.shape)

    def violation(self, weights: Any, held: Any = None) -> Any:
        """Sum of what lies beyond each limit on weights, >= 0, (*B,); numpy or torch.

        Turnover counts where `held` is given; of cardinality, the weights but for the largest.
        """
        return self._limits.violation(weights, held)

    def apply(
        self, target: Array, held: Array, t: Any, memory: Memory, drawdown: Any, value: Any
    ) -> tuple[Array, Memory, dict[str, Flags], Flags]:
        """What is traded in place of a target.

        Args:
            target: Weights asked for, (*B, N).
            held: Drifted weights before the trade, (*B, N).
            t: Row of the decision, int or (*B,); nothing after it is used.
            memory: As `initial` or the last call returned it.
            drawdown: Fraction below the running maximum of value, (*B,).
            value: Portfolio value, (*B,).

        Returns:
            Weights (*B, N); the memory; for each constraint whether it moved the target, (*B,);
            and whether a constraint is not met, (*B,).

        """
        shape, n_assets = target.shape[:-1], target.shape[-1]
        point, near = target.reshape(-1, n_assets), held.reshape(-1, n_assets)
        t = t.reshape(-1) if isinstance(t, np.ndarray) and t.ndim else t
        weights, [*binding, unmet] = self._limited(point, near, t)
        if self.overlays:
            limited = weights
            situation = Situation(t, *(np.asarray(part).reshape(-1) for part in (value, drawdown)))
            memory = {key: part.reshape(-1) for key, part in memory.items()}
            weights, memory, reduced, unmet_risk = self._overlaid(weights, situation, memory)
            memory = {key: part.reshape(shape) for key, part in memory.items()}
            binding += reduced
            if self.limits is not None and weights is not limited:
                unmet = self.limits.standing(weights, near, weights)[-1]
            unmet = unmet | unmet_risk
        flags = [part.reshape(shape) for part in binding]
        named = dict(zip(self.names, flags, strict=True))
        return weights.reshape(target.shape), memory, named, unmet.reshape(shape)

    def missed(self, weights: Array, held: Array) -> Flags:
        """Whether weights traded from `held` miss a limit on weights, both (*B, N): (*B,)."""
        shape, n_assets = weights.shape[:-1], weights.shape[-1]
        if self.limits is None:
            return np.zeros(shape, bool)
        rows = weights.reshape(-1, n_assets)
        return self.limits.standing(rows, held.reshape(-1, n_assets), rows)[-1].reshape(shape)

    @cached_property
    def risk_names(self) -> tuple[str, ...]:
        """Keys of `binding` that are overlays."""
        return tuple(name for name, _ in self.overlays)

    @cached_property
    def _limits(self) -> WeightLimits:
        """The limits, or those of the simplex alone."""
        return self.limits or WeightLimits((), self.market.assets, self.market.has_cash)

    @cached_property
    def _keys(self) -> list[tuple[str, ...]]:
        """What each overlay remembers."""
        return [tuple(overlay.initial(())) for _, overlay in self.overlays]

    @cached_property
    def _all_tradable(self) -> bool:
        return bool(self.market.tradable.all())

    def _limited(self, point: Array, held: Array, t: Any) -> tuple[Array, Flags]:
        """Weights within the limits; which of them were at work, and last which rows miss one."""
        if self.limits is None:
            return point, np.zeros((1, len(point)), bool)
        tradable = None
        if not self._all_tradable:
            tradable = np.broadcast_to(self.market.tradable[t], point.shape)
            tradable = None if tradable.all() else tradable
        weights = self.limits.project(point, held, tradable)
        return weights, self.limits.standing(weights, held, point)

    def _overlaid(
        self, weights: Array, situation: Situation, memory: Memory
    ) -> tuple[Array, Memory, list[Flags], Flags]:
        """Weights after every overlay; again, where one has undone what another had met."""
        none = np.zeros(len(weights), bool)
        moved, unmet, following = [none] * len(self.overlays), none, dict(memory)
        for again in range(len(self.overlays)):
            before = weights
            for i, (name, overlay) in enumerate(self.overlays):
                keys = self._keys[i]
                if again and keys:
                    continue  # a rule with memory decides once
                own = {key: memory[f"{name}.{key}"] for key in keys}
                share, missed, own = overlay.verdict(weights, situation, own)
                following |= {f"{name}.{key}": part for key, part in own.items()}
                less = share < 1.0
                if holds_true(less):
                    unmet = unmet | missed
                    if not self._all_tradable:
                        stuck = less & ~self.market.tradable[situation.t, overlay.safe]
                        less, unmet = less & ~stuck, unmet | stuck
                    weights = _mixed(weights, np.where(less, share, 1.0), overlay.safe)
                    moved[i] = moved[i] | less
            if weights is before or len(self.overlays) == 1:
                break
        return weights, following, moved, unmet


def _mixed(weights: Array, share: Array, safe: int) -> Array:
    """Share * weights + (1 - share) * safe."""
    mixed = share[:, None] * weights
    mixed[:, safe] += 1.0 - share
    return mixed


def _rows_like(values: Any, point: Array, shape: tuple[int, ...]) -> Any:
    """`values` broadcast to the shape of `point`, as rows."""
    return np.broadcast_to(np.asarray(values), point.shape).reshape(shape)


def _unused(name: str, taken: set[str]) -> str:
    """`name`, numbered from the second on."""
    unused, n = name, 1
    while unused in taken:
        n += 1
        unused = f"{name}:{n}"
    taken.add(unused)
    return unused
