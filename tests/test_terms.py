"""Limits and costs inside the optimisers: feasible, best, and what other solvers find."""

from typing import Any

import cvxpy as cp
import numpy as np
import pandas as pd
import pytest

from agents import AGENTS
from agents.base import Task
from agents.moments import covariance_of, mean_of
from agents.optimisers import MaximumSharpe, MeanVariance
from agents.outlook import Rates
from agents.quadratic import best_ratio, best_utility
from agents.risk_based import MinimumCVaR, MinimumVariance
from agents.room import Room
from agents.stated import StatedUtility
from agents.terms import Terms
from envs.constraints import (
    Cardinality,
    CashFloor,
    ConstraintSet,
    GroupCap,
    MaxWeight,
    MinWeight,
    TurnoverCap,
    VolatilityTarget,
)
from envs.costs import FixedFee, ProportionalCost
from experiments.backtest import backtest
from market import DataError, Market, measures

COUNT = 8
SECTORS = {f"a{i}": ("north", "south", "west")[i % 3] for i in range(COUNT)}
CAPS = (MaxWeight(0.25), GroupCap("*", 0.4), GroupCap("west", 1.0, floor=0.1), CashFloor(0.05))
CAPS_FULL = (MaxWeight(0.25), GroupCap("*", 0.4), MinWeight(0.02))
RATES = ProportionalCost(0.004, 0.002)
AVERSION, MONTH = 5.0, 21


def market_of(seed=0, n_periods=300, cash: float | None = 0.02, drift=0.0008):
    rng = np.random.default_rng(seed)
    mix = np.eye(COUNT) + 0.4 * rng.standard_normal((COUNT, COUNT))
    moves = drift + 0.01 * rng.standard_normal((n_periods, COUNT)) @ mix
    prices = 100.0 * np.cumprod(1.0 + moves, axis=0)
    dates = pd.bdate_range(end="2016-06-01", periods=n_periods)  # on which a month begins
    frame = pd.DataFrame(prices, dates, list(SECTORS))
    return Market.from_prices(frame, cash_rate=cash, sectors=SECTORS)


def held_of(market, seed=0):
    return np.random.default_rng(seed + 100).dirichlet(np.ones(market.n_assets))


def estimates(market, window=252):
    excess = (market.returns - market.risk_free[:, None])[-window:, :COUNT]
    covariance = covariance_of(excess)
    return excess, mean_of(excess, covariance, "bayes_stein"), covariance


def conditions(x, market, held, constraints):
    """The limits as a reader of the constraints' definitions would write them for cvxpy."""
    cash = 1.0 - cp.sum(x)
    made = [x >= 0.0, cash >= 0.0 if market.has_cash else cash == 0.0]
    for limit in constraints:
        if isinstance(limit, MaxWeight):
            made.append(x <= limit.limit)
        elif isinstance(limit, MinWeight):
            made.append(x >= limit.limit)
        elif isinstance(limit, CashFloor):
            made.append(cash >= limit.limit)
        elif isinstance(limit, TurnoverCap):
            made.append(0.5 * cp.norm1(x - held) <= limit.limit)
        elif isinstance(limit, GroupCap):
            for name in set(SECTORS.values()) if limit.group == "*" else {limit.group}:
                members = [i for i, sector in enumerate(SECTORS.values()) if sector == name]
                made += [cp.sum(x[members]) <= limit.cap, cp.sum(x[members]) >= limit.floor]
    return made


def utility(x, mean, covariance, held, rates, periods=MONTH):
    """Of numbers: w.mu - lambda/2 w.S.w - what the trades cost a period."""
    trade = x - held
    paid = rates.buy * np.maximum(trade, 0.0).sum() + rates.sell * np.maximum(-trade, 0.0).sum()
    return mean @ x - AVERSION / 2 * x @ covariance @ x - paid / periods


