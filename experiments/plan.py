"""From settings to things: market, split, task, agent; all checked before anything is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from agents import name_of
from agents.base import Agent, Task
from envs.constraints import make_constraint
from envs.costs import Cost, ProportionalCost, make_cost
from experiments.agent_choice import make_agent
from experiments.config import (
    AgentConfig,
    Common,
    DataConfig,
    ExperimentConfig,
    SplitConfig,
    TaskConfig,
)
from experiments.guard import Guard
from experiments.run_dir import check_name, run_path
from market import DataError, InputError, Market, SettingError, load_market
from market.features import DEFAULT_FEATURES, expand_features
from market.sources.bundled import UNIVERSES

SPLITS = {"multi_asset": SplitConfig(train_end="2012-12-31", valid_end="2015-12-31")}
FRACTIONS = (0.6, 0.8)  # of the days, where no dates are given


@dataclass(frozen=True)
class Plan:
    """A trial, ready to run.

    Attributes:
        config: Resolved: dates, assets, features and the agent's settings are all spelt out.
        guard: All the data, shut after the last day of validation.
        train: Rows up to the end of training.
        valid: Rows of validation, with the history before them that a first decision needs.
        agent: Not fitted.
        task: Rules for fitting and for judging.
        about_data: What the manifest says of the data.

    """

    config: ExperimentConfig
    guard: Guard
    train: Market
    valid: Market
    agent: Agent
    task: Task
    about_data: dict[str, Any]

    @property
    def splits(self) -> dict[str, list[str]]:
        """First and last day of each part."""
        dates, cuts = self.guard.dates, [0]
        cuts += [self.guard.index(end) + 1 for end in self.ends] + [len(dates)]
        cuts[0] = first_row(self.guard, self.config.split)
        names = ("train", "valid", "test")
        return {
            name: [f"{dates[cuts[i]]:%Y-%m-%d}", f"{dates[cuts[i + 1] - 1]:%Y-%m-%d}"]
            for i, name in enumerate(names)
        }

    @property
    def ends(self) -> tuple[str, str]:
        """Last day of training and of validation."""
        split = self.config.split
        assert split.train_end is not None and split.valid_end is not None
        return split.train_end, split.valid_end


def prepare(config: ExperimentConfig, market: Market | None = None) -> Plan:
    """Load, split and build everything a trial needs; nothing is written.

    Args:
        config: Of the experiment.
        market: What the data block describes, where it is loaded already.

    Raises:
        InputError: If any setting does not fit the data, the task or the agent.

    """
    check_folders(config)
    agent, task = make_agent(config.agent), make_task(config.task)
    market = market if market is not None else read_market(config.data)
    split = resolve_split(config.split, config.data.source, market)
    check_history(agent, task, market, split)
    ends = [market.index(str(end)) + 1 for end in (split.train_end, split.valid_end)]
    guard = Guard(market, ends[1] - 1)
    start = first_row(guard, split)
    train = guard.rows(start, ends[0])
    valid = guard.rows(max(start, ends[0] - agent.lookback - task.decision_lag), ends[1])
    try_out(agent, task, train)
    resolved = dataclasses.replace(
        config,
        data=resolved_data(config.data, market),
        split=split,
        agent=resolved_agent(agent, config.agent),
    )
    return Plan(resolved, guard, train, valid, agent, task, about_data(market))


def first_row(market: Market | Guard, split: SplitConfig) -> int:
    """Row of the first day of training."""
    if split.train_start is None:
        return 0
    return row_from(market, split.train_start)


def row_from(market: Market | Guard, date: str) -> int:
    """Row of a date, or of the first day after it where the market has no such day."""
    row = market.index(date)
    return row if market.dates[row] >= pd.Timestamp(date) else row + 1


def check_folders(config: Common) -> None:
    """Refuse names that no run folder can have."""
    title = check_name("label", config.agent.title)  # type: ignore[attr-defined]
    for seed in config.seed_list:
        run_path(config.results, config.experiment, title, seed)


def try_out(agent: Agent, task: Task, train: Market) -> None:
    """Play one step of training: a faulty reward shows before anything is written."""
    env = task.env(train, lookback=agent.lookback)
    _, info = env.reset(seed=0)
    env.step(info["weights"])


def read_market(data: DataConfig) -> Market:
    """The market a data block describes; what goes wrong with its files is the user's to know.

    Raises:
        InputError: If an option, a file or a number in it is not as it must be.

    """
    fixed = ("start", "end", "assets", "features", "frequency")
    clash = [key for key in data.options if key in (*fixed, "name")]
    if clash:
        raise SettingError(f"data.options.{clash[0]}: write it as data.{clash[0]}")
    try:
        return load_market(
            data.source, **{key: getattr(data, key) for key in fixed}, **data.options
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{data.source}: {error.filename or 'data'}: {reason}") from error
    except TypeError as error:
        if data.source in UNIVERSES:
            raise
        raise SettingError(f"data.options of '{data.source}': {error}") from error


def resolve_split(split: SplitConfig, source: str, market: Market) -> SplitConfig:
    """The dates given; else the source's own where the data reach over them; else by fractions."""
    own = SPLITS.get(source)
    if split.train_end is None and own is not None:
        first, last = (f"{date:%Y-%m-%d}" for date in (market.dates[0], market.dates[-1]))
        if first < str(own.train_end) and str(own.valid_end) < last:
            split = dataclasses.replace(own, train_start=split.train_start)
    if split.train_end is None:
        rows = [max(1, round(share * market.n_periods)) - 1 for share in FRACTIONS]
        train_end, valid_end = (market.dates[row].strftime("%Y-%m-%d") for row in rows)
        split = dataclasses.replace(split, train_end=train_end, valid_end=valid_end)
    try:
        market.split(split.train_end, split.valid_end)
    except InputError as error:
        raise type(error)(f"split.train_end and split.valid_end: {error}") from None
    try:
        row = first_row(market, split)
    except InputError as error:
        raise type(error)(f"split.train_start: {error}") from None
    if row > market.index(str(split.train_end)):
        raise SettingError(
            f"split.train_start must be before train_end {split.train_end}, got {split.train_start}"
        )
    return split


