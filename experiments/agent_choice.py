"""Which agent: a registered one by name, or a user's own by `module:Class` or `file.py:Class`."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from agents import AGENTS
from agents.base import Agent
from experiments.config import AgentConfig
from market.errors import InputError, SettingError


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
        raise SettingError(f"agent {config.title}: {error}") from None


def agent_class(name: str) -> type[Agent]:
    """A registered agent, or a user's own by `module:Class` or `file.py:Class`.

    Raises:
        SettingError: If there is no such agent, or it is no subclass of `Agent`.

    """
    if ":" not in name:
        found: type[Agent] = AGENTS[name]
        return found
    place, _, attribute = name.rpartition(":")
    if place.partition(".")[0] in sys.stdlib_module_names:
        raise SettingError(f"agent {name!r}: {place} is part of Python, no agent")
    try:
        module = _run_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except InputError:
        raise
    except Exception as error:  # any fault of code that is not ours
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise SettingError(f"agent {name!r} cannot be imported: {reason}") from error
    kind = getattr(module, attribute, None)
    if not isinstance(kind, type) or not issubclass(kind, Agent):
        raise SettingError(f"agent {name!r}: {attribute} must be a subclass of agents.base.Agent")
    return kind


def _run_file(path: Path) -> Any:
    if not path.is_file():
        raise SettingError(f"agent: there is no file {path}")
    name = "allocgym_agent_" + re.sub(r"\W", "_", str(path.resolve()))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