def best_by_cvxpy(market, held, constraints, rates: Any = None, objective="utility"):
    """By another modelling of the problem and another kind of solver: an operator splitting one."""
    _, mean, covariance = estimates(market)
    x, scale = cp.Variable(COUNT), 1.0 / np.diag(covariance).mean()
    held = held[:COUNT]
    risk = cp.quad_form(x, cp.psd_wrap(scale * covariance))
    if objective == "variance":
        goal: Any = cp.Minimize(risk)
    else:
        paid: Any = 0.0
        if rates is not None:
            paid = rates.buy * cp.sum(cp.pos(x - held)) + rates.sell * cp.sum(cp.pos(held - x))
        goal = cp.Maximize(scale * (mean @ x - paid / MONTH) - AVERSION / 2 * risk)
    problem = cp.Problem(goal, conditions(x, market, held, constraints))
    problem.solve(solver="DAQP" if objective == "variance" else "CLARABEL")
    assert problem.status == "optimal"
    return np.asarray(x.value)


def fitted(kind, market, constraints=(), cost=None, **settings):
    task = Task(constraints=tuple(constraints), cost=cost)
    return kind(**settings).fit(market, task=task)


# ---- mean-variance


SETUPS: dict[str, tuple[Any, Any]] = {
    "free": ((), None),
    "caps": ((MaxWeight(0.25),), None),
    "sectors": (CAPS, None),
    "turnover": ((*CAPS, TurnoverCap(0.2)), None),
    "costs": ((), RATES),
    "all": ((*CAPS, TurnoverCap(0.2)), RATES),
}


@pytest.mark.parametrize("solver", ["direct", "skfolio"])
@pytest.mark.parametrize("setup", SETUPS)
def test_mean_variance_is_the_constrained_optimum(setup, solver):
    constraints, rates = SETUPS[setup]
    for seed in range(4):
        market = market_of(seed)
        held = held_of(market, seed)
        agent = fitted(MeanVariance, market, constraints, rates, solver=solver)
        target = agent.act(market, held)
        expected = best_by_cvxpy(market, held, constraints, rates)
        np.testing.assert_allclose(target[:COUNT], expected, atol=1e-4)
        assert not agent.failures


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("cash", [0.02, None])
def test_the_projection_afterwards_changes_nothing_and_inside_is_better(seed, cash):
    market = market_of(seed, cash=cash)
    held = held_of(market, seed)
    constraints = (*(CAPS if cash else CAPS_FULL), TurnoverCap(0.5))
    limits = ConstraintSet.build(constraints, market)
    inside = fitted(MeanVariance, market, constraints, RATES, solver="direct").act(market, held)
    np.testing.assert_allclose(limits.project(inside, held), inside, rtol=0, atol=1e-14)
    assert limits.violation(inside, held) < 1e-12
    after = limits.project(fitted(MeanVariance, market, (), RATES).act(market, held), held)
    _, mean, covariance = estimates(market)
    values = [utility(x[:COUNT], mean, covariance, held[:COUNT], RATES) for x in (inside, after)]
    assert values[0] >= values[1] - 1e-12


def test_inside_is_strictly_better_somewhere():
    gains = []
    for seed in range(6):
        market = market_of(seed)
        held, limits = held_of(market, seed), ConstraintSet.build(CAPS, market)
        _, mean, covariance = estimates(market)
        inside = fitted(MeanVariance, market, CAPS).act(market, held)
        after = limits.project(fitted(MeanVariance, market).act(market, held), held)
        values = [
            utility(x[:COUNT], mean, covariance, held[:COUNT], ProportionalCost(0.0, 0.0))
            for x in (inside, after)
        ]
        gains.append(values[0] - values[1])
    assert max(gains) > 1e-6


def room_of(rng, count):
    """A random room that is not empty: it holds the point it is drawn around."""
    point, held = rng.dirichlet(np.ones(count)), rng.dirichlet(np.ones(count))
    full = bool(rng.random() < 0.5)
    point = point if full else 0.8 * point
    matrix = rng.integers(0, 2, (4, count)).astype(float)
    level = matrix @ point + 0.2 * rng.random(4)
    reach = np.abs(point - held).sum() + 0.1 * rng.random()
    rates = Rates(*(1e-4 * rng.random((2, count))))
    return Room(
        held,
        full,
        1.0,
        (matrix, level) if rng.random() < 0.7 else None,
        reach if rng.random() < 0.5 else np.inf,
        rates if rng.random() < 0.7 else None,
    )


