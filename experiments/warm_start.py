"""Warm starts: a new agent begins with what that of the last window has learned."""

from __future__ import annotations

from typing import Any

from agents.base import Agent
from market.errors import SettingError


def check_warm_start(agent: Agent, title: str) -> None:
    """Refuse a warm start of an agent that learns but cannot go on from an earlier fit.

    Raises:
        SettingError: Naming the agent.

    """
    if getattr(agent, "learns", False) and not hasattr(agent, "warm_start"):
        raise SettingError(f"walk.warm_start: agent {title} cannot go on from an earlier fit")


def start_from(agent: Agent, before: Agent) -> None:
    """Let `agent`, not fitted yet, go on from a fitted one; rules are left alone."""
    learner: Any = agent
    if hasattr(learner, "warm_start"):
        learner.warm_start(before)
