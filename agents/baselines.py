"""Baselines that estimate next to nothing, the competition every learned agent must face.

They are pure functions of (history, weights): between rebalances they return the drifted weights,
which is no trade. Holding exactly what an episode starts with (all cash; equal weights without a
cash asset) counts as not invested yet, so the first decision always invests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from agents.base import Agent
from agents.schedule import Every, check_every, equal, investable, is_due, start_weights, with_cash
from agents.settings import Space, require
from market import Market, SettingError


@dataclass(frozen=True, kw_only=True)
class BuyAndHoldSettings:
    """Settings of `buy_and_hold`."""

    include_cash: bool = False  # whether cash counts as one of the equal parts


@dataclass(frozen=True, kw_only=True)
class EqualWeightSettings(BuyAndHoldSettings):
    """Settings of `equal_weight`."""

    rebalance_every: Every = 1  # periods, or the first day of a "week", "month", "quarter", "year"

    def __post_init__(self) -> None:
        check_every(self.rebalance_every)


class EqualWeight(Agent):
    """1/N over the risky assets that can be held, restored when a rebalance is due.

    Source: DeMiguel, Garlappi & Uppal, Optimal versus naive diversification (2009).
    """

    Settings: ClassVar[type] = EqualWeightSettings
    space: ClassVar[Space] = {"rebalance_every": [1, 5, 21, 63]}
    settings: EqualWeightSettings

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """Equal weights when due, else what is held."""
        if not is_due(history, weights, self.settings.rebalance_every):
            return weights
        return equal(investable(history, include_cash=self.settings.include_cash), history)


class BuyAndHold(Agent):
    """Equal weights at the first decision, then never a trade.

    In a market without cash an episode starts at equal weights, which are then simply held.
    """

    Settings: ClassVar[type] = BuyAndHoldSettings
    settings: BuyAndHoldSettings

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """Equal weights over holdings of nothing, else what is held."""
        if not is_due(history, weights, "never"):
            return weights
        return equal(investable(history, include_cash=self.settings.include_cash), history)


class Cash(Agent):
    """All in cash; without a cash asset, equal weights."""

    settings: Any

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The weights of an episode's start."""
        return start_weights(history)


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Settings of `index`."""

    asset: str | None = None  # None: the first of the market


class Index(Agent):
    """All in one asset, by default the market's first: a stock index where there is one."""

    Settings: ClassVar[type] = IndexSettings
    settings: IndexSettings

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """One asset; what is held, while it cannot be bought."""
        place = position(self.settings.asset or history.assets[0], history, "index: asset")
        return np.eye(history.n_assets)[place] if history.tradable[-1, place] else weights


@dataclass(frozen=True, kw_only=True)
class SixtyFortySettings:
    """Settings of `sixty_forty`."""

    stocks: str = "sp500"
    bonds: str = "treasury_10y"
    stock_weight: float = 0.6
    rebalance_every: Every = "month"

    def __post_init__(self) -> None:
        require(self, stock_weight="[0, 1]")
        check_every(self.rebalance_every)


class SixtyForty(Agent):
    """60 % stocks and 40 % bonds, restored when a rebalance is due."""

    Settings: ClassVar[type] = SixtyFortySettings
    space: ClassVar[Space] = {"stock_weight": "0.2..0.9"}
    settings: SixtyFortySettings

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The mix when due, else what is held."""
        settings = self.settings
        target = np.zeros(history.n_assets)
        target[position(settings.stocks, history, "sixty_forty: stocks")] += settings.stock_weight
        target[position(settings.bonds, history, "sixty_forty: bonds")] += (
            1.0 - settings.stock_weight
        )
        if not is_due(history, weights, settings.rebalance_every):
            return weights
        return with_cash(np.where(history.tradable[-1], target, 0.0), history)


def position(asset: str, market: Market, setting: str) -> int:
    """Column of an asset that a setting names."""
    if asset not in market.assets:
        raise SettingError(
            f"{setting} must be an asset of {market.name}, one of {market.assets}, got {asset!r}"
        )
    return market.assets.index(asset)
