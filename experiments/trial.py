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
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no types

from agents.rollout import roll
from experiments.backtest import Backtest
from experiments.config import ExperimentConfig
from experiments.plan import Plan, prepare
from experiments.run_dir import RunFolder
from experiments.tracking import RunMonitor, Watcher

if TYPE_CHECKING:
    from agents.base import Agent


@dataclass(frozen=True)
class Trial:
    """Picklable description of one run.

    Attributes:
        config: Of the experiment.
        seed: The one seed of this trial.
        command: The command line, for the manifest.

    """

    config: ExperimentConfig
    seed: int
    command: str = ""

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.config.agent.title} seed {self.seed}"


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
        config = dataclasses.replace(spec.config, seeds=[spec.seed])
        plan = prepare(config)
        run = RunFolder.create(
            config.results,
            config.experiment,
            config.agent.title,
            spec.seed,
            config=plan.config.plain(),
            command=spec.command,
            data=plan.about_data,
            splits=plan.splits,
            cost=str(plan.task.cost),
            reward=str(plan.task.reward),
            constraints=list(config.task.constraints),
        )
        with run, RunMonitor(run, watch) as monitor:
            _run(plan, spec.seed, run, monitor)
    return run.path


def one_thread() -> None:
    """Keep torch to one thread: trials share the machine, and sums must not depend on its size."""
    import torch

    torch.set_num_threads(1)


def _run(plan: Plan, seed: int, run: RunFolder, monitor: RunMonitor) -> None:
    monitor.settings(plan.config.plain())
    started = time.perf_counter()
    plan.agent.fit(plan.train, plan.valid, task=plan.task, seed=seed, monitor=monitor)
    fitted = time.perf_counter()
    _save(plan.agent, run)
    result = judge(plan)
    run.write_backtest(result.frame())
    monitor.result(result.metrics())
    seconds = {"fit": fitted - started, "test": time.perf_counter() - fitted}
    run.update(seconds={key: round(value, 3) for key, value in seconds.items()})


def judge(plan: Plan) -> Backtest:
    """The fitted agent over the test span."""
    start = plan.market.dates[plan.market.index(plan.ends[1])]
    path = roll(plan.agent, plan.market, plan.task, start=start)
    return Backtest.of(path, plan.market)


def _save(agent: Agent, run: RunFolder) -> None:
    """Store the agent; one that cannot be stored is still judged, and the manifest says so."""
    run.model.mkdir()
    try:
        agent.save(run.model)
    except NotImplementedError as error:
        run.model.rmdir()
        run.update(model=f"not saved: {error}")
