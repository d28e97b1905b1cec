"""Several agents on one split: trials, then the table and the report of all of them."""

from __future__ import annotations

import dataclasses
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
from experiments.resume import Existing, Leftover
from experiments.reuse import foreign_code, is_done, other_software
from experiments.run_dir import ensure_writable
from experiments.runs import Run
from experiments.settings import together
from experiments.trial import Trial, path_of
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
    config: CompareConfig | WalkForwardConfig,
    command: str = "",
    *,
    existing: Existing = "continue",
) -> Comparison:
    """Train and back-test every agent with every seed.

    Raises:
        InputError: If any agent's settings do not fit, or clash with those of a run that is there;
            before anything is written or trained.

    """
    return run_experiments(
        config.experiments(), config.n_workers, command, existing=existing, cluster=config.cluster
    )


def run_experiments(
    experiments: Sequence[ExperimentConfig | WindowedConfig],
    workers: int,
    command: str = "",
    *,
    overwrite: bool = False,
    cluster: str | None = None,
    existing: Existing = "continue",
) -> Comparison:
    """Run all seeds of experiments that share their data and their folder.

    Learners go first, because they take longest, ensembles last, because their members may be there
    by then; agents that do not learn run with one seed. Runs that are there already, made from the
    same settings and data, are kept as they are; those that were cut off are gone on with.

    Args:
        experiments: What to run.
        workers: Trials at the same time.
        command: The command line, for the manifests.
        overwrite: Short for existing="overwrite".
        existing: See `Trial`.
        cluster: Address of a Ray cluster to run on; None: here.

    Raises:
        Stopped: If the process was told to stop; it says how to go on.

    """
    together(*(partial(make_agent, config.agent) for config in experiments))
    existing = "overwrite" if overwrite else existing
    first = experiments[0]
    market = read_market(first.data)
    experiments = sorted(experiments, key=_turn)
    trials = [
        dataclasses.replace(spec, existing=existing)
        for config in experiments
        for spec in trials_of(config, command)
    ]
    made = {_title(config): _prepared(config, market) for config in experiments}
    kept, cut_off = _kept(trials, made)
    folder = Path(first.results) / first.experiment
    workers = capacity(workers, cluster)
    ensure_writable(folder)
    waiting = [spec for spec in trials if spec not in kept]
    slow = {_title(config) for config in experiments if learns(config.agent.name)}
    titles = [_title(spec.config) for spec in waiting]
    groups = [title if title in slow else RULE for title in titles]
    watched = list(zip(groups, [spec.name for spec in waiting], strict=True))
    with display(watched, workers) as shown:
        tell_kept(shown, [(spec.name, path_of(spec)) for spec in kept])
        if cut_off:
            names = ", ".join(spec.name for spec in cut_off)
            shown.say(f"Cut off before, gone on with: {names}")
        done = (
            run_trials(waiting, workers=workers, display=shown, cluster=cluster) if waiting else []
        )
    ended = {outcome.spec.name: outcome for outcome in done}
    outcomes = [ended.get(spec.name) or Outcome(spec, path_of(spec)) for spec in trials]
    return Comparison([read_run(outcome) for outcome in outcomes], outcomes, folder)


def _prepared(config: ExperimentConfig | WindowedConfig, market: Market) -> Plan | WalkPlan:
    if isinstance(config, WindowedConfig):
        return prepare_walk(config, market)
    return prepare(config, market)


def _kept(
    trials: Sequence[Trial], plans: Mapping[str, Plan | WalkPlan]
) -> tuple[list[Trial], list[Trial]]:
    """Trials whose runs are finished already, and those whose runs were cut off."""
    kept, cut_off = [], []
    for spec in trials:
        plan, path = plans[_title(spec.config)], path_of(spec)
        settings = dataclasses.replace(plan.config, seeds=[spec.seed]).plain()
        sources = plan.about_data["sha256"], foreign_code(spec.config)
        left = Leftover.at(path, spec.existing)
        if left is not None:
            left.changes(settings, *sources)
            cut_off.append(spec)
        elif spec.existing != "overwrite" and is_done(path, settings, *sources):
            kept.append(spec)
    return kept, cut_off


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


def _title(config: Common) -> str:
    return str(config.agent.title)  # type: ignore[attr-defined]


def read_run(outcome: Outcome) -> Run:
    """The run as it stands on disk; failed if its trial failed, whatever lies there from before."""
    run = Run.read(path_of(outcome.spec))
    if outcome.error is None:
        return run
    return dataclasses.replace(run, status="failed", error=outcome.error)


def _turn(config: ExperimentConfig | WindowedConfig) -> int:
    """Learners, then rules, then what draws on both."""
    joins = getattr(agent_class(config.agent.name), "joins", False)
    return 2 if joins else int(not learns(config.agent.name))
