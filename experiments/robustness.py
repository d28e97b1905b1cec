"""The same trained agent under harder rules: would the result survive them?

Nothing is trained again. `SCENARIOS` are played anew; the halves of the test span are cut out of
the path there is, whose first half is what a test of half the length would have been.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd

from agents.base import Task
from agents.rollout import Rollout

Player = Callable[[Task], Rollout]


def _doubled_costs(task: Task) -> Task:
    return task if task.cost is None else dataclasses.replace(task, cost=task.cost + task.cost)


def _one_day_late(task: Task) -> Task:
    return dataclasses.replace(task, decision_lag=task.decision_lag + 1)


SCENARIOS: dict[str, Callable[[Task], Task]] = {
    "doubled costs": _doubled_costs,
    "a day late": _one_day_late,
}
HALVES = ("first half", "second half")


def harder(play: Player, task: Task) -> pd.DataFrame:
    """Returns of each test period under every scenario, index `date`, a column each."""
    paths = {name: play(change(task)) for name, change in SCENARIOS.items()}
    dates = next(iter(paths.values())).dates[1:]
    return pd.DataFrame(
        {name: path.returns for name, path in paths.items()},
        index=pd.DatetimeIndex(dates, name="date"),
    )


def halves(n_periods: int) -> dict[str, slice]:
    """Rows of each half of the test span."""
    middle = n_periods // 2
    return dict(zip(HALVES, (slice(0, middle), slice(middle, None)), strict=True))


def before_costs(returns: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Returns of the same holdings had trading been free: (1 + r) / (1 - c) - 1, exact."""
    return (1.0 + returns) / (1.0 - costs) - 1.0