def check_history(agent: Agent, task: Task, market: Market, split: SplitConfig) -> None:
    """Refuse an agent that needs more history than training offers before its first decision."""
    first, needed = first_row(market, split), agent.lookback + task.decision_lag + 1
    rows = market.index(split.train_end) + 1 - first
    if rows < needed:
        short = first + needed - market.n_periods
        advice = (
            f"bring {short} rows more of history"
            if short > 0
            else f"the earliest train_end is {market.dates[first + needed - 1]:%Y-%m-%d}"
        )
        raise DataError(
            f"agent {name_of(type(agent))}: lookback {agent.lookback} with decision_lag "
            f"{task.decision_lag} needs {needed} days of training, got {rows} "
            f"({market.dates[first]:%Y-%m-%d} .. {split.train_end}); {advice}"
        )


def make_task(config: TaskConfig) -> Task:
    """Costs, reward and limits."""
    cost: Cost = ProportionalCost(config.cost.buy, config.cost.sell)
    for text in config.cost.more:
        cost = cost + make_cost(text)
    return Task(
        cost=cost,
        reward=config.reward,
        constraints=tuple(make_constraint(text) for text in config.constraints),
        decision_lag=config.decision_lag,
        fill=config.fill,
        rebalance_every=config.rebalance_every,
        band=config.band,
    )


def about_data(market: Market) -> dict[str, Any]:
    """Name, span, calendar, assets, digest and caveats of the data."""
    return {
        "name": market.name,
        "start": f"{market.dates[0]:%Y-%m-%d}",
        "end": f"{market.dates[-1]:%Y-%m-%d}",
        "assets": list(market.assets),
        "periods_per_year": market.periods_per_year,
        "sha256": market.fingerprint(),
        "notes": list(market.notes),
    }


def resolved_agent(agent: Agent, config: AgentConfig) -> AgentConfig:
    """The description with all settings of the agent, defaults included, as plain values."""
    settings: Any = getattr(agent, "settings", None)
    if not dataclasses.is_dataclass(settings):
        return config
    return dataclasses.replace(config, settings=_plain(dataclasses.asdict(settings)))  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def resolved_data(data: DataConfig, market: Market) -> DataConfig:
    """Dates, assets and features spelt out."""
    features = None if data.features is None else expand_features(data.features)
    if features is None and data.source in UNIVERSES:
        features = list(DEFAULT_FEATURES)
    return dataclasses.replace(
        data,
        start=f"{market.dates[0]:%Y-%m-%d}",
        end=f"{market.dates[-1]:%Y-%m-%d}",
        assets=list(market.assets),
        features=features,
    )
