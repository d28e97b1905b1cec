"""Listing and delisting: nobody holds what cannot be held, and what leaves is sold and logged."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from agents import AGENTS
from agents.base import Agent, Task
from envs import PortfolioEnv, PortfolioVectorEnv
from envs.constraints import (
    CashFloor,
    ConstraintSet,
    CVaRLimit,
    GroupCap,
    MaxWeight,
    MinWeight,
    StopLoss,
    TurnoverCap,
    ValueAtRiskLimit,
    VolatilityTarget,
)
from envs.costs import ProportionalCost
from experiments.backtest import backtest
from market import DataError, Market, SettingError
from market.audit import audit_function
from tests.test_agents import SMALL

T, START, LATE, GONE = 260, 100, 150, 210
ASSETS = ["sp500", "treasury_10y", "gone", "late", "other"]
TRAINED = {"ppo", "sac", "dqn", "a2c", "td3", "recurrent_ppo", "lstm", "forecast"}
COST = ProportionalCost(0.001)


def market_with_listings(with_cash: bool = True, seed: int = 0) -> Market:
    """Five risky assets; one comes at row 150, one has its last price at row 209."""
    steps = np.random.default_rng(seed).normal(0.0005, 0.012, (T, 5))
    prices = 100 * np.exp(np.cumsum(steps, axis=0))
    prices[:LATE, 3] = np.nan
    prices[GONE:, 2] = np.nan
    frame = pd.DataFrame(prices, pd.bdate_range("2015-01-01", periods=T), ASSETS)
    return Market.from_prices(
        frame,
        cash_rate=0.02 if with_cash else None,
        sectors={asset: "risky" for asset in ASSETS},
    )


def chosen() -> list[str]:
    """Agents of settings and rules alone, and two that learn, which are trained for a moment."""
    return [name for name in AGENTS if name not in TRAINED and not _learns(name)]


def _learns(name: str) -> bool:
    return any(word in AGENTS[name].__module__ for word in ("sb3", "policy_gradient", "forecast"))


def ready(name: str, market: Market) -> Agent:
    kind = AGENTS[name]
    fields = getattr(kind.Settings, "__dataclass_fields__", {})
    settings: dict[str, Any] = {"window": 40} if "window" in fields else {}
    if "members" in fields:
        settings |= {"members": "equal_weight, minimum_variance(window=20)", "period": "month"}
    if "assign" in fields:
        settings["assign"] = "order"
    if "steps" in fields:
        settings |= SMALL[name]
    agent: Agent = kind(**settings)
    return agent.fit(market[:START], task=Task(cost=COST))


@pytest.mark.parametrize("with_cash", [True, False])
@pytest.mark.parametrize("name", chosen())
def test_no_agent_holds_what_cannot_be_held(name: str, with_cash: bool) -> None:
    market = market_with_listings(with_cash)
    agent = ready(name, market)
    first = max(START, agent.lookback - 1)
    if first >= GONE:
        pytest.skip(f"needs {agent.lookback} rows")
    done = backtest(agent, market, cost=COST, start=market.dates[first])
    held_to_next = market.tradable[first:-1]
    assert done.weights[~held_to_next].max() == 0.0
    np.testing.assert_allclose(done.weights.sum(axis=1), 1.0, atol=1e-12)
    before = done.held[GONE - first - 1]
    logged = [(closing.date, closing.asset) for closing in done.closings]
    expected = [(market.dates[GONE], "gone")] if before[2] > 0 else []
    assert logged == expected


def test_before_the_first_decision_nothing_unlisted_is_held() -> None:
    market = market_with_listings(with_cash=False)
    env = PortfolioEnv(market, lookback=1)
    _, info = env.reset(options={"start": START})
    np.testing.assert_allclose(info["weights"], [0.25, 0.25, 0.25, 0.0, 0.25])
    venv = PortfolioVectorEnv(market, num_envs=2, lookback=1)
    _, infos = venv.reset(options={"start": START})
    np.testing.assert_allclose(infos["weights"], np.tile(info["weights"], (2, 1)))


def test_a_delisted_holding_is_sold_at_its_last_price_and_logged() -> None:
    """By hand: a fifth in each of five, never traded, until one leaves."""
    market = market_with_listings()
    start = GONE - 5
    done = backtest(AGENTS["buy_and_hold"](), market, cost=COST, start=market.dates[start])
    growth = market.prices[GONE - 1, :5] / market.prices[start, :5]
    kept = 1.0 / (1.0 + 0.001)  # each bought for value * kept / 5 of the cash there was
    worth = kept / 5 * growth
    np.testing.assert_allclose(done.values[4], worth.sum(), rtol=1e-12)
    now = np.where(np.arange(5) == 2, growth[2], market.prices[GONE, :5] / market.prices[start, :5])
    worth = kept / 5 * now  # "gone" stays at its last price through its first row without one
    assert done.values[5] == pytest.approx(worth.sum(), rel=1e-12)
    closing = done.closings[0]
    assert (closing.date, closing.asset) == (market.dates[GONE], "gone")
    assert closing.weight == pytest.approx(worth[2] / worth.sum(), rel=1e-12)
    # the others keep their weights of a value that is smaller by the cost, so a little is sold too
    cost = 0.001 * closing.weight / (1.0 - 0.001 * (1.0 - closing.weight))
    assert done.costs[5] == pytest.approx(cost, rel=1e-9)
    assert len(done.closings) == 1


def test_orders_of_what_has_left_go_to_cash() -> None:
    market = market_with_listings()
    done = backtest({"gone": 1.0}, market, cost=COST, start=market.dates[START])
    last = GONE - START
    assert (done.weights[:last, 2] == 1.0).all()
    assert (done.weights[last:, 2] == 0.0).all()
    assert (done.weights[last:, -1] == 1.0).all()
    assert len(done.closings) == 1  # later orders close nothing: nothing is held


def test_a_market_without_listings_closes_nothing(market: Market) -> None:
    assert backtest(AGENTS["equal_weight"](), market).closings == ()


LIMITS = {
    "max_weight": MaxWeight(0.3),
    "min_weight": MinWeight({"sp500": 0.1}),
    "group_cap": GroupCap("risky", 0.8),
    "turnover_cap": TurnoverCap(0.2),
    "cash_floor": CashFloor(0.1),
    "volatility_target": VolatilityTarget(0.1),
    "value_at_risk": ValueAtRiskLimit(0.02),
    "conditional_value_at_risk": CVaRLimit(0.02),
    "stop_loss": StopLoss(0.05),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_no_constraint_gives_weight_to_what_cannot_be_held(limit: str) -> None:
    market = market_with_listings()
    done = backtest(
        AGENTS["equal_weight"](),
        market,
        cost=COST,
        constraints=(LIMITS[limit],),
        start=market.dates[START],
    )
    assert done.weights[~market.tradable[START:-1]].max() == 0.0
    assert (done.weights >= 0.0).all()
    np.testing.assert_allclose(done.weights.sum(axis=1), 1.0, atol=1e-12)


def test_a_projection_leaves_out_what_cannot_be_held(rng: np.random.Generator) -> None:
    market = market_with_listings()
    limits = ConstraintSet.build((MaxWeight(0.4), CashFloor(0.1)), market)
    for row in (START, LATE, GONE):
        weights = rng.dirichlet(np.ones(6), size=20)
        found = limits.project(weights, tradable=np.tile(market.tradable[row], (20, 1)))
        assert np.abs(found[:, ~market.tradable[row]]).max(initial=0.0) == 0.0
        np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize("name", ["equal_weight", "inverse_volatility", "exponentiated_gradient"])
def test_weights_of_agents_do_not_know_the_future(name: str) -> None:
    """The leak audit over decisions: weights up to t are the same whatever comes after."""

    def weights(market: Market) -> pd.DataFrame:
        agent = ready(name, whole)
        done = backtest(agent, market, cost=COST, start=whole.dates[START])
        frame = done.frame()
        return frame[[column for column in frame if str(column).startswith("target:")]]

    whole = market_with_listings()
    found = audit_function(
        weights, whole, dates=6, tests=("truncate", "poison"), after=whole.dates[START + 1]
    )
    assert {finding.verdict for finding in found} == {"pass"}


def test_a_history_shorter_than_the_window_is_refused_with_both_lengths(market: Market) -> None:
    with pytest.raises(DataError, match=r"lookback 300 .* need 301 periods, got 120"):
        PortfolioEnv(market, lookback=300)
    with pytest.raises(SettingError, match=r"must be between 2015-02-26 \(a window of 41 rows"):
        backtest(ready("inverse_volatility", market), market, start="2015-01-05")
    with pytest.raises(SettingError, match=r"start '2015-03-20' must be before end '2015-03-02'"):
        backtest({"cash": 1.0}, market, start="2015-03-20", end="2015-03-02")


@pytest.mark.parametrize("name", ["inverse_volatility", "minimum_variance", "mean_variance"])
def test_an_asset_that_never_moves_stops_nobody(name: str) -> None:
    steps = np.random.default_rng(0).normal(0.0005, 0.012, (T, 3))
    frame = pd.DataFrame(100 * np.exp(steps.cumsum(0)), pd.bdate_range("2015-01-01", periods=T))
    frame[1] = 50.0
    market = Market.from_prices(frame.rename(columns=str))
    done = backtest(ready(name, market), market, cost=COST)
    assert np.isfinite(done.values).all()
    np.testing.assert_allclose(done.weights.sum(axis=1), 1.0, atol=1e-12)