@pytest.mark.parametrize("seed", range(40))
def test_both_solvers_find_the_same_weights(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 25))
    room = room_of(rng, count)
    returns = 0.01 * rng.standard_normal((252, count)) @ (np.eye(count) + rng.random((count,) * 2))
    covariance, mean = covariance_of(returns), returns.mean(axis=0)
    direct = best_utility(
        mean,
        covariance,
        AVERSION,
        full=room.full,
        trading=room.trading(MONTH),
        limits=room.limits,
        reach=room.reach,
    )
    stated = StatedUtility(room)
    other = room._replace(held=rng.permutation(room.held), reach=max(room.reach, 2.0))
    if np.isfinite(room.reach):  # a first problem, so that the second has all numbers exchanged
        stated.solve(-mean, 2.0 * np.eye(count), 3.0, other, 1.0)
    found = stated.solve(mean, covariance, AVERSION, room, MONTH)
    np.testing.assert_allclose(found, direct, atol=1e-6)


def test_high_costs_hold_what_is_held_and_low_ones_do_not():
    market = market_of()
    held = held_of(market)
    dear = fitted(MeanVariance, market, (), ProportionalCost(0.5)).act(market, held)
    np.testing.assert_allclose(dear, held, atol=1e-6)
    cheap = fitted(MeanVariance, market, (), ProportionalCost(1e-6)).act(market, held)
    assert np.abs(cheap - held).sum() > 0.5
    ignored = fitted(MeanVariance, market, (), ProportionalCost(0.5), costs=False)
    free = fitted(MeanVariance, market).act(market, held)
    np.testing.assert_allclose(ignored.act(market, held), free, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "periods"),
    [
        ({}, 21),
        ({"rebalance_every": 5}, 5),
        ({"rebalance_every": "year"}, 252),
        ({"holding": 63}, 63),
    ],
)
def test_costs_are_spread_to_the_next_rebalance(settings, periods):
    market = market_of()
    held = held_of(market)
    agent = fitted(MeanVariance, market, (), RATES, solver="direct", **settings)
    _, mean, covariance = estimates(market)
    x = cp.Variable(COUNT, nonneg=True)
    paid = RATES.buy * cp.sum(cp.pos(x - held[:COUNT])) + RATES.sell * cp.sum(
        cp.pos(held[:COUNT] - x)
    )
    scale = 1.0 / np.diag(covariance).mean()
    goal = scale * (mean @ x - paid / periods) - AVERSION / 2 * cp.quad_form(
        x, cp.psd_wrap(scale * covariance)
    )
    cp.Problem(cp.Maximize(goal), [cp.sum(x) <= 1]).solve(solver="CLARABEL")
    start = market.dates.get_loc(market.dates[-1])
    target = agent._target(
        estimates(market)[0], np.arange(COUNT + 1) < COUNT, market.upto(start), held
    )
    np.testing.assert_allclose(target[:COUNT], np.asarray(x.value), atol=1e-4)


def test_a_fixed_fee_becomes_the_rate_of_a_trade_of_five_percent():
    market = market_of()
    terms = Terms.of(Task(cost=FixedFee(5.0, 10_000.0)), market)
    assert terms.rates is not None
    np.testing.assert_allclose(terms.rates.buy[:COUNT], 5e-4 / 0.05)
    assert terms.rates.buy[-1] == 0.0


# ---- the others


@pytest.mark.parametrize("constraints", [(), CAPS, (*CAPS, TurnoverCap(0.3))])
def test_minimum_variance_within_limits(constraints):
    """As much is invested as the limits allow: all but the cash floor, unless turnover binds."""
    for seed in range(3):
        market = market_of(seed)
        held = held_of(market, seed)
        target = fitted(MinimumVariance, market, constraints).act(market, held)
        x = cp.Variable(COUNT)
        limits = conditions(x, market, held[:COUNT], constraints)
        most = cp.Problem(cp.Maximize(cp.sum(x)), limits).solve(solver="CLARABEL")
        _, _, covariance = estimates(market)
        risk = cp.quad_form(x, cp.psd_wrap(covariance / np.diag(covariance).mean()))
        cp.Problem(cp.Minimize(risk), [*limits, cp.sum(x) >= most - 1e-7]).solve(solver="CLARABEL")
        np.testing.assert_allclose(target[:COUNT], np.asarray(x.value), atol=2e-4)


