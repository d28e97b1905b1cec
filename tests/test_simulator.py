"""The simulator against closed forms, exact fractions, a root finder, and properties."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from envs.costs import ProportionalCost
from envs.simulator import Row, State, step
from market import Market

N = 5


def bound(buy, sell=None, n_assets=N, cash=True):
    risky = n_assets - 1 if cash else n_assets
    frame = pd.DataFrame(
        np.ones((2, risky)),
        index=pd.to_datetime(["2020-01-01", "2020-01-02"]),
        columns=[f"A{i}" for i in range(risky)],
    )
    market = Market.from_prices(frame, cash_rate=0.0 if cash else None)
    return ProportionalCost(buy, sell).bind(market)


def simplex(rng, *shape, sparse=True):
    weights = rng.dirichlet(np.full(shape[-1], 0.4), shape[:-1])
    if sparse:
        weights = np.where(weights < 0.05, 0.0, weights)
    return weights / weights.sum(-1, keepdims=True)


def play(weights, target, returns, cost, value=1.0):
    weights, target = np.asarray(weights, float), np.asarray(target, float)
    values = np.full(target.shape[:-1], value)[()]
    returns = np.broadcast_to(np.asarray(returns, float), target.shape)
    flat = np.zeros(target.shape[:-1])
    row = Row(returns, 1.0 + returns, flat, flat.astype(bool))
    return step(State(weights, values, values), target, row, cost)


def test_buying_from_cash_pays_the_rate():
    # all of 1 spent: b (1 + c) = 1, so b = mu = 1 / (1 + c)
    _, made = play([0, 0, 0, 0, 1], [1, 0, 0, 0, 0], 0.0, bound(0.1))
    assert made.mu == pytest.approx(1 / 1.1, abs=1e-15)
    assert made.turnover == pytest.approx(0.5 / 1.1, abs=1e-15)


def test_selling_to_cash_pays_the_rate():
    _, made = play([1, 0, 0, 0, 0], [0, 0, 0, 0, 1], 0.0, bound(0.1))
    assert made.mu == pytest.approx(0.9, abs=1e-15)


def test_switching_pays_twice():
    # sell 1, get 0.9, buy b with b * 1.1 = 0.9
    _, made = play([1, 0, 0, 0, 0], [0, 1, 0, 0, 0], 0.0, bound(0.1))
    assert made.mu == pytest.approx(0.9 / 1.1, abs=1e-15)


def test_moving_cash_is_free_but_every_leg_pays_without_cash():
    _, made = play([0.5, 0, 0, 0, 0.5], [0.5, 0, 0, 0, 0.5], 0.0, bound(0.05))
    assert made.mu == 1.0 and made.cost == 0.0 and made.turnover == 0.0
    no_cash = bound(0.1, n_assets=2, cash=False)
    _, made = play([1, 0], [0, 1], 0.0, no_cash)
    assert made.mu == pytest.approx(0.9 / 1.1, abs=1e-15)


def test_a_planned_buy_that_the_cost_turns_into_a_sale():
    # A1 is asked up a hair, yet after paying 10 % on the switch of the rest it must be sold
    weights, target = [0.5, 0.4, 0, 0, 0.1], [0.0, 0.401, 0.5, 0, 0.099]
    cost = bound(0.1)
    _, made = play(weights, target, 0.0, cost)
    assert made.mu * 0.401 < 0.4
    assert_root(made.mu, np.array(weights), np.array(target), 0.1, 0.1)


def assert_root(mu, weights, target, buy, sell):
    def gap(x):
        trades = (x * target - weights)[..., :-1]
        return x - 1 + (buy * np.maximum(trades, 0) + sell * np.maximum(-trades, 0)).sum()

    assert abs(gap(mu)) < 1e-14
    assert mu == pytest.approx(brentq(gap, 0, 1, xtol=1e-15), abs=1e-12)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.0005, 0.001, 0.05, 0.1, 0.6]),
    st.sampled_from([0.0, 0.002, 0.05, 0.1, 0.9]),
)
@settings(max_examples=200, deadline=None)
def test_properties(seed, buy, sell):
    rng = np.random.default_rng(seed)
    weights, target = simplex(rng, N), simplex(rng, N)
    returns, value = rng.uniform(-0.5, 0.5, N), rng.uniform(0.1, 10)
    cost = bound(buy, sell)
    state, made = play(weights, target, returns, cost, value)
    assert_root(made.mu, weights, target, buy, sell)
    expected = value * made.mu * (1 + target @ returns)
    assert state.value == pytest.approx(expected, rel=1e-12)
    assert made.portfolio_return == pytest.approx(made.mu * (1 + target @ returns) - 1, abs=1e-12)
    assert (state.weights >= 0).all() and abs(state.weights.sum() - 1) < 1e-12
    assert made.cost >= 0 and 0 <= made.turnover <= 1
    same, _ = play(weights, weights, returns, cost, value)
    assert same.value == pytest.approx(value * (1 + weights @ returns), rel=1e-14)
    dearer = play(weights, target, returns, bound(buy + 0.01, sell + 0.01), value)[1]
    assert dearer.mu <= made.mu


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_splitting_an_asset_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    weights, target, returns = simplex(rng, N), simplex(rng, N), rng.normal(0, 0.05, N)
    share = rng.uniform()

    def split(values, parts):
        return np.concatenate([[values[0] * parts[0], values[0] * parts[1]], values[1:]])

    whole = play(weights, target, returns, bound(0.03, 0.01))[0]
    halves = play(
        split(weights, (share, 1 - share)),
        split(target, (share, 1 - share)),
        split(returns, (1, 1)),
        bound(0.03, 0.01, n_assets=N + 1),
    )[0]
    assert halves.value == pytest.approx(whole.value, rel=1e-13)
    assert halves.weights[0] + halves.weights[1] == pytest.approx(whole.weights[0], abs=1e-14)


def test_fraction_oracle(rng):
    """Exact rational arithmetic, the sides of trades found by trying all of them."""
    for _ in range(50):
        parts = rng.integers(0, 20, (2, 3)) + np.array([[1, 1, 1]])
        w, x = ([Fraction(int(p), int(sum(row))) for p in row] for row in parts)
        r = [Fraction(int(v), 100) for v in rng.integers(-30, 31, 3)]
        c = Fraction(int(rng.integers(0, 11)), 100)
        mus = []
        for sides in range(4):
            k = [c if sides >> i & 1 else -c for i in range(2)]
            top = 1 + sum(a * b for a, b in zip(k, w, strict=False))
            mu = top / (1 + sum(a * b for a, b in zip(k, x, strict=False)))
            legs = [mu * x[i] - w[i] for i in range(2)]
            if all((leg >= 0) if sides >> i & 1 else (leg <= 0) for i, leg in enumerate(legs)):
                mus.append(mu)
        assert len(set(mus)) == 1
        growth = mus[0] * (1 + sum(a * b for a, b in zip(x, r, strict=True)))
        returns = np.array([float(v) for v in r])
        weights, target = np.array(w, float), np.array(x, float)
        state, made = play(weights, target, returns, bound(float(c), n_assets=3))
        assert made.mu == pytest.approx(float(mus[0]), abs=1e-12)
        assert state.value == pytest.approx(float(growth), abs=1e-12)


def test_batch_equals_loop_and_torch(rng):
    weights, target = simplex(rng, 64, N), simplex(rng, 64, N)
    returns, cost = rng.normal(0, 0.02, (64, N)), bound(0.01, 0.02)
    state, made = play(weights, target, returns, cost)
    for i in range(64):
        one, alone = play(weights[i], target[i], returns[i], cost)
        assert one.value == state.value[i] and alone.turnover == made.turnover[i]
        assert (one.weights == state.weights[i]).all()
    tensors = [torch.tensor(array) for array in (weights, target, returns)]
    ones, none = torch.ones(64, dtype=torch.float64), torch.zeros(64, dtype=torch.bool)
    row = Row(tensors[2], 1 + tensors[2], none, none)
    from_torch, _ = step(State(tensors[0], ones, ones), tensors[1], row, cost)
    np.testing.assert_allclose(from_torch.value.numpy(), state.value, rtol=1e-14)
    np.testing.assert_allclose(from_torch.weights.numpy(), state.weights, rtol=1e-12)


def test_gradients_equal_finite_differences(rng):
    cost = bound(0.02, 0.05)
    weights, target = simplex(rng, 8, N, sparse=False), simplex(rng, 8, N, sparse=False)
    returns = torch.tensor(rng.normal(0, 0.02, (8, N)))
    ones, none = torch.ones(8, dtype=torch.float64), torch.zeros(8, dtype=torch.bool)

    def value(weights, target):
        row = Row(returns, 1 + returns, none, none)
        return step(State(weights, ones, ones), target, row, cost)[0].value

    inputs = [torch.tensor(array, requires_grad=True) for array in (weights, target)]
    assert torch.autograd.gradcheck(value, inputs, eps=1e-7, atol=1e-6)


def test_buy_and_hold_at_no_cost_is_the_price_ratio(rng):
    prices = np.exp(np.cumsum(rng.normal(0, 0.02, (500, N)), 0))
    start = simplex(rng, N)
    state = State(start, np.float64(1.0), np.float64(1.0))
    for returns in prices[1:] / prices[:-1] - 1:
        row = Row(returns, 1 + returns, np.float64(0), np.bool_(False))
        state, _ = step(state, state.weights / state.weights.sum(), row, bound(0.0))
    assert state.value == pytest.approx(start @ (prices[-1] / prices[0]), rel=1e-12)


def test_total_loss_leaves_zero_and_valid_weights():
    state, made = play([1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [-1, 0.1, 0, 0, 0], bound(0.01))
    assert state.value == 0.0 and made.portfolio_return == -1.0 and made.drawdown == 1.0
    assert state.weights.sum() == 1.0 and np.isfinite(state.weights).all()
