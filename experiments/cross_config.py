"""What describes a combinatorial purged cross-validation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from math import comb
from typing import Any

from experiments.config import AgentConfig, Common, Several, refuse


@dataclass(frozen=True, kw_only=True)
class FoldsConfig:
    """How time is cut.

    Attributes:
        number: Folds of time.
        test: How many of them are left out at a time; every choice of them is a test once.
        memory: Days before its own that a feature is computed from, added to the embargo; found
            out from data.features when not given.
        start: First decision; the earliest that all agents can make when not given.

    """

    number: int = 6
    test: int = 2
    memory: int | None = None
    start: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.number < 2:
            problems.append(f"folds.number must be at least 2, got {self.number}")
        if not 1 <= self.test < max(2, self.number):
            problems.append(f"folds.test must be in [1, folds.number), got {self.test}")
        if self.memory is not None and self.memory < 0:
            problems.append(f"folds.memory must be at least 0, got {self.memory}")
        refuse(problems)

    @property
    def choices(self) -> int:
        """How often an agent is fitted."""
        return comb(self.number, self.test)

    @property
    def paths(self) -> int:
        """Paths through all of time that the tests make."""
        return self.choices * self.test // self.number


@dataclass(frozen=True, kw_only=True)
class PurgedConfig(Common):
    """One agent, cross-validated."""

    agent: AgentConfig = field(default_factory=AgentConfig)
    folds: FoldsConfig = field(default_factory=FoldsConfig)

    def plain(self) -> dict[str, Any]:
        """The settings file that describes this run."""
        blocks = {key: dataclasses.asdict(getattr(self, key)) for key in ("data", "folds", "task")}
        head = {"experiment": self.experiment, "agents": [self.agent.plain()]}
        return {**head, **blocks, "seeds": self.seed_list, "results": self.results}


@dataclass(frozen=True, kw_only=True)
class CrossConfig(Several):
    """Several agents, cross-validated on the same folds, each with one or more seeds."""

    experiment: str = "cross_validation"
    seeds: int | list[int] = 3
    folds: FoldsConfig = field(default_factory=FoldsConfig)

    def experiments(self, folds: FoldsConfig) -> list[PurgedConfig]:
        """One for each agent, over folds that are spelt out."""
        shared = self.shared() | {"folds": folds}
        return [PurgedConfig(**shared, agent=agent) for agent in self.agent_list]
