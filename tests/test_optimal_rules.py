"""Rules that weigh forecasts against risk and costs, against other solvers and the textbook."""

from dataclasses import replace

import daqp
import numpy as np
import pandas as pd
import pytest

from agents.base import Task
from agents.forecast_agent import ForecastAgent
from agents.moments import covariance_of
from agents.optimal_rules import by_skfolio
from agents.outlook import Outlook, Rates, trading_rates
from agents.quadratic import Trading, best_utility
from agents.rules import (
    BlackLittermanRule,
    MeanVarianceRule,
    Proportional,
    SoftmaxRule,
    TiltedRiskParity,
    TopK,
)
from envs.constraints import GroupCap, MaxWeight, VolatilityTarget
from envs.costs import FixedFee, HalfSpread, ProportionalCost, SquareRootImpact
from experiments.backtest import backtest
from market import Market, SettingError

CASH = np.array([0.0, 0.0, 0.0, 1.0])
HELD = np.array([0.3, 0.2, 0.1, 0.4])
FORECAST = np.array([0.0008, 0.0003, -0.0002, 0.0001])


def market_of(cash=0.02, n_periods=320, seed=0):
    rng = np.random.default_rng(seed)
    mix = np.array([[1.0, 0.5, 0.0], [0.0, 0.8, 0.2], [0.0, 0.0, 0.6]])
    moves = 0.0004 + 0.01 * rng.standard_normal((n_periods, 3)) @ mix
    frame = pd.DataFrame(100.0 * np.cumprod(1.0 + moves, axis=0), columns=["a", "b", "c"])
    frame.index = pd.bdate_range("2015-01-01", periods=n_periods)
    return Market.from_prices(frame, cash_rate=cash, sectors={"a": "x", "b": "x", "c": "y"})


@pytest.fixture(scope="module")
def market():
    return market_of()


def covariance(market, window=252):
    excess = market.returns[-window:] - market.risk_free[-window:, None]
    return covariance_of(excess[:, :3])


def by_daqp(mean, matrix, aversion, trading, full):
    """The programme over (w, buys, sales) by an active-set solver."""
    k, scale = len(mean), 1.0 / (aversion * np.diag(matrix).mean())
    hessian = np.zeros((3 * k, 3 * k))
    hessian[:k, :k] = scale * aversion * matrix
    hessian += 1e-10 * np.eye(3 * k)
    linear = scale * np.concatenate([-mean, trading.buy, trading.sell])
    rows = np.vstack(
        [np.append(np.ones(k), np.zeros(2 * k)), np.hstack([np.eye(k), -np.eye(k), np.eye(k)])]
    )
    upper = np.concatenate([np.full(3 * k, 10.0), [1.0], trading.held])
    lower = np.concatenate([np.zeros(3 * k), [1.0 if full else 0.0], trading.held])
    sense = np.zeros(len(upper), np.int32)
    sense[3 * k + 1 :] = 5
    found, _, flag, _ = daqp.solve(hessian, linear, rows, upper, lower, sense)
    assert flag == 1
    return found[:k]


# ---- mean-variance


@pytest.mark.parametrize("cash", [0.02, None])
@pytest.mark.parametrize("penalty", [0.0, 0.0002])
def test_mean_variance_with_costs_agrees_with_two_other_solvers(cash, penalty):
    market = market_of(cash)
    held = HELD if cash is not None else np.array([0.5, 0.3, 0.2])
    n = market.n_assets
    rates = Rates(np.full(n, 0.002), np.array([0.001, 0.003, 0.002, 0.0][:n]))
    outlook = Outlook(FORECAST[:n], rates=rates)
    rule = MeanVarianceRule(risk_aversion=4.0, holding=20, turnover_penalty=penalty)
    target = rule(outlook, market, held)
    mean = FORECAST[:3] - (FORECAST[3] if cash is not None else 0.0)
    buy, sell = (side[:3] / 20 + penalty / 2 for side in rates)
    trading = Trading(held[:3], buy, sell)
    exact = by_daqp(mean, covariance(market), 4.0, trading, full=cash is None)
    np.testing.assert_allclose(target[:3], exact, atol=1e-6)
    other = replace(rule, solver="skfolio")(outlook, market, held)
    np.testing.assert_allclose(other, target, atol=1e-6)
    assert target.sum() == pytest.approx(1.0)


