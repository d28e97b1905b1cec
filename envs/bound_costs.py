"""Costs of known assets: what trading costs, its slope, and the fraction of value left to pay it.

What users write is in `envs.costs`; binding it to a market gives one of these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from envs.simulator import Array, column, dot, namespace, total

MAX_ITERATIONS = 100
TOLERANCE = 1e-15
LEAST_TRADE = 1e-9  # a change of weight below this is no trade


class BoundCost(ABC):
    """A cost for known assets: its amount, its slope, and the mu that pays for it."""

    n_risky: int

    @abstractmethod
    def evaluate(self, trades: Array, asked: Array, value: Array, rows: Any) -> tuple[Array, Array]:
        """What trading costs.

        Args:
            trades: mu * target - weights, (*B, N).
            asked: target - weights, (*B, N).
            value: Portfolio value in units of the starting value, (*B,).
            rows: What `liquidity` gave for the day.

        Returns:
            C, shape (*B,), as a fraction of value, and dC/dtrades, shape (*B, N).

        """

    def liquidity(self, t: Any) -> Any:
        """What the cost depends on at row `t` of the market; None for rates."""
        return None

    def reachable(self, weights: Array, target: Array, value: Array, rows: Any) -> Array:
        """The target as near as the market's volume lets a trade come, (*B, N)."""
        return target

    def solve(
        self, weights: Array, target: Array, value: Array, liquidity: Any
    ) -> tuple[Array, Array]:
        """The fraction of value left after trading from `weights` to `target`, and the trades.

        Newton's method on f(mu) = mu - 1 + C(mu * target - weights) from mu = 1. C is convex, so f
        is, and f(1) >= 0 > f(0): the iterates fall monotonically to the one root. Where even
        selling everything costs all there is, nothing is left and mu = 0. Tensors take the search
        without a gradient and one step more at the root with it: the implicit function theorem.

        Returns:
            mu, shape (*B,), and mu * target - weights, shape (*B, N).

        """
        xp = namespace(target)
        held, asked, worth = constant(weights), constant(target), constant(value)
        mu = xp.ones_like(asked[..., 0])
        for _ in range(MAX_ITERATIONS):
            descent = self._descent(mu, held, asked, worth, liquidity)
            mu = mu - descent
            if not xp.any(xp.abs(descent) > TOLERANCE):
                break
        if asked is not target:
            mu = mu - self._descent(mu, weights, target, value, liquidity)
        mu = xp.maximum(mu, xp.zeros_like(mu))
        return mu, mu[..., None] * target - weights

    def _descent(self, mu: Array, weights: Array, target: Array, value: Array, rows: Any) -> Array:
        """The Newton step f / f' at mu."""
        asked = target - weights
        charge, slope = self.evaluate(mu[..., None] * target - weights, asked, value, rows)
        return (mu - 1.0 + charge) / constant(1.0 + dot(slope, target))


class ProportionalRates(BoundCost):
    """Rates per asset, buy and sell, both (N,)."""

    def __init__(self, buy: Array, sell: Array, *, n_risky: int) -> None:
        self.buy = np.asarray(buy, np.float64)
        self.sell = np.asarray(sell, np.float64)
        self._mean = 0.5 * (self.buy + self.sell)
        self._skew = 0.5 * (self.buy - self.sell)
        self._skewed = bool(self._skew.any())
        self._tiles = self._mean  # as many rows as were last asked for
        self.n_risky = n_risky
        self._like: dict[Any, tuple[Array, Array]] = {}

    def evaluate(self, trades: Array, asked: Array, value: Array, rows: Any) -> tuple[Array, Array]:
        """C = sum_i buy_i * max(trade_i, 0) + sell_i * max(-trade_i, 0)."""
        slope = self._slope(trades)
        return dot(slope, trades), slope

    def solve(
        self, weights: Array, target: Array, value: Array, liquidity: Any
    ) -> tuple[Array, Array]:
        """Newton's method, which for rates is a search over who buys and who sells.

        With sides fixed, slope k_i = buy_i or -sell_i, the equation is linear:
        mu = (1 + k . weights) / (1 + k . target). Where mu < 1 makes a planned buy a sale, the
        sides are taken anew; a handful of rounds ends it, and the result is exact.
        """
        slope = self._slope(target - weights)
        for _ in range(MAX_ITERATIONS):
            mu = (1.0 + dot(slope, weights)) / (1.0 + dot(slope, target))
            trades = column(mu) * target - weights
            before, slope = slope, self._slope(trades)
            if _equal(before, slope):
                break
        return mu, trades

    def _slope(self, trades: Array) -> Array:
        """What one more unit costs, (*B, N): buy_i or -sell_i; no gradient flows through it."""
        if type(trades) is np.ndarray:
            if self._tiles.shape != trades.shape:  # without broadcasting a third of the time
                self._tiles = np.broadcast_to(self._mean, trades.shape).copy()
            slope = np.copysign(self._tiles, trades)
            return slope + self._skew if self._skewed else slope
        key = (trades.device, trades.dtype)
        if key not in self._like:
            self._like[key] = like(self._mean, trades), like(self._skew, trades)
        mean, skew = self._like[key]
        return namespace(trades).copysign(mean, constant(trades)) + skew


