"""Walk-forward: fit, be judged, move on, fit again; one path through all the years.

    train .......... | valid .. | test window 0 |
         train .......... | valid .. | test window 1 |       (rolling; expanding keeps the start)
                                     ^ seam: the new agent takes over what the old one held

The path is one back-test over all windows: at a seam the agent changes, the portfolio does not, and
what the new one wants to trade is paid for. Limits with a memory, such as a stop-loss, keep it.

    seed_<nnn>/windows/<nnn>/   model/, metrics.jsonl, window.json; renamed into place when complete

A window that is there is never computed again; a run that was cut off goes on with the next.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.base import Agent, Task
from agents.rollout import roll
from experiments.agent_choice import make_agent, stored_agent
from experiments.checkpoints import FOLDER
from experiments.forecast_notes import note_forecasts, write_forecasts
from experiments.guard import Guard
from experiments.lock import locked
from experiments.plan import (
    FRACTIONS,
    about_data,
    check_folders,
    make_task,
    read_market,
    resolved_agent,
    resolved_data,
    row_from,
    try_out,
)
from experiments.reuse import changes, foreign_code
from experiments.run_dir import RunFolder, run_path, write_atomic
from experiments.splits import Window, walk_forward
from experiments.stopping import safe_points
from experiments.storage import sync_files, sync_folder
from experiments.tracking import RunMonitor, Watcher
from experiments.walk_config import WalkConfig, WindowedConfig
from experiments.warm_start import check_warm_start, start_from
from market import DataError, Market, SettingError

if TYPE_CHECKING:
    from experiments.trial import Trial


@dataclass(frozen=True)
class WalkPlan:
    """A walk-forward, ready to run.

    Attributes:
        config: Resolved.
        market: All the data; agents are handed what a guard lets through.
        windows: Rows of each refit.
        task: Rules for fitting and for judging.
        about_data: What the manifest says of the data.

    """

    config: WindowedConfig
    market: Market
    windows: list[Window]
    task: Task
    about_data: dict[str, Any]

    @property
    def splits(self) -> dict[str, list[str]]:
        """First and last day of the first window's training and validation, and of all tests."""
        first, last = self.windows[0], self.windows[-1]
        return {
            "train": self.days(first.train),
            "valid": self.days(first.valid),
            "test": self.days((first.test[0], last.test[1])),
        }

    def days(self, rows: tuple[int, int]) -> list[str]:
        """First and last day."""
        dates = self.market.dates
        return [f"{dates[rows[0]]:%Y-%m-%d}", f"{dates[rows[1] - 1]:%Y-%m-%d}"]


def prepare_walk(config: WindowedConfig, market: Market | None = None) -> WalkPlan:
    """Load, cut and check everything a walk-forward needs; nothing is written.

    Raises:
        InputError: If any setting does not fit the data, the task or the agent.

    """
    check_folders(config)
    agent, task = make_agent(config.agent), make_task(config.task)
    if agent.hindsight:
        raise SettingError(
            f"agent {config.agent.title}: is shown the days it is judged on, which windows have "
            "not; compare it on one split"
        )
    if config.walk.warm_start:
        check_warm_start(agent, config.agent.title)
    market = market if market is not None else read_market(config.data)
    first = first_test(config.walk, market)
    _check_room(config.walk, market, first)
    windows = walk_forward(
        market.n_periods,
        first,
        config.walk.refit_every,
        n_valid=config.walk.valid_days,
        n_train=config.walk.train_days,
        horizon=int(getattr(agent, "horizon", 1)),
    )
    start, stop = windows[0].train
    needed = agent.lookback + task.decision_lag + 1
    if stop - start < needed:
        raise DataError(
            f"agent {config.agent.title}: lookback {agent.lookback} with decision_lag "
            f"{task.decision_lag} needs {needed} days of training, the first window has "
            f"{stop - start}"
        )
    try_out(agent, task, market[start:stop])
    walk = dataclasses.replace(config.walk, start=f"{market.dates[first]:%Y-%m-%d}")
    resolved = dataclasses.replace(
        config,
        data=resolved_data(config.data, market),
        walk=walk,
        agent=resolved_agent(agent, config.agent),
    )
    return WalkPlan(resolved, market, windows, task, about_data(market))


def first_test(walk: WalkConfig, market: Market) -> int:
    """Row of the first test day."""
    if walk.start is None:
        return max(1, round(FRACTIONS[0] * market.n_periods))
    return row_from(market, walk.start)


def _check_room(walk: WalkConfig, market: Market, first: int) -> None:
    """Refuse a first test day without enough days before it, by its date."""
    learn = walk.train_days or 2
    needed = 1 + learn + walk.valid_days  # the first day has a price and no return
    if first >= needed:
        return
    said = f"{learn} of training (walk.train_days)" if walk.train_days else "2 or more of training"
    where = (
        f"the earliest walk.start is {market.dates[needed]:%Y-%m-%d}"
        if needed < market.n_periods
        else f"the data have {market.n_periods} days in all"
    )
    raise DataError(
        f"walk-forward: the first test day, {market.dates[first]:%Y-%m-%d}, has {first} days "
        f"before it, which do not hold {said} and {walk.valid_days} of validation "
        f"(walk.valid_days); {where}"
    )