def test_solvers_agree_without_costs():
    rng = np.random.default_rng(1)
    for full in (True, False):
        matrix = np.cov(0.01 * rng.standard_normal((4, 200)))
        mean = 0.0004 * rng.standard_normal(4)
        direct = best_utility(mean, matrix, 5.0, full=full)
        np.testing.assert_allclose(by_skfolio(mean, matrix, 5.0, full), direct, atol=1e-4)


def test_what_a_trade_costs_is_weighed_against_what_it_earns(market):
    """Costs beyond any gain: nothing is traded; without costs: the plain optimum."""
    dear = Outlook(FORECAST, rates=Rates(*np.full((2, 4), 0.5)))
    np.testing.assert_allclose(MeanVarianceRule(holding=1)(dear, market, HELD), HELD, atol=1e-7)
    free = MeanVarianceRule()(Outlook(FORECAST), market, HELD)
    plain = best_utility(FORECAST[:3] - FORECAST[3], covariance(market), 5.0, full=False)
    np.testing.assert_allclose(free[:3], plain, atol=1e-9)
    turnover = []
    for penalty in (0.0, 0.0001, 0.0005, 0.005):
        target = MeanVarianceRule(turnover_penalty=penalty)(Outlook(FORECAST), market, HELD)
        turnover.append(round(0.5 * np.abs(target - HELD)[:3].sum(), 9))
    assert turnover == sorted(turnover, reverse=True) and turnover[0] > 0.1 and turnover[-1] < 1e-6


def test_the_real_costs_reach_the_rule_and_stay_with_it(tmp_path):
    market = market_of()
    task = Task(cost=ProportionalCost(buy=0.004, sell=0.001))
    agent = ForecastAgent(forecaster="mean", rule="mean_variance(window=60)")
    agent.fit(market[:200], task=task)
    assert agent.rates is not None
    np.testing.assert_allclose(agent.rates.buy, [0.004] * 3 + [0.0], rtol=1e-12)
    np.testing.assert_allclose(agent.rates.sell, [0.001] * 3 + [0.0], rtol=1e-12)
    agent.save(tmp_path)
    again = ForecastAgent.load(tmp_path)
    np.testing.assert_array_equal(again.act(market, HELD), agent.act(market, HELD))
    free = ForecastAgent(forecaster="mean", rule="mean_variance(window=60)")
    free.fit(market[:200], task=Task(cost=None))
    assert free.rates is None
    costs = [backtest(one, market[200:], cost=task.cost).costs.sum() for one in (agent, free)]
    assert costs[0] < 0.7 * costs[1]


def test_rates_of_every_cost_by_hand(market):
    spread = trading_rates(HalfSpread({"a": 0.002}), market)
    assert spread is not None
    np.testing.assert_allclose(spread.buy, [0.002, 0, 0, 0], rtol=1e-12)
    fee = trading_rates(FixedFee(5.0, 1000.0), market, size=0.1)
    assert fee is not None
    np.testing.assert_allclose(fee.sell, [0.05, 0.05, 0.05, 0.0], rtol=1e-12)
    assert trading_rates(None, market) is None
    traded = replace(market, volume=np.full(market.prices.shape, 1e4))
    impact = trading_rates(SquareRootImpact(capital=1e6), traded, size=0.04)
    assert impact is not None
    sigma = market.returns[-20:, 0].std(ddof=1)
    money = (market.prices[-20:, 0] * 1e4).mean()
    assert impact.buy[0] == pytest.approx(sigma * np.sqrt(0.04 * 1e6 / money), rel=1e-9)


def test_forecast_volatility_scales_the_covariance(market):
    base = np.sqrt(np.diag(covariance(market)))
    outlook = Outlook(FORECAST, volatility=np.append(2.0 * base, 0.0), usual=np.append(base, 0.0))
    target = MeanVarianceRule()(outlook, market, HELD)
    exact = best_utility(FORECAST[:3] - FORECAST[3], 4.0 * covariance(market), 5.0, full=False)
    np.testing.assert_allclose(target[:3], exact, atol=1e-9)


