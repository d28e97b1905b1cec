"""Runs sekai's Portfolio-v0 in its own interpreter: a request a line, the seconds it took a line.

python sekai_worker.py prices.npy        {"num_envs": 16, "steps": 200}  ->  0.0123
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import sekai

LOOKBACK, RATE = 60, 0.001


def single(prices, steps):
    """Seconds for the steps of one environment."""
    env = sekai.make(
        "Portfolio-v0",
        prices=prices,
        lookback=LOOKBACK,
        transaction_cost=RATE,
        episode_length=steps + 1,
        sampler=0,
    )
    actions = actions_for(steps, prices.shape[1] + 1)
    env.reset(seed=0)
    start = time.process_time()
    for action in actions:
        env.step(action)
    return time.process_time() - start


def batch(prices, num_envs, steps):
    """Seconds for the steps of a batch."""
    games = sekai.make_vec(
        "Portfolio-v0",
        num_envs=num_envs,
        prices=prices,
        lookback=LOOKBACK,
        transaction_cost=RATE,
        episode_length=252,
    )
    actions = actions_for(steps, num_envs, prices.shape[1] + 1)
    games.reset(seed=0)
    start = time.process_time()
    for action in actions:
        games.step(action)
    return time.process_time() - start


def actions_for(*shape):
    """Scores in [0, 1], which sekai normalises."""
    return np.random.default_rng(1).uniform(size=shape).astype(np.float32)


def serve(prices):
    """Answer requests until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        n, steps = request["num_envs"], request["steps"]
        print(single(prices, steps) if n == 1 else batch(prices, n, steps), flush=True)


if __name__ == "__main__":
    serve(np.load(Path(sys.argv[1])))
