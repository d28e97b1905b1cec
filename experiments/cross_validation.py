"""Combinatorial purged cross-validation of an agent: many paths through all of time, not one.

Each choice of test folds trains an agent on the rest, purged and under embargo, and plays it
through its test folds; a fold's tests are dealt out to paths, each of which covers every day once.
Training looks at days after a test as well as before it, so this measures how much a result depends
on the one history there was, not what could have been earned: for that there is `walk-forward`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd

from agents.base import Agent, Task
from agents.rollout import roll
from experiments.splits import combinatorial, gaps
from market import Market, measures


class CrossValidation(NamedTuple):
    """Paths through all of time.

    Attributes:
        returns: After costs, index `date`, a column a path.
        sharpe: Annualised Sharpe ratio over the cash rate of each path.

    """

    returns: pd.DataFrame
    sharpe: np.ndarray


def cross_validate(
    make: Callable[[], Agent],
    market: Market,
    task: Task | None = None,
    *,
    n_folds: int = 6,
    n_test: int = 2,
    memory: int = 0,
    seed: int = 0,
    first: int | None = None,
    watch: Callable[[float], None] | None = None,
) -> CrossValidation:
    """Fit an agent on every choice of folds and judge it on the others.

    Args:
        make: Makes the agent, not fitted; its `horizon` is 1 where it does not say.
        market: All the data; the first `lookback` rows only serve as history.
        task: Costs, reward and limits.
        n_folds: Folds of time.
        n_test: Of them, how many are left out at a time.
        memory: Rows before its own that a feature is computed from; widens the embargo.
        seed: Of the agent.
        first: Row of the first decision; None: the first that the agent can make.
        watch: Told the fraction of the work that is done.

    Raises:
        DataError: If folds are too short for purge and embargo.

    Source: Lopez de Prado, Advances in financial machine learning (2018), ch. 12.
    """
    task, model = task or Task(), make()
    horizon = int(getattr(model, "horizon", 1))
    if first is None:
        first = model.lookback - 1 + task.decision_lag  # the first row that can decide
    spaces = gaps(model.lookback, horizon, task.decision_lag, memory)
    pieces: dict[int, list[pd.Series]] = {}
    folds = combinatorial(market.n_periods - first, spaces, n_folds=n_folds, n_test=n_test)
    n_choices = comb(n_folds, n_test)
    for number, fold in enumerate(folds, start=1):
        rows = [part + first for part in fold.train]
        agent = make().fit(joined(market, rows, horizon), task=task, seed=seed)
        for samples, path in zip(fold.tests, fold.paths, strict=True):
            pieces.setdefault(path, []).append(_play(agent, market, task, samples + first))
        if watch is not None:
            watch(number / n_choices)
    returns = pd.DataFrame({path: pd.concat(parts).sort_index() for path, parts in pieces.items()})
    free = market.risk_free[market.dates.get_indexer(returns.index)]
    ratios = measures.sharpe_ratio(
        returns.to_numpy() - free[:, None], periods_per_year=market.periods_per_year
    )
    return CrossValidation(returns, np.asarray(ratios))


def joined(market: Market, stretches: Sequence[np.ndarray], horizon: int = 1) -> Market:
    """The rows that training samples see and are judged by, one stretch after the other.

    Rows keep their own returns and features; between stretches the calendar has a gap.
    """
    last = market.n_periods - 1
    taken = np.unique(
        np.concatenate(
            [np.arange(part[0], min(part[-1] + horizon, last) + 1) for part in stretches]
        )
    )
    part = object.__new__(Market)
    for key, value in market.__dict__.items():
        timed = key == "dates" or isinstance(value, np.ndarray)
        part.__dict__[key] = value[taken] if timed else value
    return part


def _play(agent: Agent, market: Market, task: Task, samples: np.ndarray) -> pd.Series:
    """Returns of one test fold, from its first decision on."""
    dates = market.dates
    path = roll(agent, market, task, start=dates[samples[0]], end=dates[samples[-1] + 1])
    return pd.Series(path.returns, index=pd.DatetimeIndex(path.dates[1:], name="date"))
