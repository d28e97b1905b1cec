"""Optimisers, risk-based portfolios and momentum against other solvers and hand computations."""

from typing import Any

import daqp
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import skfolio.prior
import sklearn.covariance  # type: ignore[import-untyped]
from skfolio import moments as sk_moments
from skfolio import optimization as sk

from agents import AGENTS
from agents.baselines import Index, SixtyForty
from agents.moments import covariance_of, mean_of
from agents.momentum import CrossSectionalMomentum, TimeSeriesMomentum, VolatilityManaged
from agents.optimisers import BlackLitterman, MaximumSharpe, MeanVariance
from agents.optimisers import black_litterman as posterior
from agents.quadratic import Trading, best_utility
from agents.risk_based import (
    HierarchicalRiskParity,
    InverseVolatility,
    MaximumDiversification,
    MinimumCVaR,
    MinimumVariance,
    RiskParity,
    equal_risk,
)
from experiments.backtest import backtest
from market import Market, SettingError, measures

FULL = np.full(6, 1 / 6)
ROLLING = {
    "black_litterman",
    "hierarchical_risk_parity",
    "inverse_volatility",
    "maximum_diversification",
    "maximum_sharpe",
    "mean_variance",
    "minimum_cvar",
    "minimum_variance",
    "risk_parity",
}


def random_returns(n_periods=300, n_assets=6, seed=1, drift=0.0006):
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((n_assets, n_assets)) / n_assets + np.diag(np.arange(1, n_assets + 1))
    return drift + 0.004 * rng.standard_normal((n_periods, n_assets)) @ mix


def market_of(returns, cash=None):
    dates = pd.bdate_range("2015-01-01", periods=len(returns) + 1)
    prices = 100.0 * np.cumprod(np.vstack([np.ones(returns.shape[1]), 1.0 + returns]), axis=0)
    names = [f"a{i}" for i in range(returns.shape[1])]
    return Market.from_prices(pd.DataFrame(prices, dates, names), cash_rate=cash)


@pytest.fixture(scope="module")
def market():
    return market_of(random_returns())


@pytest.fixture(scope="module")
def with_cash():
    return market_of(random_returns(), cash=0.02)


def window_of(market, rows=252):
    excess = market.returns - market.risk_free[:, None]
    return excess[-rows:, : market.n_assets - market.has_cash]


def quadratic_oracle(covariance, mean, limits, caps, lower=None, full=True):
    """Minimise w.S.w / 2 - w.mu by daqp, an active-set method that is exact."""
    count = len(mean)
    scale = 1.0 / np.diag(covariance).mean()
    matrix = np.vstack([np.ones(count), limits])
    above = np.concatenate([np.ones(count), [1.0], caps])
    below = np.concatenate([np.zeros(count), [1.0 if full else -1e30], np.full(len(caps), -1e30)])
    sense = np.zeros(len(above), np.int32)
    sense[count] = 5 if full else 0
    found, _, flag, _ = daqp.solve(scale * covariance, -scale * mean, matrix, above, below, sense)
    assert flag == 1
    return found


# ---- moments


@pytest.mark.parametrize("shape", [(252, 20), (60, 5), (30, 40), (100, 1)])
def test_covariances_agree_with_scikit_learn(shape):
    returns = (
        0.01 * np.random.default_rng(0).standard_normal(shape) @ np.diag(1.0 + np.arange(shape[1]))
    )
    expected: dict[Any, np.ndarray] = {
        "ledoit_wolf": sklearn.covariance.ledoit_wolf(returns)[0],
        "empirical": np.atleast_2d(np.cov(returns, rowvar=False)),
    }
    if shape[1] > 1:
        expected["oas"] = sklearn.covariance.oas(returns)[0]
    for kind, matrix in expected.items():
        np.testing.assert_allclose(covariance_of(returns, kind), matrix, rtol=1e-9, atol=1e-14)


def test_bayes_stein_agrees_with_skfolio():
    returns = random_returns()
    estimator = sk_moments.ShrunkMu(
        covariance_estimator=sk_moments.LedoitWolf(),
        vol_weighted_target=True,
        method=sk_moments.ShrunkMuMethods.BAYES_STEIN,
    )
    found = mean_of(returns, covariance_of(returns), "bayes_stein")
    np.testing.assert_allclose(found, estimator.fit(returns).mu_, rtol=1e-9)
    np.testing.assert_array_equal(mean_of(returns, np.eye(6), "empirical"), returns.mean(axis=0))


