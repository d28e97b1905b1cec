"""The market, the environments and the actions that are timed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.timing import Task, timed
from envs import PortfolioEnv, PortfolioVectorEnv
from envs.constraints import GroupCap, MaxWeight, TurnoverCap, VolatilityTarget
from envs.costs import ProportionalCost
from market import Market

N_ASSETS, N_PERIODS, LOOKBACK, RATE = 20, 2520, 60, 0.001


def make_market(n_assets: int = N_ASSETS, n_features: int = 1) -> Market:
    """A random walk of n_assets - 1 assets in 5 sectors, and cash; 10 years of days."""
    rng = np.random.default_rng(0)
    names = [f"A{i}" for i in range(n_assets - 1)]
    path = np.cumsum(rng.normal(0.0003, 0.01, (N_PERIODS, len(names))), axis=0)
    days = pd.bdate_range("2010-01-01", periods=N_PERIODS)
    sectors = {name: f"sector {i % 5}" for i, name in enumerate(names)}
    frame = pd.DataFrame(100.0 * np.exp(path), days, names)
    market = Market.from_prices(frame, cash_rate=0.02, sectors=sectors)
    features = rng.normal(size=(N_PERIODS, n_assets, n_features)).astype(np.float32)
    labels = tuple(f"f{i}" for i in range(n_features))
    return dataclasses.replace(market, features=features, feature_names=labels)


def all_constraints() -> tuple[Any, ...]:
    """A cap on each asset and on each of 5 sectors, on turnover and on volatility."""
    caps = tuple(GroupCap(f"sector {i}", 0.3) for i in range(5))
    return (MaxWeight(0.15), *caps, TurnoverCap(0.2), VolatilityTarget(0.08))


def scores(n_steps: int, *shape: int) -> np.ndarray:
    """Standard normal scores, float32, (n_steps, *shape)."""
    return np.random.default_rng(1).normal(size=(n_steps, *shape)).astype(np.float32)


def single(market: Market, n_steps: int = 1000, **settings: Any) -> Task:
    """Steps of one environment; its reset is not timed."""
    given: dict[str, Any] = {"lookback": LOOKBACK, "actions": "softmax"} | settings
    env = PortfolioEnv(market, cost=ProportionalCost(RATE), **given)
    actions = scores(n_steps, market.n_assets)

    def run() -> None:
        for action in actions:
            env.step(action)

    return timed(run, n_steps, lambda: env.reset(seed=0))


def batch(market: Market, num_envs: int, n_steps: int = 40, **settings: Any) -> Task:
    """Steps of a batch that starts on random days; its reset is not timed."""
    given: dict[str, Any] = {"lookback": LOOKBACK, "actions": "softmax", "episode_length": 252}
    given |= {"cost": ProportionalCost(RATE), "random_start": True} | settings
    games = PortfolioVectorEnv(market, num_envs, **given)
    actions = scores(n_steps, num_envs, market.n_assets)

    def run() -> None:
        for action in actions:
            games.step(action)

    return timed(run, num_envs * n_steps, lambda: games.reset(seed=0))
