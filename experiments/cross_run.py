"""Cross-validation as trials: one an agent and seed, kept when finished.

results/<experiment>/paths/<agent>/of_seed_<n>/
    paths.parquet   returns after costs, a column a path; risk_free, the cash rate
    settings.json   what they were made from; there only when they are complete
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import history
from experiments.agent_choice import learns, make_agent
from experiments.cross_config import CrossConfig, FoldsConfig, PurgedConfig
from experiments.cross_validation import cross_validate
from experiments.outcome import Outcome
from experiments.pace import RULE
from experiments.parallel import capacity, run_trials
from experiments.plan import check_folders, make_task, read_market, resolved_agent, resolved_data
from experiments.progress import display
from experiments.reuse import changes, foreign_code
from experiments.run_dir import check_name, ensure_writable, write_atomic
from experiments.splits import Gaps, combinatorial, gaps
from experiments.tracking import Watcher
from experiments.trial import Trial
from market import DataError, Market, SettingError
from market.features import expand_features
from market.features.specification import parse_feature
from market.features.warmup import rows_needed


@dataclass(frozen=True)
class Crossed:
    """What a cross-validation came to.

    Attributes:
        config: What was asked for, with its folds spelt out.
        spaces: Purge and embargo of each agent, in days.
        paths: Agent -> returns of each seed, index `date`, a column a path.
        free: Cash rate of the same days.
        periods_per_year: Of the market.
        outcomes: Of the trials that ran now.

    """

    config: CrossConfig
    spaces: dict[str, Gaps]
    paths: dict[str, list[pd.DataFrame]]
    free: pd.Series
    periods_per_year: int
    outcomes: list[Outcome]


def cross(config: CrossConfig, command: str = "", *, overwrite: bool = False) -> Crossed:
    """Cross-validate every agent with every seed on the same folds.

    Raises:
        InputError: If an agent's settings or the folds do not fit; before anything is written.

    """
    market = read_market(config.data)
    agents = [make_agent(agent) for agent in config.agent_list]
    for agent, described in zip(agents, config.agent_list, strict=True):
        if agent.hindsight:
            raise SettingError(f"agent {described.title}: is shown the days it is judged on")
    folds = _resolved(config.folds, market, config, max(agent.lookback for agent in agents))
    config = dataclasses.replace(config, folds=folds)
    singles = [
        dataclasses.replace(
            single,
            data=resolved_data(config.data, market),
            agent=resolved_agent(agent, single.agent),
        )
        for single, agent in zip(config.experiments(folds), agents, strict=True)
    ]
    spaces = {}
    for single, agent in zip(singles, agents, strict=True):
        check_folders(single)
        horizon = int(getattr(agent, "horizon", 1))
        spaces[single.agent.title] = gaps(
            agent.lookback, horizon, config.task.decision_lag, folds.memory or 0
        )
        rows = market.n_periods - market.index(str(folds.start))
        kept = spaces[single.agent.title]
        try:
            next(combinatorial(rows, kept, n_folds=folds.number, n_test=folds.test))
        except DataError as error:
            raise DataError(
                f"agent {single.agent.title}: {error} (lookback {agent.lookback}, horizon "
                f"{horizon}, decision_lag {config.task.decision_lag}, memory of features "
                f"{folds.memory})"
            ) from None
    folder = Path(config.results) / check_name("experiment", config.experiment)
    specs = [
        Trial(single, seed, command)
        for single in singles
        for seed in (config.seed_list if learns(single.agent.name) else config.seed_list[:1])
    ]
    waiting = [x for x in specs if overwrite or not _is_done(x, market.fingerprint())]
    workers = capacity(config.n_workers, config.cluster)
    ensure_writable(folder)
    with display([(_group(spec), spec.name) for spec in waiting], workers) as shown:
        if len(waiting) < len(specs):
            shown.say(f"Finished before, kept: {len(specs) - len(waiting)} of {len(specs)}")
        outcomes = (
            run_trials(waiting, workers=workers, display=shown, cluster=config.cluster)
            if waiting
            else []
        )
    failed = {outcome.spec.name for outcome in outcomes if outcome.error}
    paths: dict[str, list[pd.DataFrame]] = {}
    free = pd.Series(dtype=float)
    for spec in specs:
        if spec.name not in failed:
            frame = pd.read_parquet(_folder(spec) / "paths.parquet")
            free = frame.pop("risk_free")
            paths.setdefault(spec.config.agent.title, []).append(frame)
    return Crossed(config, spaces, paths, free, market.periods_per_year, outcomes)


def _resolved(
    folds: FoldsConfig, market: Market, config: CrossConfig, lookback: int
) -> FoldsConfig:
    """With the first decision and the features' memory spelt out."""
    first = lookback - 1 + config.task.decision_lag
    if first >= market.n_periods - 1:
        raise DataError(
            f"cross-validation: {market.n_periods} days are too few: the agent that looks back "
            f"furthest makes its first decision on day {first + 1}"
        )
    row = first if folds.start is None else market.index(folds.start)
    if row < first or row >= market.n_periods - 1:
        raise SettingError(
            f"folds.start: must be from {market.dates[first]:%Y-%m-%d}, when all agents can "
            f"decide, and before the last day, got {folds.start}"
        )
    memory = folds.memory
    if memory is None:
        memory = feature_memory(market, resolved_data(config.data, market).features)
    return dataclasses.replace(folds, start=f"{market.dates[row]:%Y-%m-%d}", memory=memory)


