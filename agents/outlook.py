"""What is expected at a decision: forecasts, how wrong they tend to be, and what trading costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from envs.costs import Cost
from market import Market


class Rates(NamedTuple):
    """What trading costs, as a fraction of what is traded, by asset."""

    buy: np.ndarray  # (N,)
    sell: np.ndarray  # (N,)


@dataclass(frozen=True)
class Outlook:
    """Forecasts for the periods after a decision, all of one period, cash last where there is cash.

    Attributes:
        mean: Expected simple returns, (N,).
        error: Standard deviation of what returns turned out to be about earlier forecasts, (N,);
            None where nobody measured it.
        volatility: Forecast standard deviation of returns, (N,); None where none was made.
        usual: Standard deviation of returns in training, (N,), which `volatility` is held against.
        horizon: Periods the forecasts are means over.
        rates: What trading costs; None: nothing.

    """

    mean: np.ndarray
    error: np.ndarray | None = None
    volatility: np.ndarray | None = None
    usual: np.ndarray | None = None
    horizon: int = 1
    rates: Rates | None = None

    @property
    def score(self) -> np.ndarray:
        """What rules that look at one number rank and weigh by, (N,): expected returns.

        Where volatility was forecast, returns times (usual / forecast volatility)^2: what a holding
        earns for its risk, in units of return.

        Source: Moreira & Muir, Volatility-managed portfolios (2017).
        """
        if self.volatility is None or self.usual is None:
            return self.mean
        moves = self.volatility > 0.0
        ratio = np.divide(self.usual, self.volatility, out=np.ones(len(self.mean)), where=moves)
        return self.mean * ratio**2


def trading_rates(cost: Cost | None, market: Market, size: float = 0.05) -> Rates | None:
    """Rates of any cost for trades of `size` of the portfolio, as it stands on the last row.

    For proportional costs and spreads these are the costs themselves; impact and fees are averaged
    over one such trade.
    """
    if cost is None:
        return None
    bound = cost.bind(market)
    trades = size * np.eye(market.n_assets)
    rows = bound.liquidity(market.n_periods - 1)
    worth = np.ones(market.n_assets)
    buy, _ = bound.evaluate(trades, trades, worth, rows)
    sell, _ = bound.evaluate(-trades, -trades, worth, rows)
    return Rates(np.asarray(buy) / size, np.asarray(sell) / size)
