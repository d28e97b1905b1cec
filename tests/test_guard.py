"""The one door to the data: shut after training and validation until the final evaluation."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.config import AgentConfig, DataConfig, ExperimentConfig, SplitConfig
from experiments.guard import Guard, LookAheadError
from experiments.plan import prepare
from experiments.trial import final_evaluation
from tests.conftest import write_prices

TINY = f"{Path(__file__).with_name('tiny_agent.py')}:Tiny"
DATES = pd.bdate_range("2020-01-01", periods=120)


@pytest.fixture
def plan(tmp_path):
    write_prices(tmp_path, DATES)
    return prepare(
        ExperimentConfig(
            agent=AgentConfig(name=TINY),
            data=DataConfig(source="files", options={"path": str(tmp_path / "prices.csv")}),
            split=SplitConfig(train_end=str(DATES[59].date()), valid_end=str(DATES[79].date())),
            results=str(tmp_path / "results"),
        )
    )


def arrays_behind(array):
    """The array and all it is a view of."""
    while isinstance(array, np.ndarray):
        yield array
        array = array.base


def test_a_day_after_validation_cannot_be_read_before_the_final_evaluation(plan):
    assert plan.guard.rows(0, 80).dates[-1] == DATES[79]
    for start, stop in ((0, 81), (80, 81), (0, 120), (119, 120)):
        with pytest.raises(LookAheadError, match=r"nothing after 2020-04-21"):
            plan.guard.rows(start, stop)
    market, first = final_evaluation(plan)
    assert (market.n_periods, first) == (120, DATES[79])


def test_fitting_is_handed_no_later_day_not_even_in_memory(plan):
    for part in (plan.train, plan.valid):
        assert part.dates[-1] <= DATES[79]
        for value in part.__dict__.values():
            for array in arrays_behind(value):
                assert array.shape[:1] == (part.n_periods,)
                assert not array.flags.writeable or array is not value
        assert (
            len(
                part.dates.to_numpy().base if part.dates.to_numpy().base is not None else part.dates
            )
            <= part.n_periods
        )


def test_every_read_is_on_record_and_inside_its_limit(plan):
    plan.agent.fit(plan.train, plan.valid, task=plan.task, seed=0)
    assert [(read.first, read.last) for read in plan.guard.reads] == [
        (DATES[0], DATES[59]),
        (DATES[55], DATES[79]),
    ]
    final_evaluation(plan)
    *fitting, final = plan.guard.reads
    assert all(read.last <= read.limit == DATES[79] for read in fitting)
    assert final.last == final.limit == DATES[-1]
    assert json.dumps(plan.agent.seen)  # the agent's own record of what it was shown
    assert plan.agent.seen["valid"][1] == f"{DATES[79]:%Y-%m-%d}"


def test_the_limit_never_moves_back(market):
    guard = Guard(market, 50)
    guard.release(70)
    guard.release(60)
    assert guard.limit == market.dates[70]
    assert guard.rows(0, 71).n_periods == 71
    with pytest.raises(LookAheadError):
        guard.rows(0, 72)
