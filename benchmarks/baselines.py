"""Seconds of classical baselines: whole back-tests of mean-variance, all decisions of online rules.

Time is the processor's, of one thread; beside each stands what is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from agents import AGENTS
from agents.base import Agent, Task
from agents.rollout import roll
from market import Market

HEAD = f"{'baseline':<48} {'seconds':>8} {'asked':>8}"
ONLINE = (
    "uniform_mix",
    "exponentiated_gradient",
    "passive_aggressive",
    "moving_average_reversion",
    "newton_step",
    "universal",
)


class Timed(NamedTuple):
    """What a baseline took."""

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
    """All baselines whose name contains the words, each printed when it is known."""
    print(HEAD)
    ten_years, long = walk_of(2_520 + 253, 20), walk_of(6_000, 36)
    cases: list[tuple[str, Callable[[], float], float]] = [
        (
            f"mean_variance {solver}, 20 assets, 2,520 days",
            partial(backtest_seconds, optimiser(solver), ten_years),
            most,
        )
        for solver, most in (("direct", 5.0), ("skfolio", 40.0))
    ]
    cases += [
        (f"{name}, 36 assets, 6,000 days", partial(decision_seconds, AGENTS[name](), long), 2.0)
        for name in ONLINE
    ]
    found = []
    for name, run, most in cases:
        if only in name:
            found.append(Timed(name, run(), most))
            print(found[-1], flush=True)
    return found


def optimiser(solver: str) -> Agent:
    """Rolling mean-variance that decides every day and pays no heed to costs."""
    made: Agent = AGENTS["mean_variance"](solver=solver, rebalance_every=1, costs=False)
    return made


def backtest_seconds(agent: Agent, market: Market) -> float:
    """A whole back-test with its costs, once, after a few decisions to warm up."""
    task = Task()
    agent.fit(market, task=task)
    roll(agent, market, task, end=market.dates[agent.lookback + 5])
    start = time.process_time()
    path = roll(agent, market, task)
    seconds = time.process_time() - start
    if path.failures:
        raise RuntimeError(f"{len(path.failures)} decisions failed: {path.failures[0]}")
    return seconds


def decision_seconds(agent: Agent, market: Market) -> float:
    """A decision on every day."""
    held = np.full(market.n_assets, 1.0 / market.n_assets)
    start = time.process_time()
    for row in range(market.n_periods):
        agent.act(market.upto(row), held)
    return time.process_time() - start


def walk_of(n_periods: int, n_assets: int) -> Market:
    """Correlated random walks, and cash."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((n_assets, n_assets)) / n_assets + np.eye(n_assets)
    moves = 4e-4 + 0.01 * rng.standard_normal((n_periods, n_assets)) @ mix
    days = pd.bdate_range("2000-01-03", periods=n_periods)
    names = [f"A{i}" for i in range(n_assets)]
    prices = pd.DataFrame(100.0 * np.cumprod(1.0 + moves, axis=0), days, names)
    return Market.from_prices(prices, cash_rate=0.02)