# ---- the quadratic programme


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_best_utility_is_exact_with_and_without_caps(seed, full):
    returns = random_returns(seed=seed, n_assets=8)
    covariance, mean = covariance_of(returns), returns.mean(axis=0)
    nothing = (np.zeros((0, 8)), np.zeros(0))
    caps = (np.eye(8), np.full(8, 0.2))
    sectors = (np.kron(np.eye(2), np.ones(4)), np.array([0.5, 0.6]))
    for limits, above in (nothing, caps, sectors):
        found = best_utility(mean, covariance, 5.0, full=full, limits=(limits, above))
        expected = quadratic_oracle(5.0 * covariance, mean, limits, above, full=full)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_best_utility_with_costs_agrees_with_a_smooth_solver(seed):
    returns = random_returns(seed=seed)
    covariance, mean = covariance_of(returns), returns.mean(axis=0)
    held, buy, sell = np.full(6, 0.15), np.full(6, 2e-4), np.full(6, 1e-4)
    found = best_utility(mean, covariance, 20.0, full=False, trading=Trading(held, buy, sell))

    def loss(x):  # weights, buys, sells
        w = x[:6]
        return 1e4 * (10.0 * w @ covariance @ w - w @ mean + buy @ x[6:12] + sell @ x[12:])

    balance: Any = {"type": "eq", "fun": lambda x: x[:6] - held - x[6:12] + x[12:]}
    spend: Any = {"type": "ineq", "fun": lambda x: 1.0 - x[:6].sum()}
    start = np.concatenate([held, np.zeros(12)])
    options: Any = {"maxiter": 2000, "ftol": 1e-15}
    expected = scipy.optimize.minimize(
        loss, start, bounds=[(0, 1)] * 18, constraints=[balance, spend], options=options
    )
    np.testing.assert_allclose(found, expected.x[:6], atol=2e-4)
    assert loss(
        np.concatenate([found, np.maximum(found - held, 0), np.maximum(held - found, 0)])
    ) <= (expected.fun + 1e-6)


def test_high_costs_stop_all_trade():
    returns = random_returns()
    held = np.array([0.3, 0.1, 0.2, 0.1, 0.1, 0.1])
    rates = np.full(6, 1.0)
    found = best_utility(
        returns.mean(axis=0),
        covariance_of(returns),
        5.0,
        full=False,
        trading=Trading(held, rates, rates),
    )
    np.testing.assert_allclose(found, held, atol=1e-8)


def test_contradictory_limits_are_an_error():
    returns = random_returns()
    limits = (np.eye(6), np.full(6, 0.1))
    with pytest.raises(ArithmeticError, match="Infeasible"):
        best_utility(returns.mean(axis=0), covariance_of(returns), 5.0, full=True, limits=limits)


# ---- agents against their definitions


@pytest.mark.parametrize("aversion", [1.0, 10.0, 100.0])
def test_both_solvers_of_mean_variance_agree(with_cash, aversion):
    agents = (MeanVariance(solver=s, risk_aversion=aversion) for s in ("skfolio", "direct"))
    first, second = (agent.act(with_cash, np.eye(7)[-1]) for agent in agents)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_expanding_window_uses_every_return(market):
    agent = MeanVariance(window=100, expanding=True, solver="direct")
    excess = market.returns[1:]
    covariance = covariance_of(excess)
    mean = mean_of(excess, covariance, "bayes_stein")
    expected = quadratic_oracle(5.0 * covariance, mean, np.zeros((0, 6)), np.zeros(0))
    np.testing.assert_allclose(agent.act(market, FULL), expected, atol=1e-6)