class Relay(Agent):
    """Each agent decides from its own first decision on, until the next one takes over.

    Args:
        agents: One a window.
        rows: Row of each one's first decision.
        decision_lag: By which the history they see is older.

    """

    def __init__(self, agents: Sequence[Agent], rows: Sequence[int], decision_lag: int) -> None:
        self.agents, self.rows, self.decision_lag = list(agents), np.asarray(rows), decision_lag
        self.lookback = max(agent.lookback for agent in self.agents)

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The target of whoever is on duty."""
        row = history.n_periods - 1 + self.decision_lag
        on_duty = int(np.searchsorted(self.rows, row, side="right")) - 1
        agent = self.agents[max(0, on_duty)]
        target = agent.act(history, weights)
        self.binding, self.failed = agent.binding, agent.failed
        return target


def walk(spec: Trial, watch: Watcher | None) -> Path:
    """Fit every window that is not there yet, then judge the whole path.

    Returns:
        The run folder; its manifest says "finished".

    """
    from experiments.trial import path_of

    assert isinstance(spec.config, WindowedConfig)
    plan = prepare_walk(dataclasses.replace(spec.config, seeds=[spec.seed]))
    with locked(path_of(spec)):
        return _walk(plan, spec, watch)


def _walk(plan: WalkPlan, spec: Trial, watch: Watcher | None) -> Path:
    from experiments.trial import conclude, new_run, save

    config, seed = plan.config, spec.seed
    keep = spec.existing != "overwrite" and _windows_fit(plan, seed)
    about = {"splits": plan.splits, "windows": len(plan.windows)}
    run = new_run(plan.config, spec, plan.about_data, keep_windows=keep, **about)
    with run, RunMonitor(run, watch) as monitor:
        monitor.settings(plan.config.plain())
        started = time.perf_counter()
        agents: list[Agent] = []
        for number in range(len(plan.windows)):
            before = agents[-1] if agents and config.walk.warm_start else None
            agents.append(_window(plan, run, number, seed, before, _part(watch, number, plan)))
        fitted = time.perf_counter()
        save(agents[-1], run)
        rows = [window.test[0] - 1 for window in plan.windows]
        start = plan.market.dates[rows[0]]

        def play(task: Task) -> Any:
            relay = Relay(agents, rows, task.decision_lag)
            return roll(relay, plan.market, task, start=start)

        ends = [plan.market.dates[window.test[1] - 2] for window in plan.windows]
        spans = list(zip(plan.market.dates[rows], ends, strict=True))
        write_forecasts(note_forecasts(agents, spans, plan.market), run, monitor)
        conclude(run, monitor, plan.market, plan.task, play)
        seconds = {"fit": fitted - started, "test": time.perf_counter() - fitted}
        run.update(seconds={key: round(value, 3) for key, value in seconds.items()})
    return run.path


def _windows_fit(plan: WalkPlan, seed: int) -> bool:
    """Whether the windows on disk, if any, are of this very plan."""
    config = plan.config
    path = run_path(config.results, config.experiment, config.agent.title, seed) / "windows"
    about = path / "plan.json"
    if not about.is_file():
        return False
    ours, theirs = (json.loads(text) for text in (_signature(plan), about.read_text("utf-8")))
    parts = ("settings", "data", "code")
    return not any(changes(*(dict(zip(parts, each, strict=True)) for each in (ours, theirs))))


def _signature(plan: WalkPlan) -> str:
    """What every window depends on; folders of another plan are thrown away."""
    settings = plan.config.plain()
    settings.pop("results")
    about = [settings, plan.about_data["sha256"], foreign_code(plan.config)]
    return json.dumps(about, sort_keys=True, default=str) + "\n"


def _window(
    plan: WalkPlan, run: RunFolder, number: int, seed: int, before: Agent | None, watch: Watcher
) -> Agent:
    """The fitted agent of one window: from disk where it is complete, else trained and stored."""
    folder = run.windows / f"{number:03d}"
    if (folder / "model").is_dir():
        watch(1.0)
        return stored_agent(plan.config.agent, folder / "model")
    run.windows.mkdir(exist_ok=True)
    if not (run.windows / "plan.json").exists():
        write_atomic(run.windows / "plan.json", _signature(plan))
    part = RunFolder(folder.with_name(f".{folder.name}.part"))
    shutil.rmtree(folder, ignore_errors=True)  # of an agent that cannot be stored
    if not (part.path / FOLDER).is_dir():  # cut off before there was anything to go on from
        shutil.rmtree(part.path, ignore_errors=True)
    part.path.mkdir(exist_ok=True)
    shutil.rmtree(part.model, ignore_errors=True)
    window, task = plan.windows[number], plan.task
    agent = make_agent(plan.config.agent)
    guard = Guard(plan.market, window.valid[1] - 1)
    train = guard.rows(*window.train)
    back = agent.lookback + task.decision_lag
    valid = guard.rows(max(window.train[0], window.valid[0] - back), window.valid[1])
    if before is not None:
        start_from(agent, before)
    started = time.perf_counter()
    with RunMonitor(part, watch, every=plan.config.checkpoint_every) as monitor, safe_points():
        agent.fit(train, valid, task=task, seed=seed, monitor=monitor)
    spans = {name: plan.days(getattr(window, name)) for name in ("train", "valid", "test")}
    about = spans | {"seconds": round(monitor.earlier + time.perf_counter() - started, 3)}
    write_atomic(part.path / "window.json", json.dumps(about, indent=2) + "\n")
    part.model.mkdir()
    try:
        agent.save(part.model)
    except NotImplementedError:  # judged all the same, and fitted again after a cut
        part.model.rmdir()
    monitor.done()
    sync_files(part.path)
    part.path.rename(folder)
    sync_folder(run.windows)
    return agent


def _part(watch: Watcher | None, number: int, plan: WalkPlan) -> Watcher:
    """Progress of one window as progress of all."""
    total = len(plan.windows)

    def told(done: float) -> None:
        if watch is not None:
            watch((number + done) / (total + 0.05))

    return told
