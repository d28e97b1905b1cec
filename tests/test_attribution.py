"""Attribution of a return: against hand values, and that it always adds up."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from envs.constraints import MaxWeight
from envs.costs import FixedFee, ProportionalCost
from experiments.attribution import attribute, average, has_returns
from experiments.backtest import backtest
from market import DataError, Market


def two_days() -> pd.DataFrame:
    """Two risky assets and cash; all of the first, then half of each, 1 % paid the first day."""
    targets, returns = np.array([[1.0, 0, 0], [0.5, 0.5, 0]]), [[0.1, 0.2, 0], [-0.1, 0.3, 0]]
    change = np.array([0.99 * 1.1 - 1.0, 0.1])
    columns = {
        "value": np.cumprod(1.0 + change),
        "portfolio_return": change,
        "cost": [0.01, 0.0],
        "turnover": [1.0, 0.5],
        "risk_free": [0.0, 0.0],
    }
    for i, asset in enumerate(("a", "b", "cash")):
        columns |= {f"target:{asset}": targets[:, i], f"return:{asset}": np.array(returns)[:, i]}
    return pd.DataFrame(columns, pd.to_datetime(["2020-01-02", "2020-01-03"]))


def test_hand_values():
    """V is 1 before the first day and 1.089 before the second; the mean target 0.75 and 0.25."""
    found = attribute(two_days())
    first, second = 1.0 * 0.1 + 1.089 * -0.1, 1.0 * 0.2 + 1.089 * 0.3
    np.testing.assert_allclose(found.assets["weight"], [0.75, 0.25, 0.0])
    np.testing.assert_allclose(found.assets["equal"], [0.5 * first, 0.5 * second, 0.0])
    np.testing.assert_allclose(found.assets["selection"], [0.25 * first, -0.25 * second, 0.0])
    timing = [0.25 * 0.1 - 0.25 * 1.089 * -0.1, -0.25 * 0.2 + 0.25 * 1.089 * 0.3, 0.0]
    np.testing.assert_allclose(found.assets["timing"], timing, atol=1e-15)
    assert found.costs == pytest.approx(-0.01 * 1.1)
    assert found.delay == pytest.approx(0.0, abs=1e-15)
    assert found.total == pytest.approx(1.089 * 1.1 - 1.0, abs=1e-14)


def with_opens(market: Market, rng) -> Market:
    opens = market.prices * np.exp(rng.normal(0, 0.01, market.prices.shape))
    opens[:, -1] = market.prices[:, -1]
    opens[1:, -1] = market.prices[:-1, -1]
    return dataclasses.replace(market, opens=opens)


@pytest.mark.parametrize("at_open", [False, True])
@pytest.mark.parametrize("fees", [False, True])
@pytest.mark.parametrize("has_cash", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_it_adds_up_exactly(make_market, seed, has_cash, fees, at_open):
    """Whatever is held and paid: the parts are the total return to 1e-10, costs too."""
    rng = np.random.default_rng(seed)
    market = make_market(60, 3, seed, cash_rate=0.03 if has_cash else None)
    if at_open:
        market = with_opens(market, rng) if has_cash else market
    fill = "next_open" if at_open and has_cash else "close"
    cost = (
        ProportionalCost(0.01, 0.02) + FixedFee(0.001, capital=1.0)
        if fees
        else ProportionalCost(0.01)
    )
    weights = rng.dirichlet(np.ones(market.n_assets), market.n_periods)
    done = backtest(
        lambda history, held: weights[len(history) - 1],
        market,
        cost=cost,
        constraints=(MaxWeight(0.7),),
        fill=fill,
    )
    found = attribute(done.frame())
    parts = found.parts()
    assert found.total == pytest.approx(done.values[-1] - 1.0, abs=1e-10)
    assert sum(parts.values()) - parts["total"] == pytest.approx(parts["total"], abs=1e-12)
    assert found.costs < 0.0
    if fill == "close":
        assert found.delay == pytest.approx(0.0, abs=1e-12)
    else:
        assert found.delay != 0.0
    if has_cash:
        interest = float(done.values[:-1] @ (done.weights[:, -1] * done.risk_free))
        assert found.assets["total"]["cash"] == pytest.approx(interest, abs=1e-12)


def test_constant_weights_have_no_timing_and_equal_ones_no_selection(make_market):
    market = make_market(200, 3)
    tilted = attribute(backtest([0.5, 0.2, 0.1, 0.2], market).frame())
    np.testing.assert_allclose(tilted.assets["timing"], 0.0, atol=1e-14)
    assert tilted.assets["selection"].abs().min() > 1e-4
    equal = backtest([1 / 3, 1 / 3, 1 / 3, 0.0], market)
    parts = attribute(equal.frame()).parts()
    assert parts["equal"] == pytest.approx(equal.values[-1] - 1.0, abs=1e-12)
    assert parts["selection"] == pytest.approx(0.0, abs=1e-13)


def test_foresight_is_timing(make_market):
    """Who always holds tomorrow's best with a mean weight like anyone's earns it by timing."""
    market = make_market(400, 2)
    best = np.argmax(market.returns[1:, :2], axis=1)
    eye = np.eye(3)
    found = attribute(backtest(lambda history, held: eye[best[len(history) - 1]], market).frame())
    parts = found.parts()
    assert parts["timing"] > 0.9 * parts["total"] > 1.0


def test_mean_over_seeds_adds_up(make_market):
    market = make_market(50, 2)
    paths = [backtest(w, market, cost=ProportionalCost(0.01)) for w in ([1, 0, 0], [0, 0.5, 0.5])]
    mean = average([attribute(path.frame()) for path in paths])
    assert mean.total == pytest.approx(np.mean([path.values[-1] - 1.0 for path in paths]))


def test_a_back_test_without_the_assets_returns_is_refused():
    frame = two_days().drop(columns="return:b")
    assert has_returns(frame)
    with pytest.raises(DataError, match="no column return:b"):
        attribute(frame)
    assert not has_returns(frame.drop(columns=["return:a", "return:cash"]))
