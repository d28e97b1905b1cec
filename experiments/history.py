"""Every configuration that was ever tried in an experiment: what luck had to choose from.

`results/<experiment>/history.jsonl`, one line a finished trial, tuning's included. Runs are made
anew and their folders overwritten; these lines stay, because a Sharpe ratio that is the best of
many is worth less, however few of them are still there to be seen.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.runs import Run
from market import measures

FILE = "history.jsonl"


class Trials(NamedTuple):
    """Configurations tried: how many, and the variance of their Sharpe ratios per period."""

    number: int
    variance: float


def digest(
    settings: Mapping[str, Any], data: str = "", code: Mapping[str, str] | None = None
) -> str:
    """One name for equal settings on equal data, whatever the seed and the folder."""
    own = {k: v for k, v in settings.items() if k not in ("seeds", "results", "experiment")}
    text = json.dumps([own, data, dict(code or {})], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def note(folder: Path, name: str, *, seed: int, digest: str, returns: Any, free: Any = 0.0) -> None:
    """Add one trial; processes may write at once, as a short line is appended whole.

    Args:
        folder: Of the experiment.
        name: What the configuration is called.
        seed: Of the trial.
        digest: Of its settings and data; trials with the same one are seeds of each other.
        returns: Simple returns a period by which it would be chosen; None where it was given up
            before there were any: it was tried all the same.
        free: What cash earned.

    """
    ratio, periods = float("nan"), 0
    if returns is not None:
        ratio = float(measures.sharpe_ratio(np.asarray(returns) - free, periods_per_year=1))
        periods = len(returns)
    sharpe = ratio if np.isfinite(ratio) else None
    entry = {"name": name, "seed": seed, "digest": digest, "sharpe": sharpe}
    handle = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(handle, (json.dumps(entry | {"periods": periods}) + "\n").encode())
    finally:
        os.close(handle)


def trials(runs: Iterable[Run]) -> Trials:
    """All that was tried in the experiments of these runs, the runs themselves included."""
    ratios: dict[str, dict[int, float]] = {}
    folders: dict[Path, None] = {}
    for run in runs:
        folders[run.path.parent.parent] = None
        if run.finished:
            key = str(run.manifest.get("digest") or f"{run.experiment}/{run.agent}")
            excess = run.backtest["portfolio_return"] - run.backtest["risk_free"]
            ratio = float(measures.sharpe_ratio(excess.to_numpy(), periods_per_year=1))
            ratios.setdefault(key, {})[run.seed] = ratio
    return trials_in(folders, ratios)


def trials_in(
    folders: Iterable[Path], known: Mapping[str, Mapping[int, float]] | None = None
) -> Trials:
    """All that was tried in these experiments, and what is known besides: digest -> seed -> ratio.

    A seed that was given up once and finished later counts with the ratio it then had.
    """
    ratios = {key: dict(by_seed) for key, by_seed in (known or {}).items()}
    for folder in folders:
        for entry in read(folder):
            ratio = float("nan") if entry["sharpe"] is None else float(entry["sharpe"])
            seeds = ratios.setdefault(entry["digest"], {})
            if not np.isfinite(seeds.get(entry["seed"], np.nan)):
                seeds[entry["seed"]] = ratio
    means = np.array([np.mean(list(by_seed.values())) for by_seed in ratios.values()])
    finite = means[np.isfinite(means)]
    return Trials(len(ratios), float(finite.var(ddof=1)) if len(finite) > 1 else 0.0)


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of an experiment's history; one torn by a crash is no trial."""
    path = folder / FILE
    if not path.is_file():
        return []
    found = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and {"digest", "seed", "sharpe"} <= entry.keys():
            found.append(entry)
    return found
