"""Baselines against hand-computed paths, and optimisers against an independent solver."""

import re
from pathlib import Path

import daqp
import numpy as np
import pandas as pd
import pytest
import sklearn.covariance  # type: ignore[import-untyped]

from agents import AGENTS
from agents.baselines import BuyAndHold, Cash, EqualWeight
from agents.optimisers import MeanVariance
from agents.schedule import is_due
from experiments.backtest import backtest
from experiments.config import AgentConfig, DataConfig, ExperimentConfig
from experiments.facts import notes
from experiments.runs import Run
from experiments.trial import Trial, trial
from market import Market


def market_of(prices, start="2020-01-01", cash=None, **fields):
    values = np.asarray(prices, float)
    dates = pd.bdate_range(start, periods=len(values))
    frame = pd.DataFrame(values, dates, [f"a{i}" for i in range(values.shape[1])])
    return Market.from_prices(frame, cash_rate=cash, **fields)


def random_market(n_periods=300, n_assets=4, seed=1, cash=0.03, drift=0.0006):
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((n_assets, n_assets)) / n_assets + np.eye(n_assets)
    moves = drift + 0.01 * rng.standard_normal((n_periods, n_assets)) @ mix
    return market_of(100.0 * np.cumprod(1.0 + moves, axis=0), cash=cash)


# ---- equal weight, buy and hold, cash


def test_equal_weight_every_day_by_hand():
    market = market_of([[10, 10], [20, 10], [20, 20]])
    path = backtest(EqualWeight(), market)
    np.testing.assert_allclose(path.values, [1.0, 1.5, 2.25])
    np.testing.assert_allclose(path.weights, 0.5)


