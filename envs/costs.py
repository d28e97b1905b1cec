"""What trading costs, as a fraction of portfolio value, paid out of the portfolio.

A cost is a function of trades (fractions of value, buys positive): C(trades) = sum_i c_i(trades_i).
Moving cash costs nothing; a market without cash pays on every leg. Costs add: `a + b` is a cost.
The same object feeds the simulator and optimisers that trade off costs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.simulator import Array, namespace
from market import Market, SettingError

MAX_ITERATIONS = 100
TOLERANCE = 1e-15


class Cost(ABC):
    """A cost a user sets up; `bind` looks up the market's assets."""

    @abstractmethod
    def bind(self, market: Market) -> BoundCost:
        """The cost for this market's assets."""

    def __add__(self, other: Cost) -> Cost:
        return SumCost((*_parts(self), *_parts(other)))


@dataclass(frozen=True)
class ProportionalCost(Cost):
    """A fraction of notional: selling s yields s * (1 - sell), buying b costs b * (1 + buy).

    Args:
        buy: Rate in [0, 1) for all risky assets, or one per asset name (others trade free).
        sell: The same for sales; `buy` when not given.

    """

    buy: float | Mapping[str, float] = 0.001
    sell: float | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for side in ("buy", "sell"):
            given = getattr(self, side)
            rates = (
                given.values() if isinstance(given, Mapping) else () if given is None else (given,)
            )
            for rate in rates:
                if not 0.0 <= rate < 1.0:
                    raise SettingError(f"cost: {side} rate must be in [0, 1), got {rate}")

    def bind(self, market: Market) -> ProportionalRates:
        """Rates per asset."""
        sell = self.buy if self.sell is None else self.sell
        return ProportionalRates(
            per_asset(self.buy, market, "cost: buy"),
            per_asset(sell, market, "cost: sell"),
            n_risky=risky_count(market),
        )


@dataclass(frozen=True)
class SumCost(Cost):
    """Several costs at once."""

    costs: tuple[Cost, ...]

    def bind(self, market: Market) -> BoundCost:
        """Proportional parts merge into one; what is left is added up."""
        bound = [cost.bind(market) for cost in self.costs]
        rates = [cost for cost in bound if isinstance(cost, ProportionalRates)]
        others = [cost for cost in bound if not isinstance(cost, ProportionalRates)]
        if rates:
            buy, sell = (sum(getattr(rate, side) for rate in rates) for side in ("buy", "sell"))
            others.insert(0, ProportionalRates(buy, sell, n_risky=rates[0].n_risky))
        return others[0] if len(others) == 1 else BoundSum(tuple(others))


class BoundCost(ABC):
    """A cost for known assets: its amount, its slope, and the mu that pays for it."""

    n_risky: int

    @abstractmethod
    def evaluate(self, trades: Array, value: Array, liquidity: Any) -> tuple[Array, Array]:
        """C(trades), shape (*B,), and dC/dtrades, shape (*B, N)."""

    def solve(self, weights: Array, target: Array, value: Array, liquidity: Any) -> Array:
        """The fraction of value left after trading from `weights` to `target`, shape (*B,).

        Newton's method on f(mu) = mu - 1 + C(mu * target - weights) from mu = 1. C is convex, so f
        is, and f(1) >= 0 > f(0): the iterates fall monotonically to the one root. Where even
        selling everything costs all there is, nothing is left and mu = 0. The last Newton step is
        taken once more at the root with gradients on, which makes mu differentiable (the implicit
        function theorem) in torch.
        """
        xp = namespace(target)
        mu = xp.ones_like(value * 1.0)
        for _ in range(MAX_ITERATIONS):
            charge, slope = self.evaluate(mu[..., None] * target - weights, value, liquidity)
            descent = (mu - 1.0 + charge) / (1.0 + xp.sum(slope * target, axis=-1))
            mu = mu - descent
            if not xp.any(xp.abs(descent) > TOLERANCE):
                break
        return xp.maximum(mu, xp.zeros_like(mu))


class ProportionalRates(BoundCost):
    """Rates per asset, buy and sell, both (N,)."""

    def __init__(self, buy: Array, sell: Array, *, n_risky: int) -> None:
        self.buy = np.asarray(buy, np.float64)
        self.sell = np.asarray(sell, np.float64)
        self.n_risky = n_risky
        self._like: dict[Any, tuple[Array, Array]] = {}

    def evaluate(self, trades: Array, value: Array, liquidity: Any) -> tuple[Array, Array]:
        """C = sum_i buy_i * max(trade_i, 0) + sell_i * max(-trade_i, 0)."""
        xp = namespace(trades)
        buy, sell = self._rates(trades)
        slope = xp.where(trades > 0.0, buy, -sell)
        return xp.sum(slope * trades, axis=-1), slope

    def solve(self, weights: Array, target: Array, value: Array, liquidity: Any) -> Array:
        """Newton's method, which for rates is a search over who buys and who sells.

        With sides fixed, slope k_i = buy_i or -sell_i, the equation is linear:
        mu = (1 + k . weights) / (1 + k . target). Where mu < 1 makes a planned buy a sale, the
        sides are taken anew; a handful of rounds ends it, and the result is exact.
        """
        xp = namespace(target)
        buy, sell = self._rates(target)
        is_buy = target > weights
        for _ in range(MAX_ITERATIONS):
            slope = xp.where(is_buy, buy, -sell)
            paid, planned = xp.sum(slope * weights, axis=-1), xp.sum(slope * target, axis=-1)
            mu = (1.0 + paid) / (1.0 + planned)
            now_buy = mu[..., None] * target > weights
            if xp.all(now_buy == is_buy):
                break
            is_buy = now_buy
        return mu

    def _rates(self, like: Array) -> tuple[Array, Array]:
        """The rates as arrays of the caller's library, device and precision."""
        if type(like) is np.ndarray:
            return self.buy, self.sell
        key = (like.device, like.dtype)
        if key not in self._like:
            xp = namespace(like)
            self._like[key] = tuple(
                xp.asarray(rates, device=like.device, dtype=like.dtype)
                for rates in (self.buy, self.sell)
            )  # type: ignore[assignment]
        return self._like[key]


class BoundSum(BoundCost):
    """The sum of bound costs."""

    def __init__(self, costs: tuple[BoundCost, ...]) -> None:
        self.costs = costs
        self.n_risky = costs[0].n_risky

    def evaluate(self, trades: Array, value: Array, liquidity: Any) -> tuple[Array, Array]:
        """Amounts and slopes added up."""
        parts = [cost.evaluate(trades, value, liquidity) for cost in self.costs]
        return sum(charge for charge, _ in parts), sum(slope for _, slope in parts)


def risky_count(market: Market) -> int:
    """How many leading assets pay when traded: all, or all but cash."""
    return market.n_assets - 1 if market.has_cash else market.n_assets


def per_asset(given: float | Mapping[str, float], market: Market, key: str) -> np.ndarray:
    """One number per asset from a common one or a mapping by name, 0 for cash, shape (N,)."""
    values = np.zeros(market.n_assets)
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - set(market.assets[: risky_count(market)]))
        if unknown:
            raise SettingError(f"{key}: unknown asset {unknown[0]!r}; assets are {market.assets}")
        for asset, value in given.items():
            values[market.assets.index(asset)] = value
    else:
        values[: risky_count(market)] = given
    return values


def _parts(cost: Cost) -> tuple[Cost, ...]:
    return cost.costs if isinstance(cost, SumCost) else (cost,)
