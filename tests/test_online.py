"""Online portfolio selection against hand computations, other solvers and exact identities."""

from typing import Any

import daqp
import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.optimize

from agents import AGENTS
from agents.hindsight import BestConstantMix, BestSingleAsset
from agents.online import (
    ExponentiatedGradient,
    MovingAverageReversion,
    NewtonStep,
    OnlineAgent,
    PassiveAggressive,
    UniformMix,
    Universal,
)
from agents.simplex import best_constant_mix, minimise_on_simplex
from experiments.backtest import backtest
from experiments.compare import run_experiments
from experiments.config import CompareConfig, DataConfig
from experiments.summary import summarise
from market import Market, SettingError

RULES = sorted(
    name
    for name in AGENTS
    if name not in {"ppo", "sac", "dqn"} and issubclass(AGENTS[name], OnlineAgent)
)


def market_of(relatives, cash=None):
    """Row 0 has no relative: x_1 is earned from row 0 to row 1."""
    relatives = np.asarray(relatives, float)
    prices = 10.0 * np.cumprod(np.vstack([np.ones(relatives.shape[1]), relatives]), axis=0)
    dates = pd.bdate_range("2000-01-03", periods=len(prices))
    names = [f"a{i}" for i in range(relatives.shape[1])]
    return Market.from_prices(pd.DataFrame(prices, dates, names), cash_rate=cash)


def random_relatives(n_days=60, count=4, seed=0):
    return np.exp(0.02 * np.random.default_rng(seed).standard_normal((n_days, count)))


def mixes(agent, market):
    """b_1, b_2, ... : the decision at each row."""
    held = np.full(market.n_assets, 1.0 / market.n_assets)
    return np.array([agent.act(market.upto(t), held) for t in range(market.n_periods)])


def projection(point):
    """On the simplex, by daqp."""
    count = len(point)
    sense = np.array([0] * count + [5], np.int32)
    above, below = np.ones(count + 1), np.append(np.zeros(count), 1.0)
    return daqp.solve(np.eye(count), -point, np.ones((1, count)), above, below, sense)[0]


# ---- all rules


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("cash", [None, 0.02])
def test_the_first_mix_is_uniform_and_all_are_weights(name, cash):
    found = mixes(AGENTS[name](), market_of(random_relatives(), cash))
    np.testing.assert_allclose(found[0, :4], 0.25, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)
    assert found.min() >= 0.0
    if cash is not None:
        assert (found[:, -1] == 0.0).all()


@pytest.mark.parametrize("name", RULES)
def test_cash_can_be_one_of_the_assets(name):
    market = market_of(random_relatives(), cash=0.02)
    found = mixes(AGENTS[name](include_cash=True), market)
    np.testing.assert_allclose(found[0], 0.2, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


@pytest.mark.parametrize("name", RULES)
def test_continuing_equals_starting_over(name):
    """Also when two markets are asked about in turn, and when time goes back."""
    first, second = market_of(random_relatives()), market_of(random_relatives(seed=1))
    agent, held = AGENTS[name](), np.full(4, 0.25)
    for market, t in [(first, 20), (first, 30), (second, 31), (first, 40), (first, 10)]:
        fresh = AGENTS[name]().act(market.upto(t), held)
        np.testing.assert_array_equal(agent.act(market.upto(t), held), fresh)


@pytest.mark.parametrize("name", RULES)
def test_an_asset_that_cannot_be_held_is_left_out(name):
    market = market_of(random_relatives())
    prices = np.array(market.prices)
    prices[40:, 1] = np.nan
    frame = pd.DataFrame(prices, market.dates, market.assets)
    found = mixes(AGENTS[name](), Market.from_prices(frame, cash_rate=None))
    assert (found[40:, 1] == 0.0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


@pytest.mark.parametrize("name", RULES)
def test_a_day_costs_one_update_however_long_the_history(name, monkeypatch):
    market, agent = market_of(random_relatives(60, 5)), AGENTS[name]()
    update, seen = agent.update, list[int]()

    def counted(state, relatives):
        seen.append(len(relatives))
        return update(state, relatives)

    monkeypatch.setattr(agent, "update", counted)
    for t in range(market.n_periods):
        agent.act(market.upto(t), np.full(5, 0.2))
        assert len(seen) == t and max(seen, default=0) <= agent.memory


# ---- each rule


def test_uniform_mix_pays_for_the_drift():
    market = market_of([[1.2, 0.8], [1.0, 1.0]])
    path = backtest(UniformMix(), market)
    np.testing.assert_allclose(path.values, [1.0, 1.0, 1.0])
    np.testing.assert_allclose(path.turnover, [0.0, 0.1])


def test_exponentiated_gradient_by_hand():
    found = mixes(ExponentiatedGradient(rate=0.05), market_of([[1.1, 0.9], [0.5, 1.0]]))
    up, down = np.exp(0.05 * 1.1), np.exp(0.05 * 0.9)  # b.x = 1
    second = up / (up + down)
    np.testing.assert_allclose(found[1], [second, 1 - second], rtol=1e-12)
    growth = 0.5 * second + (1 - second)
    parts = found[1] * np.exp(0.05 * np.array([0.5, 1.0]) / growth)
    np.testing.assert_allclose(found[2], parts / parts.sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"sensitivity": 0.5}, [0.0, 1.0]),  # tau = 0.5 / 0.08: beyond the simplex
        ({"sensitivity": 0.95}, [0.375, 0.625]),  # tau = 0.05 / 0.08, b.x = 0.95
        ({"sensitivity": 1.1}, [0.5, 0.5]),  # passive
        ({"sensitivity": 0.95, "variant": "pamr-1", "aggressiveness": 0.5}, [0.4, 0.6]),
        (
            {"sensitivity": 0.95, "variant": "pamr-2", "aggressiveness": 10.0},
            [0.5 - 0.2 * 0.05 / 0.13, 0.5 + 0.2 * 0.05 / 0.13],
        ),
    ],
)
def test_passive_aggressive_by_hand(settings, expected):
    found = mixes(PassiveAggressive(**settings), market_of([[1.2, 0.8]]))
    np.testing.assert_allclose(found[1], expected, atol=1e-12)