def test_expanding_window_starts_where_every_asset_is_listed(market):
    prices = np.array(market.prices)
    prices[:90, 2] = np.nan
    late = Market.from_prices(pd.DataFrame(prices, market.dates, market.assets), cash_rate=None)
    settings: dict[str, Any] = {"window": 100, "expanding": True, "solver": "direct"}
    found = MeanVariance(**settings).act(late, FULL)
    expected = MeanVariance(**settings).act(market[90:], FULL)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_singular_covariances_are_named_where_they_are_inverted(market):
    twins = np.repeat(market.returns[1:, :1], 2, axis=1)
    settings: dict[str, Any] = {"covariance": "empirical", "rebalance_every": 1}
    agent, held = MeanVariance(**settings), np.array([0.3, 0.7])
    np.testing.assert_array_equal(agent.act(market_of(twins), held), held)
    assert agent.failed is not None and "needs a covariance that is not singular" in agent.failed
    plain = MeanVariance(**settings, mean="empirical")
    assert plain.act(market_of(twins), held).sum() == pytest.approx(1.0) and plain.failed is None


def test_minimum_variance(market):
    covariance = covariance_of(window_of(market))
    expected = quadratic_oracle(covariance, np.zeros(6), np.zeros((0, 6)), np.zeros(0))
    np.testing.assert_allclose(MinimumVariance().act(market, FULL), expected, atol=1e-4)


def test_maximum_sharpe_is_the_tangency_portfolio(with_cash):
    """The best w.mu / sqrt(w.S.w) is min x.S.x with x.mu = 1, x >= 0, scaled."""
    target = MaximumSharpe().act(with_cash, np.eye(7)[-1])
    excess = window_of(with_cash)
    covariance = covariance_of(excess)
    mean = mean_of(excess, covariance, "bayes_stein")
    scale = 1.0 / np.diag(covariance).mean()
    lead = mean / mean.max()
    above = np.concatenate([np.full(6, 1e6), [1.0]])
    below = np.concatenate([np.zeros(6), [1.0]])
    sense = np.array([0] * 6 + [5], np.int32)
    x = daqp.solve(scale * covariance, np.zeros(6), lead[None], above, below, sense)[0]
    np.testing.assert_allclose(target[:6], x / x.sum(), atol=1e-4)
    assert target[-1] == pytest.approx(0.0, abs=1e-6)


def test_maximum_sharpe_without_hope():
    falling = random_returns(drift=-0.02)
    cash = market_of(falling, cash=0.02)
    np.testing.assert_array_equal(MaximumSharpe().act(cash, np.eye(7)[-1]), np.eye(7)[-1])
    bare = market_of(falling)
    least = MinimumVariance().act(bare, FULL)
    np.testing.assert_allclose(MaximumSharpe().act(bare, FULL), least, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 6, 30])
def test_risk_parity_contributions_are_equal(seed, count):
    covariance = covariance_of(random_returns(seed=seed, n_assets=count))
    weights = equal_risk(covariance)
    parts = weights * (covariance @ weights)
    np.testing.assert_allclose(parts / parts.sum(), 1.0 / count, atol=1e-12)
    assert weights.min() > 0.0 and weights.sum() == pytest.approx(1.0)


def test_risk_budgets_are_met():
    covariance = covariance_of(random_returns(n_assets=3))
    budgets = np.array([0.7, 0.2, 0.1])
    weights = equal_risk(covariance, budgets)
    parts = weights * (covariance @ weights)
    np.testing.assert_allclose(parts / parts.sum(), budgets, atol=1e-10)


def test_risk_parity_agrees_with_skfolio(market):
    prior = skfolio.prior.EmpiricalPrior(covariance_estimator=sk_moments.LedoitWolf())
    expected = sk.RiskBudgeting(prior_estimator=prior).fit(window_of(market)).weights_
    np.testing.assert_allclose(RiskParity().act(market, FULL), expected, atol=1e-4)


def test_risk_parity_needs_assets_that_vary():
    with pytest.raises(ArithmeticError, match="needs assets that vary"):
        equal_risk(np.diag([1.0, 0.0]))


def test_maximum_diversification(market):
    """On the correlation matrix it is the portfolio of least variance, rescaled by 1 / sigma."""
    covariance = covariance_of(window_of(market))
    sigma = np.sqrt(np.diag(covariance))
    least = quadratic_oracle(
        covariance / np.outer(sigma, sigma), np.zeros(6), np.zeros((0, 6)), np.zeros(0)
    )
    expected = (least / sigma) / (least / sigma).sum()
    np.testing.assert_allclose(MaximumDiversification().act(market, FULL), expected, atol=1e-4)


