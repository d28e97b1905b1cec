"""Rewards with a memory: Sharpe and downside ratios, tail losses, drawdown.

Where a ratio's deviation is under 1e-8 a period, the ratio is undefined and counts as 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.reward_base import Memory, Reward, check_number
from envs.simulator import Array, Transition, namespace
from market import SettingError

LEAST_VARIANCE = 1e-16  # a deviation of 1e-8 a period; under it a ratio is rounding noise


@dataclass(frozen=True)
class DifferentialSharpe(Reward):
    """Differential Sharpe ratio: what this return adds to an exponentially weighted Sharpe ratio.

    D = dS/d(eta) at 0 = (B dA - A dB / 2) / (B - A^2)^(3/2),   dA = R - A,   dB = R^2 - B
    then A += eta dA, B += eta dB

    The paper leaves the first step undefined (A = B = 0): here it is 0, as is any step while
    B - A^2 is under 1e-16. The rewards after a near-zero first return R1 are huge, of the order of
    (R2 / R1)^2 / sqrt(eta); `prior_volatility` around 0.01 tames them.

    Args:
        eta: Rate of the moving averages, in [1e-9, 0.5]; memory of about 1 / eta periods.
        prior_volatility: B starts at its square, as if returns had varied so much; 0 in the paper.

    Source: Moody & Saffell, Learning to trade via direct reinforcement (2001), section II-D; the
    risk-free rate is taken as 0, as there.

    """

    eta: float = 0.01
    prior_volatility: float = 0.0
    name = "differential_sharpe"

    def __post_init__(self) -> None:
        _check_moving(self)

    def initial(self, batch_shape: tuple[int, ...], xp: Any = np) -> Memory:
        """Moving averages of the return (A) and of its square (B)."""
        return _moving_averages(self.prior_volatility, batch_shape, xp)

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """The derivative, and averages that have seen this return."""
        xp, value = namespace(transition.target), transition.portfolio_return
        mean, square = memory["mean"], memory["square"]
        mean_change, square_change = value - mean, value * value - square
        gain = square * mean_change - 0.5 * mean * square_change
        reward = _ratio(xp, gain, square - mean * mean, cubed=True)
        return reward, {
            "mean": mean + self.eta * mean_change,
            "square": square + self.eta * square_change,
        }


@dataclass(frozen=True)
class DifferentialDownside(Reward):
    """Differential downside deviation ratio: what this return adds to A / DD, where risk is loss.

    D = (R - A / 2) / DD                              for R > 0
    D = (DD^2 (R - A / 2) - A R^2 / 2) / DD^3         for R <= 0
    then A += eta (R - A), DD^2 += eta (min(R, 0)^2 - DD^2)

    Undefined, and 0, until a loss has been seen (DD under 1e-8).

    Args:
        eta: Rate of the moving averages, in [1e-9, 0.5].
        prior_volatility: DD starts at it; 0 as in the paper, around 0.01 tames the first rewards.

    Source: Moody & Saffell, Learning to trade via direct reinforcement (2001), section II-E.

    """

    eta: float = 0.01
    prior_volatility: float = 0.0
    name = "differential_downside"

    def __post_init__(self) -> None:
        _check_moving(self)

    def initial(self, batch_shape: tuple[int, ...], xp: Any = np) -> Memory:
        """Moving averages of the return (A) and of the squared loss (DD^2)."""
        return _moving_averages(self.prior_volatility, batch_shape, xp)

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """The derivative, and averages that have seen this return."""
        xp, value = namespace(transition.target), transition.portfolio_return
        mean, square = memory["mean"], memory["square"]
        fall = xp.minimum(value, 0.0)
        loss = fall * fall
        reward = _ratio(xp, square * (value - 0.5 * mean) - 0.5 * mean * loss, square, cubed=True)
        return reward, {
            "mean": mean + self.eta * (value - mean),
            "square": square + self.eta * (loss - square),
        }


@dataclass(frozen=True)
class RollingSharpe(Reward):
    """Sharpe ratio of the last `window` excess returns, annualised; 0 until there are that many.

    Args:
        window: Periods, at least 2; the deviation divides by window - 1.
        periods_per_year: Annualises by its square root; 1 for the ratio per period.

    """

    window: int = 60
    periods_per_year: float = 252
    name = "rolling_sharpe"

    def __post_init__(self) -> None:
        check_number(self, "window", 2, 100_000, whole=True)
        check_number(self, "periods_per_year", 1, 1e6)

    def initial(self, batch_shape: tuple[int, ...], xp: Any = np) -> Memory:
        """The latest excess returns, oldest first, and how many there have been."""
        return _zeros(batch_shape, xp, "seen") | {"recent": _window(batch_shape, self.window, xp)}

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """The ratio with this period's return in the window."""
        xp = namespace(transition.target)
        recent = _shifted(memory["recent"], _excess(transition), xp)
        seen = memory["seen"] + 1.0
        mean = xp.sum(recent, axis=-1) / self.window
        off = recent - mean[..., None]
        variance = xp.sum(off * off, axis=-1) / (self.window - 1)
        ratio = _ratio(xp, math.sqrt(self.periods_per_year) * mean, variance)
        return xp.where(seen < self.window, 0.0, ratio), {"seen": seen, "recent": recent}


