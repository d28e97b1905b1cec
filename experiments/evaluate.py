"""Back-test saved agents on other data or other days than they were tested on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError

from agents.base import Agent
from agents.rollout import roll
from experiments.agent_choice import stored_agent
from experiments.backtest import Backtest
from experiments.config import AgentConfig, ExperimentConfig, TaskConfig
from experiments.forecast_notes import note_forecasts
from experiments.plan import make_task, read_market
from experiments.run_dir import Run, write_atomic
from market import DataError, Market, SettingError

DAMAGE = (OSError, KeyError, AttributeError, TypeError, RuntimeError, ValueError, SafetensorError)
PINNED = ("start", "end")  # of the run's own data; other data have other days


@dataclass(frozen=True)
class Evaluation:
    """A saved agent's path over some days."""

    run: Run
    backtest: Backtest
    notes: list[str]
    forecasts: dict[str, float]  # their quality on these days; empty where none are made


def evaluate(
    run: Run, config: ExperimentConfig, changes: Mapping[str, Any], start: str | None = None
) -> Evaluation:
    """Let a run's agent decide again; nothing is written.

    Args:
        run: A finished run.
        config: What it was run with.
        changes: Fields of the data block that differ.
        start: Date of the first decision; by default the last day of validation where the data
            reach back to it, else the first day that has enough history.

    Raises:
        InputError: If the run holds no agent, or the data do not suit it.

    """
    agent = load_agent(run, config.agent)
    other = "source" in changes or "options" in changes
    free: dict[str, Any] = dict.fromkeys(PINNED) if other else {}
    market = read_market(dataclasses.replace(config.data, **(free | dict(changes))))
    check_market(run, market)
    task = dataclasses.replace(make_task(config.task), reward="log_return")
    begin = first_decision(agent, market, config, start)
    path = roll(agent, market, task, start=begin)
    return Evaluation(
        run,
        Backtest.of(path, market),
        notes(run, market, config, path.dates[0]),
        note_forecasts([agent], [(path.dates[0], None)], market),
    )


def load_agent(run: Run, config: AgentConfig) -> Agent:
    """The fitted agent of a run.

    Raises:
        SettingError: If the run did not finish or stored no agent.
        DataError: If what it stored is damaged.

    """
    if not run.finished:
        raise SettingError(f"{run.path}: the run is {run.status}: {run.error or 'no numbers'}")
    folder = run.path / "model"
    if not folder.is_dir():
        raise SettingError(f"{run.path}: holds no model; {run.manifest.get('model', 'not saved')}")
    try:
        return stored_agent(config, folder)
    except DAMAGE as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{folder}: the model cannot be loaded: {reason}") from error


def check_market(run: Run, market: Market) -> None:
    """Refuse data with other assets than the agent knows."""
    known = tuple(run.manifest.get("data", {}).get("assets", ()))
    if market.assets != known:
        raise DataError(
            f"{market.name}: assets must be those the agent knows, {', '.join(known)}; "
            f"got {', '.join(market.assets)}"
        )


def first_decision(
    agent: Agent, market: Market, config: ExperimentConfig, start: str | None
) -> pd.Timestamp | str | None:
    """The date asked for, or the end of validation, or None for the earliest there can be."""
    if start is not None:
        return start
    earliest = agent.lookback - 1 + config.task.decision_lag
    end = pd.Timestamp(str(config.split.valid_end))
    if earliest < market.n_periods and market.dates[earliest] <= end < market.dates[-1]:
        return market.dates[market.index(end)]
    return None


def notes(run: Run, market: Market, config: ExperimentConfig, begin: pd.Timestamp) -> list[str]:
    """Whether the agent knew these days, and caveats of the data that the run did not have."""
    known = run.manifest.get("data", {}).get("notes", [])
    fresh = [note for note in market.notes if note not in known]
    end = pd.Timestamp(str(config.split.valid_end))
    if begin >= end:
        return fresh
    return [f"days up to {end:%Y-%m-%d} were used to train or to choose the agent", *fresh]


def other_rules(own: TaskConfig, used: TaskConfig) -> list[str]:
    """Says so where the rules are not those the agent was made for; its reward plays no part."""
    before, after = (dict(_leaves(dataclasses.asdict(task))) for task in (own, used))
    found = [
        f"task.{key} {after[key]}, was {before[key]}"
        for key in after
        if key != "reward" and after[key] != before[key]
    ]
    return [f"the rules differ from the run's own: {'; '.join(found)}"] if found else []


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """The back-test as CSV where the file's name ends so, else as Parquet.

    Raises:
        SettingError: If the file cannot be written.

    """
    try:
        write_atomic(path, frame.to_csv() if path.suffix == ".csv" else frame.to_parquet())
    except OSError as error:
        raise SettingError(f"--output: cannot write {path}: {error.strerror}") from error