@pytest.mark.parametrize("constraints", [CAPS, (MaxWeight(0.3), TurnoverCap(0.4))])
def test_minimum_cvar_within_limits(constraints):
    market = market_of(1)
    held = held_of(market, 1)
    target = fitted(MinimumCVaR, market, constraints).act(market, held)
    excess, _, _ = estimates(market)
    x, level = cp.Variable(COUNT), cp.Variable()
    limits = conditions(x, market, held[:COUNT], constraints)
    most = cp.Problem(cp.Maximize(cp.sum(x)), limits).solve(solver="CLARABEL")
    loss = level + cp.sum(cp.pos(-excess @ x - level)) / (0.05 * len(excess))
    best = cp.Problem(cp.Minimize(loss), [*limits, cp.sum(x) >= most - 1e-8]).solve(
        solver="CLARABEL"
    )
    found = float(measures.conditional_value_at_risk(excess @ target[:COUNT], 0.05))
    assert found == pytest.approx(best, abs=1e-6)
    assert ConstraintSet.build(constraints, market).violation(target, held) < 1e-12


@pytest.mark.parametrize(
    "constraints", [CAPS, (MaxWeight(0.3), TurnoverCap(0.4)), (MinWeight(0.05),)]
)
@pytest.mark.parametrize("seed", range(3))
def test_maximum_sharpe_within_limits(constraints, seed):
    """No feasible point has a better ratio: checked along the whole efficient frontier."""
    market = market_of(seed)
    held = held_of(market, seed)
    target = fitted(MaximumSharpe, market, constraints).act(market, held)
    _, mean, covariance = estimates(market)
    ratio = lambda w: mean @ w / np.sqrt(w @ covariance @ w)  # noqa: E731
    x, scale = cp.Variable(COUNT), 1.0 / np.diag(covariance).mean()
    price = cp.Parameter(nonneg=True)
    problem = cp.Problem(
        cp.Maximize(price * (mean @ x) * scale - cp.quad_form(x, cp.psd_wrap(scale * covariance))),
        conditions(x, market, held[:COUNT], constraints),
    )
    found = []
    for price.value in np.geomspace(1e-3, 50.0, 120):
        problem.solve(solver="CLARABEL")
        found.append(ratio(np.asarray(x.value)))
    assert ratio(target[:COUNT]) >= max(found) - 1e-7
    assert ratio(target[:COUNT]) <= max(found) * (1 + 5e-3)
    assert ConstraintSet.build(constraints, market).violation(target, held) < 1e-12


def test_the_best_ratio_without_limits_is_that_of_skfolio():
    market = market_of()
    _, mean, covariance = estimates(market)
    expected = MaximumSharpe().act(market, held_of(market))[:COUNT]
    np.testing.assert_allclose(best_ratio(mean, covariance, full=False), expected, atol=1e-4)
    np.testing.assert_allclose(best_ratio(mean, covariance, full=True), expected, atol=1e-4)


def test_without_hope_the_maximum_sharpe_takes_the_least_risk_the_limits_allow():
    market = market_of(drift=-0.02)
    floors = (MinWeight(0.05),)
    target = fitted(MaximumSharpe, market, floors).act(market, np.eye(COUNT + 1)[-1])
    expected = best_by_cvxpy(market, np.zeros(COUNT + 1), floors, objective="variance")
    np.testing.assert_allclose(target[:COUNT], expected, atol=1e-4)


# ---- under a task


LIMITED = ["mean_variance", "black_litterman", "minimum_variance", "maximum_sharpe", "minimum_cvar"]


@pytest.mark.parametrize("name", LIMITED)
def test_the_back_test_finds_nothing_to_change_on_days_of_trading(name):
    """The limits hold after every decision, and those at work are logged though nothing moved."""
    market = market_of(2)
    constraints = (*CAPS, TurnoverCap(0.6))
    task = Task(constraints=constraints, cost=ProportionalCost(0.001))
    agent = AGENTS[name](window=100, rebalance_every=20).fit(market, task=task)
    asked = {}
    inner = agent.act

    def listening(history, weights):
        asked[history.dates[-1]] = inner(history, weights)
        return asked[history.dates[-1]]

    agent.act = listening
    path = backtest(agent, market, cost=task.cost, constraints=constraints)
    due = [i for i in range(0, len(path.returns), 20)]
    for i in due:
        np.testing.assert_allclose(path.weights[i], asked[path.dates[i]], rtol=0, atol=1e-14)
    assert not agent.failures and not path.unmet.any()
    at_work = [name for name, flags in path.binding.items() if flags[due].any()]
    assert "max_weight" in at_work or "group_cap:*" in at_work


