"""One period of a portfolio: trade at the close, pay the costs, earn the next return.

    close of t                                         close of t+1
    weights --trade, cost--> target --market moves--> drifted weights
    value   -------------->  mu * value ------------> mu * value * (1 + target . returns)

`mu` is the fraction of value left after trading: mu = 1 - C(mu * target - weights), solved exactly
(self-financing: what is sold pays for what is bought and for the costs). Source: Györfi & Vajda,
Growth optimal investment with transaction costs (2008).

`step` is pure, takes any leading batch shape *B and numpy arrays or torch tensors alike; through
torch it is differentiable. Environments, back-test and the differentiable agent all call it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import array_api_compat
import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor, float64


class State(NamedTuple):
    """What is held before a trade."""

    weights: Array  # (*B, N) fractions of value, drifted since the last trade
    value: Array  # (*B,)
    peak: Array  # (*B,) highest value so far, the start included


class Row(NamedTuple):
    """What the market does from one decision to the next, and what trading there costs."""

    returns: Array  # (*B, N) simple returns earned after the trade
    relatives: Array  # (*B, N) 1 + returns
    risk_free: Array  # (*B,)
    last: Array  # (*B,) bool: the data or the episode's length end with this period
    liquidity: Any = None  # what the cost model reads of the market, e.g. volume and volatility


class Transition(NamedTuple):
    """One period: what was held, asked, paid and earned."""

    weights: Array  # (*B, N) held before the trade
    target: Array  # (*B, N) held after the trade
    mu: Array  # (*B,) fraction of value left after costs
    cost: Array  # (*B,) 1 - mu
    turnover: Array  # (*B,) half the L1 norm of risky trades
    returns: Array  # (*B, N)
    portfolio_return: Array  # (*B,) mu * (1 + target . returns) - 1
    risk_free: Array  # (*B,)
    value: Array  # (*B,) after the period
    drawdown: Array  # (*B,) positive fraction below the running maximum
    drifted: Array  # (*B, N) weights after the period
    last: Array  # (*B,) bool: the episode ends here


class CostModel(Protocol):
    """What `step` needs of a cost: see `envs.costs`."""

    n_risky: int

    def solve(
        self, weights: Array, target: Array, value: Array, liquidity: Any
    ) -> tuple[Array, Array]:
        """Return mu, shape (*B,), and trades = mu * target - weights, shape (*B, N)."""


def namespace(array: Array) -> Any:
    """The array's library, numpy without a detour: a lookup costs as much as a small operation."""
    return np if type(array) is np.ndarray else array_api_compat.array_namespace(array)


# Of a row of 20 assets, numpy's own lookups take longer than its arithmetic. The functions below
# take the shorter way for rows and scalars; their bits are those of the batch, which tests check.


def total(array: Array) -> Array:
    """Sum over the last axis; the ufunc itself, since np.sum takes three times as long on a row."""
    return np.add.reduce(array, -1) if type(array) is np.ndarray else array.sum(-1)


def dot(a: Array, b: Array) -> Array:
    """Sum of products over the last axis, (*B,)."""
    if type(a) is np.ndarray:
        return a.dot(b) if a.ndim == b.ndim == 1 else np.vecdot(a, b)
    return (a * b).sum(-1)


def column(array: Array) -> Array:
    """(*B,) as (*B, 1), to go with (*B, N); a scalar stays one."""
    return array if type(array) is np.float64 else array[..., None]


def larger(a: Array, b: Any) -> Array:
    """The elementwise maximum."""
    if type(a) is np.float64:
        return a if a >= b else b
    return namespace(a).maximum(a, b)


def within(fraction: Array) -> Array:
    """A fraction with rounding kept out of what lies beyond [0, 1]; gradients pass as they are."""
    if type(fraction) is np.float64:
        least = np.float64(0.0) if fraction < 0.0 else fraction
        return np.float64(1.0) if fraction > 1.0 else least
    if type(fraction) is np.ndarray:
        return np.minimum(np.maximum(fraction, 0.0), 1.0)
    fixed = fraction.detach()
    return fraction + (fixed.clip(0.0, 1.0) - fixed)


def holds_true(flags: Array) -> bool:
    """Whether any flag is set; a byte is found in a third of the time `any` takes."""
    if type(flags) is np.ndarray:
        return b"\1" in flags.tobytes()
    return bool(flags) if type(flags) is np.bool_ else bool(flags.any())


def either(a: Any, b: Array) -> Array:
    """Elementwise or; of one flag and a numpy one, ten times faster than their own."""
    return a or b if type(a) is bool else a | b


def half_volume(trades: Array, n_risky: int) -> Array:
    """Half the L1 norm of the trades in the leading, risky assets, (*B,)."""
    if type(trades) is np.ndarray:
        return dot(np.abs(trades), _halves(trades.shape[-1], n_risky))
    return 0.5 * trades[..., :n_risky].abs().sum(-1)


@lru_cache(maxsize=64)
def _halves(n_assets: int, n_risky: int) -> np.ndarray:
    return np.where(np.arange(n_assets) < n_risky, 0.5, 0.0)


def step(
    state: State, target: Array, row: Row, cost: CostModel, ruin: float = 0.0
) -> tuple[State, Transition]:
    """Trade to `target`, pay, and hold it for one period.

    value_next = value * mu * (1 + target . returns)

    Args:
        state: Holdings before the trade.
        target: Weights to hold, non-negative, summing to 1, shape (*B, N).
        row: The market's move and what trading costs depend on.
        cost: Gives mu.
        ruin: Value at or below which the episode ends.

    Returns:
        The next state, and the transition with everything that happened. A portfolio that loses all
        keeps value 0 and its target as weights.

    """
    mu, trades = cost.solve(state.weights, target, state.value, row.liquidity)
    turnover = half_volume(trades, cost.n_risky)
    holdings = target * row.relatives
    gross = dot(target, row.relatives)
    lost = gross <= 0.0
    if holds_true(lost):
        xp, alive = namespace(target), ~lost[..., None]
        drifted = xp.where(alive, holdings / xp.where(alive, gross[..., None], 1.0), target)
    else:
        drifted = holdings / column(gross)
    growth = mu * gross
    value = state.value * growth
    peak = larger(state.peak, value)
    transition = Transition(
        state.weights,
        target,
        mu,
        1.0 - mu,
        turnover,
        row.returns,
        growth - 1.0,
        row.risk_free,
        value,
        1.0 - value / peak,
        drifted,
        either(row.last, value <= ruin),
    )
    return State(drifted, value, peak), transition


def drift(state: State, relatives: Array) -> tuple[State, Array]:
    """Hold without trading while prices move by `relatives` (*B, N); also the growth (*B,)."""
    xp = namespace(relatives)
    holdings = state.weights * relatives
    gross = total(holdings)
    safe = xp.where(gross > 0.0, gross, 1.0)[..., None]
    weights = xp.where((gross > 0.0)[..., None], holdings / safe, state.weights)
    value = state.value * gross
    return State(weights, value, xp.maximum(state.peak, value)), gross
