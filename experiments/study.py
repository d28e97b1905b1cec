"""The record of a search: optuna's journal, which processes and machines may write at once.

results/<experiment>/tuning/<agent>/
    journal.log         every trial: settings, scores on the way, how it ended
    space.json          what is searched, on which data; a search of something else is refused
    trial_<nnnn>/lock   held by whoever runs that trial; one that dies lets go of it
    trial_<nnnn>/of_seed_<n>/   TensorBoard's curves, metrics.jsonl, validation.parquet
    best.yaml           the settings that did best, for `allocgym train` and `compare`
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.search import Choices, Range
from experiments.run_dir import check_name
from experiments.tune_config import TuneConfig

if TYPE_CHECKING:
    import optuna

NUMBER, REASON, SCORES = "number", "reason", "scores"  # what we note of optuna's trials


def study_folder(config: TuneConfig) -> Path:
    """Where a search keeps all it has."""
    experiment = check_name("experiment", config.experiment)
    return Path(config.results) / experiment / "tuning" / check_name("label", config.agent.title)


def trial_folder(config: TuneConfig, number: int) -> Path:
    """Where one trial keeps its curves."""
    return study_folder(config) / f"trial_{number:04d}"


def open_study(config: TuneConfig, sampler: Any = None) -> optuna.Study:
    """Join the search, or begin it."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = str(study_folder(config) / "journal.log")
    backend = JournalFileBackend(path, lock_obj=JournalFileOpenLock(path))
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="study",
        direction="maximize",
        load_if_exists=True,
        sampler=sampler,
        pruner=_pruner(config),
    )


def _pruner(config: TuneConfig) -> Any:
    from optuna import pruners

    if config.pruner == "median":
        return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    if config.pruner == "halving":
        return pruners.SuccessiveHalvingPruner(min_resource=2)
    return pruners.NopPruner()


def make_sampler(config: TuneConfig, number: int, given: Mapping[str, Any]) -> Any:
    """Proposes the settings of one trial: those that are given, else drawn by its number."""
    from optuna import samplers

    kind = samplers.TPESampler if config.sampler == "tpe" else samplers.RandomSampler
    base = kind(seed=number)
    if not given:
        return base

    class Given(samplers.BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return {}

        def sample_independent(
            self, study: Any, trial: Any, param_name: str, param_distribution: Any
        ) -> Any:
            return given[param_name]

    return Given()


def propose(trial: optuna.Trial, space: Mapping[str, Range | Choices]) -> dict[str, Any]:
    """The settings of a trial."""
    settings: dict[str, Any] = {}
    for key, room in space.items():
        if isinstance(room, tuple):
            settings[key] = trial.suggest_categorical(key, room)
        elif room.whole:
            settings[key] = trial.suggest_int(key, int(room.low), int(room.high), log=room.log)
        else:
            settings[key] = trial.suggest_float(key, room.low, room.high, log=room.log)
    return settings


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """A lock that a process lets go of however it ends; whether it is ours."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def attempts(study: optuna.Study, number: int | None = None) -> list[Any]:
    """What was done of one trial, or of all: optuna's records, the last attempt last."""
    found = [one for one in study.get_trials(deepcopy=False) if NUMBER in one.user_attrs]
    return [one for one in found if number is None or one.user_attrs[NUMBER] == number]


def latest(study: optuna.Study) -> dict[int, Any]:
    """The last attempt of each trial, by its number."""
    found = {one.user_attrs[NUMBER]: one for one in attempts(study)}
    return {number: found[number] for number in sorted(found)}


def is_done(attempt: Any) -> bool:
    """Whether a trial came to an end of its own: scored or pruned."""
    return attempt.state.name in ("COMPLETE", "PRUNED")


def bury(study: optuna.Study, number: int, reason: str) -> None:
    """Record attempts that are still said to run as failed; only for whoever holds the lock."""
    import optuna

    for one in attempts(study, number):
        if one.state.name == "RUNNING":
            optuna.Trial(study, one._trial_id).set_user_attr(REASON, reason)
            study.tell(one.number, state=optuna.trial.TrialState.FAIL)
