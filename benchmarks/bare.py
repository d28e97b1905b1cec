"""The same arithmetic in plain numpy, with nothing around it: what an environment is held against.

No checks, no spaces, no info, no constraints, no episodes: softmax, exact proportional costs,
turnover, return, drift, log reward, and the observation's copy.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.games import LOOKBACK, RATE, scores
from benchmarks.timing import Task, timed
from market import Market


def single(market: Market, n_steps: int = 1000) -> Task:
    """One portfolio with a copy of its window."""
    features, relatives = np.array(market.features), 1.0 + market.returns
    actions = scores(n_steps, market.n_assets)
    buy, sell = _rates(market)
    n_risky = market.n_assets - market.has_cash

    def run() -> None:
        weights, value = np.eye(market.n_assets)[-1], 1.0
        for k, action in enumerate(actions):
            t = LOOKBACK - 1 + k
            score = action.astype(np.float64)
            powers = np.exp(score - score.max())
            target = powers / powers.sum()
            mu = _mu(weights, target, buy, sell)
            turnover = 0.5 * np.abs(mu * target - weights)[:n_risky].sum()
            holdings = target * relatives[t + 1]
            gross = holdings.sum()
            weights, growth = holdings / gross, mu * gross
            value, reward = value * growth, np.log(growth)
            window = features[t - LOOKBACK + 2 : t + 2].copy()
            _ = window, weights.astype(np.float32), reward, turnover

    return timed(run, n_steps, lambda: None)


def compact(market: Market, num_envs: int, n_steps: int = 40) -> Task:
    """A batch that names its windows."""
    relatives = 1.0 + market.returns
    actions = scores(n_steps, num_envs, market.n_assets)
    buy, sell = _rates(market)
    n_risky = market.n_assets - market.has_cash
    starts = _starts(num_envs)

    def run() -> None:
        weights = np.tile(np.eye(market.n_assets)[-1], (num_envs, 1))
        value, t = np.ones(num_envs), starts
        for action in actions:
            score = action.astype(np.float64)
            powers = np.exp(score - score.max(1, keepdims=True))
            target = powers / powers.sum(1, keepdims=True)
            mu = _mu(weights, target, buy, sell)
            turnover = 0.5 * np.abs(mu[:, None] * target - weights)[:, :n_risky].sum(1)
            holdings = target * relatives[t + 1]
            gross = holdings.sum(1)
            weights, growth = holdings / gross[:, None], mu * gross
            value, reward, t = value * growth, np.log(growth), t + 1
            _ = weights.astype(np.float32), reward, turnover

    return timed(run, num_envs * n_steps, lambda: None)


def window_copies(market: Market, num_envs: int, n_steps: int = 40) -> Task:
    """Nothing but the copies of a batch's windows, by a strided view indexed by date."""
    view = np.moveaxis(sliding_window_view(market.features, LOOKBACK, axis=0), -1, 1)
    starts = _starts(num_envs) - LOOKBACK

    def run() -> None:
        for k in range(n_steps):
            _ = view[starts + k]

    return timed(run, num_envs * n_steps, lambda: None)


def _mu(weights: np.ndarray, target: np.ndarray, buy: np.ndarray, sell: np.ndarray) -> np.ndarray:
    """The fraction left after costs, exactly: sides are taken anew until they agree."""
    buys = target > weights
    while True:
        slope = np.where(buys, buy, sell)
        mu = (1.0 + (slope * weights).sum(-1)) / (1.0 + (slope * target).sum(-1))
        before, buys = buys, mu[..., None] * target > weights
        if (before == buys).all():
            return mu


def _rates(market: Market) -> tuple[np.ndarray, np.ndarray]:
    rates = np.where(np.arange(market.n_assets) < market.n_assets - market.has_cash, RATE, 0.0)
    return rates, -rates


def _starts(num_envs: int) -> np.ndarray:
    return np.random.default_rng(2).integers(LOOKBACK, 2000, num_envs)
