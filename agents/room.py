"""`Room`: where the weights of one decision may lie, and what it costs to get there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from agents.outlook import Rates
from agents.quadratic import Limits, Trading, best_utility

SLACK = 1e-9  # left to the solver where a sum must be the largest or least there is


class Room(NamedTuple):
    """Where the weights x (k,) of one decision may lie, x >= 0."""

    held: np.ndarray  # (k,)
    full: bool = True  # whether sum x is the budget, or at most that
    budget: float = 1.0
    limits: Limits | None = None  # G and h of G x <= h
    reach: float = np.inf  # largest sum |x - held|
    rates: Rates | None = None  # of trades, (k,) each

    @property
    def limited(self) -> bool:
        """Whether there is anything but the budget."""
        return self.limits is not None or bool(np.isfinite(self.reach))

    def trading(self, periods: float = 1.0) -> Trading | None:
        """Holdings and rates spread over so many periods; None where neither matters."""
        if self.rates is None and not np.isfinite(self.reach):
            return None
        rates = self.rates or Rates(*np.zeros((2, len(self.held))))
        return Trading(self.held, rates.buy / periods, rates.sell / periods)

    def cheapest(self, prices: np.ndarray) -> np.ndarray:
        """The x of the least prices.x + cost of trading, a linear programme."""
        return best_utility(
            -prices,
            np.zeros((len(prices), len(prices))),
            1.0,
            full=self.full,
            trading=self.trading(),
            limits=self.limits,
            budget=self.budget,
            reach=self.reach,
        )

    def holds(self, weights: np.ndarray) -> bool:
        """Whether weights (k,) are within all but the reach, to rounding."""
        over = float(weights.sum()) - self.budget
        within = self.limits is None or bool((self.limits[0] @ weights <= self.limits[1]).all())
        return within and (abs(over) if self.full else over) <= 1e-12

    def filled(self) -> Room:
        """The same, with as much invested as the limits allow."""
        if self.full:
            return self
        ones = np.ones(len(self.held))
        most = self._replace(rates=None).cheapest(-ones).sum()
        return self._replace(full=True, budget=float(most) - SLACK)

    def with_rows(self, matrix: np.ndarray, level: np.ndarray) -> Room:
        """With further conditions."""
        if self.limits is not None:
            matrix = np.concatenate([self.limits[0], matrix])
            level = np.concatenate([self.limits[1], level])
        return self._replace(limits=(matrix, level))

    def reachable(self) -> Room:
        """With the reach raised to the least that the other limits need."""
        if not np.isfinite(self.reach) or self.holds(self.held):
            return self
        ones = np.ones(len(self.held))
        free = self._replace(reach=np.inf, rates=Rates(ones, ones))
        needed = float(np.abs(free.cheapest(0.0 * ones) - self.held).sum())
        return self._replace(reach=max(self.reach, needed + SLACK))