def test_passive_aggressive_holds_when_all_move_alike():
    found = mixes(PassiveAggressive(), market_of([[1.3, 1.3], [0.8, 0.8]]))
    np.testing.assert_allclose(found, 0.5)


def test_moving_average_reversion_from_the_first_day():
    """Prediction from prices, the update as the paper's programme, the projection by daqp."""
    relatives = random_relatives(30)
    market = market_of(relatives)
    found = mixes(MovingAverageReversion(window=3, threshold=1.02), market)
    mix = np.full(4, 0.25)
    for t in range(1, 31):
        ahead = market.prices[max(0, t - 2) : t + 1].mean(axis=0) / market.prices[t]
        total = np.ones(4)
        if mix @ ahead < 1.02:  # nearest point with b.x = 1.02 and sum 1: two linear equations
            rows = np.vstack([ahead, total])
            mix = projection(mix + rows.T @ np.linalg.solve(rows @ rows.T, [1.02 - mix @ ahead, 0]))
        np.testing.assert_allclose(found[t], mix, atol=1e-9)
    assert np.abs(found[-1] - 0.25).max() > 0.1


def test_exponential_average_is_that_of_prices():
    market = market_of(random_relatives(30))
    agent = MovingAverageReversion(average="exponential", decay=0.3)
    average = pd.DataFrame(market.prices).ewm(alpha=0.3, adjust=False).mean().to_numpy()
    state = agent.begin(4)
    for t in range(1, 31):
        state = agent.update(state, market.prices[t : t + 1] / market.prices[t - 1 : t])
        np.testing.assert_allclose(state[1], average[t] / market.prices[t], rtol=1e-12)


@pytest.mark.parametrize("delta", [0.125, 0.8])
def test_newton_step_agrees_with_another_solver(delta):
    relatives = random_relatives(40)
    found = mixes(NewtonStep(delta=delta), market_of(relatives))
    matrix, total, point = np.eye(4), np.zeros(4), np.full(4, 0.25)
    sense = np.array([0] * 4 + [5], np.int32)
    above, below = np.ones(5), np.append(np.zeros(4), 1.0)
    for t, x in enumerate(relatives, start=1):
        gradient = x / (point @ x)
        matrix, total = matrix + np.outer(gradient, gradient), total + gradient
        centre = delta * np.linalg.solve(matrix, 2.0 * total)
        point = daqp.solve(matrix, -matrix @ centre, np.ones((1, 4)), above, below, sense)[0]
        np.testing.assert_allclose(found[t], point, atol=1e-8)
    assert np.abs(found[-1] - 0.25).max() > 1e-3
    mixed = mixes(NewtonStep(delta=delta, smoothing=0.2), market_of(relatives))
    np.testing.assert_allclose(mixed, 0.8 * found + 0.05, atol=1e-12)


def test_universal_earns_the_mean_of_all_constant_mixes():
    """Cover's identity: prod b_t.x_t = mean over mixes of prod b.x_t, here exact on the samples."""
    relatives = random_relatives(50, 3)
    agent = Universal(samples=500, seed=2)
    path = backtest(agent, market_of(relatives))
    drawn = np.random.default_rng(2).dirichlet(np.ones(3), 500)
    first = relatives[0].mean() / (drawn @ relatives[0]).mean()  # the first mix is exactly uniform
    wealth = np.prod(drawn @ relatives.T, axis=1).mean()
    assert path.values[-1] == pytest.approx(first * wealth, rel=1e-12)


def test_universal_is_near_the_integral():
    relatives = np.exp(0.1 * np.random.default_rng(3).standard_normal((60, 2)) + [0.02, 0.0])
    found = mixes(Universal(samples=100_000), market_of(relatives))[-1]
    wealth = lambda b: float(np.prod(b * relatives[:, 0] + (1 - b) * relatives[:, 1]))  # noqa: E731
    top = scipy.integrate.quad(lambda b: b * wealth(b), 0, 1)[0]
    assert found[0] == pytest.approx(top / scipy.integrate.quad(wealth, 0, 1)[0], abs=3e-3)
    assert found[0] > 0.55


