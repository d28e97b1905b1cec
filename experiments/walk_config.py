"""What describes a walk-forward: refits through the years, as settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.config import AgentConfig, Common, Several, refuse
from market.errors import DataError


@dataclass(frozen=True, kw_only=True)
class WalkConfig:
    """How often agents are fitted anew, and on which days.

    Attributes:
        start: First test day; after 60 % of the days when not given.
        refit_every: Days of a test window: after them the agent is fitted anew.
        valid_days: Days before each test window on which learners choose their best state.
        train_days: Days before those to learn from, which then roll along; when not given, all
            days since the first, which grow.
        warm_start: Learners go on from the last window's network instead of a fresh one.

    """

    start: str | None = None
    refit_every: int = 252
    valid_days: int = 252
    train_days: int | None = None
    warm_start: bool = False

    def __post_init__(self) -> None:
        days = {key: getattr(self, key) for key in ("refit_every", "valid_days", "train_days")}
        refuse(
            [
                f"walk.{key} must be at least 1, got {value}"
                for key, value in days.items()
                if value is not None and value < 1
            ]
        )


@dataclass(frozen=True, kw_only=True)
class WindowedConfig(Common):
    """One agent, refitted through time."""

    agent: AgentConfig = field(default_factory=AgentConfig)
    walk: WalkConfig = field(default_factory=WalkConfig)

    def plain(self) -> dict[str, Any]:
        """The settings file that describes this run."""
        blocks = {key: dataclasses.asdict(getattr(self, key)) for key in ("data", "walk", "task")}
        head = {"experiment": self.experiment, "agents": [self.agent.plain()]}
        return {**head, **blocks, "seeds": self.seed_list, "results": self.results}


@dataclass(frozen=True, kw_only=True)
class WalkForwardConfig(Several):
    """Several agents, refitted through time, each with one or more seeds."""

    experiment: str = "walk_forward"
    walk: WalkConfig = field(default_factory=WalkConfig)

    def experiments(self) -> list[WindowedConfig]:
        """One for each agent."""
        shared = self.shared() | {"walk": self.walk}
        return [WindowedConfig(**shared, agent=agent) for agent in self.agent_list]


def last_window(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The settings of a walk-forward run as those of its last refit alone, on its own dates.

    Raises:
        DataError: If no window is there, or it does not say its dates.

    """
    windows = sorted((folder / "windows").glob("[0-9]*/window.json"))
    try:
        days = json.loads(windows[-1].read_text("utf-8"))
        split = {"train_end": str(days["train"][1]), "valid_end": str(days["valid"][1])}
        if settings["walk"].get("train_days") is not None:
            split["train_start"] = str(days["train"][0])
        agent = settings["agents"][0]
    except (IndexError, KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(f"{folder}: the last window of the walk-forward cannot be read") from error
    rest = {key: value for key, value in settings.items() if key not in ("walk", "agents")}
    return rest | {"agent": agent, "split": split}
