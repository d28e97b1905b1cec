"""Rewards of one period alone: returns, utilities, and penalties that need no memory.

Objectives are better when higher; penalties are positive amounts to subtract. Units are those of
one period's return. Where everything is lost, growth counts as 1e-12 inside a logarithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from envs.reward_base import Memory, Reward, check_number
from envs.simulator import Array, Transition, larger, namespace
from market import Market, SettingError
from market.names import unknown_name

LEAST_GROWTH = 1e-12  # log -> -27.6
GREATEST_EXPONENT = 20.0  # crra utility is never below -exp(20) / (risk_aversion - 1)
EQUAL_WEIGHT = "equal_weight"


@dataclass(frozen=True)
class LogReturn(Reward):
    """log(1 + portfolio return): over an episode it adds up to log(final value / first value)."""

    name = "log_return"

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """Log growth of the period."""
        return _log_growth(transition), memory


@dataclass(frozen=True)
class SimpleReturn(Reward):
    """The portfolio's simple return after costs."""

    name = "simple_return"

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """Return of the period."""
        return transition.portfolio_return, memory


@dataclass(frozen=True)
class ExcessReturn(Reward):
    """Portfolio return minus the risk-free rate of the period."""

    name = "excess_return"

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """Excess return of the period."""
        return transition.portfolio_return - transition.risk_free, memory


@dataclass(frozen=True)
class ActiveReturn(Reward):
    """Portfolio return minus a benchmark's, which pays no costs.

    Args:
        benchmark: An asset's name, or "equal_weight": the mean return of all assets but cash.
        column: The asset's column, or the count of assets but cash; found by `bind`.

    """

    benchmark: str = EQUAL_WEIGHT
    column: int | None = field(default=None, repr=False)
    name = "active_return"

    def __post_init__(self) -> None:
        if not isinstance(self.benchmark, str):
            raise SettingError(
                f"{self.name}: `benchmark` must be an asset's name or {EQUAL_WEIGHT!r}, "
                f"got {self.benchmark!r}"
            )

    def bind(self, market: Market) -> Reward:
        """Find the benchmark among the market's assets."""
        if self.benchmark == EQUAL_WEIGHT:
            return ActiveReturn(EQUAL_WEIGHT, market.n_assets - market.has_cash)
        if self.benchmark not in market.assets:
            choices = (EQUAL_WEIGHT, *market.assets)
            raise unknown_name(f"benchmark in {market.name}", self.benchmark, choices)
        return ActiveReturn(self.benchmark, market.assets.index(self.benchmark))

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """Return over the benchmark's."""
        if self.benchmark == EQUAL_WEIGHT:
            risky = transition.returns[..., : self.column]  # unbound, it knows of no cash
            benchmark = namespace(risky).mean(risky, axis=-1)
        elif self.column is None:
            raise SettingError(f"{self.name}: call bind(market) first, to find {self.benchmark!r}")
        else:
            benchmark = transition.returns[..., self.column]
        return transition.portfolio_return - benchmark, memory


@dataclass(frozen=True)
class MeanVariance(Reward):
    """Quadratic utility R - risk_aversion / 2 * R^2, whose mean is mean-variance utility.

    R^2 stands for the variance, from which its mean differs by the square of the mean return: of
    the order of one part in a thousand for daily returns.

    Args:
        risk_aversion: In [0, 1000].

    Source: Ritter, Machine learning for trading (2017), eq. 8-9.

    """

    risk_aversion: float = 5.0
    name = "mean_variance"

    def __post_init__(self) -> None:
        check_number(self, "risk_aversion", 0, 1000)

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """Utility of the period."""
        value = transition.portfolio_return
        return value - 0.5 * self.risk_aversion * (value * value), memory


@dataclass(frozen=True)
class CRRA(Reward):
    """Constant relative risk aversion: ((1 + R)^(1 - g) - 1) / (1 - g), log(1 + R) at g = 1.

    Bounded below by -exp(20) / (g - 1), about -5e8 / (g - 1), so that ruin stays a number.

    Args:
        risk_aversion: g, in [0, 1000]; 0 is the simple return.

    """

    risk_aversion: float = 5.0
    name = "crra"

    def __post_init__(self) -> None:
        check_number(self, "risk_aversion", 0, 1000)

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """Utility of the period's growth."""
        xp, power, growth = (
            namespace(transition.target),
            1.0 - self.risk_aversion,
            _log_growth(transition),
        )
        if power == 0.0:
            return growth, memory
        return xp.expm1(xp.minimum(power * growth, GREATEST_EXPONENT)) / power, memory


@dataclass(frozen=True)
class Turnover(Reward):
    """Penalty: half the L1 norm of the period's risky trades."""

    name = "turnover"

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """Turnover of the period."""
        return transition.turnover, memory


@dataclass(frozen=True)
class TradingCost(Reward):
    """Penalty: the fraction of value paid for trading, which the return has lost already."""

    name = "cost"

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """Cost of the period."""
        return transition.cost, memory


@dataclass(frozen=True)
class Concentration(Reward):
    """Penalty: the Herfindahl index of the target, sum of squared weights with cash; 1/N to 1."""

    name = "concentration"

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """Concentration after the trade."""
        xp, target = namespace(transition.target), transition.target
        return xp.sum(target * target, axis=-1), memory


@dataclass(frozen=True)
class Violation(Reward):
    """Penalty: by how much the target breaks limits it is not forced to keep.

        make_reward("log_return") - 10 * Violation((MaxWeight(0.3),))

    Built in Python only, as limits are objects; see `ConstraintSet.violation`.

    Args:
        constraints: Limits from `envs.constraints`.
        limits: Those limits for one market; made by `bind`.

    """

    constraints: Sequence[Any]
    limits: Any = field(default=None, repr=False, compare=False)
    name = "violation"

    def bind(self, market: Market) -> Reward:
        """Build the limits for the market's assets and sectors."""
        from envs.constraints import ConstraintSet

        return Violation(self.constraints, ConstraintSet.build(self.constraints, market))

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """Violation of the target, given what was held."""
        if self.limits is None:
            raise SettingError(f"{self.name}: call bind(market) first, to build the limits")
        return self.limits.violation(transition.target, transition.weights), memory


def _log_growth(transition: Transition) -> Array:
    xp = namespace(transition.target)
    return xp.log1p(larger(transition.portfolio_return, LEAST_GROWTH - 1.0))
