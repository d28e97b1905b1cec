"""One trial: one agent, one seed, one split -> one run folder. The unit of all scale-out.

train ............... | valid ............. | test ....................
the agent learns        picks its best        read once, at the very end
                                          ^ first decision: the close of validation's last day,
                                            so that the first return is that of test's first day
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no types

from agents.rollout import roll
from agents.selection import DivergedError
from experiments import history
from experiments.backtest import Backtest
from experiments.config import ExperimentConfig
from experiments.cross_config import PurgedConfig
from experiments.forecast_notes import note_forecasts, write_forecasts
from experiments.lock import locked
from experiments.plan import Plan, make_task, prepare
from experiments.resume import Existing, Leftover
from experiments.reuse import foreign_code
from experiments.robustness import Player, harder
from experiments.run_dir import RunFolder, run_path
from experiments.stopping import safe_points
from experiments.tracking import RunMonitor, Watcher
from experiments.tune_config import TuneConfig
from experiments.walk_config import WindowedConfig

if TYPE_CHECKING:
    from agents.base import Agent, Task
    from market import Market


@dataclass(frozen=True)
class Trial:
    """Picklable description of one run.

    Attributes:
        config: Of the experiment.
        seed: The one seed of this trial; the trial's number where settings are searched.
        command: The command line, for the manifest.
        existing: What to do where a run was cut off: go on with it, go on though something has
            changed since, or begin anew.

    """

    config: ExperimentConfig | WindowedConfig | TuneConfig | PurgedConfig
    seed: int
    command: str = ""
    existing: Existing = "continue"

    @property
    def name(self) -> str:
        """What people call it."""
        kind = "trial" if isinstance(self.config, TuneConfig) else "seed"
        return f"{self.config.agent.title} {kind} {self.seed}"


def trial(spec: Trial, watch: Watcher | None = None) -> Path:
    """Fit, save and back-test one agent.

    Args:
        spec: What to run.
        watch: Told the fraction of the work that is done.

    Returns:
        The run folder; its manifest says "finished".

    Raises:
        InputError: If a setting is wrong: before anything is written.
        Exception: Whatever stopped the agent; the run folder is then marked "failed" and says why.

    """
    one_thread()
    with threadpool_limits(1):
        if isinstance(spec.config, WindowedConfig):
            from experiments.walk_forward import walk

            return walk(spec, watch)
        if isinstance(spec.config, TuneConfig):
            from experiments.tuning import try_settings

            return try_settings(spec.config, spec.seed, watch)
        if isinstance(spec.config, PurgedConfig):
            from experiments.cross_run import run_paths

            return run_paths(spec.config, spec.seed, watch)
        config = dataclasses.replace(spec.config, seeds=[spec.seed])
        plan = prepare(config)
        with locked(path_of(spec)):
            run = new_run(plan.config, spec, plan.about_data, splits=plan.splits)
            with run, RunMonitor(run, watch, every=config.checkpoint_every) as monitor:
                _run(plan, spec.seed, run, monitor)
            monitor.done()
    return run.path


def path_of(spec: Trial) -> Path:
    """The run folder."""
    config = spec.config
    return run_path(config.results, config.experiment, config.agent.title, spec.seed)


def new_run(
    config: ExperimentConfig | WindowedConfig, spec: Trial, data: dict[str, Any], **about: Any
) -> RunFolder:
    """The run's folder, marked as running; `config` is resolved.

    Raises:
        SettingError: If a run that was cut off is there, and was made from something else.

    """
    code, digest = foreign_code(config), data["sha256"]
    left = Leftover.at(path_of(spec), spec.existing)
    changes = left.changes(config.plain(), digest, code) if left else []
    if left:
        about |= {"continued": left.continued(changes)}
    return RunFolder.create(
        config.results,
        config.experiment,
        config.agent.title,
        spec.seed,
        config=config.plain(),
        command=spec.command,
        data=data,
        cost=str(make_task(config.task).cost),
        reward=config.task.reward,
        constraints=list(config.task.constraints),
        code=code,
        digest=history.digest(config.plain(), digest, code),
        going_on=left is not None and isinstance(config, ExperimentConfig),
        **about,
    )


def one_thread() -> None:
    """Keep torch to one thread: trials share the machine, and sums must not depend on its size."""
    import torch

    torch.set_num_threads(1)


def _run(plan: Plan, seed: int, run: RunFolder, monitor: RunMonitor) -> None:
    monitor.settings(plan.config.plain())
    started = time.perf_counter()
    _fit(plan, seed, run, monitor)
    fitted = time.perf_counter()
    save(plan.agent, run)
    market, start = final_evaluation(plan)
    write_forecasts(note_forecasts([plan.agent], [(start, None)], market), run, monitor)
    conclude(
        run, monitor, market, plan.task, lambda task: roll(plan.agent, market, task, start=start)
    )
    seconds = {"fit": monitor.earlier + fitted - started, "test": time.perf_counter() - fitted}
    run.update(seconds={key: round(value, 3) for key, value in seconds.items()})


def _fit(plan: Plan, seed: int, run: RunFolder, monitor: RunMonitor) -> None:
    """Train; an upper line is shown the very days it is judged on, and the manifest says so."""
    if not plan.agent.hindsight:
        try:
            with safe_points():
                plan.agent.fit(plan.train, plan.valid, task=plan.task, seed=seed, monitor=monitor)
        except DivergedError as error:
            run.update(diverged=error.step)
            raise
        return
    market, start = final_evaluation(plan)
    plan.agent.fit(market[market.index(start) :], task=plan.task, seed=seed, monitor=monitor)
    run.update(hindsight=True)


def final_evaluation(plan: Plan) -> tuple[Market, pd.Timestamp]:
    """Open the test span: all data, and the day of the first decision."""
    plan.guard.release()
    return plan.guard.rows(0, len(plan.guard.dates)), plan.guard.dates[
        plan.guard.index(plan.ends[1])
    ]


def conclude(run: RunFolder, monitor: RunMonitor, market: Market, task: Task, play: Player) -> None:
    """Judge: play the test span under the rules and under harder ones, and write it all down."""
    result = Backtest.of(play(task), market)
    run.write_robustness(harder(play, task))
    run.write_backtest(result.frame())
    if result.failures:
        run.update(failed_decisions=[f"{day:%Y-%m-%d} {why}" for day, why in result.failures])
    monitor.result(result.metrics() | {"failed_decisions": float(len(result.failures))})
    manifest = run.manifest
    if manifest.get("hindsight"):
        return  # nobody could have chosen it
    history.note(
        run.path.parents[1],
        manifest["agent"],
        seed=manifest["seed"],
        digest=manifest["digest"],
        returns=result.returns,
        free=result.risk_free,
    )


def save(agent: Agent, run: RunFolder) -> None:
    """Store the agent; one that cannot be stored is still judged, and the manifest says so."""
    run.model.mkdir()
    try:
        agent.save(run.model)
    except NotImplementedError as error:
        run.model.rmdir()
        run.update(model=f"not saved: {error}")
