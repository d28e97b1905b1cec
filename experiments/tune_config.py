"""What describes a search for good settings of one agent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agents.search import Choices, Range, read_space
from experiments.agent_choice import agent_class
from experiments.config import AgentConfig, Common, ExperimentConfig, SplitConfig
from experiments.options import agent_options
from market.errors import SettingError
from market.names import unknown_name


@dataclass(frozen=True, kw_only=True)
class TuneConfig(Common):
    """Settings of one agent, tried on validation.

    Attributes:
        trials: How many settings to try in all, those of earlier calls and of other machines
            included. The first is the agent as it is, where the space holds its settings.
        seeds: How many seeds to try each with (0, 1, ...), or a list of them; its score is their
            mean.
        space: Range or choices of each setting to try, such as --space.learning_rate
            "1e-5..1e-2 log" or --space.width "[8, 16]", on top of the agent's own; null leaves one
            as it is.
        sampler: "tpe" proposes what resembles the best so far; "random" draws the same trials
            whatever the number of workers.
        pruner: "median" stops a trial that is below the median of those before at the same point,
            "halving" lets only the better third go on, "none" lets all.

    """

    experiment: str = "tune"
    seeds: int | list[int] = 3
    split: SplitConfig = field(default_factory=SplitConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    trials: int = 30
    space: dict[str, Any] = field(default_factory=dict)
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "halving", "none"] = "median"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trials < 1:
            raise SettingError(f"trials must be at least 1, got {self.trials}")
        read_space(self.space)

    @property
    def searched(self) -> dict[str, Range | Choices]:
        """What is tried: the agent's own space without what the user fixed, and the user's.

        Raises:
            SettingError: If a setting is unknown, or nothing is left to try.

        """
        kind = agent_class(self.agent.name)
        known = [o.key.removeprefix("agent.") for o in agent_options(kind, self.agent.name)]
        for key in self.space:
            if key not in known:
                raise unknown_name(f"setting of {self.agent.title} in space", key, known)
        own = {k: v for k, v in kind.space.items() if k not in self.agent.settings}
        space = read_space({**own, **self.space})
        if not space:
            raise SettingError(
                f"agent {self.agent.title} has nothing to tune; give a range, such as "
                f"--space.{known[0] if known else 'KEY'} 1..10"
            )
        return space

    def single(self, settings: Mapping[str, Any] | None = None) -> ExperimentConfig:
        """The experiment of one trial: the agent with these settings on top of its own."""
        shared = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(Common)}
        agent = dataclasses.replace(
            self.agent, settings={**self.agent.settings, **(settings or {})}
        )
        return ExperimentConfig(**shared, split=self.split, agent=agent)

    def plain(self) -> dict[str, Any]:
        """The settings file that describes this search."""
        own = {key: getattr(self, key) for key in ("trials", "space", "sampler", "pruner")}
        return {**self.single().plain(), **own}
