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
import pandas as pd

from envs.simulator import Array, column, dot, namespace, total
from market import Market, SettingError

MAX_ITERATIONS = 100
TOLERANCE = 1e-15
LEAST_TRADE = 1e-9  # a change of weight below this is no trade


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
class HalfSpread(Cost):
    """Half the bid-ask spread, paid on every trade: buys at mid * (1 + h), sales at mid * (1 - h).

    Args:
        half_spread: h in [0, 1), a fraction of the mid price, for all or by asset name.

    Source: Roll, A simple implicit measure of the effective bid-ask spread (1984).

    """

    half_spread: float | Mapping[str, float]

    def bind(self, market: Market) -> ProportionalRates:
        """The same rate on both sides."""
        return ProportionalCost(self.half_spread).bind(market)


@dataclass(frozen=True)
class FixedFee(Cost):
    """A fee for each asset whose weight is asked to change, whatever the amount.

    Args:
        fee: Money per trade, >= 0.
        capital: Money at the start, > 0, in the same currency.

    Source: Magill & Constantinides, Portfolio selection with transactions costs (1976), on why
    fixed costs make trades rare.

    """

    fee: float
    capital: float

    def __post_init__(self) -> None:
        if self.fee < 0.0 or not self.capital > 0.0:
            raise SettingError(
                f"cost: fee must be >= 0 and capital > 0, got {self.fee} and {self.capital}"
            )

    def bind(self, market: Market) -> FeePerTrade:
        """The fee as a fraction of the starting value."""
        return FeePerTrade(self.fee / self.capital, n_risky=risky_count(market))


@dataclass(frozen=True)
class SquareRootImpact(Cost):
    """Moving the price: a trade of money x pays c * sigma * sqrt(x / volume) of itself.

    sigma is the standard deviation of daily returns and volume the mean money traded a day, both
    over the last `window` rows, the day of the trade included.

    Args:
        capital: Money at the start, > 0.
        coefficient: c, about 1.
        window: Rows for sigma and volume.
        participation: Trades are cut to this fraction of the day's mean volume; None: no limit.

    Raises:
        SettingError: On binding to a market without volume for some risky asset.

    Source: Almgren, Thum, Hauptmann & Li, Direct estimation of equity market impact (2005); Tóth et
    al., Anomalous price impact and the critical nature of liquidity (2011).

    """

    capital: float
    coefficient: float = 1.0
    window: int = 20
    participation: float | None = None

    def __post_init__(self) -> None:
        if not self.capital > 0.0 or self.coefficient < 0.0 or self.window < 2:
            raise SettingError(
                "cost: impact needs capital > 0, coefficient >= 0 and window >= 2, got "
                f"{self.capital}, {self.coefficient} and {self.window}"
            )
        if self.participation is not None and not 0.0 < self.participation <= 1.0:
            raise SettingError(f"cost: participation must be in (0, 1], got {self.participation}")

    def bind(self, market: Market) -> Impact:
        """Volatility and volume of every day, from that day and those before it."""
        n_risky = risky_count(market)
        if market.volume is None:
            raise SettingError(f"cost: impact needs volume, and {market.name} has none")
        unknown = ~np.isfinite(market.volume[:, :n_risky]).any(0)
        if unknown.any():
            asset = market.assets[int(np.flatnonzero(unknown)[0])]
            raise SettingError(f"cost: impact needs volume, and '{asset}' has none")
        money = pd.DataFrame(market.volume * market.prices / self.capital).ffill().fillna(0.0)
        volume = money.rolling(self.window, min_periods=1).mean().to_numpy(copy=True)
        returns = pd.DataFrame(market.returns)
        sigma = returns.rolling(self.window, min_periods=2).std().fillna(0.0).to_numpy(copy=True)
        volume[:, n_risky:], sigma[:, n_risky:] = np.inf, 0.0
        scale = self.coefficient * sigma / np.sqrt(np.maximum(volume, np.finfo(float).tiny))
        limit = np.inf if self.participation is None else self.participation
        return Impact(scale, volume, limit, n_risky=n_risky)


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
