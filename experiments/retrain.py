"""A refit on days up to a cut, beside the agent in service, on days that neither has seen.

    old   | train .......... | valid ..... |
    new   | train ......................... | valid ..... | cut
                                                          | judged: both, from the cut on

Nothing is replaced unless asked for, and what is replaced is kept under another experiment's name.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from experiments.compare import Comparison, run_experiments
from experiments.config import ExperimentConfig, SplitConfig
from experiments.evaluate import PINNED, Evaluation, check_market, evaluate
from experiments.monitor import LEAST_DAYS, as_date
from experiments.plan import first_row, read_market
from experiments.resampling import Comparison as Difference
from experiments.resampling import sharpe_difference
from experiments.run_dir import check_name, run_path, write_atomic
from experiments.runs import Run
from market import Market, SettingError


@dataclass(frozen=True)
class SideBySide:
    """Old and new over the days from the cut on.

    Attributes:
        old: The run in service.
        new: The refit.
        difference: Sharpe ratio of new minus old, with a 95 % interval.
        done: The trial of the refit; its paths are absent if it failed.

    """

    old: Evaluation | None
    new: Evaluation | None
    difference: Difference | None
    done: Comparison

    @property
    def is_worse(self) -> bool:
        """Whether the refit is worse than the old agent by more than luck explains."""
        return self.difference is not None and self.difference.high < 0.0

    @property
    def verdict(self) -> str:
        """In words."""
        assert self.difference is not None
        if self.difference.low > 0.0:
            return "the new one is better"
        if self.is_worse:
            return "the new one is worse"
        return "these days cannot tell the two apart"


def plan_refit(
    run: Run, config: ExperimentConfig, changes: Mapping[str, Any], cut: str
) -> ExperimentConfig:
    """The settings of the refit: as the run's, with validation as long as it was, up to the cut.

    Raises:
        SettingError: If the cut is not after what the old agent knows, or leaves too few days.

    """
    other = "source" in changes or "options" in changes
    free: dict[str, Any] = dict.fromkeys(PINNED) if other else {"end": None}
    data = dataclasses.replace(config.data, **(free | dict(changes)))
    market, date = read_market(data), as_date("retrain", cut)
    check_market(run, market)
    known = pd.Timestamp(str(config.split.valid_end))
    if date <= known:
        raise SettingError(
            f"retrain must be after {known:%Y-%m-%d}, up to which the old agent knows the days, "
            f"got {cut}"
        )
    left = int((market.dates > date).sum())
    if left < LEAST_DAYS:
        raise SettingError(
            f"retrain {cut} must leave {LEAST_DAYS} days that neither agent has seen, got {left} "
            f"(the data end on {market.dates[-1]:%Y-%m-%d})"
        )
    span = known - pd.Timestamp(str(config.split.train_end))
    split = SplitConfig(
        train_end=f"{date - span:%Y-%m-%d}",
        valid_end=f"{date:%Y-%m-%d}",
        train_start=_rolled(config.split, market, date - span),
    )
    name = check_name("experiment", f"{run.experiment}-retrained-{date:%Y-%m-%d}")
    return dataclasses.replace(
        config, experiment=name, data=data, split=split, seeds=[run.seed], workers=1
    )


def _rolled(split: SplitConfig, market: Market, end: pd.Timestamp) -> str | None:
    """First day of training where it has a length of its own: as many days before its new end."""
    if split.train_start is None:
        return None
    n_days = market.index(str(split.train_end)) - first_row(market, split)
    return f"{market.dates[max(0, market.index(end) - n_days)]:%Y-%m-%d}"


def retrain(
    run: Run,
    config: ExperimentConfig,
    changes: Mapping[str, Any],
    cut: str,
    command: str = "",
) -> SideBySide:
    """Fit again and play both from the cut on; the run itself is not touched."""
    fresh = plan_refit(run, config, changes, cut)
    done = run_experiments([fresh], 1, command)
    if done.failed:
        return SideBySide(None, None, None, done)
    cut_date = fresh.split.valid_end
    old = evaluate(run, config, {"end": None, **changes}, cut_date)
    new = evaluate(done.runs[0], fresh, {"end": None, **changes}, cut_date)
    difference = sharpe_difference(_excess(new), _excess(old), rng=0)
    return SideBySide(old, new, difference, done)


def _excess(played: Evaluation) -> np.ndarray:
    excess: np.ndarray = played.backtest.returns - played.backtest.risk_free
    return excess


def replace_run(old: Run, new: Run) -> Path:
    """Put the refit into the old run's place, and keep the old one.

    Returns:
        Where the old one is kept: `<experiment>-replaced-<cut>`, beside its experiment.

    Raises:
        SettingError: If something is in the way there.

    """
    kept = place_for(old, new.experiment)
    kept.parent.mkdir(parents=True, exist_ok=True)
    os.rename(old.path, kept)
    os.rename(new.path, old.path)
    _rename_experiment(kept, kept.parent.parent.name)
    _rename_experiment(old.path, old.experiment)
    return kept


def place_for(old: Run, refit: str) -> Path:
    """Where a run that is replaced is kept, by the name of the refit's experiment.

    Raises:
        SettingError: If something is there.

    """
    cut = refit.rpartition("-retrained-")[2]
    results = old.path.parent.parent.parent
    kept = run_path(results, f"{old.experiment}-replaced-{cut}", old.path.parent.name, old.seed)
    if kept.exists():
        raise SettingError(f"replace: {kept} exists already; move it away first")
    return kept


def _rename_experiment(folder: Path, experiment: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["experiment"] = experiment
    config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    config["experiment"] = experiment
    write_atomic(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    write_atomic(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
