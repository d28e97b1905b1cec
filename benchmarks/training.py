"""How fast agents learn, and in how much memory: `python -m benchmarks.training`.

Time is the processor's, of one thread of torch. The market is that of the environments' benchmark:
20 assets, 60 days, 8 features, 10 years.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from agents import AGENTS
from agents.ascent import Ascent
from agents.base import Monitor, Task
from agents.encoder_base import windows_at
from agents.panel_network import Shape
from agents.replay import CompactReplayBuffer
from agents.sb3_env import observation_space
from agents.selection import Selection
from agents.simulated_paths import SimulatedMarket
from benchmarks import games, usual
from benchmarks.timing import best_rates
from envs.actions import Softmax
from market import Market, load_market

MILLION = 1_000_000
FAST = {"num_envs": 1024, "n_steps": 32, "batch_size": 16_384, "n_epochs": 10}
BATCH = 256  # transitions of a replay sample
LARGE = (500, 40)  # assets and features of the memory's measure


class Figure(NamedTuple):
    """Something measured, and the least that is asked of it, or with `at_most` the most, if any."""

    name: str
    value: float
    unit: str
    asked: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it is as asked."""
        if self.asked is None:
            return True
        return self.value <= self.asked if self.at_most else self.value >= self.asked

    def __str__(self) -> str:
        """One line of a table."""
        told = f"{self.name:<46}  {_short(self.value):>9} {self.unit:<8}"
        if self.asked is None:
            return told
        sign, verdict = "at most" if self.at_most else "at least", "met" if self.met else "missed"
        return f"{told}  {sign:<8} {_short(self.asked):>7}  {verdict}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.3g}"


def figures(only: str = "") -> Iterator[Figure]:
    """All that is measured, group by group; `only`: groups whose name contains it."""
    torch.set_num_threads(1)
    groups = {"ppo": ppo, "replay": replay, "policy_gradient": policy_gradient, "memory": memory}
    for name, group in groups.items():
        if only in name:
            yield from group()


def printed(only: str = "") -> list[Figure]:
    """All of them, each printed when it is known."""
    known = []
    for figure in figures(only):
        known.append(figure)
        print(figure, flush=True)
    return known


def ppo() -> Iterator[Figure]:
    """Collecting and updating, 10 epochs, against the same network on whole windows."""
    market = games.make_market(n_features=8)
    agent = AGENTS["ppo"](**FAST, lookback=games.LOOKBACK)
    ours = agent_steps("ppo", market, **FAST, lookback=games.LOOKBACK)
    slow = usual.ppo(market, agent.settings.network())
    theirs = learning(slow, usual.NUM_ENVS * usual.N_STEPS)
    rates = {"ours": best_rates({"x": ours}, 3)["x"], "usual": best_rates({"x": theirs}, 1)["x"]}
    yield Figure("ppo, 20 assets, 60 days, 8 features, width 16", rates["ours"], "steps/s", 15_000)
    wide = agent_steps("ppo", market, **FAST, lookback=games.LOOKBACK, width=32)
    yield Figure("ppo, the same with width 32", best_rates({"x": wide}, 2)["x"], "steps/s")
    yield Figure("ppo, the usual way", rates["usual"], "steps/s")
    yield Figure("ppo, times the usual way", rates["ours"] / rates["usual"], "", 100)


def agent_steps(name: str, market: Market, **settings: Any) -> Callable[[], tuple[int, float]]:
    """A task: one rollout of an agent's algorithm and the updates from it."""
    agent = AGENTS[name](**settings)
    agent._shape = Shape.of(market)
    model = agent.model(market, Task(), 0)
    return learning(model, model.n_steps * model.n_envs)


def learning(model: Any, steps: int) -> Callable[[], tuple[int, float]]:
    """A task: the next rollout of an algorithm and the updates from it."""

    def task() -> tuple[int, float]:
        start = time.process_time()
        model.learn(steps, reset_num_timesteps=False)
        return steps, time.process_time() - start

    return task


