"""`explain`: what drives an agent's weights, from its inputs to what was held.

Four questions, each answered on the days the run was tested on: which inputs move the network's
answer (integrated gradients), which groups of inputs its result depends on (permutation), which
limits bound it when, and why one weight is what it is on one day.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agents import name_of
from agents.base import Agent, Task
from agents.response import NoNetwork, Response
from agents.rollout import Rollout
from experiments.config import ExperimentConfig
from experiments.evaluate import PINNED, check_market, first_decision, load_agent
from experiments.gradients import Gradients, integrated_gradients
from experiments.importance import permutation_importance
from experiments.monitor import as_date, play
from experiments.plan import make_task, read_market
from experiments.runs import Run
from experiments.why import drivers, reason
from market import Market, SettingError

N_TARGETS = 6  # assets whose answers are attributed, the largest mean weights first
POINTS = (64, 128, 256)  # of the integral on the sampled days


@dataclass(frozen=True, kw_only=True)
class ExplainSettings:
    """How a run is explained.

    Attributes:
        date: Day of the decision whose weight is explained; the last one when not given.
        asset: Whose weight; the largest of that day when not given.
        start: First decision; the last day of validation when not given.
        days: Decisions, evenly spread, that gradients are averaged over.
        repeats: Shuffles of each group of inputs.
        block: Days that stay together in a shuffle.
        seed: Of the shuffles.

    """

    date: str | None = None
    asset: str | None = None
    start: str | None = None
    days: int = 8
    repeats: int = 5
    block: int = 21
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("days", "repeats", "block"):
            if getattr(self, key) < 1:
                raise SettingError(f"{key} must be at least 1, got {getattr(self, key)}")


def explain(
    run: Run,
    config: ExperimentConfig,
    changes: Mapping[str, Any],
    settings: ExplainSettings,
    progress: Callable[[float], None] = lambda done: None,
) -> dict[str, Any]:
    """Explain a run's decisions, as JSON has it.

    Args:
        run: A finished run with a stored agent.
        config: What it was run with.
        changes: Fields of the data block that differ.
        settings: What is asked.
        progress: Told the fraction done.

    Raises:
        InputError: If a date or asset is not there, or the data do not suit the agent.

    """
    agent, task = load_agent(run, config.agent), make_task(config.task)
    other = "source" in changes or "options" in changes
    free: dict[str, Any] = dict.fromkeys(PINNED) if other else {}
    market = read_market(dataclasses.replace(config.data, **(free | dict(changes))))
    check_market(run, market)
    begin = first_decision(agent, market, config, settings.start)
    path = play(agent, market, task, start=begin)
    step = decision(path, settings.date)
    column = _column(market, path, step, settings.asset)
    found: dict[str, Any] = {
        "run": str(run.path),
        "agent": run.agent,
        "seed": run.seed,
        "days": [f"{path.dates[0]:%Y-%m-%d}", f"{path.dates[-2]:%Y-%m-%d}", len(path.costs)],
    }
    found |= _network(run, agent, market, task, path, step, column, settings)
    found["limits"] = limits(path)
    rng = np.random.default_rng(settings.seed)
    groups = permutation_importance(
        agent,
        market,
        task,
        rng,
        start=path.dates[0],
        repeats=settings.repeats,
        block=settings.block,
        progress=progress,
    )
    return found | {"importance": [group.plain() for group in groups]}


def decision(path: Rollout, date: str | None) -> int:
    """Number of the decision on a date, or of the last one."""
    days = path.dates[:-1]
    if date is None:
        return len(days) - 1
    day = as_date("date", date)
    if day not in days:
        near = days[min(int(days.searchsorted(day)), len(days) - 1)]
        raise SettingError(
            f"date must be a decision's day from {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}, got "
            f"{date}; the nearest from then on is {near:%Y-%m-%d}"
        )
    return int(days.searchsorted(day))


def _column(market: Market, path: Rollout, step: int, asset: str | None) -> int:
    if asset is None:
        return int(path.targets[step].argmax())
    if asset not in market.assets:
        raise SettingError(f"asset must be one of {', '.join(market.assets)}, got {asset!r}")
    return market.assets.index(asset)


def respond(agent: Agent, market: Market, task: Task, path: Rollout, step: int) -> Response:
    """The network's answer at a decision of the path."""
    row = market.index(path.dates[step]) - task.decision_lag
    held = path.held[step - 1] if step else _first_held(market)
    asked = getattr(agent, "response", None)
    if asked is None:
        raise NoNetwork(f"{name_of(type(agent))} decides by a rule, without a network")
    found: Response = asked(market.upto(row), held)
    return found


