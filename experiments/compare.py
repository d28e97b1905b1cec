"""Several agents on one split: trials, then the table and the report of all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.base import Agent
from experiments.agent_choice import agent_class
from experiments.config import CompareConfig, ExperimentConfig
from experiments.pace import RULE
from experiments.parallel import Outcome, run_trials
from experiments.plan import prepare, read_market
from experiments.progress import display
from experiments.run_dir import ensure_writable, run_path
from experiments.runs import Run
from experiments.trial import Trial


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


def compare(config: CompareConfig, command: str = "") -> Comparison:
    """Train and back-test every agent with every seed.

    Raises:
        InputError: If any agent's settings do not fit; before anything is written or trained.

    """
    return run_experiments(config.experiments(), config.n_workers, command)


def run_experiments(
    experiments: Sequence[ExperimentConfig], workers: int, command: str = ""
) -> Comparison:
    """Run all seeds of experiments that share their data and their folder.

    Learners go first, because they take longest; agents that do not learn run with one seed.
    """
    first = experiments[0]
    market = read_market(first.data)
    for config in experiments:
        prepare(config, market)
    folder = Path(first.results) / first.experiment
    ensure_writable(folder)
    learners = [config for config in experiments if _learns(config)]
    others = [config for config in experiments if not _learns(config)]
    trials = [spec for config in (*learners, *others) for spec in trials_of(config, command)]
    slow = {config.agent.title for config in learners}
    titles = [spec.config.agent.title for spec in trials]
    groups = [title if title in slow else RULE for title in titles]
    watched = list(zip(groups, [spec.name for spec in trials], strict=True))
    with display(watched, workers) as shown:
        outcomes = run_trials(trials, workers=workers, display=shown)
    return Comparison([read_run(outcome) for outcome in outcomes], outcomes, folder)


def trials_of(config: ExperimentConfig, command: str = "") -> list[Trial]:
    """One trial a seed; one in all for an agent that does not learn."""
    seeds = config.seed_list if _learns(config) else config.seed_list[:1]
    return [Trial(config, seed, command) for seed in seeds]


def read_run(outcome: Outcome) -> Run:
    """The run as it stands on disk; failed if its trial failed, whatever lies there from before."""
    config = outcome.spec.config
    path = run_path(config.results, config.experiment, config.agent.title, outcome.spec.seed)
    run = Run.read(path)
    if outcome.error is None:
        return run
    return dataclasses.replace(run, status="failed", error=outcome.error)


def _learns(config: ExperimentConfig) -> bool:
    """Whether seeds matter: as the agent says, else if it has a `fit` of its own."""
    kind = agent_class(config.agent.name)
    return bool(getattr(kind, "learns", kind.fit is not Agent.fit))
