"""Seconds of whole back-tests of classical baselines: every decision, the costs, the books.

Time is the processor's, of one thread; beside each stands what is asked for.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import pandas as pd

from agents import AGENTS
from agents.base import Agent, Task
from agents.rollout import roll
from market import Market

HEAD = f"{'back-test':<48} {'seconds':>8} {'asked':>8}"
ONLINE = (
    "uniform_mix",
    "exponentiated_gradient",
    "passive_aggressive",
    "moving_average_reversion",
    "newton_step",
    "universal",
)


class Timed(NamedTuple):
    """What a back-test took."""

    name: str
    seconds: float
    most: float

    @property
    def met(self) -> bool:
        """Whether that is below what is asked."""
        return self.seconds < self.most

    def __str__(self) -> str:
        verdict = "met" if self.met else "missed"
        return f"{self.name:<48} {self.seconds:8.2f} {self.most:8.0f} {verdict:>7}"


def printed(only: str = "") -> list[Timed]:
    """All back-tests whose name contains the words, each printed when it is known."""
    print(HEAD)
    ten_years, long = walk_of(2_520 + 253, 20), walk_of(6_000, 36)
    cases: list[tuple[str, Agent, Market, float]] = [
        (f"mean_variance {solver}, 20 assets, 2,520 days", optimiser(solver), ten_years, most)
        for solver, most in (("direct", 5.0), ("skfolio", 40.0))
    ]
    cases += [(f"{name}, 36 assets, 6,000 days", AGENTS[name](), long, 2.0) for name in ONLINE]
    found = []
    for name, agent, market, most in cases:
        if only in name:
            found.append(timed(name, agent, market, most))
            print(found[-1], flush=True)
    return found


def optimiser(solver: str) -> Agent:
    """Rolling mean-variance that decides every day and pays no heed to costs."""
    made: Agent = AGENTS["mean_variance"](solver=solver, rebalance_every=1, costs=False)
    return made


def timed(name: str, agent: Agent, market: Market, most: float) -> Timed:
    """The whole back-test, once, after a few decisions to warm up."""
    task = Task()
    agent.fit(market, task=task)
    roll(agent, market, task, end=market.dates[agent.lookback + 5])
    start = time.process_time()
    path = roll(agent, market, task)
    seconds = time.process_time() - start
    if path.failures:
        raise RuntimeError(f"{name}: {len(path.failures)} decisions failed: {path.failures[0]}")
    return Timed(name, seconds, most)


def walk_of(n_periods: int, n_assets: int) -> Market:
    """Correlated random walks, and cash."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((n_assets, n_assets)) / n_assets + np.eye(n_assets)
    moves = 4e-4 + 0.01 * rng.standard_normal((n_periods, n_assets)) @ mix
    days = pd.bdate_range("2000-01-03", periods=n_periods)
    names = [f"A{i}" for i in range(n_assets)]
    prices = pd.DataFrame(100.0 * np.cumprod(1.0 + moves, axis=0), days, names)
    return Market.from_prices(prices, cash_rate=0.02)
