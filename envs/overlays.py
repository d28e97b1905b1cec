"""Risk overlays: limits that move a target towards a safe asset by the least that meets them.

An overlay looks at the mixtures share * target + (1 - share) * safe, share in [0, 1], through the
last `window` returns up to and including row t, and takes the largest share that meets its limit.
Where none does, everything goes to the safe asset and the limit counts as unmet. With less history
than `window` it uses what there is, and does nothing before min(window, 20) returns are known. The
safe asset is cash unless another is named.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.history import Moments, Past, RollingMoments, RollingReturns
from envs.shares import normal_share, order_share, tail_share
from market import Market, SettingError
from market.names import unknown_name

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Memory = dict[str, np.ndarray]


class Situation(NamedTuple):
    """What an overlay may know at a decision, for B rows."""

    t: Any  # int, or (B,) int64
    value: Array  # (B,)
    drawdown: Array  # (B,)


class Verdict(NamedTuple):
    """What an overlay decides, for B rows."""

    share: Array  # of the target to keep, in [0, 1], (B,)
    unmet: Flags  # no share meets the limit, (B,)
    memory: Memory


class BoundOverlay(ABC):
    """A risk limit that knows its market."""

    safe: int  # index of the asset to move to

    def initial(self, shape: tuple[int, ...]) -> Memory:
        """Memory before the first decision, arrays of shape `shape`."""
        return {}

    @abstractmethod
    def verdict(self, target: Array, situation: Situation, memory: Memory) -> Verdict:
        """How much of each target (B, N) to keep."""


class Overlay(ABC):
    """A risk limit."""

    name: str  # key under which it is logged
    safe: str | None

    @abstractmethod
    def bind(self, market: Market) -> BoundOverlay:
        """The limit for this market; raises SettingError where it does not fit."""

    def safe_asset(self, market: Market) -> int:
        """Index of the safe asset."""
        if self.safe is None:
            if not market.has_cash:
                raise SettingError(
                    f"{type(self).__name__} moves to cash and {market.name} has none: name a safe "
                    f"asset, one of {', '.join(market.assets)}"
                )
            return market.n_assets - 1
        if self.safe not in market.assets:
            raise unknown_name("asset", self.safe, market.assets)
        return market.assets.index(self.safe)

    def check(self, **numbers: tuple[float, float, float]) -> None:
        """Refuse numbers, given as (value, low, high), that are not strictly between."""
        for key, (value, low, high) in numbers.items():
            if not low < value < high:
                rule = f"in ({low:g}, {high:g})" if high < np.inf else f"> {low:g}"
                raise SettingError(f"{type(self).__name__}: {key} must be {rule}, got {value!r}")


@dataclass(frozen=True)
class _Measured(BoundOverlay):
    """A limit on a statistic of past returns."""

    limit: Any  # its `share` takes what `past` yields
    safe: int
    past: RollingMoments | RollingReturns

    def verdict(self, target: Array, situation: Situation, memory: Memory) -> Verdict:
        """The largest share that meets the limit."""
        share, unmet = self.limit.share(self.past(target, situation.t))
        return Verdict(share, unmet, memory)


@dataclass(frozen=True)
class VolatilityTarget(Overlay):
    """Volatility of at most `limit` a year.

    The safe asset may vary too, so with sample moments the variance of a mixture is
    share^2 Var(p) + 2 share (1 - share) Cov(p, s) + (1 - share)^2 Var(s), solved for the share.

    Args:
        limit: Volatility a year, > 0.
        window: Returns looked at, >= 2.
        periods_per_year: Rows in a year.
        safe: The asset to move to; cash when not given.

    Source: Moreira & Muir, Volatility-managed portfolios (2017); here the target is an upper limit.
    """

    limit: float
    window: int = 60
    periods_per_year: float = 252.0
    safe: str | None = None
    name = "volatility_target"

    def __post_init__(self) -> None:
        self.check(
            limit=(self.limit, 0, np.inf),
            window=(self.window, 1, np.inf),
            periods_per_year=(self.periods_per_year, 0, np.inf),
        )

    def bind(self, market: Market) -> BoundOverlay:
        """The limit for this market."""
        safe = self.safe_asset(market)
        return _Measured(self, safe, RollingMoments(market.returns, self.window, safe))

    def share(self, past: Moments) -> tuple[Array, Flags]:
        """Largest share within the limit, and whether there is none."""
        past = past._replace(mean=0.0, safe_mean=0.0)
        return normal_share(past, 1.0, self.limit / self.periods_per_year**0.5)


@dataclass(frozen=True)
class ValueAtRiskLimit(Overlay):
    """Value at risk of one period of at most `limit`.

    "historical": minus the ceil(tail * T)-th smallest return, found exactly along the mixtures.
    "parametric": z * deviation - mean, z the normal quantile of 1 - tail, in closed form.

    Args:
        limit: Loss of one period as a positive fraction, > 0.
        tail: Tail probability in (0, 1); in (0, 0.5) where parametric.
        window: Returns looked at, >= 2.
        method: "historical" or "parametric".
        safe: The asset to move to; cash when not given.

    Source: Jorion, Value at Risk (2006), ch. 5.
    """

    limit: float
    tail: float = 0.05
    window: int = 250
    method: Literal["historical", "parametric"] = "historical"
    safe: str | None = None
    name = "value_at_risk_limit"

    def __post_init__(self) -> None:
        if self.method not in ("historical", "parametric"):
            raise unknown_name("method", self.method, ("historical", "parametric"))
        self.check(
            limit=(self.limit, 0, np.inf),
            tail=(self.tail, 0, 1 if self.method == "historical" else 0.5),
            window=(self.window, 1, np.inf),
        )

    def bind(self, market: Market) -> BoundOverlay:
        """The limit for this market."""
        safe = self.safe_asset(market)
        if self.method == "parametric":
            return _Measured(self, safe, RollingMoments(market.returns, self.window, safe))
        return _Measured(self, safe, RollingReturns(market.returns, self.window, safe, self.tail))

    def share(self, past: Moments | Past) -> tuple[Array, Flags]:
        """Largest share within the limit, and whether there is none."""
        if isinstance(past, Moments):
            return normal_share(past, -NormalDist().inv_cdf(self.tail), self.limit)
        return order_share(past, self.limit)


@dataclass(frozen=True)
class CVaRLimit(Overlay):
    """Mean loss over the worst `tail` of the periods of at most `limit`.

    Args:
        limit: Mean loss as a positive fraction, > 0.
        tail: Tail probability in (0, 1).
        window: Returns looked at, >= 2.
        safe: The asset to move to; cash when not given.

    Source: Rockafellar & Uryasev, Conditional value-at-risk for general loss distributions (2002).
    """

    limit: float
    tail: float = 0.05
    window: int = 250
    safe: str | None = None
    name = "cvar_limit"

    def __post_init__(self) -> None:
        self.check(
            limit=(self.limit, 0, np.inf), tail=(self.tail, 0, 1), window=(self.window, 1, np.inf)
        )

    def bind(self, market: Market) -> BoundOverlay:
        """The limit for this market."""
        safe = self.safe_asset(market)
        return _Measured(self, safe, RollingReturns(market.returns, self.window, safe, self.tail))

    def share(self, past: Past) -> tuple[Array, Flags]:
        """Largest share within the limit, and whether there is none."""
        return tail_share(past, self.limit)


@dataclass(frozen=True)
class StopLoss(Overlay):
    """Out to the safe asset once the drawdown reaches `limit`, and back in by rule.

    The drawdown is that from the highest value since the start or the last re-entry. The portfolio
    stays out for at least `reentry` decisions, and until the risky assets, equally weighted, have
    risen by `recovery` from their lowest point since the exit.

    Args:
        limit: Drawdown in (0, 1).
        reentry: Decisions to stay out, >= 1.
        recovery: Rise to wait for, as a fraction, >= 0.
        safe: The asset to move to; cash when not given.

    Source: Kaminski & Lo, When do stop-loss rules stop losses? (2014).
    """

    limit: float
    reentry: int = 20
    recovery: float = 0.0
    safe: str | None = None
    name = "stop_loss"

    def __post_init__(self) -> None:
        self.check(limit=(self.limit, 0, 1), reentry=(self.reentry, 0, np.inf))
        if not self.recovery >= 0:
            raise SettingError(f"StopLoss: recovery must be >= 0, got {self.recovery!r}")

    def bind(self, market: Market) -> BoundOverlay:
        """The rule for this market."""
        risky = market.returns[:, : market.n_assets - market.has_cash]
        index = np.cumprod(1.0 + risky.mean(axis=1))
        return _BoundStop(self, self.safe_asset(market), index)


@dataclass(frozen=True)
class _BoundStop(BoundOverlay):
    rule: StopLoss
    safe: int
    index: Array  # (T,): value of the risky assets, equally weighted

    def initial(self, shape: tuple[int, ...]) -> Memory:
        """In the market, no peak yet."""
        return {
            "peak": np.zeros(shape),
            "days_out": np.zeros(shape, np.int64),
            "trough": np.zeros(shape),
        }

    def verdict(self, target: Array, situation: Situation, memory: Memory) -> Verdict:
        """Keep all or nothing."""
        days, value = memory["days_out"], situation.value
        level = np.broadcast_to(self.index[situation.t], value.shape)
        was_out = days > 0
        trough = np.where(was_out, np.minimum(memory["trough"], level), level)
        risen = level >= trough * (1.0 + self.rule.recovery)
        back = was_out & (days >= self.rule.reentry) & risen
        peak = np.where(back, value, np.maximum(memory["peak"], value))
        fallen = ~was_out & (value <= (1.0 - self.rule.limit) * peak)
        out = fallen | (was_out & ~back)
        memory = {"peak": peak, "days_out": np.where(out, days + 1, 0), "trough": trough}
        return Verdict(np.where(out, 0.0, 1.0), np.zeros(out.shape, bool), memory)