class FeePerTrade(BoundCost):
    """A fee for each asset whose weight is asked to change, as a fraction of the starting value."""

    def __init__(self, fee: float, *, n_risky: int) -> None:
        self.fee = fee
        self.n_risky = n_risky

    def evaluate(self, trades: Array, asked: Array, value: Array, rows: Any) -> tuple[Array, Array]:
        """C = fee * (number of risky assets asked to change) / value; flat in the amounts."""
        xp = namespace(trades)
        changed = xp.abs(asked[..., : self.n_risky]) > LEAST_TRADE
        left = xp.where(value > 0.0, value, xp.ones_like(value))
        return self.fee * total(changed * 1.0) / left, xp.zeros_like(trades)


class Impact(BoundCost):
    """Square-root impact with each day's volatility and traded volume, both (T, N)."""

    def __init__(
        self, scale: np.ndarray, volume: np.ndarray, participation: float, *, n_risky: int
    ) -> None:
        self.scale = scale  # c * volatility / sqrt(volume); 0 for cash
        self.volume = volume  # in units of the starting value; infinite for cash
        self.participation = participation
        self.n_risky = n_risky

    def liquidity(self, t: Any) -> tuple[np.ndarray, np.ndarray]:
        """Impact scale and volume of the day, (*B, N) each."""
        return self.scale[t], self.volume[t]

    def evaluate(self, trades: Array, asked: Array, value: Array, rows: Any) -> tuple[Array, Array]:
        """C = sum_i scale_i * sqrt(value) * |trade_i|^1.5."""
        xp = namespace(trades)
        scale = like(rows[0], trades) * (value**0.5)[..., None]
        size = xp.abs(trades)
        return dot(scale, size**1.5), 1.5 * scale * size**0.5 * xp.sign(trades)

    def reachable(self, weights: Array, target: Array, value: Array, rows: Any) -> Array:
        """Trades cut to `participation` of the day's volume; what they leave stays cash.

        Where buys then cost more than sales and cash bring, all buys shrink alike; without cash
        all trades shrink by the one factor that fits.
        """
        if self.participation == np.inf:
            return target
        left = np.where(value > 0.0, value, 1.0)[..., None]
        most = self.participation * rows[1] / left
        asked = target - weights
        if self.n_risky == target.shape[-1]:
            share = np.where(
                asked != 0.0, most / np.where(asked != 0.0, np.abs(asked), 1.0), np.inf
            )
            return weights + np.minimum(share.min(-1), 1.0)[..., None] * asked
        risky = np.clip(asked, -most, most)[..., : self.n_risky]
        buys, sales = np.maximum(risky, 0.0), np.minimum(risky, 0.0)
        funds = weights[..., -1:] - sales.sum(-1, keepdims=True)
        spent = buys.sum(-1, keepdims=True)
        shrink = np.where(spent > funds, funds / np.where(spent > 0.0, spent, 1.0), 1.0)
        reached = weights[..., : self.n_risky] + sales + shrink * buys
        cash = np.maximum(1.0 - reached.sum(-1, keepdims=True), 0.0)
        return np.concatenate([np.maximum(reached, 0.0), cash], axis=-1)


class BoundSum(BoundCost):
    """The sum of bound costs."""

    def __init__(self, costs: tuple[BoundCost, ...]) -> None:
        self.costs = costs
        self.n_risky = costs[0].n_risky

    def liquidity(self, t: Any) -> tuple[Any, ...]:
        """Each part's."""
        return tuple(cost.liquidity(t) for cost in self.costs)

    def evaluate(self, trades: Array, asked: Array, value: Array, rows: Any) -> tuple[Array, Array]:
        """Amounts and slopes added up."""
        parts = [
            cost.evaluate(trades, asked, value, own)
            for cost, own in zip(self.costs, rows, strict=True)
        ]
        return sum(charge for charge, _ in parts), sum(slope for _, slope in parts)

    def reachable(self, weights: Array, target: Array, value: Array, rows: Any) -> Array:
        """Within every part's volume."""
        for cost, own in zip(self.costs, rows, strict=True):
            target = cost.reachable(weights, target, value, own)
        return target


def _equal(a: Array, b: Array) -> bool:
    """Whether two arrays agree to the bit; bytes compare several times faster."""
    if type(a) is np.ndarray:
        return a.tobytes() == b.tobytes()
    return bool((a == b).all())


def constant(array: Array) -> Array:
    """The array cut off from gradients; numpy arrays as they are."""
    return array.detach() if hasattr(array, "detach") else array


def like(array: np.ndarray, other: Array) -> Array:
    """The array in the other's library, device and precision."""
    if type(other) is np.ndarray:
        return array
    return namespace(other).asarray(array, device=other.device, dtype=other.dtype)
