"""White-noise probe: on returns that nothing can foresee, does an observation foresee the next one?

A fill at a price that the observation already shows, or a feature that peeks, is seen by no test
that changes the future, where the environment itself hands the past out as the future. On white
noise it shows: a regression of what the portfolio earns next on what is observed explains nothing
out of sample, and an oracle that trades on it earns nothing, unless there is a leak.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from envs.portfolio_env import PortfolioEnv
from market import Market

GREATEST_R2 = 0.02
GREATEST_SHARPE = 4.0
PENALTY = 100.0  # on squared slopes of standardised observations


class Probe(NamedTuple):
    """What was foreseen of white noise, out of sample.

    Attributes:
        r2: Share of the variance of the next returns that is explained; about 0 or below.
        sharpe: Annual Sharpe ratio of an oracle that holds the asset foreseen to do best.

    """

    r2: float
    sharpe: float

    @property
    def passed(self) -> bool:
        """Whether neither is more than chance gives."""
        return self.r2 <= GREATEST_R2 and self.sharpe < GREATEST_SHARPE


def noise_market(periods: int = 1500, risky: int = 3, seed: int = 0) -> Market:
    """Independent normal returns of 1 % a day without drift, and cash at nothing."""
    rng = np.random.default_rng(seed)
    returns = 0.01 * rng.standard_normal((periods, risky))
    dates = pd.bdate_range("2000-01-03", periods=periods)
    names = [f"noise_{i}" for i in range(risky)]
    return Market.from_prices(pd.DataFrame(100 * np.cumprod(1 + returns, 0), dates, names), 0.0)


def white_noise_probe(make: Callable[[Market], Any] = PortfolioEnv, *, seed: int = 0) -> Probe:
    """Play an environment on white noise and try to foresee what it pays.

    Args:
        make: A market -> an environment with weights on the simplex as actions, whose observation
            is a dict of arrays and whose step tells "portfolio_return".
        seed: Of the noise.

    Returns:
        Figures of the second half, from a regression fitted on the first.

    """
    market = noise_market(seed=seed)
    seen, earned = _played(make, market)
    half = len(seen) // 2
    mean, spread = seen[:half].mean(0), seen[:half].std(0)
    inputs = (seen - mean) / np.where(spread > 0.0, spread, 1.0)
    gram = inputs[:half].T @ inputs[:half] + PENALTY * np.eye(inputs.shape[1])
    slopes = np.linalg.solve(gram, inputs[:half].T @ earned[:half])
    foreseen, came = inputs[half:] @ slopes, earned[half:]
    r2 = 1.0 - ((came - foreseen) ** 2).sum() / (came**2).sum()
    held = came[np.arange(len(came)), foreseen.argmax(1)]
    return Probe(float(r2), float(held.mean() / held.std() * np.sqrt(market.periods_per_year)))


def _played(make: Callable[[Market], Any], market: Market) -> tuple[np.ndarray, np.ndarray]:
    """What was observed before each decision, (T', D), and what each asset paid then, (T', N)."""
    n_risky = market.n_assets - 1
    observed, paid = [], []
    for asset in range(n_risky):
        env = make(market)
        observation, _ = env.reset(seed=0)
        over, rows, returns = False, [], []
        while not over:
            rows.append(np.concatenate([np.ravel(part) for part in observation.values()]))
            observation, _, terminated, truncated, info = env.step(np.eye(n_risky + 1)[asset])
            returns.append(info["portfolio_return"])
            over = terminated or truncated
        observed.append(rows)
        paid.append(returns)
    return np.asarray(observed[0], np.float64), np.asarray(paid).T