def test_inverse_volatility(market):
    inverse = 1.0 / window_of(market).std(axis=0, ddof=1)
    np.testing.assert_allclose(InverseVolatility().act(market, FULL), inverse / inverse.sum())


def test_hierarchical_risk_parity_of_two_assets_is_inverse_variance():
    market = market_of(random_returns(n_assets=2))
    inverse = 1.0 / np.diag(covariance_of(window_of(market)))
    found = HierarchicalRiskParity().act(market, np.full(2, 0.5))
    np.testing.assert_allclose(found, inverse / inverse.sum(), atol=1e-9)


def test_hierarchical_risk_parity_gives_most_to_what_never_moves():
    moves = random_returns(n_assets=4)
    moves[:, 1] = 0.0
    agent = HierarchicalRiskParity()
    found = agent.act(market_of(moves), np.full(4, 0.25))
    assert agent.failed is None and found.sum() == pytest.approx(1.0)
    assert found[1] > 0.5 and (found > 0.0).all()


def test_minimum_cvar_agrees_with_a_linear_programme(market):
    excess, tail = window_of(market), 0.05
    rows = len(excess)
    cost = np.concatenate([np.zeros(6), [1.0], np.full(rows, 1.0 / (tail * rows))])
    matrix = np.hstack([-excess, -np.ones((rows, 1)), -np.eye(rows)])
    bounds: Any = [(0, 1)] * 6 + [(None, None)] + [(0, None)] * rows
    total = np.concatenate([np.ones(6), np.zeros(rows + 1)])[None]
    solved = scipy.optimize.linprog(cost, matrix, np.zeros(rows), total, [1.0], bounds=bounds)
    target = MinimumCVaR(tail=tail).act(market, FULL)
    loss = float(measures.conditional_value_at_risk(excess @ target, tail))
    assert loss == pytest.approx(solved.fun, abs=1e-7)
    np.testing.assert_allclose(target, np.asarray(solved.x)[:6], atol=1e-3)


def test_black_litterman_posterior_agrees_with_skfolio():
    returns = random_returns(n_assets=3)
    prior_model = skfolio.prior.EmpiricalPrior(
        mu_estimator=sk_moments.EquilibriumMu(5.0, covariance_estimator=sk_moments.LedoitWolf()),
        covariance_estimator=sk_moments.LedoitWolf(),
    )
    model = skfolio.prior.BlackLitterman(
        views=["x0 == 0.001", "x1 == -0.0005", "x2 == 0.0003"],
        tau=0.05,
        prior_estimator=prior_model,
    ).fit(pd.DataFrame(returns, columns=["x0", "x1", "x2"]))
    expected: Any = model.return_distribution_
    covariance = covariance_of(returns)
    mean, spread = posterior(
        5.0 * covariance.mean(axis=1),
        covariance,
        views=np.array([0.001, -0.0005, 0.0003]),
        uncertainty=0.05 * np.diag(covariance),
        tau=0.05,
    )
    np.testing.assert_allclose(mean, expected.mu, rtol=1e-9)
    np.testing.assert_allclose(spread, expected.covariance, rtol=1e-9)


def test_black_litterman_without_trust_in_views_holds_the_equilibrium():
    covariance = covariance_of(random_returns())
    mean, spread = posterior(
        5.0 * covariance.mean(axis=1),
        covariance,
        views=np.full(6, 0.01),
        uncertainty=np.full(6, 1e6),
        tau=1e-6,
    )
    found = best_utility(mean, spread, 5.0, full=True)
    np.testing.assert_allclose(found, 1 / 6, atol=1e-5)


def test_black_litterman_lies_between_equilibrium_and_window_means(market):
    excess = window_of(market)
    covariance = covariance_of(excess)
    mean, _ = posterior(
        5.0 * covariance.mean(axis=1),
        covariance,
        views=excess.mean(axis=0),
        uncertainty=np.diag(covariance) / 252,
        tau=1 / 252,
    )
    _, spread = posterior(
        mean, covariance, views=mean, uncertainty=np.diag(covariance) / 252, tau=1 / 252
    )
    expected = quadratic_oracle(5.0 * spread, mean, np.zeros((0, 6)), np.zeros(0))
    np.testing.assert_allclose(BlackLitterman().act(market, FULL), expected, atol=1e-6)


# ---- fixed mixes and momentum