# ---- hindsight


def test_best_constant_mix_of_a_stock_that_doubles_and_halves():
    """Cover's example: cash and (2, 1/2, 2, ...) give (9/8) ^ (n/2) at equal parts."""
    relatives = np.tile([[2.0, 1.0], [0.5, 1.0]], (10, 1))
    market = market_of(relatives)
    agent = BestConstantMix().fit(market)
    path = backtest(agent, market)
    np.testing.assert_allclose(path.weights, 0.5, atol=1e-9)
    assert path.values[-1] == pytest.approx((9 / 8) ** 10)


@pytest.mark.parametrize("seed", range(4))
def test_best_constant_mix_agrees_with_a_general_solver(seed):
    relatives = random_relatives(300, 5, seed)
    found = best_constant_mix(relatives)
    options: Any = {"ftol": 1e-14, "maxiter": 500}
    total: Any = {"type": "eq", "fun": lambda b: b.sum() - 1.0}
    loss: Any = lambda b: -1e3 * np.log(relatives @ b).mean()  # noqa: E731
    solved = scipy.optimize.minimize(
        loss,
        np.full(5, 0.2),
        bounds=[(0, 1)] * 5,
        constraints=[total],
        options=options,
    )
    np.testing.assert_allclose(found, solved.x, atol=1e-3)
    assert np.log(relatives @ found).mean() >= -solved.fun / 1e3 - 1e-12
    assert (relatives / (relatives @ found)[:, None]).mean(axis=0).max() <= 1.0 + 1e-9


def test_nothing_constant_beats_hindsight():
    market = market_of(random_relatives(200, 4), cash=0.01)
    best = backtest(BestConstantMix().fit(market), market).values[-1]
    single = backtest(BestSingleAsset().fit(market), market).values[-1]
    assert single == pytest.approx((market.prices[-1, :4] / market.prices[0, :4]).max())
    rng = np.random.default_rng(0)
    others: list[Any] = [
        backtest([*rng.dirichlet(np.ones(4)), 0.0], market).values[-1] for _ in range(10)
    ]
    assert best >= max(single, *others) - 1e-12


def test_a_comparison_shows_hindsight_its_days_and_ranks_it_nowhere(tmp_path):
    relatives = random_relatives(400, 3, seed=5)
    market = market_of(relatives)
    frame = pd.DataFrame(market.prices, market.dates, market.assets)
    frame.rename_axis("date").to_csv(tmp_path / "prices.csv")
    names = ["best_constant_mix", "best_single_asset", "equal_weight", "exponentiated_gradient"]
    config = CompareConfig(
        agents=names,
        workers=1,
        data=DataConfig(source="files", options={"path": str(tmp_path / "prices.csv")}),
        results=str(tmp_path / "results"),
    )
    runs = run_experiments(config.experiments(), 1).runs
    table = summarise(runs, n_resamples=50)
    assert set(table.index[-2:]) == set(names[:2])
    assert table["sharpe"].iloc[-2] >= table["sharpe"].iloc[-1]
    assert (table["verdict"].iloc[-2:] == "hindsight, not ranked").all()
    assert table.loc[names[:2], ["difference", "p_value", "deflated"]].isna().all(axis=None)
    assert table.attrs["trials"] == 2
    single = next(run for run in runs if run.agent == "best_single_asset")
    days = single.backtest.index
    prices = frame.iloc[-len(days) - 1 :]
    best = (prices.iloc[-1] / prices.iloc[0]).idxmax()
    assert (single.backtest[f"target:{best}"] == 1.0).all()


def test_only_hindsight_agents_are_marked():
    flagged = {name for name in RULES if AGENTS[name].hindsight}
    assert not flagged
    assert BestConstantMix.hindsight and BestSingleAsset.hindsight
    with pytest.raises(SettingError, match="BestSingleAsset: call fit before act"):
        BestSingleAsset().act(market_of(random_relatives()), np.full(4, 0.25))


# ---- the quadratic programme


@pytest.mark.parametrize("seed", range(20))
def test_minimise_on_simplex_is_exact_from_any_start(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 30))
    root = rng.standard_normal((count, count + 5))
    quadratic, linear = root @ root.T, 3.0 * rng.standard_normal(count)
    sense = np.array([0] * count + [5], np.int32)
    above, below = np.ones(count + 1), np.append(np.zeros(count), 1.0)
    expected = daqp.solve(quadratic, linear, np.ones((1, count)), above, below, sense)[0]
    for start in (np.full(count, 1.0 / count), np.eye(count)[0], rng.dirichlet(np.ones(count))):
        found = minimise_on_simplex(quadratic, linear, start)
        np.testing.assert_allclose(found, expected, atol=1e-9)
