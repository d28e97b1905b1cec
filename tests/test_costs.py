"""Costs against hand values, a root finder, finite differences and each other."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import brentq

from envs import PortfolioEnv
from envs.costs import Cost, FixedFee, HalfSpread, ProportionalCost, SquareRootImpact
from market import Market, SettingError

T, N = 40, 4


@pytest.fixture
def liquid(make_market) -> Market:
    """Three risky assets with volume, and cash."""
    plain = make_market(T, risky=N - 1, seed=3)
    volume = np.random.default_rng(0).uniform(1e3, 1e5, (T, N))
    return Market(
        dates=plain.dates, assets=plain.assets, prices=plain.prices, volume=volume, name="liquid"
    )


def solve(cost: Cost, market: Market, weights, target, value=1.0, t=T - 1):
    bound = cost.bind(market)
    weights, target = np.asarray(weights, float), np.asarray(target, float)
    return bound.solve(weights, target, np.float64(value), bound.liquidity(t))[0]


def test_half_spread_is_a_rate_on_both_sides(liquid):
    weights, target = [0.2, 0.3, 0, 0.5], [0.5, 0, 0.4, 0.1]
    ours = solve(HalfSpread(0.004), liquid, weights, target)
    assert ours == solve(ProportionalCost(0.004, 0.004), liquid, weights, target)


def test_fixed_fee_counts_assets_asked_to_change(liquid):
    fee = FixedFee(fee=5.0, capital=1000.0)
    assert solve(fee, liquid, [0.5, 0, 0, 0.5], [0.5, 0, 0, 0.5]) == 1.0
    assert solve(fee, liquid, [0.5, 0, 0, 0.5], [0.4, 0.1, 0, 0.5]) == pytest.approx(0.99)
    assert solve(fee, liquid, [0.5, 0, 0, 0.5], [0.6, 0, 0, 0.4], value=0.5) == pytest.approx(0.99)
    assert solve(FixedFee(600.0, 1000.0), liquid, [1, 0, 0, 0], [0, 1, 0, 0]) == 0.0


def impact_by_hand(market, mu, weights, target, capital, value, t, window=20, c=1.0):
    total = 0.0
    for i in range(N - 1):
        past = market.returns[t - window + 1 : t + 1, i]
        money = (market.volume * market.prices)[t - window + 1 : t + 1, i].mean()
        size = abs(mu * target[i] - weights[i])
        total += c * past.std(ddof=1) * np.sqrt(size * value * capital / money) * size
    return total


@pytest.mark.parametrize("capital", [1e4, 1e6, 1e8])
def test_square_root_impact_pays_exactly_what_the_formula_says(liquid, capital):
    weights, target = np.array([0.5, 0.1, 0.0, 0.4]), np.array([0.1, 0.3, 0.6, 0.0])
    mu = solve(SquareRootImpact(capital), liquid, weights, target, value=2.0)
    args = (weights, target, capital, 2.0, T - 1)
    root = brentq(lambda m: m - 1 + impact_by_hand(liquid, m, *args), 0, 1, xtol=1e-15)
    assert mu == pytest.approx(root, abs=1e-12)


def test_sums_are_exact_and_merge_rates(liquid):
    weights, target = np.array([0.5, 0.1, 0.0, 0.4]), np.array([0.1, 0.3, 0.6, 0.0])
    total = ProportionalCost(0.01, 0.02) + HalfSpread(0.003) + SquareRootImpact(1e6)
    total += FixedFee(1.0, 1e3)
    mu = solve(total, liquid, weights, target)

    def gap(m):
        legs = (m * target - weights)[:3]
        rates = 0.013 * np.maximum(legs, 0).sum() + 0.023 * np.maximum(-legs, 0).sum()
        impact = impact_by_hand(liquid, m, weights, target, 1e6, 1.0, T - 1)
        return m - 1 + rates + impact + 3 * 1e-3

    assert abs(gap(mu)) < 1e-14
    pair = ProportionalCost(0.01) + HalfSpread(0.02)
    merged = solve(pair, liquid, weights, target)
    assert merged == pytest.approx(
        solve(ProportionalCost(0.03), liquid, weights, target), abs=1e-15
    )


def test_batches_equal_loops_and_cost_rises_with_the_rate(liquid, rng):
    weights, target = rng.dirichlet(np.ones(N), (2, 50))
    t = rng.integers(25, T, 50)
    cost = ProportionalCost(0.01) + SquareRootImpact(1e6) + FixedFee(1.0, 1e3)
    bound = cost.bind(liquid)
    batch, _ = bound.solve(weights, target, np.ones(50), bound.liquidity(t))
    loop = [solve(cost, liquid, weights[i], target[i], t=t[i]) for i in range(50)]
    np.testing.assert_allclose(batch, loop, rtol=0, atol=1e-15)
    dearer = SquareRootImpact(1e6, coefficient=2.0)
    cheap = SquareRootImpact(1e6)
    for i in range(50):
        pair = [solve(c, liquid, weights[i], target[i], t=t[i]) for c in (cheap, dearer)]
        assert pair[1] < pair[0] < 1.0


def test_gradients_equal_finite_differences(liquid, rng):
    cost = ProportionalCost(0.01, 0.03) + SquareRootImpact(1e7) + FixedFee(1.0, 1e3)
    bound = cost.bind(liquid)
    weights, target = (torch.tensor(rng.dirichlet(np.ones(N), 6)) for _ in range(2))
    value, rows = torch.tensor(rng.uniform(0.5, 2, 6)), bound.liquidity(np.full(6, 30))
    inputs = [x.requires_grad_() for x in (weights, target, value)]

    def solve_mu(weights, target, value):
        return bound.solve(weights, target, value, rows)[0]

    assert torch.autograd.gradcheck(solve_mu, inputs, eps=1e-7, atol=1e-6)
    still = weights.detach().clone().requires_grad_()
    solve_mu(still, still, value).sum().backward()
    assert still.grad is not None and torch.isfinite(still.grad).all()


def test_participation_limits_what_is_traded(liquid):
    capital = 1e9  # far more than the volume
    cost = SquareRootImpact(capital, participation=0.1)
    env = PortfolioEnv(liquid, lookback=30, cost=cost)
    _, info = env.reset()
    money = pd.DataFrame(liquid.volume * liquid.prices).rolling(20).mean().to_numpy()
    for t in range(29, 35):
        before, value = info["weights"], info["value"]
        *_, info = env.step([1 / 3, 1 / 3, 1 / 3, 0])
        asked = np.abs(info["target"] - before)[:3]
        limit = 0.1 * money[t, :3] / (capital * value)
        assert (asked <= limit + 1e-15).all() and (asked > 0).all()
        assert info["target"].sum() == pytest.approx(1, abs=1e-12)
    without = Market(
        dates=liquid.dates,
        assets=("A", "B", "C"),
        prices=liquid.prices[:, :3],
        volume=liquid.volume[:, :3],
    )
    env = PortfolioEnv(without, lookback=30, cost=SquareRootImpact(1e7, participation=0.05))
    env.reset(options={"weights": [1, 0, 0]})
    *_, info = env.step([0, 0.5, 0.5])
    assert 0.9 < info["target"][0] < 1 and info["target"][1] == pytest.approx(info["target"][2])


def test_cost_is_not_a_stored_number_that_nobody_uses(make_market):
    """Four rates, four values, falling; and the cost grows with turnover."""
    market = make_market(60)
    finals, paid = [], []
    for rate in (0.0, 0.001, 0.01, 0.5):
        env = PortfolioEnv(market, lookback=1, cost=ProportionalCost(rate))
        env.reset(seed=0)
        over, k = False, 0
        while not over:
            _, _, terminated, truncated, info = env.step(np.roll([1.0, 0, 0, 0, 0], k % 4))
            over, k = terminated or truncated, k + 1
            paid.append((rate, info["turnover"], info["cost"]))
        finals.append(info["value"])
    assert finals[0] > finals[1] > finals[2] > finals[3] > 0
    for rate, turnover, cost in paid[1:]:
        assert cost == pytest.approx(2 * rate * turnover, abs=1e-9) or turnover == 0.0


def test_bad_costs_are_named(market, liquid):
    for build, words in [
        (lambda: ProportionalCost(-0.1), "buy.*-0.1"),
        (lambda: ProportionalCost(0.1, 1.0), "sell.*1.0"),
        (lambda: ProportionalCost({"gold": 0.1}).bind(market), "unknown asset 'gold'"),
        (lambda: ProportionalCost({"cash": 0.1}).bind(market), "unknown asset 'cash'"),
        (lambda: FixedFee(1.0, 0.0), "capital"),
        (lambda: SquareRootImpact(-1.0), "capital"),
        (lambda: SquareRootImpact(1.0, participation=2.0), "participation"),
        (lambda: SquareRootImpact(1e6).bind(market), "no|none"),
    ]:
        with pytest.raises(SettingError, match=words):
            build()


def test_rates_by_asset(liquid):
    cost = ProportionalCost({"A0": 0.1})
    assert solve(cost, liquid, [0, 0, 0, 1], [0, 1, 0, 0]) == 1.0
    assert solve(cost, liquid, [0, 0, 0, 1], [1, 0, 0, 0]) == pytest.approx(1 / 1.1)
