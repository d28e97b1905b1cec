"""Several agents on one split: trials, then the table and the report of all of them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from experiments.agent_choice import agent_class, learns, make_agent
from experiments.config import Common, CompareConfig, ExperimentConfig
from experiments.pace import RULE
from experiments.parallel import Outcome, capacity, run_trials
from experiments.plan import Plan, prepare, read_market
from experiments.progress import Display, display
from experiments.reuse import foreign_code, is_done, other_software
from experiments.run_dir import ensure_writable, run_path
from experiments.runs import Run
from experiments.settings import together
from experiments.trial import Trial
from experiments.walk_config import WalkForwardConfig, WindowedConfig
from experiments.walk_forward import WalkPlan, prepare_walk
from market import Market


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    Attributes:
        runs: One a trial, failed ones too, in the order of the agents.
        outcomes: The same, with tracebacks.
        folder: `results/<experiment>`.

    """

    runs: list[Run]
    outcomes: list[Outcome]
    folder: Path

    @property
    def failed(self) -> list[Outcome]:
        """Trials without numbers."""
        return [outcome for outcome in self.outcomes if outcome.error]


def compare(
    config: CompareConfig | WalkForwardConfig, command: str = "", *, overwrite: bool = False
) -> Comparison:
    """Train and back-test every agent with every seed.

    Raises:
        InputError: If any agent's settings do not fit, or clash with those of a finished run;
            before anything is written or trained.

    """
    return run_experiments(
        config.experiments(), config.n_workers, command, overwrite=overwrite, cluster=config.cluster
    )


def run_experiments(
    experiments: Sequence[ExperimentConfig | WindowedConfig],
    workers: int,
    command: str = "",
    *,
    overwrite: bool = False,
    cluster: str | None = None,
) -> Comparison:
    """Run all seeds of experiments that share their data and their folder.

    Learners go first, because they take longest, ensembles last, because their members may be there
    by then; agents that do not learn run with one seed. Runs that are there already, made from the
    same settings and data, are kept as they are.
    """
    together(*(partial(make_agent, config.agent) for config in experiments))
    first = experiments[0]
    market = read_market(first.data)
    experiments = sorted(experiments, key=_turn)
    trials = [spec for config in experiments for spec in trials_of(config, command)]
    plans = [_prepared(config, market) for config in experiments]
    kept = (
        [] if overwrite else _kept(trials, dict(zip(map(_title, experiments), plans, strict=True)))
    )
    folder = Path(first.results) / first.experiment
    ensure_writable(folder)
    workers = capacity(workers, cluster)
    if overwrite:
        for spec in trials:
            shutil.rmtree(_path(spec) / "windows", ignore_errors=True)
    waiting = [spec for spec in trials if spec not in kept]
    slow = {_title(config) for config in experiments if learns(config.agent.name)}
    titles = [_title(spec.config) for spec in waiting]
    groups = [title if title in slow else RULE for title in titles]
    watched = list(zip(groups, [spec.name for spec in waiting], strict=True))
    with display(watched, workers) as shown:
        tell_kept(shown, [(spec.name, _path(spec)) for spec in kept])
        done = (
            run_trials(waiting, workers=workers, display=shown, cluster=cluster) if waiting else []
        )
    ended = {outcome.spec.name: outcome for outcome in done}
    outcomes = [ended.get(spec.name) or Outcome(spec, _path(spec)) for spec in trials]
    return Comparison([read_run(outcome) for outcome in outcomes], outcomes, folder)


def _prepared(config: ExperimentConfig | WindowedConfig, market: Market) -> Plan | WalkPlan:
    if isinstance(config, WindowedConfig):
        return prepare_walk(config, market)
    return prepare(config, market)


def _kept(trials: Sequence[Trial], plans: Mapping[str, Plan | WalkPlan]) -> list[Trial]:
    """Trials whose runs are finished already."""
    kept = []
    for spec in trials:
        plan = plans[_title(spec.config)]
        settings = dataclasses.replace(plan.config, seeds=[spec.seed]).plain()
        data, code = plan.about_data["sha256"], foreign_code(spec.config)
        if is_done(_path(spec), settings, data, code):
            kept.append(spec)
    return kept


def tell_kept(shown: Display, kept: Sequence[tuple[str, Path]]) -> None:
    """One line for all runs that are not computed again, and what else made them."""
    if not kept:
        return
    names = ", ".join(name for name, _ in kept)
    shown.say(f"Finished before with the same settings and data, kept: {names}")
    others = dict.fromkeys(text for _, path in kept for text in other_software(Run.read(path)))
    if others:
        shown.say(f"They were made with {'; '.join(others)}; --overwrite makes them anew")


def trials_of(config: ExperimentConfig | WindowedConfig, command: str = "") -> list[Trial]:
    """One trial a seed; one in all for an agent that does not learn."""
    seeds = config.seed_list if learns(config.agent.name) else config.seed_list[:1]
    return [Trial(config, seed, command) for seed in seeds]


def _path(spec: Trial) -> Path:
    config = spec.config
    return run_path(config.results, config.experiment, config.agent.title, spec.seed)


def _title(config: Common) -> str:
    return str(config.agent.title)  # type: ignore[attr-defined]


def read_run(outcome: Outcome) -> Run:
    """The run as it stands on disk; failed if its trial failed, whatever lies there from before."""
    run = Run.read(_path(outcome.spec))
    if outcome.error is None:
        return run
    return dataclasses.replace(run, status="failed", error=outcome.error)


def _turn(config: ExperimentConfig | WindowedConfig) -> int:
    """Learners, then rules, then what draws on both."""
    joins = getattr(agent_class(config.agent.name), "joins", False)
    return 2 if joins else int(not learns(config.agent.name))
