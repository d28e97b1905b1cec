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
        (lambda: FixedFee(np.nan, 1.0), "fee.*nan"),
        (lambda: FixedFee(np.inf, 1.0), "fee.*inf"),
        (lambda: FixedFee(1.0, np.inf), "capital.*inf"),
        (lambda: HalfSpread(-1), r"half_spread must be in \[0, 1\), got -1"),
        (lambda: HalfSpread({"A0": np.nan}), "half_spread.*nan"),
        (lambda: ProportionalCost(np.nan), "buy.*nan"),
        (lambda: SquareRootImpact(-1.0), "capital"),
        (lambda: SquareRootImpact(np.inf), "capital.*inf"),
        (lambda: SquareRootImpact(1e6, coefficient=np.nan), "coefficient.*nan"),
        (lambda: SquareRootImpact(1e6, window=2.5), "window.*2.5"),  # type: ignore[arg-type]
        (lambda: SquareRootImpact(1e6, window=1), "window.*1"),
        (lambda: SquareRootImpact(1.0, participation=np.nan), "participation.*nan"),
        (lambda: SquareRootImpact(1.0, participation=2.0), "participation"),
        (lambda: SquareRootImpact(1e6).bind(market), "no|none"),
    ]:
        with pytest.raises(SettingError, match=words):
            build()


def test_rates_that_add_up_to_all_of_a_sale_are_refused(liquid, market):
    words = r"cost: sell rates add up to 1.2, must be < 1"
    for cost in (
        ProportionalCost(0.6) + ProportionalCost(0.6),
        ProportionalCost(0.6) + FixedFee(0.001, 1.0) + HalfSpread(0.6),
        ProportionalCost(0.0, {"A1": 0.6}) + HalfSpread({"A1": 0.6}),
    ):
        with pytest.raises(SettingError, match=words):
            cost.bind(liquid)
    with pytest.raises(SettingError, match=words):
        PortfolioEnv(market, cost=ProportionalCost(0.6) + ProportionalCost(0.6))


@pytest.mark.parametrize("rate", [0.495, 0.4999, 0.4999999])
def test_sums_of_high_rates_leave_what_the_formula_says(liquid, rate):
    pair = ProportionalCost(rate) + HalfSpread(rate)
    switched = solve(pair, liquid, [1, 0, 0, 0], [0, 1, 0, 0])
    assert switched == pytest.approx((1 - 2 * rate) / (1 + 2 * rate), rel=1e-9)
    assert solve(pair, liquid, [1, 0, 0, 0], [0, 0, 0, 1]) == pytest.approx(1 - 2 * rate, rel=1e-9)


def test_purchases_may_cost_more_than_their_worth(liquid, rng):
    cost = ProportionalCost(0.9, 0.1) + ProportionalCost(0.8, 0.05)
    assert solve(cost, liquid, [0, 0, 0, 1], [1, 0, 0, 0]) == pytest.approx(1 / 2.7, rel=1e-15)
    for weights, target in zip(*rng.dirichlet(np.ones(N), (2, 100)), strict=True):
        mu = solve(cost, liquid, weights, target)
        legs = (mu * target - weights)[:3]
        paid = 1.7 * np.maximum(legs, 0).sum() + 0.15 * np.maximum(-legs, 0).sum()
        assert 0 < mu < 1 and mu == pytest.approx(1 - paid, abs=1e-14)


def test_nothing_is_left_where_costs_take_all(liquid, rng):
    """It is the greatest root of f, and 0 where a grid finds none."""
    weights, target = rng.dirichlet(np.ones(N), (2, 60))
    for dear in (1e8, 1e12, 1e14, 1e20):
        for cost in (
            SquareRootImpact(dear),
            ProportionalCost(0.3) + SquareRootImpact(dear) + FixedFee(0.1, 1.0),
        ):
            bound = cost.bind(liquid)
            rows = bound.liquidity(np.full(60, 30))
            mu, _ = bound.solve(weights, target, np.ones(60), rows)
            grid = np.linspace(0, 1, 2001)[:, None]
            trades = grid[..., None] * target - weights
            charge, _ = bound.evaluate(trades, target - weights, np.ones((2001, 60)), rows)
            gap = grid - 1 + charge
            crossed = (gap[:-1] <= 0) & (gap[1:] > 0)
            last = np.where(crossed.any(0), 1999 - crossed[::-1].argmax(0), -1)
            low, high = np.where(last < 0, 0, last / 2000), np.where(last < 0, 0, (last + 1) / 2000)
            assert ((low <= mu) & (mu <= high)).all()
    state = solve(SquareRootImpact(1e20), liquid, [0.5, 0.5, 0, 0], [0, 0, 1, 0])
    assert state == 0.0


def test_a_portfolio_that_costs_ate_ends_in_ruin(market):
    env = PortfolioEnv(market, cost=FixedFee(0.6, 1.0))
    env.reset(options={"weights": np.eye(market.n_assets)[0]})
    *_, terminated, _, info = env.step(np.eye(market.n_assets)[1])
    assert terminated and info["value"] == 0.0 and info["cost"] == 1.0


PARTS = (
    ProportionalCost(0.01, 0.03),
    HalfSpread({"A0": 0.2, "A2": 0.001}),
    FixedFee(20.0, 1e3),
    SquareRootImpact(1e6),
    SquareRootImpact(1e9, participation=0.3),
)