@dataclass(frozen=True)
class EpisodeSharpe(Reward):
    """Annualised Sharpe ratio of the episode's excess returns, paid in its last period; 0 before.

    Args:
        periods_per_year: Annualises by its square root; 1 for the ratio per period.

    """

    periods_per_year: float = 252
    name = "episode_sharpe"

    def __post_init__(self) -> None:
        check_number(self, "periods_per_year", 1, 1e6)

    def initial(self, batch_shape: tuple[int, ...], xp: Any = np) -> Memory:
        """Count, mean and sum of squared deviations so far (Welford)."""
        return _zeros(batch_shape, xp, "seen", "mean", "spread")

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """The ratio where `last` is set."""
        xp = namespace(transition.target)
        value, mean = _excess(transition), memory["mean"]
        seen = memory["seen"] + 1.0
        after = mean + (value - mean) / seen
        spread = memory["spread"] + (value - mean) * (value - after)
        ratio = _ratio(xp, after, spread / xp.maximum(seen - 1.0, 1.0))
        reward = xp.where(transition.last, math.sqrt(self.periods_per_year) * ratio, 0.0)
        return reward, {"seen": seen, "mean": after, "spread": spread}


@dataclass(frozen=True)
class ConditionalValueAtRisk(Reward):
    """Penalty on tail losses: v + max(L - v, 0) / tail, with loss L = -R and v the VaR of the past.

    Rockafellar & Uryasev: the mean of this over L is never below CVaR and equals it when v is the
    value at risk. v is the ceil(tail * window)-th greatest of the `window` losses before this one,
    which start out as zeros.

    Args:
        tail: Tail probability in [1e-4, 0.5].
        window: Losses remembered, at least 2.

    Source: Rockafellar & Uryasev, Optimization of conditional value-at-risk (2000), eq. 4.

    """

    tail: float = 0.05
    window: int = 100
    name = "cvar"

    def __post_init__(self) -> None:
        check_number(self, "tail", 1e-4, 0.5)
        check_number(self, "window", 2, 100_000, whole=True)

    def initial(self, batch_shape: tuple[int, ...], xp: Any = np) -> Memory:
        """The latest losses, oldest first."""
        return {"losses": _window(batch_shape, self.window, xp)}

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """Penalty of the period."""
        xp, loss, losses = (
            namespace(transition.target),
            -transition.portfolio_return,
            memory["losses"],
        )
        rank = math.ceil(self.tail * self.window - 1e-9)
        value_at_risk = xp.sort(losses, axis=-1)[..., self.window - rank]
        penalty = value_at_risk + xp.maximum(loss - value_at_risk, 0.0) / self.tail
        return penalty, {"losses": _shifted(losses, loss, xp)}


@dataclass(frozen=True)
class Drawdown(Reward):
    """Penalty: how far value is below its highest so far, so that each day under water counts.

    Args:
        increase: Charge only what a period adds to the drawdown, instead of its level.

    """

    increase: bool = False
    name = "drawdown"

    def __post_init__(self) -> None:
        if not isinstance(self.increase, bool):
            raise SettingError(
                f"{self.name}: `increase` must be True or False, got {self.increase!r}"
            )

    def initial(self, batch_shape: tuple[int, ...], xp: Any = np) -> Memory:
        """The drawdown before, where it is needed."""
        return _zeros(batch_shape, xp, "before") if self.increase else {}

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """Drawdown after the period, or its increase."""
        level = transition.drawdown
        if not self.increase:
            return level, memory
        rise = namespace(transition.target).maximum(level - memory["before"], 0.0)
        return rise, {"before": level}


def _ratio(xp: Any, numerator: Array, variance: Array, cubed: bool = False) -> Array:
    """Numerator over deviation (or its cube); 0, also in gradient, where variance is too small."""
    defined = variance > LEAST_VARIANCE
    safe = xp.where(defined, variance, 1.0)
    deviation = xp.sqrt(safe)
    return xp.where(defined, numerator / (safe * deviation if cubed else deviation), 0.0)


def _check_moving(reward: Reward) -> None:
    check_number(reward, "eta", 1e-9, 0.5)
    check_number(reward, "prior_volatility", 0.0, 1.0)


def _moving_averages(volatility: float, batch_shape: tuple[int, ...], xp: Any) -> Memory:
    start = _zeros(batch_shape, xp, "mean", "square")
    return start | {"square": start["square"] + volatility**2}


def _zeros(batch_shape: tuple[int, ...], xp: Any, *names: str) -> dict[str, Array]:
    return {name: xp.zeros(batch_shape, dtype=xp.float64) for name in names}


def _window(batch_shape: tuple[int, ...], length: int, xp: Any) -> Array:
    return xp.zeros((*batch_shape, length), dtype=xp.float64)


def _shifted(window: Array, newest: Array, xp: Any) -> Array:
    return xp.concat([window[..., 1:], newest[..., None]], axis=-1)


def _excess(transition: Transition) -> Array:
    return transition.portfolio_return - transition.risk_free
