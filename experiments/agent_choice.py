"""Which agent: a registered one by name, or a user's own by `module:Class` or `file.py:Class`."""

from __future__ import annotations

from agents import AGENTS
from agents.base import Agent
from experiments.config import AgentConfig
from market.errors import InputError, SettingError
from market.plugin import load_plugin


def make_agent(config: AgentConfig) -> Agent:
    """The agent with its settings, not fitted.

    Raises:
        SettingError: If it is unknown, or its settings are.

    """
    kind = agent_class(config.name)
    try:
        return kind(**config.settings)
    except TypeError as error:
        raise SettingError(f"agent {config.name}: {error}") from None
    except InputError as error:
        said = str(error).removeprefix(f"{config.name}: ")
        raise SettingError(f"agent {config.title}: {said}") from None


def agent_class(name: str) -> type[Agent]:
    """A registered agent, or a user's own by `module:Class` or `file.py:Class`.

    Raises:
        SettingError: If there is no such agent, or it is no subclass of `Agent`.

    """
    if ":" not in name:
        found: type[Agent] = AGENTS[name]
        return found
    kind = load_plugin(name, "agent")
    if not isinstance(kind, type) or not issubclass(kind, Agent):
        raise SettingError(f"agent `{name}` must be a subclass of agents.base.Agent")
    return kind


def learns(name: str) -> bool:
    """Whether an agent's seeds matter: as it says, else if it has a `fit` of its own."""
    kind = agent_class(name)
    return bool(getattr(kind, "learns", kind.fit is not Agent.fit))