def test_index_and_sixty_forty():
    market = market_of(random_returns(n_assets=3), cash=0.01)
    start = np.eye(4)[-1]
    np.testing.assert_array_equal(Index().act(market, start), [1, 0, 0, 0])
    np.testing.assert_array_equal(Index(asset="a2").act(market, start), [0, 0, 1, 0])
    mix = SixtyForty(stocks="a0", bonds="a2")
    np.testing.assert_allclose(mix.act(market, start), [0.6, 0, 0.4, 0])
    with pytest.raises(SettingError, match=r"^sixty_forty: stocks must be an asset of .*'a2', 'c"):
        SixtyForty().act(market, start)


def test_time_series_momentum_by_hand():
    moves = np.array([[0.1, -0.1, 0.001], [0.1, -0.1, -0.0005]])
    market = market_of(moves, cash=0.2)  # cash earned more than the third asset's 0.05 %
    target = TimeSeriesMomentum(window=2, rebalance_every=1).act(market, np.full(4, 0.25))
    np.testing.assert_allclose(target, [1 / 3, 0, 0, 2 / 3])


def test_cross_sectional_momentum_by_hand():
    moves = np.array([[0.1, 0.3, 0.2], [0.1, 0.0, 0.2], [0.9, 0.0, -0.5]])
    market = market_of(moves, cash=0.0)
    agent = CrossSectionalMomentum(window=2, skip=1, top=0.5, rebalance_every=1)
    assert agent.lookback == 4
    np.testing.assert_allclose(agent.act(market, np.full(4, 0.25)), [0, 0.5, 0.5, 0])
    one = CrossSectionalMomentum(window=2, skip=1, top=0.01, rebalance_every=1)
    np.testing.assert_allclose(one.act(market, np.full(4, 0.25)), [0, 0, 1, 0])


def test_volatility_managed_scales_by_the_ratio_of_variances():
    rng = np.random.default_rng(0)
    moves = np.vstack([0.01 * rng.standard_normal((60, 2)), 0.03 * rng.standard_normal((20, 2))])
    market = market_of(moves, cash=0.0)
    agent = VolatilityManaged(window=20, long_window=80, rebalance_every=1)
    path = pd.Series(moves.mean(axis=1))
    exposure = path.var() / path[-20:].var()
    assert exposure < 0.5
    found = agent.act(market, np.full(3, 1 / 3))
    np.testing.assert_allclose(found, [exposure / 2, exposure / 2, 1 - exposure], rtol=1e-9)
    assert VolatilityManaged(window=20, long_window=20).act(market, np.eye(3)[-1])[-1] == 0.0


def test_a_single_asset_needs_no_optimiser():
    market = market_of(random_returns(n_assets=1), cash=0.0)
    for name in ("risk_parity", "hierarchical_risk_parity", "minimum_variance", "minimum_cvar"):
        agent = AGENTS[name]()
        np.testing.assert_allclose(agent.act(market, np.array([0.0, 1.0])), [1.0, 0.0])
        assert not agent.failures


def test_cost_of_a_backtest_is_paid_only_when_due():
    market = market_of(random_returns(), cash=0.01)
    path = backtest(AGENTS["risk_parity"](window=100), market)
    months = path.dates[:-1].month
    traded = path.turnover > 1e-9
    assert set(np.flatnonzero(traded)) == {0, *(np.flatnonzero(np.diff(months)) + 1)}


@pytest.mark.parametrize("covariance", ["ledoit_wolf", "empirical"])
@pytest.mark.parametrize("name", sorted(ROLLING))
def test_assets_that_do_not_move_are_solved_or_named(name, covariance):
    """Singular problems give weights, or a failure that is named and trades nothing."""
    returns = np.zeros((60, 3))
    returns[:, 0] = random_returns(60, 1)[:, 0]
    held = np.array([0.1, 0.2, 0.3, 0.4])
    for panel in (returns, np.zeros((60, 3))):
        agent = AGENTS[name](window=40, rebalance_every=1, covariance=covariance)
        target = agent.act(market_of(panel, cash=0.0), held)
        assert target.min() >= 0.0 and target.sum() == pytest.approx(1.0)
        if agent.failures:
            np.testing.assert_array_equal(target, held)
            assert len(agent.failures) == 1 and ": " in agent.failures[0][1]
