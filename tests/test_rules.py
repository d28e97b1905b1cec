"""Allocation rules against hand values and the limits they promise."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agents.rules import RULES, Proportional, SoftmaxRule, TopK, build, limit_volatility
from envs.constraints import ConstraintSet, VolatilityTarget
from market import Market, SettingError


def market_of(returns, cash=0.0):
    frame = pd.DataFrame(100.0 * np.cumprod(1.0 + returns, axis=0))
    frame.index = pd.bdate_range("2015-01-01", periods=len(frame))
    return Market.from_prices(frame.rename(columns=str), cash_rate=cash)


@pytest.fixture(scope="module")
def market():
    return market_of(0.01 * np.random.default_rng(0).standard_normal((80, 3)))


CASH = np.array([0.0, 0.0, 0.0, 1.0])


def test_proportional_by_hand(market):
    forecast = np.array([0.003, -0.5, 0.001, 0.2])  # cash is not a risky asset
    np.testing.assert_allclose(Proportional()(forecast, market, CASH), [0.75, 0, 0.25, 0])


def test_proportional_is_all_cash_when_nothing_is_positive(market):
    forecast = np.array([-0.003, 0.0, -0.001, 0.2])
    np.testing.assert_array_equal(Proportional()(forecast, market, CASH), CASH)


def test_proportional_without_cash_and_without_a_positive_forecast_is_equal():
    market = market_of(np.full((5, 2), 0.01), cash=None)
    np.testing.assert_allclose(Proportional()(np.array([-1.0, -2.0]), market, CASH), 0.5)


def test_top_k_by_hand(market):
    forecast = np.array([-0.001, -0.003, -0.002, 0.5])
    np.testing.assert_allclose(TopK(k=2)(forecast, market, CASH), [0.5, 0, 0.5, 0])
    np.testing.assert_allclose(TopK(k=9)(forecast, market, CASH), [1 / 3, 1 / 3, 1 / 3, 0])
    np.testing.assert_array_equal(TopK(positive=True)(forecast, market, CASH), CASH)
    some = np.array([0.001, -0.003, -0.002, 0.5])
    np.testing.assert_array_equal(TopK(positive=True)(some, market, CASH), [1, 0, 0, 0])


def test_softmax_by_hand(market):
    forecast = np.array([0.0, 0.002, 0.0, 0.002])
    powers = np.array([1.0, np.e, 1.0, np.e])
    rule = SoftmaxRule(temperature=0.002, include_cash=True)
    np.testing.assert_allclose(rule(forecast, market, CASH), powers / powers.sum())
    powers[-1] = 0.0
    rule = SoftmaxRule(temperature=0.002)
    np.testing.assert_allclose(rule(forecast, market, CASH), powers / powers.sum())
    assert SoftmaxRule(temperature=1e-9)(forecast, market, CASH)[1] == 1.0


@pytest.mark.parametrize("name", sorted(RULES))
@settings(deadline=None)  # the first one imports a solver
@given(forecast=arrays(float, 4, elements=st.floats(-0.1, 0.1)))
def test_every_rule_gives_weights(market, name, forecast):
    target = RULES[name]()(forecast, market, np.array([0.2, 0.3, 0.1, 0.4]))
    assert target.min() >= 0.0 and target.sum() == pytest.approx(1.0)


def test_volatility_limit_is_met_exactly_and_only_when_needed(market):
    target = np.array([0.5, 0.3, 0.2, 0.0])
    scaled = limit_volatility(target, market, 0.10, window=60)
    path = market.returns[-60:] @ scaled
    assert path.std(ddof=1) * np.sqrt(252) == pytest.approx(0.10, rel=1e-9)
    np.testing.assert_allclose(scaled[:3] / scaled[:3].sum(), target[:3])
    assert scaled.sum() == pytest.approx(1.0)
    calm = np.array([0.1, 0.1, 0.1, 0.7])
    np.testing.assert_array_equal(limit_volatility(calm, market, 0.10), calm)


def test_volatility_limit_uses_the_window_alone(market):
    target = np.array([0.5, 0.3, 0.2, 0.0])
    found = limit_volatility(target, market, 0.10, window=30)
    np.testing.assert_array_equal(found, limit_volatility(target, market[49:], 0.10, window=30))


def test_volatility_limit_is_what_the_constraint_does(market):
    """Mixtures with a varying cash rate, short histories and long ones, bound and unbound."""
    rng = np.random.default_rng(1)
    rates = 0.02 + 0.02 * rng.uniform(size=80)
    prices = pd.DataFrame(market.prices[:, :3], market.dates, list("abc"))
    market = Market.from_prices(prices, cash_rate=pd.Series(rates, market.dates))
    for t, window, limit in [(2, 60, 0.01), (19, 30, 0.05), (25, 60, 0.05), (79, 30, 0.5)]:
        overlay = VolatilityTarget(limit, window)
        limits = ConstraintSet.build((overlay,), market)
        target = rng.dirichlet(np.ones(4))
        expected = limits.apply(target, target, t, limits.initial(), 0.0, 1.0)[0]
        found = limit_volatility(target, market.upto(t), limit, window)
        np.testing.assert_allclose(found, expected, atol=1e-14)


def test_volatility_limit_needs_cash():
    market = market_of(np.full((5, 2), 0.01), cash=None)
    with pytest.raises(SettingError, match="has none: name a safe asset"):
        limit_volatility(np.array([0.5, 0.5]), market, 0.10)


def test_build_names_what_is_wrong():
    assert build("proportional", RULES, "rule") == Proportional()
    with pytest.raises(SettingError, match="unknown rule 'topk'; did you mean 'top_k'"):
        build("topk", RULES, "rule")
    with pytest.raises(SettingError, match="unknown setting of top_k 'n'; valid: k, positive"):
        build("top_k(n=1)", RULES, "rule")
    with pytest.raises(SettingError, match=r"top_k: k must be in \[1, inf\), got 0"):
        build("top_k(k=0)", RULES, "rule")
