"""Baselines that follow trends or volatility, each the long-only form of a known strategy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from agents.base import Agent
from agents.schedule import Every, check_every, equal, investable, is_due, with_cash
from agents.settings import Space, require
from market import Market


@dataclass(frozen=True, kw_only=True)
class TimeSeriesMomentumSettings:
    """Settings of `time_series_momentum`."""

    window: int = 252  # returns the trend is measured over
    rebalance_every: Every = "month"

    def __post_init__(self) -> None:
        require(self, window="[1, inf)")
        check_every(self.rebalance_every)


class TimeSeriesMomentum(Agent):
    """1/N in each asset that beat cash over the window; the others' shares are in cash.

    Source: Moskowitz, Ooi & Pedersen, Time series momentum (2012), long-only and unlevered.
    """

    Settings: ClassVar[type] = TimeSeriesMomentumSettings
    space: ClassVar[Space] = {
        "window": "21..504",
        "rebalance_every": ["week", "month", "quarter"],
    }
    settings: TimeSeriesMomentumSettings

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.lookback = self.settings.window + 1

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """Equal shares in what rises, when due."""
        window = self.settings.window
        if not is_due(history, weights, self.settings.rebalance_every, self.lookback):
            return weights
        chosen = investable(history, window)
        growth = np.prod(1.0 + history.returns[-window:], axis=0)
        rising = chosen & (growth > np.prod(1.0 + history.risk_free[-window:]))
        return with_cash(rising / max(chosen.sum(), 1), history)


@dataclass(frozen=True, kw_only=True)
class CrossSectionalMomentumSettings(TimeSeriesMomentumSettings):
    """Settings of `cross_sectional_momentum`."""

    skip: int = 21  # latest returns left out, over which winners tend to fall back
    top: float = 0.3  # fraction of the assets that is held, at least one

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, skip="[0, inf)", top="(0, 1]")


class CrossSectionalMomentum(Agent):
    """The assets that rose most over the window, in equal parts.

    Source: Jegadeesh & Titman, Returns to buying winners and selling losers (1993), the winners.
    """

    Settings: ClassVar[type] = CrossSectionalMomentumSettings
    space: ClassVar[Space] = {
        **TimeSeriesMomentum.space,
        "skip": "0..42",
        "top": "0.2..0.6",
    }
    settings: CrossSectionalMomentumSettings

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.lookback = self.settings.window + self.settings.skip + 1

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """Equal weights over the winners, when due; of equals the first listed wins."""
        if not is_due(history, weights, self.settings.rebalance_every, self.lookback):
            return weights
        length, skip = self.settings.window, self.settings.skip
        chosen = investable(history, length + skip)
        stop = history.n_periods - skip
        growth = np.prod(1.0 + history.returns[stop - length : stop], axis=0)
        count = math.ceil(self.settings.top * chosen.sum() - 1e-9)
        order = np.argsort(np.where(chosen, -growth, np.inf), kind="stable")
        winners = np.zeros(history.n_assets, bool)
        winners[order[:count]] = True
        return equal(winners, history)


@dataclass(frozen=True, kw_only=True)
class VolatilityManagedSettings:
    """Settings of `volatility_managed`."""

    window: int = 21  # returns of the variance now
    long_window: int = 252  # returns of the usual variance
    rebalance_every: Every = "month"

    def __post_init__(self) -> None:
        require(self, window="[2, inf)", long_window="[2, inf)")
        check_every(self.rebalance_every)


class VolatilityManaged(Agent):
    """Equal weights, of which min(1, usual variance / variance now) is invested, the rest in cash.

    The variances are of the equally weighted portfolio of the risky assets.

    Source: Moreira & Muir, Volatility-managed portfolios (2017), unlevered, with the variance of
    the last `long_window` days in place of their full-sample constant.
    """

    Settings: ClassVar[type] = VolatilityManagedSettings
    space: ClassVar[Space] = {"window": "5..63", "long_window": "126..504"}
    settings: VolatilityManagedSettings

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.lookback = max(self.settings.window, self.settings.long_window) + 1

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The managed exposure, when due."""
        if not is_due(history, weights, self.settings.rebalance_every, self.lookback):
            return weights
        chosen = investable(history, self.lookback - 1)
        if not chosen.any():
            return equal(chosen, history)
        path = history.returns[:, chosen].mean(axis=1)
        now = path[-self.settings.window :].var(ddof=1)
        usual = path[-self.settings.long_window :].var(ddof=1)
        exposure = 1.0 if now <= usual else usual / now
        return with_cash(exposure * chosen / chosen.sum(), history)
