"""Warm starts: a new agent's network begins where that of the last window ended.

The new agent's scaler is fitted anew, so that the network sees new days on their own scale; what it
carries over is its parameters, and where an algorithm has more than the policy (the critic of SAC,
the memory of an optimiser) the rest starts fresh.
"""

from __future__ import annotations

from typing import Any

from agents.base import Agent
from market.errors import SettingError


def check_warm_start(agent: Agent, title: str) -> None:
    """Refuse a warm start of an agent that learns but has no network to hand over.

    Raises:
        SettingError: Naming the agent.

    """
    if getattr(agent, "learns", False) and not _can(agent):
        raise SettingError(f"walk.warm_start: agent {title} cannot go on from an earlier fit")


def start_from(agent: Agent, before: Agent) -> None:
    """Let `agent`, not fitted yet, begin with what `before` has learned; rules are left alone."""
    if not _can(agent):
        return
    if hasattr(agent, "warm_start"):
        agent.warm_start(before)
        return
    learner: Any = agent
    state = {k: v.clone() for k, v in before.network.state_dict().items()}  # type: ignore[attr-defined]
    build = learner.build

    def built() -> Any:
        network = build()
        network.load_state_dict(state)
        return network

    learner.build = built
    if hasattr(learner, "model") and hasattr(learner, "trained_part"):
        model = learner.model

        def modelled(*args: Any, **settings: Any) -> Any:
            made = model(*args, **settings)
            learner.trained_part(made).load_state_dict(state)
            return made

        learner.model = modelled


def _can(agent: Agent) -> bool:
    """By a method of its own, or by a network that is built in one place."""
    return hasattr(agent, "warm_start") or (hasattr(agent, "build") and hasattr(agent, "network"))