def replay() -> Iterator[Figure]:
    """Bytes of a million transitions, and a sample with its windows against copies of windows.

    A transition has two windows that share all but a day, so 61 days are gathered where whole
    windows would be copied twice.
    """
    market, n = games.make_market(n_features=8), games.N_ASSETS
    space, rng = observation_space(n), np.random.default_rng(0)
    buffer = CompactReplayBuffer(MILLION, space, Softmax(bound=4.0).space(n), n_envs=16)
    parts = [*buffer.observations.values(), *buffer.next_observations.values()]
    parts += [buffer.actions, buffer.rewards, buffer.dones, buffer.timeouts]
    size = sum(part.nbytes for part in parts)
    yield Figure("replay of 1,000,000 transitions", size / 1e6, "MB", 300, at_most=True)
    last = games.N_PERIODS - 1
    rows = rng.integers(games.LOOKBACK - 1, last, buffer.observations["time"].shape)
    buffer.observations["time"][:], buffer.next_observations["time"][:] = rows, rows + 1
    buffer.full = True
    panel, both = torch.from_numpy(np.array(market.features)), games.LOOKBACK + 1
    view = np.lib.stride_tricks.sliding_window_view(market.features, games.LOOKBACK, 0)
    windows = np.moveaxis(view, -1, 1)  # (T - L + 1, L, N, F)

    def sampled() -> tuple[int, float]:
        start = time.process_time()
        batch = buffer.sample(BATCH)
        windows_at(panel, batch.next_observations["time"].flatten(), both)  # both in one
        return BATCH, time.process_time() - start

    def copied() -> tuple[int, float]:
        chosen = rng.integers(0, len(windows) - 1, BATCH)
        start = time.process_time()
        for places in (chosen, chosen + 1):
            _ = windows[places]
        return BATCH, time.process_time() - start

    rates = best_rates({"ours": sampled, "copies": copied}, 30)
    name = "replay, sample and windows, times numpy copies"
    yield Figure(name, rates["ours"] / rates["copies"], "", 1)


def policy_gradient() -> Iterator[Figure]:
    """A pass over ten years, and the time to the optimum of regimes."""
    market, task = games.make_market(n_features=8), Task()
    agent = AGENTS["policy_gradient"]()
    settings = agent.settings
    world = SimulatedMarket(market, task, settings.lookback)
    agent._about = {"n_features": 8, "n_context": 0, "has_band": True, "n_known": market.n_assets}
    agent.policy = agent._new_policy()
    selection = Selection("benchmark", lambda: agent.policy, settings, None, Monitor())
    ascent = Ascent(agent.policy, world, settings, 0, selection)

    def once() -> tuple[int, float]:
        starts = ascent._starts()
        held = ascent._start_weights(starts)
        start = time.process_time()
        played = world.play(agent.policy, starts, ascent.length, held)
        ascent._objective(played)[1].backward()
        return 1, time.process_time() - start

    rate = best_rates({"x": once}, 15)["x"]
    name = "policy_gradient, 10 years forward and back"
    yield Figure(name, 1000.0 / rate, "ms", 60, at_most=True)
    yield Figure("policy_gradient, to 98 % of regimes", regimes(), "s", 20, at_most=True)


def regimes() -> float:
    """Seconds of a training that ends above 98 % of the optimum; infinite where it does not."""
    market = load_market("synthetic", kind="regimes", accuracy=0.8, seed=1)
    market = dataclasses.replace(
        market, features=market.features[:, :, 1:], feature_names=("signal",)
    )
    agent = AGENTS["policy_gradient"](
        lookback=1,
        encoder="fnn",
        depth=1,
        segments=256,
        segment_length=20,
        steps=150,
        learning_rate=0.01,
    )
    start = time.process_time()
    agent.fit(market, task=Task(cost=None))
    taken = time.process_time() - start
    rows = [int(np.argmax(market.optimum.states(market) == s)) for s in range(2)]

    def policy(states: np.ndarray, weights: np.ndarray) -> np.ndarray:
        asked = zip(states, weights, strict=True)
        return np.array([agent.act(market[rows[s] : rows[s] + 1], w) for s, w in asked])

    return taken if market.optimum.score(policy) > 0.98 else float("inf")


def memory() -> Iterator[Figure]:
    """Peak of a process of its own that trains `ppo` on a large market."""
    command = [sys.executable, "-m", "benchmarks.training", "--large"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    name = "ppo on 500 assets x 40 features x 10 years"
    yield Figure(name, float(done.stdout) / 1e9, "GB", 4, at_most=True)


def large() -> float:
    """A rollout, an epoch and two evaluations on a large market; bytes at this process's peak."""
    torch.set_num_threads(1)
    market = games.make_market(*LARGE)
    agent = AGENTS["ppo"](steps=256 * 32, n_epochs=1, evaluations=1)
    agent.fit(market, market[-400:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak * (1 if sys.platform == "darwin" else 1024))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--only", default="", help="groups whose name contains this")
    parser.add_argument("--large", action="store_true", help="only a large run; prints its bytes")
    asked = parser.parse_args()
    if asked.large:
        print(large())
        return
    printed(asked.only)


if __name__ == "__main__":
    main()
