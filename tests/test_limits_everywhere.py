"""Constraints act the same alone, in a batch and in a back-test, which logs how often."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from envs import PortfolioEnv, PortfolioVectorEnv
from envs.constraints import (
    GroupCap,
    MaxWeight,
    MinWeight,
    StopLoss,
    TurnoverCap,
    VolatilityTarget,
)
from envs.costs import ProportionalCost
from experiments.backtest import backtest
from market import Market
from tests.test_constraints import six

LIMITS = (
    MaxWeight(0.35),
    GroupCap("metals", 0.5),
    TurnoverCap(0.1),
    VolatilityTarget(0.06, window=20),
)
ASKED = [0.6, 0.3, 0.0, 0.0, 0.1, 0.0, 0.0]


def played(env: Any, action: Any) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Targets, flags of each limit and unmet dates of the first 60 steps."""
    env.reset(seed=0)
    infos = [env.step(action)[-1] for _ in range(60)]
    binding = {
        key: np.array([info["binding"][key] for info in infos])
        for key in infos[0]["binding"]
        if not key.startswith("_")
    }
    targets, unmet = (np.array([info[key] for info in infos]) for key in ("target", "unmet"))
    return targets, binding, unmet


def test_alone_in_a_batch_and_in_a_back_test() -> None:
    market, cost = six(), ProportionalCost(0.002)
    alone = PortfolioEnv(market, lookback=30, cost=cost, constraints=LIMITS)
    batch = PortfolioVectorEnv(market, 3, lookback=30, cost=cost, constraints=LIMITS)
    targets, binding, unmet = played(alone, ASKED)
    rows, flags, missed = played(batch, np.tile(ASKED, (3, 1)))
    dates = market.dates
    report = backtest(
        ASKED, market, cost=cost, constraints=LIMITS, start=dates[29], end=dates[29 + 60]
    )
    np.testing.assert_array_equal(report.weights, targets)
    np.testing.assert_array_equal(report.unmet, unmet)
    assert list(report.binding) == list(binding) == list(flags)
    for key, days in binding.items():
        np.testing.assert_array_equal(report.binding[key], days)
        assert key == "group_cap:metals" or 0 < days.sum() < 60
    for i in range(3):
        np.testing.assert_array_equal(rows[:, i], targets)
        np.testing.assert_array_equal(missed[:, i], unmet)
        for key, days in binding.items():
            np.testing.assert_array_equal(flags[key][:, i], days)


def test_a_back_test_counts_what_was_binding_and_what_could_not_be_met() -> None:
    market = six()
    limits = MinWeight(0.1), VolatilityTarget(0.001, window=20)
    report = backtest(ASKED, market, constraints=limits, start=market.dates[29])
    assert report.unmet.all()  # everything is sold, below every floor
    frame = report.frame()
    assert frame["binding:volatility_target"].mean() == 1.0 and frame["unmet"].mean() == 1.0
    loose = backtest(ASKED, market, constraints=(MaxWeight(0.9),), start=market.dates[29])
    assert not loose.unmet.any() and not loose.binding["max_weight"].any()
    assert "unmet" not in backtest(ASKED, market, start=market.dates[29]).frame()


def test_where_limits_collide_on_a_date_the_environment_says_so() -> None:
    """Floors of 0.1 need a turnover of 0.3 from cash: more than the cap, once."""
    env = PortfolioEnv(six(), lookback=30, constraints=(MinWeight(0.1), TurnoverCap(0.2)))
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.eye(7)[6])
    assert info["unmet"] and info["turnover"] == pytest.approx(0.3, abs=1e-12)
    _, _, _, _, info = env.step(np.eye(7)[6])
    assert not info["unmet"] and (info["target"] >= 0.1 - 1e-12).all()


def rising(prices):
    dates = pd.bdate_range("2020-01-01", periods=len(prices))
    frame = pd.DataFrame({"a": prices, "b": 100.0}, dates)
    return Market.from_prices(frame, cash_rate=0.0)


def flags(env, action, steps):
    env.reset(seed=0)
    infos = [env.step(np.array(action))[4] for _ in range(steps)]
    (name,) = infos[0]["binding"]
    return [bool(i["binding"][name]) for i in infos], [bool(i["unmet"]) for i in infos]


def test_a_stop_that_must_wait_for_the_day_of_trading_is_not_met():
    market = rising([100.0, 101, 80, 70, 60, 50, 50, 50])
    env = PortfolioEnv(
        market, lookback=1, cost=None, constraints=(StopLoss(0.1),), rebalance_every=5
    )
    binding, unmet = flags(env, [1.0, 0.0, 0.0], 6)
    assert binding == [False] * 5 + [True]
    assert unmet == [False, False, True, True, True, False]  # down 10 % and more after two days


def test_a_cap_that_drift_breaks_between_days_of_trading_is_not_met():
    market = rising([100.0, 130, 150, 180, 200, 210, 220, 230])
    env = PortfolioEnv(
        market, lookback=1, cost=None, constraints=(MaxWeight(0.5),), rebalance_every=5
    )
    binding, unmet = flags(env, [0.7, 0.1, 0.2], 6)
    assert binding == [True, False, False, False, False, True]
    assert unmet == [False, True, True, True, True, False]
