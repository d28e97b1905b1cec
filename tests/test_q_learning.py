"""Learning from all allocations: what is simulated, what trades cost, and what values aim at."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from agents import AGENTS
from agents.allocation_values import AllocationValues, fitted_prices
from agents.base import Task
from agents.lattice_policy import PointsAndHold
from agents.networks import NetworkSettings
from agents.panel_network import Panel, Shape
from agents.q_learning import Population, QLearner
from agents.rollout import roll
from envs import PortfolioEnv
from envs.costs import ProportionalCost
from envs.menus import lattice_points
from envs.rules import Rules
from market import Market
from tests.test_sb3 import revealing_market

COST = ProportionalCost(buy=0.004, sell=0.002)
SIZES = NetworkSettings(encoder="fnn", width=8, depth=1, lookback=3)


def random_market(periods: int = 80, seed: int = 0) -> Market:
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2010-01-01", periods=periods)
    prices = 100 * np.cumprod(1 + rng.normal(0.0, 0.02, (periods, 2)), 0)
    return Market.from_prices(pd.DataFrame(prices, dates, ["A", "B"]))


def population(market: Market, size: int = 6, **rules: Any) -> Population:
    defaults: dict[str, Any] = {
        "lookback": 3,
        "reward": "log_return",
        "cost": COST,
        "constraints": (),
        "actions": "simplex",
        "decision_lag": 0,
        "fill": "close",
        "episode_length": 20,
        "random_start": True,
        "rebalance_every": 1,
        "band": 0.0,
        "ruin": 0.0,
    }
    points = lattice_points(market.n_assets, 2)
    rng = np.random.default_rng(0)
    return Population(Rules(market, **(defaults | rules)), points, size, 100.0, rng)


def values(market: Market, dueling: bool = True) -> AllocationValues:
    points = torch.as_tensor(lattice_points(market.n_assets, 2))
    network = AllocationValues(Shape.of(market), SIZES, points, dueling=dueling)
    network.panel.show(Panel.of(market))
    return network


def test_trials_are_what_the_environment_does_with_each_choice():
    market = random_market()
    everybody = population(market)
    trials = everybody.trials()
    choices = [*lattice_points(3, 2), None]
    for i, start in enumerate(everybody.state.t):
        held = everybody.state.portfolio.weights[i]
        for k, choice in enumerate(choices):
            env = PortfolioEnv(market, lookback=3, cost=COST)
            env.reset(options={"start": int(start), "weights": held})
            _, reward, _, _, info = env.step(held if choice is None else choice)
            assert trials.reward[i, k].item() == pytest.approx(100 * reward, abs=1e-4)
            np.testing.assert_allclose(trials.drifted[i, k], info["weights"], atol=1e-6)
            np.testing.assert_allclose(trials.target[i, k], info["target"], atol=1e-6)


def test_every_portfolio_goes_the_way_chosen_for_it_and_starts_anew_at_the_end():
    everybody = population(random_market(), episode_length=2)
    trials = everybody.trials()
    before = everybody.state.t
    ways = np.arange(6)
    everybody.move(trials, ways)
    np.testing.assert_array_equal(everybody.state.t, before + 1)
    expected = trials.drifted[torch.arange(6), torch.as_tensor(ways)]
    np.testing.assert_allclose(everybody.state.portfolio.weights, expected, atol=1e-6)
    everybody.move(everybody.trials(), ways)
    np.testing.assert_array_equal(everybody.state.start, everybody.state.t)
    np.testing.assert_allclose(everybody.state.portfolio.weights.sum(1), 1.0)


@pytest.mark.parametrize("reward", ["log_return", "log_return - 0.5 * turnover"])
def test_prices_are_what_trading_takes_off_the_reward(reward):
    market = random_market()
    network = values(market)
    network.set_prices(*population(market, 32, reward=reward).prices())
    held = torch.tensor([[[0.2, 0.3, 0.5]]])
    targets = torch.tensor([[[0.5, 0.3, 0.2], [0.0, 0.0, 1.0], [0.3, 0.2, 0.5]]])
    cost = torch.tensor([0.3 * 0.004, 0.5 * 0.002, 0.1 * 0.006])
    turnover = torch.tensor([0.15, 0.25, 0.1])
    expected = cost + (0.5 * turnover if "turnover" in reward else 0.0)
    torch.testing.assert_close(
        network.price(held, targets)[0, 0], 100 * expected, rtol=0.01, atol=1e-3
    )


def test_even_starts_see_each_day_once_between_two_portfolios():
    one = population(random_market())
    days = np.arange(one.rules.first, one.rules.last_start + 1)
    for size in (6, 7, len(days)):
        even = Population(
            one.rules, one.points, size, 1.0, np.random.default_rng(size), even_starts=True
        )
        rows = even.state.t
        assert np.isin(rows, days).all()
        around = np.diff(np.append(rows, rows[0] + len(days)))  # from the last to the first too
        assert set(around) <= {len(days) // size, -(-len(days) // size)}
    others = [
        Population(one.rules, one.points, 6, 1.0, np.random.default_rng(seed), even_starts=True)
        for seed in range(8)
    ]
    assert len({int(each.state.t[0]) for each in others}) > 1


def test_prices_of_free_trades_are_nothing():
    spread, tilt = population(random_market(), cost=None).prices()
    torch.testing.assert_close(spread, torch.zeros(3), atol=1e-4, rtol=0)
    trade = torch.tensor([0.5, -0.2, -0.3])
    assert abs((trade @ tilt).item()) < 1e-4


def test_least_squares_find_the_rates_of_known_trades():
    rng = np.random.default_rng(3)
    a, b = rng.dirichlet(np.ones(3), (2, 50))
    trades = torch.as_tensor(a - b, dtype=torch.float32)
    true = trades.abs() @ torch.tensor([0.3, 0.1, 0.0]) + trades @ torch.tensor([0.1, 0.0, 0.0])
    spread, tilt = fitted_prices(trades, true)
    torch.testing.assert_close(trades.abs() @ spread + trades @ tilt, true, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("double", [True, False])
def test_the_goal_is_reward_without_the_trade_plus_the_best_way_on(double):
    """Against a loop over portfolios, choices and ways on."""
    market = random_market()
    everybody, network = population(market), values(market)
    network.set_prices(*everybody.prices())
    settings = AGENTS["dqn"](double=double, gamma=0.9).settings
    learner = QLearner(network, everybody, settings, seed=0)
    with torch.no_grad():
        for parameter in learner.slow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.manual_seed(0)))
    trials = everybody.trials()
    goal = learner.goal(trials)
    points = torch.as_tensor(lattice_points(3, 2)).float()
    for i in range(6):
        day = trials.rows[i : i + 1] + 1
        for k in range(7):
            held, target = trials.held[i], trials.target[i, k]
            drifted = trials.drifted[i, k]
            ways = torch.cat([points, drifted[None]])
            with torch.no_grad():
                price = torch.stack(
                    [network.price(drifted[None, None], w[None, None]) for w in ways]
                )
                net = [
                    part(day, ways[None])[0] - price.flatten() for part in (network, learner.slow)
                ]
            best = net[0].argmax() if double else net[1].argmax()
            paid = network.price(held[None, None], target[None, None]).item()
            aim = trials.reward[i, k].item() + paid + 0.9 * net[1][best].item()
            assert goal[i, k].item() == pytest.approx(aim, abs=2e-4)


def test_dueling_values_move_together_with_the_day_alone():
    market = random_market()
    network = values(market)
    rows, points = torch.tensor([5, 9]), torch.as_tensor(lattice_points(3, 2)).float()
    before = network(rows, points.expand(2, -1, -1))
    equal = torch.full((2, 1, 3), 1 / 3)
    assert network.day is not None
    torch.testing.assert_close(network(rows, equal), torch.zeros(2, 1))
    with torch.no_grad():
        network.day.bias.add_(2.5)
    torch.testing.assert_close(network(rows, points.expand(2, -1, -1)), before + 2.5)
    assert values(market, dueling=False).day is None


def test_holding_is_valued_as_what_is_held_and_pays_nothing():
    market = random_market()
    network = values(market)
    network.set_prices(torch.tensor([1.0, 1.0, 0.0]), torch.zeros(3))
    held = network.points[2:3]
    worth = network.choices(torch.tensor([7]), held)
    assert worth.shape == (1, 7)
    assert worth[0, 6] == worth[0, 2]  # the point that is held already costs nothing either


def test_points_and_hold():
    choices, held = PointsAndHold(2), np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    assert choices.size(3) == 7
    np.testing.assert_array_equal(choices.target(np.array([6, 0]), held, 0)[0], held[0])
    np.testing.assert_array_equal(
        choices.target(np.array([6, 0]), held, 0)[1], lattice_points(3, 2)[0]
    )
    names = choices.names(random_market())
    assert names[-1] == "hold" and len(names) == 7 and "100 % cash" in names


def toy(all_actions: bool, **settings: Any) -> Any:
    defaults: dict[str, Any] = {
        "lattice": 2,
        "lookback": 3,
        "depth": 1,
        "width": 16,
        "num_envs": 8,
        "episode_length": 30,
        "all_actions": all_actions,
        "learning_starts": 200,
    }
    return AGENTS["dqn"](**(defaults | settings))


def test_plain_dqn_learns_too_and_both_store_their_choices(tmp_path: Path):
    market, fresh = revealing_market(), revealing_market(seed=1)
    agent = toy(False, steps=10_000, learning_rate=3e-3, gamma=0.5)
    agent.fit(market, fresh, task=Task(cost=None))
    path = roll(agent, fresh, Task(cost=None))
    assert np.log1p(path.returns).mean() > 0.8 * np.log1p(0.01)
    agent.save(tmp_path)
    loaded = type(agent).load(tmp_path)
    assert loaded.about()["actions"][-1] == "hold" and len(loaded.about()["actions"]) == 7
    np.testing.assert_array_equal(roll(loaded, fresh, Task(cost=None)).targets, path.targets)


def test_on_noise_it_learns_not_to_trade():
    """With 1 % costs and nothing to know, what is learned must trade less than 0.5 % a day."""
    market = random_market(400)
    agent = toy(True, steps=4_000, gamma=0.9).fit(market, task=Task(cost=ProportionalCost(0.01)))
    fresh = random_market(200, seed=1)
    path = roll(agent, fresh, Task(cost=ProportionalCost(0.01)), weights=np.array([0.4, 0.3, 0.3]))
    assert path.turnover.mean() < 0.005


@pytest.mark.parametrize(
    "rules",
    [
        {"fill": "close", "decision_lag": 1},
        {"constraints": ("max_weight",)},
        {"reward": "differential_sharpe"},
        {"rebalance_every": 5, "band": 0.05},
    ],
)
def test_any_rules_of_the_game_will_do(rules):
    from envs.constraints import MaxWeight

    if "constraints" in rules:
        rules = {"constraints": (MaxWeight(0.6),)}
    market = random_market()
    agent = toy(True, steps=400, evaluations=1)
    agent.fit(market, task=Task(**rules))
    path = roll(agent, market, Task(**rules))
    assert np.isfinite(path.values).all()
    if "constraints" in rules:
        assert path.targets[:, :2].max() <= 0.6 + 1e-9
