"""Combinatorial cross-validation: what is trained on, what is judged, and paths that must agree."""

import numpy as np
import pytest

from agents.base import Agent, Constant, Task
from agents.rollout import roll
from experiments.cross_validation import cross_validate, joined
from market.errors import DataError


class Recorder(Agent):
    """Holds half and half; keeps the days it was fitted on and those it decided on."""

    lookback = 4
    made: list

    def __init__(self):
        self.trained, self.decided = None, []
        type(self).made.append(self)

    def fit(self, train, valid=None, *, task=None, seed=0, monitor=None):
        self.trained = train.dates
        return self

    def act(self, history, weights):
        self.decided.append(history.n_periods - 1)
        return np.array([0.5, 0.5, 0.0])


def test_no_day_that_is_judged_or_seen_by_a_judged_decision_was_trained_on(make_market):
    Recorder.made = []
    market = make_market(periods=200, risky=2)
    cross_validate(Recorder, market, Task(), n_folds=5, n_test=2)
    fitted = [agent for agent in Recorder.made if agent.trained is not None]
    assert len(fitted) == 10  # 5 choose 2
    for agent in fitted:
        trained = set(market.dates.get_indexer(agent.trained))
        judged = {row + 1 for row in agent.decided}
        assert not trained & judged
        # and a decision of training after a test does not see a judged day either
        starts = [row for row in trained if row - 1 not in trained and row > min(judged)]
        assert all(not set(range(row - 3, row + 1)) & judged for row in starts)
        history = 3 + (min(judged) == 4)  # rows before the first return
        left_out = 200 - history - len(trained | judged)
        assert left_out == 3 * len(starts)  # the embargo, and no day more


def test_every_path_covers_every_day_once_and_constant_weights_earn_the_same_on_all(make_market):
    market = make_market(periods=203, risky=2)
    free = Task(cost=None)
    found = cross_validate(lambda: Constant([0.3, 0.5, 0.2]), market, free, n_folds=6, n_test=2)
    assert found.returns.shape == (202, 5)
    assert list(found.returns.index) == list(market.dates[1:])
    whole = roll(Constant([0.3, 0.5, 0.2]), market, free)
    for path in found.returns:
        assert found.returns[path].to_numpy() == pytest.approx(whole.returns, abs=1e-15)
    excess = whole.returns - whole.risk_free
    assert found.sharpe == pytest.approx(excess.mean() / excess.std(ddof=1) * 252**0.5)


def test_a_joined_market_keeps_rows_as_they_are(make_market):
    market = make_market(periods=60)
    part = joined(market, [np.arange(5, 10), np.arange(30, 33)])
    rows = [*range(5, 11), *range(30, 34)]
    assert list(part.dates) == list(market.dates[rows])
    np.testing.assert_array_equal(part.returns, market.returns[rows])
    np.testing.assert_array_equal(part.features, market.features[rows])


def test_folds_that_are_too_short_are_refused(make_market):
    with pytest.raises(DataError, match="too short"):
        cross_validate(lambda: Constant([1, 0, 0]), make_market(periods=40, risky=2), memory=20)
