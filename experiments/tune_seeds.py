"""The seeds of one trial of a search: fitted, played through validation, scored; kept when done.

trial_<nnnn>/of_seed_<n>/
    made_from.json       settings, data and software; what was made from others is begun anew
    checkpoints/         of the training, there until the seed is done
    metrics.jsonl        its curves, which tell whether the trial is worth going on with
    validation.parquet   returns on validation, written last

A trial that was cut off takes the seeds that are done as they are, and goes on with the training of
the one that was not.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from agents.rollout import path_metrics, roll
from experiments import history
from experiments.agent_choice import learns
from experiments.checkpoints import Checkpoints
from experiments.plan import Plan, prepare
from experiments.provenance import git_commit, software_versions
from experiments.reuse import foreign_code
from experiments.run_dir import RunFolder, write_atomic
from experiments.stopping import safe_points
from experiments.study import study_folder, trial_folder
from experiments.tracking import RunMonitor, Watcher
from experiments.tune_config import TuneConfig
from market.errors import DataError

PART = 10_000  # points at which a trial can be stopped are counted from here for each seed
FIGURES = ("sharpe", "return", "volatility", "drawdown", "turnover")
RESULT = "validation.parquet"
_log = logging.getLogger(__name__)


class Points:
    """What a trial tells on its way, each once; the pruner may stop it there.

    Args:
        trial: optuna's.
        told: What it told before it was cut off.

    """

    def __init__(self, trial: Any, told: Mapping[int, float]) -> None:
        self.trial, self.told = trial, dict(told)

    def tell(self, scores: Sequence[float], point: int) -> None:
        """The mean of what is known at a point.

        Raises:
            TrialPruned: If the trial is not worth going on with.

        """
        import optuna

        if point not in self.told:
            self.trial.report(sum(scores) / len(scores), point)
        elif point < max(self.told):
            return  # it was gone on with from here
        if self.trial.should_prune():
            raise optuna.TrialPruned


class _Seed:
    """Tells of one seed of a trial, given the scores of those before it."""

    def __init__(self, points: Points, before: Sequence[float]) -> None:
        self.points, self.before = points, list(before)
        self.count, self.best = 0, -math.inf

    def __call__(self, values: Mapping[str, Any]) -> None:
        """A line of curves; a Sharpe ratio on validation is a point."""
        found = values.get("eval/sharpe")
        if found is not None and math.isfinite(found):
            self.count, self.best = self.count + 1, max(self.best, float(found))
            self.points.tell([*self.before, self.best], len(self.before) * PART + self.count)


def scores_of(
    config: TuneConfig,
    number: int,
    settings: Mapping[str, Any],
    points: Points,
    watch: Watcher | None,
) -> list[float]:
    """The Sharpe ratio of every seed on validation; each is noted as tried, come what may.

    Raises:
        TrialPruned: If the trial is stopped early.
        Exception: Whatever stopped the agent.

    """
    seeds = config.seed_list if learns(config.agent.name) else config.seed_list[:1]
    scores: list[float] = []
    for place, seed in enumerate(seeds):

        def told(done: float, place: int = place) -> None:
            if watch is not None:
                watch((place + done) / len(seeds))

        folder = RunFolder(trial_folder(config, number) / f"of_seed_{seed}")
        plan = prepare(config.single(settings))
        with _Note(config, number, seed, plan) as note:
            found = _score(config, plan, seed, folder, _Seed(points, scores), told)
            note.returns = pd.read_parquet(folder.path / RESULT)
        # cash and nothing else has no Sharpe ratio, and earns nothing over cash
        scores.append(0.0 if found is None else found)
        if place + 1 < len(seeds):
            points.tell(scores, (place + 1) * PART)
    return scores


def _score(
    config: TuneConfig, plan: Plan, seed: int, folder: RunFolder, tell: _Seed, watch: Watcher
) -> float | None:
    """The Sharpe ratio on validation, None where there is none: as it was found, or found now."""
    same = _made_from_the_same(folder, plan, config)
    if not (same and (folder.path / RESULT).exists()):
        if not (same and _can_go_on(folder)):
            _begin(folder, plan, config)
        _fit(config, plan, seed, folder, tell, watch)
    else:
        for row in folder.metric_rows():
            tell(row)
    watch(1.0)
    (found,) = [row["valid/sharpe"] for row in folder.metric_rows() if "valid/sharpe" in row]
    return None if found is None else float(found)


def _fit(
    config: TuneConfig, plan: Plan, seed: int, folder: RunFolder, tell: _Seed, watch: Watcher
) -> None:
    import optuna

    agent, task, every = plan.agent, plan.task, config.checkpoint_every
    with _Curves(folder, watch, tell, every=every) as monitor:
        monitor.settings(plan.config.plain(), [f"valid/{name}" for name in FIGURES])
        try:
            with safe_points():
                agent.fit(plan.train, plan.valid, task=task, seed=seed, monitor=monitor)
        except optuna.TrialPruned:
            monitor.done()
            raise
        path = roll(agent, plan.valid, task)
        found = path_metrics(path, plan.valid.periods_per_year)
        monitor.record(monitor.last_step, {f"valid/{key}": found[key] for key in FIGURES})
    folder.sync_metrics()
    days = pd.DatetimeIndex(path.dates[1:], name="date")
    columns = {"portfolio_return": path.returns, "risk_free": path.risk_free}
    write_atomic(folder.path / RESULT, pd.DataFrame(columns, index=days).to_parquet())
    monitor.done()


def _signature(plan: Plan, config: TuneConfig) -> str:
    about = {"digest": _digest(plan, config), "versions": software_versions()}
    return json.dumps(about | {"git_commit": git_commit()}, indent=1, sort_keys=True) + "\n"


def _digest(plan: Plan, config: TuneConfig) -> str:
    return history.digest(plan.config.plain(), plan.about_data["sha256"], foreign_code(config))


def _made_from_the_same(folder: RunFolder, plan: Plan, config: TuneConfig) -> bool:
    about = folder.path / "made_from.json"
    return about.is_file() and about.read_text("utf-8") == _signature(plan, config)


def _can_go_on(folder: RunFolder) -> bool:
    """Whether there is a checkpoint that can be used; where all are damaged, that is said."""
    try:
        found = Checkpoints(folder.path).newest(
            lambda about: folder.check_metrics(about["metrics"])
        )
    except DataError:
        _log.warning("%s: no checkpoint can be used; trained anew", folder.path)
        return False
    return found is not None


def _begin(folder: RunFolder, plan: Plan, config: TuneConfig) -> None:
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.path.mkdir()
    write_atomic(folder.path / "made_from.json", _signature(plan, config))


class _Note:
    """One line of the experiment's history for each seed that was begun."""

    def __init__(self, config: TuneConfig, number: int, seed: int, plan: Plan) -> None:
        self.folder, self.seed = study_folder(config).parents[1], seed
        self.name = f"{config.agent.title} trial {number}"
        self.digest = _digest(plan, config)
        self.returns: pd.DataFrame | None = None

    def __enter__(self) -> _Note:
        return self

    def __exit__(self, *_: object) -> None:
        known = self.returns
        history.note(
            self.folder,
            self.name,
            seed=self.seed,
            digest=self.digest,
            returns=None if known is None else known["portfolio_return"].to_numpy(),
            free=0.0 if known is None else known["risk_free"].to_numpy(),
        )


class _Curves(RunMonitor):
    """Writes the curves of one seed, and tells how good it is so far."""

    def __init__(
        self,
        run: RunFolder,
        watch: Watcher,
        tell: Callable[[Mapping[str, Any]], None],
        *,
        every: float,
    ) -> None:
        super().__init__(run, watch, every=every)
        self.tell = tell

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """As always; a Sharpe ratio on validation may end the trial."""
        super().record(step, values)
        self.tell(values)

    def resume(self) -> Any:
        """As always; what was told before counts again."""
        state = super().resume()
        if state is not None:
            for row in self.run.metric_rows():
                self.tell(row)
        return state