@pytest.mark.parametrize("cash", [True, False])
@pytest.mark.parametrize(
    "cost",
    [*PARTS, PARTS[0] + PARTS[1], PARTS[2] + PARTS[4], PARTS[0] + PARTS[2] + PARTS[3]],
    ids=str,
)
def test_a_row_takes_the_steps_it_takes_alone(liquid, rng, cost, cash):
    """Bit for bit, numpy and torch, whatever its neighbours need."""
    n, rows = (N if cash else N - 1), 200
    volume, prices = liquid.volume[:, :n].copy(), liquid.prices[:, :n]
    volume[5:33, 1] = 0.0
    bare = Market(dates=liquid.dates, assets=liquid.assets[:n], prices=prices, volume=volume)
    bound = cost.bind(bare)
    weights, target = rng.dirichlet(np.full(n, 0.5), (2, rows))
    target[::5] = weights[::5]
    value, t = rng.uniform(0.1, 3, rows), rng.integers(3, T, rows)
    reached = bound.reachable(weights, target, value, bound.liquidity(t))
    mu, trades = bound.solve(weights, reached, value, bound.liquidity(t))
    assert ((mu >= 0) & (mu <= 1)).all() and ((mu > 0) & (mu < 1)).any()
    many = [torch.tensor(x) for x in (weights, reached, value)]
    from_torch, _ = bound.solve(*many, bound.liquidity(t))
    np.testing.assert_allclose(from_torch.numpy(), mu, rtol=0, atol=1e-14)
    for i in range(rows):
        own = bound.liquidity(t[i])
        goal = bound.reachable(weights[i], target[i], value[i], own)
        one, legs = bound.solve(weights[i], goal, value[i], own)
        assert type(one) is np.float64 and one == mu[i]
        assert (goal == reached[i]).all() and (legs == trades[i]).all()
        alone, _ = bound.solve(*(x[i] for x in many), own)
        assert alone == from_torch[i]


@pytest.mark.parametrize("cash", [True, False])
def test_what_has_no_volume_is_not_traded(liquid, cash):
    """Neither before its first figure nor while nothing is traded; the rest trades as asked."""
    n = N if cash else N - 1
    volume = liquid.volume[:, :n].copy()
    volume[:12, 0] = np.nan
    volume[15:, 1] = 0.0
    market = Market(
        dates=liquid.dates, assets=liquid.assets[:n], prices=liquid.prices[:, :n], volume=volume
    )
    bound = SquareRootImpact(1e3, window=5).bind(market)
    weights, target = np.array([0.3, 0.4, 0.3, 0.0][:n]), np.array([0.1, 0.1, 0.8, 0.0][:n])
    money = volume[12:14, 0] * market.prices[12:14, 0] / 1e3
    for t, stuck in ((8, [0]), (13, []), (17, []), (18, []), (19, [1]), (39, [1])):
        rows = bound.liquidity(t)
        reached = bound.reachable(weights, target, np.float64(1.0), rows)
        mu, _ = bound.solve(weights, reached, np.float64(1.0), rows)
        assert 0.8 < mu < 1 and reached.sum() == pytest.approx(1, abs=1e-15)
        assert [i for i in range(n) if reached[i] == weights[i] != target[i]] == stuck
        if not stuck:
            np.testing.assert_allclose(reached, target, atol=1e-15)
    sigma = market.returns[9:14, 0].std(ddof=1)
    assert bound.liquidity(13)[0][0] == pytest.approx(sigma / np.sqrt(money.mean()))
    around = bound.reachable(weights, target, np.float64(1.0), bound.liquidity(30))
    rest = [0.1, 0.4, 0.5, 0.0] if cash else [0.6 / 9, 0.4, 4.8 / 9]
    np.testing.assert_allclose(around, rest, atol=1e-15)
    env = PortfolioEnv(market, lookback=21, cost=SquareRootImpact(1e3, window=5))
    env.reset(options={"weights": weights})
    *_, terminated, _, info = env.step(target)
    assert not terminated and info["target"][1] == 0.4 and info["value"] > 0.5


def test_rates_by_asset(liquid):
    cost = ProportionalCost({"A0": 0.1})
    assert solve(cost, liquid, [0, 0, 0, 1], [0, 1, 0, 0]) == 1.0
    assert solve(cost, liquid, [0, 0, 0, 1], [1, 0, 0, 0]) == pytest.approx(1 / 1.1)


def test_rates_settle_where_a_trade_is_nothing_but_rounding(liquid, rng, monkeypatch):
    bound = ProportionalCost(0.002).bind(liquid)
    weights = rng.dirichlet(np.ones(N), 50_000)
    target = weights * (1.0 + rng.integers(-1, 2, weights.shape) * np.finfo(float).eps)
    settled = []
    for rounds in (8, 9):
        monkeypatch.setattr("envs.bound_costs.MAX_ITERATIONS", rounds)
        settled.append(bound.solve(weights, target, np.ones(len(weights)), None)[0])
    assert settled[0].tobytes() == settled[1].tobytes()
    alone = [bound.solve(weights[i], target[i], np.float64(1.0), None)[0] for i in range(200)]
    assert settled[0][:200].tolist() == alone
