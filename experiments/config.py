"""What describes a run: data, split, task, agent, seeds. Settings files and options are made of it.

Each dataclass is one block of a settings file; its `Attributes` are the help of the command line.
`resolved` settings say everything: dates instead of "the earliest", all settings of the agent.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from experiments.agent_text import read_agent
from market.calendar import Frequency
from market.errors import SettingError

DEMO_AGENTS = (
    "ppo",
    "sac",
    "dqn",
    "lstm",
    "mean_variance",
    "equal_weight",
    "buy_and_hold",
)
MAX_SEED = 2**32


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which market data.

    Attributes:
        source: A bundled universe or another source; `allocgym data` lists them.
        start: First date; the earliest there is when not given.
        end: Last date, included; the latest there is when not given.
        assets: Which assets to keep; all when not given.
        features: What agents see, such as "return(5),rsi", or a YAML list of them by its file name;
            a default set when not given.
        frequency: "daily", "weekly" or "monthly"; features are computed on the longer periods.
        options: Of the source itself, such as data.options.path of source "files"; and of all:
            tables, feature_cache (a folder) and feature_engine ("pandas" or "talib").

    """

    source: str = "multi_asset"
    start: str | None = None
    end: str | None = None
    assets: list[str] | None = None
    features: list[str] | None = None
    frequency: Frequency = "daily"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.options:
            if "key" in key or "token" in key:
                raise SettingError(
                    f"data.options.{key}: would be stored with the run; set it in the environment "
                    "instead, such as FRED_API_KEY"
                )


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Where the past ends: agents learn, then are chosen, then are judged.

    Attributes:
        train_end: Last day of training. Not given: 2012-12-31 for multi_asset, else 60 % of days.
        valid_end: Last day of validation. Not given: 2015-12-31 for multi_asset, else 80 %.
        train_start: First day of training; the first of the data when not given.

    """

    train_end: str | None = None
    valid_end: str | None = None
    train_start: str | None = None

    def __post_init__(self) -> None:
        if (self.train_end is None) != (self.valid_end is None):
            given = "train_end" if self.valid_end is None else "valid_end"
            raise SettingError(
                f"split: give train_end and valid_end together or neither, got only {given}"
            )


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """What trading costs.

    Attributes:
        buy: Fraction of what is bought, in [0, 1).
        sell: Fraction of what is sold, in [0, 1); as for buying when not given.
        more: Costs on top, such as "half_spread(0.0005),fixed_fee(1, capital=1e6)" or
            "square_root_impact(capital=1e7)", or your own by module:Name or file.py:Name.

    """

    buy: float = 0.001
    sell: float | None = None
    more: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        problems = [
            f"task.cost.{key} must be in [0, 1), got {rate}"
            for key, rate in (("buy", self.buy), ("sell", self.sell))
            if rate is not None and not 0.0 <= rate < 1.0
        ]
        refuse(problems)


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The rules of the game.

    Attributes:
        cost: What trading costs.
        reward: What a learner is paid: an expression, or your own by module:Name or file.py:Name.
        constraints: Limits on weights and risk, such as "max_weight(0.4),cash_floor(0.05)", or
            your own by module:Name or file.py:Name.
        decision_lag: Days by which what an agent sees is older than its trade.
        fill: Trade at the close of the decision's day, or at the open of the next.
        rebalance_every: Trade on every k-th day only.
        band: Trade only where the turnover to the target is above this, in [0, 1).

    """

    cost: CostConfig = field(default_factory=CostConfig)
    reward: str = "log_return"
    constraints: list[str] = field(default_factory=list)
    decision_lag: int = 0
    fill: Literal["close", "next_open"] = "close"
    rebalance_every: int = 1
    band: float = 0.0

    def __post_init__(self) -> None:
        ranges = {
            "decision_lag": (self.decision_lag >= 0, "[0, inf)"),
            "rebalance_every": (self.rebalance_every >= 1, "[1, inf)"),
            "band": (0.0 <= self.band < 1.0, "[0, 1)"),
        }
        refuse(
            [
                f"task.{key} must be in {interval}, got {getattr(self, key)}"
                for key, (inside, interval) in ranges.items()
                if not inside
            ]
        )


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Who decides. Its own settings stand beside its name.

    Attributes:
        name: One of `allocgym train --help`, or your own by module:Class or file.py:Class.
        label: Name of the folder and of the table's row; the agent's name when not given.

    """

    name: str = "ppo"
    label: str | None = None
    settings: dict[str, Any] = field(default_factory=dict, metadata={"hidden": True})

    @property
    def title(self) -> str:
        """The label, or the name."""
        return self.label or self.name.rpartition(":")[2]

    @classmethod
    def of(cls, given: Any) -> AgentConfig:
        """From a name, a text such as "forecast(rule=top_k)", or a mapping of name and settings."""
        if isinstance(given, AgentConfig):
            return given
        if isinstance(given, str):
            return cls(**read_agent(given)._asdict())
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            raise SettingError(f"agents: must be names, or mappings with a name, got {given!r}")
        own = {key: value for key, value in given.items() if key not in ("name", "label")}
        name, label, settings = read_agent(given["name"])
        return cls(name=name, label=given.get("label") or label, settings={**settings, **own})

    def plain(self) -> dict[str, Any]:
        """As it stands in a settings file."""
        return {"name": self.name, "label": self.label, **self.settings}


@dataclass(frozen=True, kw_only=True)
class Common:
    """What `train`, `compare` and `walk-forward` share.

    Attributes:
        experiment: Name of the folder all runs go into, beneath `results`.
        seeds: How many seeds (0, 1, ...), or a list of them such as [7]. Rules that do not learn
            run once.
        results: Folder of all experiments.
        workers: Trials at the same time; as many as there are cores when not given. The results
            do not depend on it.
        cluster: Address of a Ray cluster to run on, host:port, or auto on one of its machines;
            here when not given.
        checkpoint_every: Seconds of training between checkpoints, from which the same command goes
            on after a stop; they are rarer where they would take more than a hundredth of the
            time. 0: at every chance. The results do not depend on it.

    """

    experiment: str = "train"
    seeds: int | list[int] = 1
    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    results: str = "results"
    workers: int | None = None
    cluster: str | None = None
    checkpoint_every: float = 10.0

    def __post_init__(self) -> None:
        problems = []
        if isinstance(self.seeds, int) and self.seeds < 1:
            problems.append(f"seeds must be at least 1, got {self.seeds}")
        elif not isinstance(self.seeds, int):
            problems += _seed_problems(self.seeds)
        if self.workers is not None and self.workers < 1:
            problems.append(f"workers must be at least 1, got {self.workers}")
        if not self.checkpoint_every >= 0.0:
            problems.append(f"checkpoint_every must be at least 0, got {self.checkpoint_every}")
        refuse(problems)

    @property
    def seed_list(self) -> list[int]:
        """The seeds themselves."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    @property
    def n_workers(self) -> int:
        """Trials at the same time; 0 stands for all that a cluster has room for."""
        if self.workers is not None or self.cluster is not None:
            return self.workers or 0
        allowed = getattr(os, "sched_getaffinity", None)  # not on every system
        return len(allowed(0)) if allowed else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(Common):
    """One agent on one split, with one or more seeds.

    Attributes:
        agent: Who decides.

    """

    split: SplitConfig = field(default_factory=SplitConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)

    def plain(self) -> dict[str, Any]:
        """The settings file that describes this run, without settings that change nothing."""
        blocks = {key: dataclasses.asdict(getattr(self, key)) for key in ("data", "split", "task")}
        head = {"experiment": self.experiment, "agent": self.agent.plain()}
        return {**head, **blocks, "seeds": self.seed_list, "results": self.results}


