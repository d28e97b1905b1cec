"""Search for good settings on validation; the test span stays shut.

A trial is one choice of settings. It is fitted with every seed on the training span, each seed is
played through validation (`experiments.tune_seeds`), and the interquartile mean of their Sharpe
ratios is its score. Data come through the guard of `experiments.plan`, which is never released
here.

A trial that is cut off goes on with its attempt in the journal where nobody recorded its end.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.agent_choice import learns, make_agent
from experiments.outcome import Outcome
from experiments.pace import RULE
from experiments.parallel import capacity, run_trials
from experiments.plan import Plan, prepare, read_market
from experiments.progress import display
from experiments.reuse import changed_settings, changes, foreign_code
from experiments.run_dir import ensure_writable, write_atomic
from experiments.seeds import interquartile_mean
from experiments.study import (
    NUMBER,
    REASON,
    SCORES,
    bury,
    held,
    is_done,
    latest,
    make_sampler,
    open_study,
    propose,
    study_folder,
    trial_folder,
)
from experiments.tracking import Watcher
from experiments.trial import Trial
from experiments.tune_config import TuneConfig
from experiments.tune_seeds import Points, scores_of
from market.errors import SettingError


@dataclass(frozen=True)
class Search:
    """What a search has found so far.

    Attributes:
        config: What was asked for.
        plan: The data and the agent as it is; its guard is shut.
        tried: optuna's record of each trial, by its number.
        outcomes: Of the trials that ran now.
        folder: `results/<experiment>/tuning/<agent>`.

    """

    config: TuneConfig
    plan: Plan
    tried: dict[int, Any]
    outcomes: list[Outcome]
    folder: Path

    @property
    def scored(self) -> list[Any]:
        """Trials with a score, the best first; of equals the earlier."""
        done = [one for one in self.tried.values() if one.state.name == "COMPLETE"]
        return sorted(done, key=lambda one: (-one.value, one.user_attrs[NUMBER]))


def tune(config: TuneConfig, command: str = "", *, overwrite: bool = False) -> Search:
    """Try settings until as many are done as were asked for.

    Raises:
        SettingError: If settings do not fit, or another search is there already; before anything
            is tried.

    """
    market = read_market(config.data)
    plan = prepare(config.single(), market)
    if plan.agent.hindsight:
        raise SettingError(f"agent {config.agent.title}: is shown the days it is judged on")
    _check_space(config)
    folder = study_folder(config)
    workers = capacity(config.n_workers, config.cluster)
    ensure_writable(folder.parents[1])
    if overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    _check_same(folder / "space.json", _signature(config, plan))
    study = open_study(config)
    kept = {number for number, one in latest(study).items() if is_done(one)}
    trials = [Trial(config, n, command) for n in range(config.trials) if n not in kept]
    group = config.agent.title if learns(config.agent.name) else RULE
    with display([(group, spec.name) for spec in trials], workers) as shown:
        if kept:
            shown.say(f"Done before, kept: {len(kept)} of {config.trials} trials")
        outcomes = (
            run_trials(trials, workers=workers, display=shown, cluster=config.cluster)
            if trials
            else []
        )
    for outcome in outcomes:
        if outcome.error is not None:
            with held(trial_folder(config, outcome.spec.seed) / "lock") as ours:
                if ours:
                    bury(study, outcome.spec.seed, outcome.error)
    return Search(config, plan, latest(open_study(config)), outcomes, folder)


def _check_space(config: TuneConfig) -> None:
    """Every end of a range and every choice must be a setting the agent takes by itself."""
    for key, room in config.searched.items():
        for value in room if isinstance(room, tuple) else (room.low, room.high):
            make_agent(config.single({key: value}).agent)


def _signature(config: TuneConfig, plan: Plan) -> dict[str, Any]:
    """What must not change between calls, for scores to be comparable."""
    settings = plan.config.plain()
    settings.pop("results")
    space = {key: repr(room) for key, room in config.searched.items()}
    code = foreign_code(config)
    made: dict[str, Any] = json.loads(
        json.dumps([settings, space, plan.about_data["sha256"], code], default=str)
    )
    return dict(zip(("settings", "space", "data", "code"), made, strict=True))


def _check_same(path: Path, ours: Mapping[str, Any]) -> None:
    if not path.exists():
        write_atomic(path, json.dumps(ours, indent=1) + "\n")
        return
    theirs = json.loads(path.read_text("utf-8"))
    spaces = ({"space": each["space"]} for each in (ours, theirs))
    found = [*changed_settings(*spaces), *changes(ours, theirs)]
    if found:
        raise SettingError(
            f"{path.parent} holds another search: {'; '.join(found)}. Choose another "
            "--experiment or --agent.label, or --overwrite"
        )


def try_settings(config: TuneConfig, number: int, watch: Watcher | None) -> Path:
    """Run one trial, unless another process is at it or it is done.

    Raises:
        Exception: Whatever stopped the agent; the journal then holds the reason.

    """
    import optuna

    folder = trial_folder(config, number)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / "lock") as ours:
        study = open_study(config)
        before = latest(study).get(number)
        if not ours or (before is not None and is_done(before)):
            return folder
        given = before.params if before is not None else _as_it_is(config, number)
        space = config.searched
        whole = given.keys() == space.keys()
        sampler = make_sampler(config, number, given if whole else {})
        if before is not None and before.state.name == "RUNNING" and whole:
            study = open_study(config, sampler)
            trial, told = optuna.Trial(study, before._trial_id), before.intermediate_values
        else:
            bury(study, number, "its process died")
            study = open_study(config, sampler)
            trial, told = study.ask(), {}
            trial.set_user_attr(NUMBER, number)
        settings = propose(trial, space)
        try:
            points = Points(trial, told)
            scores = scores_of(config, number, settings, points, watch)
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except Exception as error:
            trial.set_user_attr(REASON, " ".join(str(error).split()))
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise
        else:
            trial.set_user_attr(SCORES, scores)
            study.tell(trial, float(interquartile_mean(scores)))
    return folder


def _as_it_is(config: TuneConfig, number: int) -> dict[str, Any]:
    """The agent's settings as they are, for the first trial, where they are among what is tried."""
    if number > 0:
        return {}
    own = make_agent(config.agent).settings
    found = {key: getattr(own, key) for key in config.searched}
    inside = all(value in config.searched[key] for key, value in found.items())
    return found if inside else {}