def test_scores_of_forecast_volatility_by_hand(market):
    """Twice the usual volatility is worth a quarter of the return."""
    mean = np.array([0.002, 0.001, 0.004, 0.0])
    outlook = Outlook(mean, volatility=np.array([0.02, 0.01, 0.04, 0.0]), usual=np.full(4, 0.01))
    np.testing.assert_allclose(outlook.score, [0.0005, 0.001, 0.00025, 0.0])
    np.testing.assert_allclose(
        Proportional()(outlook, market, CASH), np.array([0.5, 1.0, 0.25, 0.0]) / 1.75
    )
    np.testing.assert_array_equal(TopK(k=1)(outlook, market, CASH), [0, 1, 0, 0])
    soft = SoftmaxRule(temperature=0.0005)(outlook, market, CASH)
    np.testing.assert_allclose(soft[0] / soft[1], np.exp(-1.0))


# ---- Black-Litterman


def test_black_litterman_is_the_textbooks():
    """The master formula with inverses, [(tau S)^-1 + Omega^-1]^-1 [..], and w = (lambda S)^-1 mu.

    He & Litterman (1999), eq. 8; Idzorek (2005), formula 3, with the identity as views.
    """
    market, aversion, tau = market_of(), 5.0, 0.25
    matrix = covariance(market)
    error = np.array([0.011, 0.009, 0.005])
    equilibrium = aversion * matrix @ np.full(3, 1 / 3)
    views = equilibrium + np.array([0.0, 1e-4, -5e-5])
    outlook = Outlook(np.append(views + 0.0001, 0.0001), error=np.append(error, 0.0))
    prior, doubt = np.linalg.inv(tau * matrix), np.diag(error**-2)
    posterior = np.linalg.solve(prior + doubt, prior @ equilibrium + doubt @ views)
    weights = np.linalg.solve(aversion * matrix, posterior)
    assert weights.min() > 0.0 and weights.sum() < 1.0  # no limit binds
    target = BlackLittermanRule(risk_aversion=aversion, tau=tau)(outlook, market, CASH)
    np.testing.assert_allclose(target, np.append(weights, 1.0 - weights.sum()), atol=1e-8)


def test_black_litterman_believes_as_much_as_forecasts_were_right(market):
    """No error: plain mean-variance on forecasts; a huge one: 1/N; its own volatility: half."""
    tiny, huge = np.full(4, 1e-9), np.full(4, 1e3)
    believed = BlackLittermanRule()(Outlook(FORECAST, error=tiny), market, HELD)
    plain = MeanVarianceRule()(Outlook(FORECAST), market, HELD)
    np.testing.assert_allclose(believed, plain, atol=1e-4)
    doubted = BlackLittermanRule()(Outlook(FORECAST, error=huge), market, HELD)
    np.testing.assert_allclose(doubted, [1 / 3, 1 / 3, 1 / 3, 0.0], atol=1e-4)
    one = Market.from_prices(pd.DataFrame(market.prices[:, :1], market.dates, ["a"]), cash_rate=0.0)
    variance = covariance_of(one.returns[-252:, :1])[0, 0]
    own = Outlook(np.array([3.0 * variance, 0.0]), error=np.array([variance**0.5, 0.0]))
    half = BlackLittermanRule(risk_aversion=5.0)(own, one, np.array([0.0, 1.0]))
    assert half[0] == pytest.approx((3.0 + 5.0) / 2 / 5.0, abs=1e-6)  # mean of both, over lambda
    unknown = BlackLittermanRule()(replace(own, error=None), one, np.array([0.0, 1.0]))
    np.testing.assert_allclose(unknown, half, atol=1e-9)


def test_black_litterman_of_longer_forecasts_scales_the_prior(market):
    """A mean over k days is as uncertain of as S / k."""
    error = np.append(np.sqrt(np.diag(covariance(market)) / 5), 0.0)
    long = BlackLittermanRule()(Outlook(FORECAST, error=error, horizon=5), market, HELD)
    given = BlackLittermanRule(tau=0.2)(Outlook(FORECAST, error=error), market, HELD)
    np.testing.assert_allclose(long, given, atol=1e-9)


# ---- risk parity, tilted