def _first_held(market: Market) -> np.ndarray:
    """Before the first decision: all cash, or equal weights."""
    n_assets = market.n_assets
    return np.eye(n_assets)[-1] if market.has_cash else np.full(n_assets, 1.0 / n_assets)


def _network(
    run: Run,
    agent: Agent,
    market: Market,
    task: Task,
    path: Rollout,
    step: int,
    column: int,
    settings: ExplainSettings,
) -> dict[str, Any]:
    """Gradients over sampled days, and the reason of one weight; only a note without a network."""
    try:
        response = respond(agent, market, task, path, step)
    except NoNetwork as error:
        if settings.date is not None or settings.asset is not None:
            raise
        return {"note": f"no integrated gradients: {error}"}
    here = integrated_gradients(response, (column,))
    largest = np.argsort(-path.targets.mean(axis=0), kind="stable")[:N_TARGETS]
    targets = tuple(sorted(int(i) for i in largest))
    sampled = np.unique(np.linspace(0, len(path.costs) - 1, settings.days).astype(int))
    several = [
        integrated_gradients(respond(agent, market, task, path, int(s)), targets, POINTS)
        for s in sampled
    ]
    about = {"asset": market.assets[column], "date": f"{path.dates[step]:%Y-%m-%d}"}
    why = {
        **about,
        "weight": float(path.targets[step, column]),
        "mean_weight": float(path.targets[:, column].mean()),
        "answer": float(here.answer[0]),
        "baseline": float(here.baseline[0]),
        "meaning": response.meaning,
        "completeness_error": float(here.error[0]),
        "relative_error": here.relative_error,
        "complete": here.is_complete,
        "points": here.points,
        "drivers": drivers(response, here, market.assets),
        "limits": [name for name, moved in path.binding.items() if moved[step]],
    }
    why["sentence"] = reason(run.agent, why)
    found = {"why": why, "gradients": _averages(response, several, market.assets, targets)}
    return found | ({"note": response.note} if response.note else {})


def _averages(
    response: Response, several: list[Gradients], assets: tuple[str, ...], targets: tuple[int, ...]
) -> dict[str, Any]:
    """Mean absolute attributions over days and answers: by feature, by asset seen, by lag."""
    size = np.mean([np.abs(each.features) for each in several], axis=0)  # (K, L, M, F)
    context = np.mean([np.abs(each.context) for each in several], axis=0)  # (K, L, G)
    held = np.mean([np.abs(each.held) for each in several], axis=0)  # (K, N)
    names = [*response.feature_names, *response.context_names, "weights held"]
    by_feature = [
        *size.sum(axis=(1, 2)).mean(axis=0),
        *context.sum(axis=1).mean(axis=0),
        held.sum(axis=1).mean(),
    ]
    by_lag = np.concatenate([size.sum(axis=2), context], axis=2).mean(axis=0)[::-1]  # (L, F + G)
    return {
        "meaning": response.meaning,
        "days": len(several),
        "features": dict(zip(names, map(float, by_feature), strict=True)),
        "assets": {
            "answers": [assets[i] for i in targets],
            "seen": list(response.assets),
            "size": size.sum(axis=(1, 3)).tolist(),
        },
        "lags": {"names": names[:-1], "size": by_lag.tolist()},
        "relative_error": float(np.median([each.relative_error for each in several])),
        "worst_error": float(max(each.relative_error for each in several)),
        "points": max(each.points for each in several),
    }


def limits(path: Rollout) -> list[dict[str, Any]]:
    """Each constraint: on what part of the days it moved the target, and its spells."""
    return [
        {"name": name, "share": float(bound.mean()), "spells": spells(path.dates[:-1], bound)}
        for name, bound in path.binding.items()
    ]


def spells(dates: pd.DatetimeIndex, bound: np.ndarray) -> list[list[Any]]:
    """First day, last day and length of each run of days with a flag set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bound.astype(int), [0]])))
    return [
        [f"{dates[a]:%Y-%m-%d}", f"{dates[b - 1]:%Y-%m-%d}", int(b - a)]
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]
