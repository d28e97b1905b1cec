"""What is legal and hard: more assets than days, a hundred thousand steps."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from agents import AGENTS
from envs.costs import ProportionalCost
from envs.simulator import Row, State, step
from experiments.backtest import backtest
from market import Market

COVARIANCES = {"agents.optimisers", "agents.risk_based"}


@pytest.mark.parametrize(
    "name", [name for name in AGENTS if AGENTS[name].__module__ in COVARIANCES]
)
def test_more_assets_than_days_leave_valid_weights_or_a_named_failure(make_market, name):
    """A49: a window of 10 days has a singular covariance of 25 assets."""
    market = make_market(60, risky=24, seed=4)
    agent = AGENTS[name](window=10)
    agent.fit(market[:40], market[40:50])
    done = backtest(agent, market, cost=ProportionalCost(0.001), start=market.dates[45])
    assert np.isfinite(done.values).all() and (done.values > 0).all()
    assert (done.weights >= 0).all()
    np.testing.assert_allclose(done.weights.sum(axis=1), 1.0, atol=1e-12)
    for date, reason in done.failures:
        assert (date in market.dates and name in reason) or reason.strip()


@pytest.mark.parametrize("steps", [10_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_many_steps_drift_by_less_than_a_billionth(rng, steps):
    """A53: the ledger against exact fractions, returns being multiples of 1 / 4096."""
    frame = pd.DataFrame({"A": [1.0, 1.0]}, pd.bdate_range("2020-01-01", periods=2))
    market = Market.from_prices(frame, cash_rate=0.0)
    cost = ProportionalCost(0.0).bind(market)
    returns = rng.integers(-60, 61, steps) / 4096.0
    state = State(np.array([0.5, 0.5]), np.float64(1.0), np.float64(1.0))
    half, flat, no = np.array([0.5, 0.5]), np.float64(0.0), np.bool_(False)
    for change in returns:
        row = np.array([change, 0.0])
        state, _ = step(state, half, Row(row, 1.0 + row, flat, no), cost)
    growth = [1 + Fraction(float(change)) / 2 for change in returns]
    while len(growth) > 1:  # pairs, rounded to 200 bits: exact to far below a billionth
        pairs = [growth[i] * growth[i + 1] for i in range(0, len(growth) - 1, 2)]
        growth = [rounded(pair) for pair in pairs] + growth[len(pairs) * 2 :]
    assert abs(Fraction(float(state.value)) / growth[0] - 1) < Fraction(1, 10**9)


def rounded(number: Fraction, bits: int = 200) -> Fraction:
    return Fraction(number.numerator * 2**bits // number.denominator, 2**bits)