def test_buy_and_hold_is_the_mean_of_the_growths():
    market = random_market(cash=0.03)
    path = backtest(BuyAndHold(), market)
    growth = market.prices[:, :-1] / market.prices[0, :-1]
    np.testing.assert_allclose(path.values, growth.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(path.turnover[0], 0.5, rtol=1e-12)
    np.testing.assert_allclose(path.turnover[1:], 0.0, atol=1e-12)


def test_buy_and_hold_without_cash_holds_the_equal_start():
    market = random_market(cash=None)
    path = backtest(BuyAndHold(), market)
    np.testing.assert_allclose(path.turnover, 0.0, atol=1e-12)
    growth = market.prices / market.prices[0]
    np.testing.assert_allclose(path.values, growth.mean(axis=1), rtol=1e-12)


@pytest.mark.parametrize("agent", [EqualWeight, BuyAndHold])
def test_cash_as_one_of_the_parts(agent):
    market = random_market()
    first = agent(include_cash=True).act(market, np.eye(5)[-1])
    np.testing.assert_allclose(first, 0.2)


def test_monthly_equal_weight_trades_on_first_days_of_months():
    market = random_market(n_periods=120)
    path = backtest(EqualWeight(rebalance_every="month"), market)
    decisions = path.dates[:-1]
    traded = decisions[path.turnover > 1e-12]
    first_of_month = decisions[1:][np.diff(decisions.month) != 0]
    assert list(traded) == [decisions[0], *first_of_month]


def test_never_rebalanced_equal_weight_is_buy_and_hold():
    market = random_market()
    never, bought = (
        backtest(agent, market) for agent in (EqualWeight(rebalance_every="never"), BuyAndHold())
    )
    np.testing.assert_array_equal(never.values, bought.values)


@pytest.mark.parametrize(
    ("every", "expected"),
    [(3, [0, 3, 6, 9]), ("week", [0, 3, 8]), ("quarter", [0]), ("never", [0])],
)
def test_schedule(every, expected):
    market = market_of(np.ones((10, 2)), start="2020-01-01", cash=0.0)  # a Wednesday
    start, other = np.array([0.0, 0.0, 1.0]), np.array([0.2, 0.3, 0.5])
    due = [t for t in range(10) if is_due(market.upto(t), other if t else start, every)]
    assert due == expected
    assert is_due(market, start, every)


def test_a_late_listing_enters_when_it_can_be_held():
    prices = np.full((6, 2), 10.0)
    prices[:3, 1] = np.nan
    market = market_of(prices)
    path = backtest(EqualWeight(), market)
    np.testing.assert_allclose(path.weights[:, 1], [0, 0, 0, 0.5, 0.5])


def test_cash_earns_the_rate():
    market = random_market(cash=0.05)
    path = backtest(Cash(), market)
    np.testing.assert_allclose(path.returns, market.risk_free[1:], atol=1e-12)


# ---- mean-variance


def moments(returns):
    """Bayes-Stein means (Jorion 1986) and Ledoit-Wolf covariance."""
    n_rows, n_assets = returns.shape
    covariance = sklearn.covariance.ledoit_wolf(returns)[0]
    inverse = np.linalg.inv(covariance)
    mean, ones = returns.mean(axis=0), np.ones(n_assets)
    grand = (ones @ inverse @ mean) / (ones @ inverse @ ones)
    distance = (mean - grand) @ inverse @ (mean - grand)
    shrinkage = (n_assets + 2) / (n_assets + 2 + n_rows * distance)
    return (1 - shrinkage) * mean + shrinkage * grand, covariance


def best_by_daqp(mean, covariance, risk_aversion, full):
    """Maximise w.mu - lambda/2 w.S.w by an active-set method that is exact."""
    count, scale = len(mean), 1.0 / np.diag(covariance).mean()
    sense = np.zeros(count + 1, np.int32)
    sense[-1] = 5 if full else 0
    floor = np.append(np.zeros(count), 1.0 if full else -1e30)
    hessian, slope = scale * risk_aversion * covariance, -scale * mean
    found = daqp.solve(hessian, slope, np.ones((1, count)), np.ones(count + 1), floor, sense)
    assert found[2] == 1
    return found[0]


@pytest.mark.parametrize("risk_aversion", [2.0, 20.0, 100.0])
@pytest.mark.parametrize("cash", [0.03, None])
def test_mean_variance_agrees_with_another_solver(risk_aversion, cash):
    market = random_market(cash=cash)
    agent = MeanVariance(window=252, risk_aversion=risk_aversion)
    start = np.eye(5)[-1] if cash else np.full(4, 0.25)
    target = agent.act(market, start)
    returns = (market.returns - market.risk_free[:, None])[-252:, :4]
    mean, covariance = moments(returns)
    expected = best_by_daqp(mean, covariance, risk_aversion, full=cash is None)
    np.testing.assert_allclose(target[:4], expected, atol=1e-4)
    assert target.sum() == pytest.approx(1.0, abs=1e-12)
    assert not agent.failures


def test_mean_variance_inner_optimum_in_closed_form():
    """With a risk aversion so high that no limit binds, w = S^-1 mu / lambda."""
    market = random_market(drift=0.002)
    agent = MeanVariance(risk_aversion=200.0, mean="empirical", covariance="empirical")
    returns = (market.returns - market.risk_free[:, None])[-252:, :4]
    expected = np.linalg.solve(np.cov(returns, rowvar=False), returns.mean(axis=0)) / 200.0
    assert expected.min() > 0.0 and expected.sum() < 1.0
    np.testing.assert_allclose(agent.act(market, np.eye(5)[-1])[:4], expected, atol=1e-5)


def test_mean_variance_goes_to_cash_when_everything_falls():
    market = random_market(drift=-0.01)
    np.testing.assert_allclose(MeanVariance().act(market, np.eye(5)[-1]), np.eye(5)[-1], atol=1e-4)


def test_between_rebalances_holdings_drift():
    market = random_market(n_periods=330, drift=0.002)
    path = backtest(MeanVariance(window=252, rebalance_every=21, risk_aversion=20.0), market)
    traded = np.flatnonzero(path.turnover > 1e-9)
    assert list(traded) == [0, 21, 42, 63]


def test_a_failed_solve_is_named_counted_and_trades_nothing(monkeypatch):
    market = random_market()
    agent = MeanVariance(rebalance_every=1)

    def fail(excess, room):
        import cvxpy

        raise cvxpy.error.SolverError("no solution")

    monkeypatch.setattr(agent, "solve", fail)
    weights = np.array([0.1, 0.2, 0.3, 0.2, 0.2])
    np.testing.assert_array_equal(agent.act(market, weights), weights)
    assert agent.failures == [(market.dates[-1], "SolverError: no solution")]


def test_failed_decisions_are_in_the_path_by_date_and_reason(monkeypatch):
    market = random_market(n_periods=330, drift=0.002)
    agent = MeanVariance(window=252, rebalance_every=21, risk_aversion=20.0)
    days = [market.dates[t] for t in (273, 315)]  # decisions fall on rows 252, 273, 294 and 315
    last = [market.returns[t, 0] - market.risk_free[t] for t in (273, 315)]
    solve = agent.solve

    def sometimes(excess, room):
        if excess[-1, 0] in last:
            raise ArithmeticError("no such weights")
        return solve(excess, room)

    monkeypatch.setattr(agent, "solve", sometimes)
    path = backtest(agent, market)
    reason = "ArithmeticError: no such weights"
    assert path.failures == tuple((day, reason) for day in days)
    np.testing.assert_allclose(path.turnover[[21, 63]], 0.0, atol=1e-12)
    assert path.turnover[[0, 42]].min() > 1e-3
    assert backtest(EqualWeight(), market).failures == ()


def test_failed_decisions_are_in_the_run_and_its_report(tmp_path):
    """Risk parity of an asset that never moves has no solution."""
    dates = pd.bdate_range("2020-01-01", periods=90)
    moves = 0.01 * np.random.default_rng(0).standard_normal(90)
    prices = pd.DataFrame({"moves": 100 * np.exp(moves.cumsum()), "rests": 50.0}, dates)
    prices.rename_axis("date").to_csv(tmp_path / "prices.csv")
    config = ExperimentConfig(
        agent=AgentConfig(
            name="risk_parity",
            settings={"window": 10, "rebalance_every": 10, "covariance": "empirical"},
        ),
        data=DataConfig(source="files", options={"path": str(tmp_path / "prices.csv")}),
        results=str(tmp_path / "results"),
    )
    run = Run.read(trial(Trial(config, 0)))
    failed = run.manifest["failed_decisions"]
    assert failed[0].endswith("ArithmeticError: risk parity needs assets that vary")
    assert run.metrics["test/failed_decisions"].iloc[-1] == len(failed) >= 2
    assert any(
        f"{len(failed)} decisions failed and traded nothing" in note for note in notes([run])
    )


def test_the_page_of_baselines_lists_all_of_them():
    page = (Path(__file__).parent.parent / "docs" / "baselines.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)[`(]", page, re.MULTILINE))
    modules = {"baselines", "hindsight", "momentum", "online", "optimisers", "risk_based"}
    modules |= {"ensembles", "ensembles_regime", "ensembles_forecasts"}
    ours = {name for name in AGENTS if AGENTS[name].__module__.removeprefix("agents.") in modules}
    assert ours == listed


def test_assets_without_a_full_window_are_left_out():
    market = random_market(cash=None)
    prices = np.array(market.prices)
    prices[:100, 2] = np.nan
    target = MeanVariance(window=252, risk_aversion=50.0).act(market_of(prices), np.full(4, 0.25))
    assert target[2] == 0.0 and (target[[0, 1, 3]] > 0).any()