def test_tilted_risk_parity_has_the_budgets_it_promises(market):
    forecast = np.array([0.001, 0.003, 0.002, 0.0])
    target = TiltedRiskParity(tilt=0.7)(forecast, market, HELD)
    contributions = target[:3] * (covariance(market) @ target[:3])
    budgets = np.exp(0.7 * np.array([-1.0, 1.0, 0.0]))
    np.testing.assert_allclose(
        contributions / contributions.sum(), budgets / budgets.sum(), atol=1e-9
    )
    level = TiltedRiskParity(tilt=0.0)(forecast, market, HELD)
    contributions = level[:3] * (covariance(market) @ level[:3])
    np.testing.assert_allclose(contributions / contributions.sum(), 1 / 3, atol=1e-9)
    np.testing.assert_allclose(
        TiltedRiskParity()(np.full(4, 0.01), market, HELD), level, atol=1e-9
    )  # equal forecasts tilt nothing


# ---- what every rule keeps to

RULED = [
    "proportional",
    "softmax(temperature=0.0002)",
    "top_k(k=2)",
    "mean_variance(window=60)",
    "black_litterman(window=60)",
    "risk_parity(window=60, tilt=2)",
]


@pytest.mark.parametrize("rule", RULED)
def test_the_same_limits_as_any_agent(rule):
    """Caps, group caps and a volatility target hold on every day of the back-test."""
    market = market_of()
    agent = ForecastAgent(forecaster="linear(lookback=2)", rule=rule).fit(market[:200])
    limits = (MaxWeight(0.4), GroupCap("x", 0.5), VolatilityTarget(0.08, 60))
    done = backtest(agent, market, constraints=limits, start=market.dates[220])
    assert done.weights[:, :3].max() <= 0.4 + 1e-9
    assert done.weights[:, :2].sum(axis=1).max() <= 0.5 + 1e-9
    for t, target in zip(range(220, market.n_periods), done.weights, strict=False):
        path = market.returns[t - 59 : t + 1] @ target
        assert path.std(ddof=1) * np.sqrt(252) <= 0.08 * (1 + 1e-6)


@pytest.mark.parametrize("rule", RULED)
def test_what_is_not_listed_gets_nothing(rule):
    market = market_of()
    prices = pd.DataFrame(market.prices[:, :3].copy(), market.dates, ["a", "b", "c"])
    prices.iloc[300:, 1] = np.nan
    gone = Market.from_prices(prices, cash_rate=0.02)
    agent = ForecastAgent(forecaster="linear", rule=rule).fit(gone[:200])
    target = agent.act(gone, CASH)
    assert target[1] == 0.0 and target.sum() == pytest.approx(1.0) and target.min() >= 0.0


@pytest.mark.parametrize("rule", RULED)
def test_a_market_without_cash_is_fully_invested(rule):
    market = market_of(cash=None)
    agent = ForecastAgent(forecaster="ridge", rule=rule).fit(market[:200])
    target = agent.act(market, np.array([0.5, 0.3, 0.2]))
    assert target.sum() == pytest.approx(1.0) and target.min() >= 0.0


def test_an_optimum_that_is_not_found_is_named_and_nothing_is_traded():
    frame = pd.DataFrame({"a": np.full(60, 5.0), "b": np.full(60, 7.0)})
    frame.index = pd.bdate_range("2015-01-01", periods=60)
    still = Market.from_prices(frame, cash_rate=0.0)
    agent = ForecastAgent(forecaster="mean", rule="risk_parity(window=20)").fit(still[:40])
    held = np.array([0.2, 0.3, 0.5])
    np.testing.assert_array_equal(agent.act(still, held), held)
    (date, reason), *rest = agent.failures
    assert date == still.dates[-1] and "assets that vary" in reason and not rest


def test_settings_are_refused_by_name():
    for build, text in [
        (lambda: MeanVarianceRule(holding=0), r"holding must be in \[1, inf\), got 0"),
        (lambda: BlackLittermanRule(tau=0.0), r"tau must be in \(0, inf\), got 0.0"),
        (lambda: TiltedRiskParity(tilt=-1.0), r"tilt must be in \[0, 20\], got -1.0"),
        (lambda: MeanVarianceRule(window=1), r"window must be in \[2, inf\), got 1"),
    ]:
        with pytest.raises(SettingError, match=text):
            build()