@dataclass(frozen=True, kw_only=True)
class Several(Common):
    """Several agents, each with one or more seeds.

    Attributes:
        agents: Names, or mappings such as {name: ppo, label: ppo_slow, learning_rate: 1e-4}.
        reference: Name or label of the agent that all others are measured against.

    """

    agents: list[Any] = field(default_factory=lambda: list(DEMO_AGENTS))
    reference: str = "equal_weight"
    seeds: int | list[int] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.agents:
            raise SettingError("agents: needs at least 1 agent, got none")
        titles = [agent.title for agent in self.agent_list]
        twice = [title for title in titles if titles.count(title) > 1]
        if twice:
            raise SettingError(f"agents: {twice[0]!r} appears twice; give one of them a label")
        if self.reference not in titles and self.reference != Several.reference:
            raise SettingError(
                f"reference: must be one of the agents, {', '.join(titles)}; got {self.reference!r}"
            )

    @property
    def agent_list(self) -> list[AgentConfig]:
        """The agents, each as a description."""
        return [AgentConfig.of(given) for given in self.agents]

    def shared(self) -> dict[str, Any]:
        """What all of its experiments have in common."""
        return {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(Common)}


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Several):
    """Several agents on one split."""

    experiment: str = "compare"
    split: SplitConfig = field(default_factory=SplitConfig)

    def experiments(self) -> list[ExperimentConfig]:
        """One experiment an agent."""
        shared = self.shared() | {"split": self.split}
        return [ExperimentConfig(**shared, agent=agent) for agent in self.agent_list]


def _seed_problems(seeds: Sequence[int]) -> Iterable[str]:
    if not seeds:
        yield "seeds must hold at least 1 seed, got none"
    if len(set(seeds)) < len(seeds):
        yield f"seeds must differ, got {list(seeds)}"
    for seed in seeds:
        if not 0 <= seed < MAX_SEED:
            yield f"seeds must be in [0, 2**32), got {seed}"


def refuse(problems: Sequence[str]) -> None:
    """Raise all of a block's problems at once."""
    if problems:
        raise SettingError("; ".join(problems))
