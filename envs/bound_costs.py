"""Costs of known assets: what trading costs, its slope, and the fraction of value left to pay it.

What users write is in `envs.costs`; binding it to a market gives one of these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from envs.simulator import Array, column, dot, namespace, total, within

MAX_ITERATIONS = 100
TOLERANCE = 1e-15  # of mu; what is left below it cannot be told from nothing
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
        """The target as near as the market's volume lets a trade come, (*B, N), numpy."""
        return target

    def solve(
        self, weights: Array, target: Array, value: Array, liquidity: Any
    ) -> tuple[Array, Array]:
        """The fraction of value left after trading from `weights` to `target`, and the trades.

        Newton's method on f(mu) = mu - 1 + C(mu * target - weights) from mu = 1. C is convex, so f
        is, and f(1) >= 0: the iterates fall monotonically to the greatest root. Where an iterate
        reaches 0, or f falls no more towards 0 before it has a root, the costs take all there is
        and mu = 0. A row that has converged stays as it is while others go on, so that it does not
        depend on its batch. Tensors take the search without a gradient and one step more at the
        root with it: the implicit function theorem.

        Returns:
            mu in [0, 1], shape (*B,), and mu * target - weights, shape (*B, N).

        """
        xp = namespace(target)
        held, asked, worth = constant(weights), constant(target), constant(value)
        mu = xp.ones_like(asked[..., 0])
        done = mu < 0.0  # none yet
        for _ in range(MAX_ITERATIONS):
            before, after = mu, self._descended(mu, held, asked, worth, liquidity)
            mu = xp.where(done, before, xp.where(after <= TOLERANCE, 0.0, after))
            done = done | (mu <= 0.0) | ~(xp.abs(mu - before) > TOLERANCE)
            if done.all():
                break
        if asked is not target:
            mu = xp.where(mu > 0.0, self._descended(mu, weights, target, value, liquidity), mu)
        mu = within(mu[()])
        return mu, mu[..., None] * target - weights

    def _descended(
        self, mu: Array, weights: Array, target: Array, value: Array, rows: Any
    ) -> Array:
        """Newton's mu - f / f'; 0 where f does not rise with mu, which is left of no root."""
        xp = namespace(target)
        trades = mu[..., None] * target - weights
        charge, slope = self.evaluate(trades, target - weights, value, rows)
        rise = constant(1.0 + dot(slope, target))
        lost = rise <= 0.0
        return xp.where(lost, 0.0, mu - (mu - 1.0 + charge) / xp.where(lost, 1.0, rise))


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
        sides are taken anew; a handful of rounds ends it, and the result is exact. In exact numbers
        mu falls from round to round. Where rounding makes it rise, a trade of nothing would change
        sides for ever: mu stays instead. So does each row's, to the bit, while others go on.
        """
        held, asked = constant(weights), constant(target)
        slope, mu = self._slope(asked - held), None
        for _ in range(MAX_ITERATIONS):
            mu = _least(mu, _left(slope, held, asked))
            trades = column(mu) * asked - held
            before, slope = slope, self._slope(trades)
            if _equal(before, slope):
                break
        if asked is not target:  # the sides have no gradient, mu has
            mu = _left(slope, weights, target)
            trades = column(mu) * target - weights
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
        slope = namespace(trades).copysign(mean, constant(trades))
        return slope + skew if self._skewed else slope


class FeePerTrade(BoundCost):
    """A fee for each asset whose weight is asked to change, as a fraction of the starting value."""

    def __init__(self, fee: float, *, n_risky: int) -> None:
        self.fee = fee
        self.n_risky = n_risky

    def evaluate(self, trades: Array, asked: Array, value: Array, rows: Any) -> tuple[Array, Array]:
        """C = fee * (number of risky assets asked to change) / value; flat in the amounts."""
        xp = namespace(trades)
        size = xp.abs(asked[..., : self.n_risky])
        trades_made = total((size > LEAST_TRADE) * xp.ones_like(size))  # in the arrays' precision
        left = xp.where(value > 0.0, value, xp.ones_like(value))
        return self.fee * trades_made / left, xp.zeros_like(trades)


class Impact(BoundCost):
    """Square-root impact with each day's volatility and traded volume, both (T, N)."""

    def __init__(
        self, scale: np.ndarray, volume: np.ndarray, participation: float, *, n_risky: int
    ) -> None:
        known = volume > 0.0
        self.scale = np.where(known, scale, 0.0)  # c * volatility / sqrt(volume); 0 for cash
        # Both in units of the starting value; infinite for cash, 0 where nothing can be traded.
        self.most = np.where(known, participation * np.where(known, volume, 1.0), 0.0)
        self.limited = bool(np.isfinite(self.most).any())
        self.n_risky = n_risky

    def liquidity(self, t: Any) -> tuple[np.ndarray, np.ndarray]:
        """Impact scale and largest trade of the day, (*B, N) each."""
        return self.scale[t], self.most[t]

    def evaluate(self, trades: Array, asked: Array, value: Array, rows: Any) -> tuple[Array, Array]:
        """C = sum_i scale_i * sqrt(value) * |trade_i|^1.5."""
        xp = namespace(trades)
        scale = like(rows[0], trades) * xp.sqrt(value)[..., None]
        size = xp.abs(trades)
        return dot(scale, size**1.5), 1.5 * scale * size**0.5 * xp.sign(trades)

    def reachable(self, weights: Array, target: Array, value: Array, rows: Any) -> Array:
        """Trades cut to `participation` of the day's volume; what they leave stays cash.

        What has no volume keeps its weight. Where buys then cost more than sales and cash bring,
        all buys shrink alike; without cash the others share what is left in the proportions asked,
        and all trades shrink by the one factor that fits.
        """
        if not self.limited:
            return target
        most = rows[1] / np.where(value > 0.0, value, 1.0)[..., None]
        if self.n_risky == target.shape[-1]:
            asked = _around(most <= 0.0, weights, target) - weights
            moves = asked != 0.0
            share = np.where(moves, most / np.where(moves, np.abs(asked), 1.0), np.inf)
            return weights + np.minimum(share.min(-1), 1.0)[..., None] * asked
        asked = target - weights
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


