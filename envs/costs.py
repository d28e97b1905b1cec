"""What trading costs, as a fraction of portfolio value, paid out of the portfolio.

A cost is a function of trades (fractions of value, buys positive): C(trades) = sum_i c_i(trades_i).
Moving cash costs nothing; a market without cash pays on every leg. Costs add: `a + b` is a cost.
The same object feeds the simulator and optimisers that trade off costs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from envs.bound_costs import BoundCost, BoundSum, FeePerTrade, Impact, ProportionalRates
from envs.named import make_named
from market import Market, SettingError

__all__ = [
    "Cost",
    "FixedFee",
    "HalfSpread",
    "ProportionalCost",
    "ProportionalRates",
    "SquareRootImpact",
    "SumCost",
]


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

    Source: Magill & Constantinides, Portfolio selection with transactions costs (1976).

    """

    buy: float | Mapping[str, float] = 0.001
    sell: float | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for side in ("buy", "sell"):
            _check_rates(f"{side} rate", getattr(self, side))

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

    def __post_init__(self) -> None:
        _check_rates("half_spread", self.half_spread)

    def bind(self, market: Market) -> ProportionalRates:
        """The same rate on both sides."""
        return ProportionalCost(self.half_spread).bind(market)


@dataclass(frozen=True)
class FixedFee(Cost):
    """A fee for each asset whose weight is asked to change, whatever the amount.

    Args:
        fee: Money per trade, >= 0.
        capital: Money at the start, > 0, in the same currency.

    Source: Morton & Pliska, Optimal portfolio management with fixed transaction costs (1995), on
    why fixed costs make trades rare.

    """

    fee: float
    capital: float

    def __post_init__(self) -> None:
        if not (0.0 <= self.fee < np.inf and 0.0 < self.capital < np.inf):
            raise SettingError(
                "cost: fee must be >= 0 and capital > 0, both finite, got "
                f"{self.fee} and {self.capital}"
            )

    def bind(self, market: Market) -> FeePerTrade:
        """The fee as a fraction of the starting value."""
        return FeePerTrade(self.fee / self.capital, n_risky=risky_count(market))


@dataclass(frozen=True)
class SquareRootImpact(Cost):
    """Moving the price: a trade of money x pays c * sigma * sqrt(x / volume) of itself.

    sigma is the standard deviation of daily returns and volume the mean money traded a day, both
    over the last `window` rows, the day of the trade included. A day without a figure counts like
    the one before it, and days before the first figure are left out.

    An asset whose mean volume is zero or not yet known cannot be traded that day: it keeps its
    weight, whatever is asked, and its part in paying the costs of other trades has no impact. What
    lost its price is given up all the same.

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
        finite = 0.0 < self.capital < np.inf and 0.0 <= self.coefficient < np.inf
        if not (finite and isinstance(self.window, int | np.integer) and self.window >= 2):
            raise SettingError(
                "cost: impact needs capital > 0, coefficient >= 0, both finite, and a whole "
                f"window >= 2, got {self.capital}, {self.coefficient} and {self.window}"
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
        money = pd.DataFrame(market.volume * market.prices / self.capital).ffill()
        means = money.rolling(self.window, min_periods=1).mean().fillna(0.0)
        # Sums that roll leave a rest of rounding where all of the window is 0.
        idle = money.rolling(self.window, min_periods=1).max().fillna(0.0) <= 0.0
        volume = means.mask(idle, 0.0).mask(idle & ~market.tradable, np.inf).to_numpy(copy=True)
        returns = pd.DataFrame(market.returns)
        sigma = returns.rolling(self.window, min_periods=2).std().fillna(0.0).to_numpy(copy=True)
        volume[:, n_risky:], sigma[:, n_risky:] = np.inf, 0.0
        scale = self.coefficient * sigma / np.sqrt(np.where(volume > 0.0, volume, 1.0))
        limit = np.inf if self.participation is None else self.participation
        return Impact(scale, volume, limit, n_risky=n_risky)


@dataclass(frozen=True)
class SumCost(Cost):
    """Several costs at once.

    Raises:
        SettingError: On binding, where the rates of selling an asset add up to 1 or more. Those of
            buying may: b bought cost b * (1 + buy).

    """

    costs: tuple[Cost, ...]

    def bind(self, market: Market) -> BoundCost:
        """Proportional parts merge into one; what is left is added up."""
        bound = [cost.bind(market) for cost in self.costs]
        rates = [cost for cost in bound if isinstance(cost, ProportionalRates)]
        others = [cost for cost in bound if not isinstance(cost, ProportionalRates)]
        if rates:
            buy, sell = (sum(getattr(rate, side) for rate in rates) for side in ("buy", "sell"))
            if np.max(sell) >= 1.0:
                raise SettingError(f"cost: sell rates add up to {np.max(sell):.12g}, must be < 1")
            others.insert(0, ProportionalRates(buy, sell, n_risky=rates[0].n_risky))
        return others[0] if len(others) == 1 else BoundSum(tuple(others))


COSTS: dict[str, type[Cost]] = {
    "proportional": ProportionalCost,
    "half_spread": HalfSpread,
    "fixed_fee": FixedFee,
    "square_root_impact": SquareRootImpact,
}


def make_cost(text: str) -> Cost:
    """A cost from text such as "half_spread(0.0005)", or a user's own "module:Name(0.1)".

    Raises:
        SettingError: If a name or setting is unknown or out of range.

    """
    cost: Cost = make_named("cost", text, COSTS, (Cost,))
    return cost


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


def _check_rates(name: str, given: float | Mapping[str, float] | None) -> None:
    rates = given.values() if isinstance(given, Mapping) else () if given is None else (given,)
    for rate in rates:
        if not 0.0 <= rate < 1.0:
            raise SettingError(f"cost: {name} must be in [0, 1), got {rate}")


def _parts(cost: Cost) -> tuple[Cost, ...]:
    return cost.costs if isinstance(cost, SumCost) else (cost,)
