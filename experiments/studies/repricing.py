"""The same decisions at other costs, exactly, without playing them again.

What is held before a trade has drifted with returns alone, so it does not depend on what trading
cost; only the part of the value that each trade leaves, mu, does. Paths of stored runs can
therefore be charged any proportional rate, as long as the agent does not look at its value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from envs.bound_costs import ProportionalRates
from experiments.robustness import before_costs


def charged(path: pd.DataFrame, rate: float) -> np.ndarray:
    """Returns of a back-test, had every trade cost `rate` of what is traded.

    r' = (1 + r) / (1 - c) * mu - 1, with mu the fraction left after the same trades at the new
    rate (DESIGN of costs: mu = 1 - C(mu * target - held)).

    Args:
        path: As in a run's `backtest`, (T rows), of a market whose last asset is cash, begun in
            cash.
        rate: Of buying and of selling, in [0, 1).

    Returns:
        Simple returns after the new costs, (T,).

    """
    targets = path.filter(regex="^target:").to_numpy(float)
    drifted = path.filter(regex="^held:").to_numpy(float)
    start = np.eye(targets.shape[1])[-1:]
    held = np.concatenate([start, drifted[:-1]])
    rates = np.append(np.full(targets.shape[1] - 1, rate), 0.0)
    costs = ProportionalRates(rates, rates, n_risky=targets.shape[1] - 1)
    left, _ = costs.solve(held, targets, 1.0, None)
    free = before_costs(path["portfolio_return"].to_numpy(float), path["cost"].to_numpy(float))
    return np.asarray((1.0 + free) * left - 1.0)


def break_even(lead: Callable[[float], float], rates: Sequence[float]) -> float:
    """The rate at which a lead over the reference ends.

    Args:
        lead: The lead at a rate; NaN counts as none.
        rates: Rising; where the lead is first gone, the place between two of them is bisected.

    Returns:
        0 where there is no lead even when trading is free, infinity where it outlasts all rates.

    """
    before = rates[0]
    if not lead(before) > 0.0:
        return 0.0
    for rate in rates[1:]:
        if not lead(rate) > 0.0:
            return _bisected(lead, before, rate)
        before = rate
    return np.inf


def _bisected(lead: Callable[[float], float], low: float, high: float) -> float:
    """Where the lead ends between two rates, to a hundredth of a basis point."""
    while high - low > 1e-6:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if lead(middle) > 0.0 else (low, middle)
    return 0.5 * (low + high)
