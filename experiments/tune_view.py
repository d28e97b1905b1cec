"""What a search came to: the best settings, how sure that is, and a file that trains with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments import history
from experiments.config import Several
from experiments.resampling import sharpe_difference
from experiments.run_dir import write_atomic
from experiments.statistics import deflated_sharpe_ratio, probability_of_backtest_overfitting
from experiments.study import NUMBER, SCORES, held, trial_folder
from experiments.tuning import Search
from market import measures

SHOWN = 8
BLOCKS = 16
WIDTH = 120
_STATES = {  # of a trial, in words
    "complete": "scored",
    "pruned": "stopped early",
    "fail": "failed",
    "running": "running elsewhere",
    "cut": "cut off, gone on with by the same command",
}
NOTE = (
    "Score: Sharpe ratio on validation, after costs, a year; the interquartile mean over seeds. It "
    "is the best of many looked at, and better than it will be: the test days were not read."
)


def report_search(search: Search, console: Console | None = None) -> None:
    """Print the table and what can be said of it, and write `best.yaml`."""
    console = console or Console(width=WIDTH, highlight=False)
    states = [_state(search, number, one) for number, one in search.tried.items()]
    counts = {word: states.count(word.upper()) for word in _STATES}
    words = _STATES.values()
    said = [f"{n} {word}" for n, word in zip(counts.values(), words, strict=True) if n]
    console.print(f"{len(states)} of {search.config.trials} trials: {', '.join(said) or 'none'}")
    if not search.scored:
        return
    console.print(_table(search))
    first, *_ = search.plan.splits["valid"]
    console.print(f"Validation {first} .. {search.plan.splits['valid'][1]}. {NOTE}")
    for sentence in sentences(search):
        console.print(Text(sentence))
    path = write_best(search)
    console.print(f"\nTry it on the test days: allocgym train {path}")
    console.print(f"Curves: tensorboard --logdir {search.folder}")


def _state(search: Search, number: int, one: Any) -> str:
    """As optuna has it, but for trials whose process died: nobody holds their lock."""
    if one.state.name != "RUNNING":
        return str(one.state.name)
    with held(trial_folder(search.config, number) / "lock") as ours:
        return "CUT" if ours else "RUNNING"


def _table(search: Search) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for name in ("trial", "score", "seeds"):
        table.add_column(name, justify="left" if name == "trial" else "right", no_wrap=True)
    table.add_column("settings", overflow="fold")
    best = search.scored[:SHOWN]
    as_it_is = reference(search)
    rows = best if as_it_is is None or as_it_is in best else [*best, as_it_is]
    for one in rows:
        scores = one.user_attrs[SCORES]
        spread = f"{min(scores):.2f} to {max(scores):.2f}" if len(scores) > 1 else "1"
        number = f"{one.user_attrs[NUMBER]}{' (as it is)' if one is as_it_is else ''}"
        table.add_row(number, f"{one.value:.2f}", spread, described(one.params))
    return table


def described(settings: Mapping[str, Any]) -> str:
    """Settings as short text."""
    parts = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in settings.values())
    return ", ".join(f"{key} {part}" for key, part in zip(settings, parts, strict=True))


def reference(search: Search) -> Any:
    """The trial of the agent as it is, where it has a score."""
    first = search.tried.get(0)
    if first is None or first.state.name != "COMPLETE":
        return None
    settings = search.plan.config.agent.settings
    same = all(settings.get(key) == value for key, value in first.params.items())
    return first if same else None


def validation_returns(search: Search, one: Any) -> np.ndarray:
    """Returns over cash of every seed of a trial, shape (T, seeds)."""
    folder = trial_folder(search.config, one.user_attrs[NUMBER])
    frames = [pd.read_parquet(path) for path in sorted(folder.glob("of_seed_*/validation.parquet"))]
    return np.stack([(f["portfolio_return"] - f["risk_free"]).to_numpy() for f in frames], axis=1)


def sentences(search: Search) -> list[str]:
    """How sure the best is: against the agent as it is, against luck, against overfitting."""
    best, as_it_is = search.scored[0], reference(search)
    per_year = search.plan.valid.periods_per_year
    ours = validation_returns(search, best)
    said = []
    if as_it_is is not None and as_it_is is not best:
        theirs = validation_returns(search, as_it_is)
        made = sharpe_difference(ours, theirs, periods_per_year=per_year, rng=0)
        if np.isfinite(made.p_value):
            sure = "which luck hardly explains" if made.p_value < 0.05 else "which luck may explain"
            said.append(
                f"The best is {made.difference:+.2f} from the agent as it is (95 % interval "
                f"{made.low:+.2f} to {made.high:+.2f}, p {made.p_value:.2f}), {sure} even before "
                "it is counted that it was picked."
            )
    elif as_it_is is best:
        said.append("Nothing tried did better than the agent as it is.")
    else:
        said += _not_tried(search)
    said += _luck(search, ours)
    panel = [validation_returns(search, one).mean(axis=1) for one in search.scored]
    varied = [path for path in panel if np.ptp(path) > 1e-12]
    if len(varied) > 1 and len(ours) >= 2 * BLOCKS:
        share = probability_of_backtest_overfitting(np.column_stack(varied), BLOCKS)
        said.append(
            f"Picking the winner of one half of the days would have given below-median settings in "
            f"the other half in {share:.0%} of cases (probability of overfitting, 50 % is a coin)."
        )
    return said


def _not_tried(search: Search) -> list[str]:
    """Which of its own settings keep the agent as it is out of the space; nothing where none do."""
    own, space = search.plan.config.agent.settings, search.config.searched
    outside = [f"{key} {own.get(key)}" for key in space if own.get(key) not in space[key]]
    if not outside:
        return []
    return [
        f"The agent as it is was not tried, so that there is no lead over it to show: the space "
        f"does not hold its {', '.join(outside)}."
    ]


def _luck(search: Search, ours: np.ndarray) -> list[str]:
    """The best score against what the best of as many would show by luck alone."""
    tried = history.trials_in([search.folder.parents[1]])
    mean = ours.mean(axis=1)
    ratio = float(measures.sharpe_ratio(mean, periods_per_year=1))
    if not np.isfinite(ratio):
        return []
    z = (mean - mean.mean()) / mean.std()
    moments = {"skewness": float((z**3).mean()), "kurtosis": float((z**4).mean())}
    chance = float(deflated_sharpe_ratio(ratio, len(mean), *tried, **moments))
    if not np.isfinite(chance):
        return []
    return [
        f"It is above what luck gives the best of {tried.number} configurations tried in this "
        f"experiment with probability {chance:.0%} (deflated Sharpe ratio)."
    ]


def write_best(search: Search) -> Path:
    """The best settings as a file for `train`; with as many seeds as `compare` takes."""
    best = search.scored[0]
    found = search.plan.config
    agent = dataclasses.replace(found.agent, settings={**found.agent.settings, **best.params})
    config = dataclasses.replace(found, seeds=Several.seeds, agent=agent)
    head = (
        f"# Trial {best.user_attrs[NUMBER]} of a search over {len(search.tried)}: score "
        f"{best.value:.4f} on validation.\n"
    )
    path = search.folder / "best.yaml"
    write_atomic(path, head + yaml.safe_dump(config.plain(), sort_keys=False))
    return path