def feature_memory(market: Market, features: Sequence[str] | None) -> int:
    """Rows before its own that the slowest feature is computed from, as far as can be found out."""
    if features is None:
        return 0
    names = [parse_feature(spec).text for spec in expand_features(features)]
    return max([(rows_needed(market, features, name) or 1) - 1 for name in names], default=0)


def _group(spec: Trial) -> str:
    return spec.config.agent.title if learns(spec.config.agent.name) else RULE


def _folder(spec: Trial) -> Path:
    config = spec.config
    title = check_name("label", config.agent.title)
    return Path(config.results) / config.experiment / "paths" / title / f"of_seed_{spec.seed}"


def _signature(config: PurgedConfig, seed: int, data: str) -> dict[str, Any]:
    settings = dataclasses.replace(config, seeds=[seed]).plain()
    settings.pop("results")
    made = {"settings": settings, "data": data, "code": foreign_code(config)}
    plain: dict[str, Any] = json.loads(json.dumps(made, default=str))
    return plain


def _is_done(spec: Trial, data: str) -> bool:
    """Whether this very trial is finished; one made from something else is not overwritten."""
    path = _folder(spec) / "settings.json"
    if not path.is_file():
        return False
    assert isinstance(spec.config, PurgedConfig)
    ours, theirs = _signature(spec.config, spec.seed, data), json.loads(path.read_text("utf-8"))
    found = list(changes(ours, theirs))
    if found:
        raise SettingError(
            f"{path.parent} is finished and was made from something else: {'; '.join(found)}. "
            "Choose another --experiment, or --overwrite"
        )
    return True


def run_paths(config: PurgedConfig, seed: int, watch: Watcher | None) -> Path:
    """One trial: all paths of one agent with one seed."""
    market, folds = read_market(config.data), config.folds
    spec, data = Trial(config, seed), market.fingerprint()
    folder = _folder(spec)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = cross_validate(
        partial(make_agent, config.agent),
        market,
        make_task(config.task),
        n_folds=folds.number,
        n_test=folds.test,
        memory=folds.memory or 0,
        seed=seed,
        first=market.index(str(folds.start)),
        watch=watch,
    )
    frame = found.returns.rename(columns=str)
    frame["risk_free"] = market.risk_free[market.dates.get_indexer(frame.index)]
    write_atomic(folder / "paths.parquet", frame.to_parquet())
    signature = json.dumps(_signature(config, seed, data), indent=1) + "\n"
    write_atomic(folder / "settings.json", signature)
    history.note(
        Path(config.results) / config.experiment,
        config.agent.title,
        seed=seed,
        digest=history.digest(config.plain(), data, foreign_code(config)),
        returns=found.returns.mean(axis=1).to_numpy(),
        free=frame["risk_free"].to_numpy(),
    )
    return folder
