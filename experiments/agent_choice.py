"""Which agent: a registered one by name, or a user's own by `module:Class` or `file.py:Class`."""

from __future__ import annotations

from pathlib import Path

from agents import AGENTS
from agents.base import Agent
from experiments.config import AgentConfig
from experiments.settings import named_code
from market.errors import DataError, InputError, SettingError
from market.plugin import load_plugin, only_plugins, references_in

MAX_JSON = 100_000_000  # bytes of settings and states beside a network's weights


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


def stored_agent(config: AgentConfig, folder: Path) -> Agent:
    """The fitted agent that stands in a folder; it may name no code but that of its settings.

    Raises:
        InputError: If it names other code.
        Exception: Whatever reading damaged files raises.

    """
    kind = agent_class(config.name)
    for file in sorted(folder.rglob("*.json")):
        if file.stat().st_size > MAX_JSON:
            raise DataError(f"{file}: must be at most {MAX_JSON} bytes")
    texts = [text for _, text in named_code([config.name, config.settings])]
    with only_plugins(name for text in texts for name in references_in(text)):
        return kind.load(folder)


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
