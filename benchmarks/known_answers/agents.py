"""The agents of the study and their settings: the defaults, but for what is written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agents import AGENTS
from agents.base import Agent

Settings = Mapping[str, Any]
SMALL: Settings = {"lookback": 1, "encoder": "fnn", "depth": 1, "width": 16}
UNTRAINED: Settings = {"learning_rate": 1e-30, "steps": 1, "evaluations": 1}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An agent of the study.

    Attributes:
        name: In `AGENTS`.
        always: Settings beside `SMALL` in all markets.
        free: More of them where trading is free and nothing reaches beyond the next period.
        costly: More of them where it is not.

    """

    name: str
    always: Settings = field(default_factory=dict)
    free: Settings = field(default_factory=dict)
    costly: Settings = field(default_factory=dict)

    def settings(self, cost: float) -> dict[str, Any]:
        """All that differs from the defaults under this cost."""
        return {**SMALL, **self.always, **(self.costly if cost else self.free)}

    def agent(self, cost: float, *, trained: bool = True) -> Agent:
        """A new one; untrained: with a rate of learning that moves no parameter."""
        own = self.settings(cost)
        agent: Agent = AGENTS[self.name](**(own if trained else {**own, **UNTRAINED}))
        return agent


ENTRIES: dict[str, Entry] = {
    "policy_gradient": Entry(
        name="policy_gradient",
        always={"segments": 256, "segment_length": 20, "steps": 150, "learning_rate": 0.01},
    ),
    "ppo": Entry(
        name="ppo",
        always={
            "schedule": "linear",
            "learning_rate": 1e-2,
            "less_market": True,
            "reward_scale": 10.0,
            "own_critic": True,
        },
        free={
            "gamma": 0.0,
            "counterfactual": 1,
            "log_std": -0.5,
            "steps": 300_000,
            "num_envs": 1024,
            "n_steps": 2,
            "n_epochs": 3,
        },
        costly={
            "gamma": 0.92,
            "counterfactual": 12,
            "band": True,
            "cost_warmup": 0.6,
            "explore_starts": 0.5,
            "episode_length": 60,
            "log_std": -1.2,
            "clip_range": 0.3,
            "steps": 300_000,
            "num_envs": 1024,
            "n_steps": 4,
            "batch_size": 4096,
            "n_epochs": 4,
        },
    ),
    "sac": Entry(
        name="sac",
        always={
            "less_market": True,
            "known_price": True,
            "even_days": True,
            "reward_scale": 10.0,
            "num_envs": 256,
            "steps": 14_000,
            "buffer_size": 50_000,
            "learning_starts": 2_048,
            "batch_size": 2048,
            "train_every": 1,
            "updates": 8,
            "learning_rate": 5e-3,
            "schedule": "cosine",
        },
        free={
            "gamma": 0.0,
            "counterfactual": 1,
            "log_std": -1.0,
            "tau": 0.1,
            "ent_coef": "0.0001",
        },
        costly={
            "gamma": 0.98,
            "counterfactual": 5,
            "band": True,
            "cost_warmup": 0.6,
            "explore_starts": 0.7,
            "episode_length": 40,
            "log_std": -1.5,
            "tau": 0.2,
            "ent_coef": "0.001",
        },
    ),
    "dqn": Entry(
        name="dqn",
        always={
            "all_actions": True,
            "less_market": True,
            "schedule": "cosine",
            "exploration_fraction": 1.0,
            "even_starts": True,
        },
        free={"gamma": 0.0, "num_envs": 128, "steps": 120_000, "learning_rate": 5e-3},
        costly={
            "num_envs": 256,
            "steps": 250_000,
            "learning_rate": 1e-2,
            "target_every": 4,
            "dropout": 0.2,
        },
    ),
    "dqn_plain": Entry(
        name="dqn",
        always={
            "all_actions": False,
            "less_market": True,
            "reward_scale": 5.0,  # the loss is quadratic below 1 only: means, not medians
            "num_envs": 128,
            "steps": 300_000,
            "buffer_size": 300_000,
            "learning_starts": 50_000,
            "batch_size": 2048,
            "train_every": 16,
            "updates": 8,
            "learning_rate": 3e-3,
        },
        free={"gamma": 0.0, "schedule": "cosine", "exploration_fraction": 1.0},
        costly={"exploration_fraction": 0.6},
    ),
}