def test_cardinality_keeps_the_largest_and_solves_again():
    market = market_of(3)
    constraints = (Cardinality(3), MaxWeight(0.4))
    target = fitted(MeanVariance, market, constraints, solver="direct").act(market, held_of(market))
    assert (target[:COUNT] > 0).sum() <= 3
    limits = ConstraintSet.build(constraints, market)
    again = limits.project(target, held_of(market))
    np.testing.assert_allclose(again, target, rtol=0, atol=1e-14)
    free = fitted(MeanVariance, market, (MaxWeight(0.4),), solver="direct")
    wide = free.act(market, held_of(market))
    largest = set(np.argsort(-wide[:COUNT])[:3])
    assert set(np.flatnonzero(target[:COUNT] > 0)) <= largest


def test_turnover_gives_way_to_limits_on_weights():
    """From all in one asset to at most a quarter: turnover is cut to the least that allows."""
    market = market_of(4, cash=None)
    held, constraints = np.eye(COUNT)[0], (MaxWeight(0.25), TurnoverCap(0.05))
    target = fitted(MeanVariance, market, constraints, solver="direct").act(market, held)
    assert target.max() <= 0.25 + 1e-12
    assert 0.5 * np.abs(target - held).sum() == pytest.approx(0.75, abs=1e-6)


def test_an_asset_that_cannot_be_estimated_gets_its_floor():
    market = market_of(5)
    prices = pd.DataFrame(np.array(market.prices[:, :-1]), market.dates, list(SECTORS))
    prices.iloc[:200, 2] = np.nan
    late = Market.from_prices(prices, cash_rate=0.02, sectors=SECTORS)
    constraints = (MinWeight(0.03), MaxWeight(0.5))
    for name in LIMITED:
        agent = AGENTS[name](window=150).fit(late, task=Task(constraints=constraints))
        target = agent.act(late, held_of(late))
        assert target[2] == pytest.approx(0.03, abs=1e-9), name
        assert target[:COUNT].min() >= 0.03 - 1e-9 and not agent.failures


def test_limits_that_the_remaining_assets_cannot_meet_are_a_named_failure():
    market = market_of(6, cash=None)
    prices = pd.DataFrame(np.array(market.prices), market.dates, list(SECTORS))
    prices.iloc[:200, 2:] = np.nan  # two assets are left to estimate, at 0.3 each at most
    late = Market.from_prices(prices, cash_rate=None, sectors=SECTORS)
    agent = fitted(MeanVariance, late, (MaxWeight(0.3),), window=150, rebalance_every=1)
    held = held_of(late)
    np.testing.assert_array_equal(agent.act(late, held), held)
    assert len(agent.failures) == 1 and "nfeasible" in agent.failures[0][1]


def test_overlays_are_left_to_the_environment():
    market = market_of()
    plain = fitted(MeanVariance, market).act(market, held_of(market))
    overlaid = fitted(MeanVariance, market, (VolatilityTarget(0.02),))
    np.testing.assert_allclose(overlaid.act(market, held_of(market)), plain, atol=1e-9)


@pytest.mark.parametrize("name", LIMITED)
def test_terms_are_stored(name, tmp_path):
    market = market_of()
    constraints = (*CAPS, TurnoverCap(0.3), Cardinality(6))
    agent = AGENTS[name]().fit(market, task=Task(constraints=constraints, cost=RATES))
    agent.save(tmp_path)
    again = AGENTS[name].load(tmp_path)
    held = held_of(market)
    np.testing.assert_array_equal(again.act(market, held), agent.act(market, held))
    assert again.binding == agent.binding and any(agent.binding.values())
    assert "Infinity" not in (tmp_path / "terms.json").read_text()


def test_other_assets_are_refused():
    market = market_of()
    agent = fitted(MeanVariance, market)
    with pytest.raises(DataError, match="are not those of"):
        agent.act(market_of(cash=None), np.full(COUNT, 1 / COUNT))