def _around(stuck: np.ndarray, weights: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The target with stuck weights as they are and the others filling what is left, (*B, N)."""
    others = np.where(stuck, 0.0, target)
    total_asked = others.sum(-1, keepdims=True)
    left = 1.0 - np.where(stuck, weights, 0.0).sum(-1, keepdims=True)
    filled = others * (left / np.where(total_asked > 0.0, total_asked, 1.0))
    around = np.where(stuck | (total_asked <= 0.0), weights, filled)
    return np.where(stuck.any(-1, keepdims=True), around, target)


def _equal(a: Array, b: Array) -> bool:
    """Whether two arrays agree to the bit; bytes compare several times faster."""
    if type(a) is np.ndarray:
        return a.tobytes() == b.tobytes()
    return bool(a.equal(b))


def _left(slope: Array, weights: Array, target: Array) -> Array:
    """The fraction of value left where a unit more costs `slope`, (*B,)."""
    return within((1.0 + dot(slope, weights)) / (1.0 + dot(slope, target)))


def _least(before: Array | None, now: Array) -> Array:
    """The smaller of two rounds' mu; the first round has no other."""
    if before is None:
        return now
    if type(now) is np.float64:
        return now if now < before else before
    return namespace(now).minimum(before, now)


def constant(array: Array) -> Array:
    """The array cut off from gradients; numpy arrays as they are."""
    return array.detach() if hasattr(array, "detach") else array


def like(array: np.ndarray, other: Array) -> Array:
    """The array in the other's library, device and precision."""
    if type(other) is np.ndarray:
        return array
    return namespace(other).asarray(array, device=other.device, dtype=other.dtype)
