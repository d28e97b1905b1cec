"""State in and out, holding days, masks, and assets that stop trading."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from envs import PortfolioEnv, PortfolioVectorEnv
from envs.costs import ProportionalCost
from market import Market, SettingError

SETTINGS: dict[str, Any] = {
    "lookback": 6,
    "reward": "differential_sharpe(0.05) - 0.2 * drawdown + rolling_sharpe(5)",
    "cost": ProportionalCost(0.003),
    "episode_length": 30,
    "random_start": True,
}


def through_json(state):
    return json.loads(json.dumps(state, default=lambda array: array.tolist()))


@pytest.mark.parametrize("convert", [lambda state: state, through_json])
def test_a_restored_state_has_the_same_future(market, convert):
    env = PortfolioEnv(market, **SETTINGS)
    env.reset(seed=3)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(100)]
    states, results = [], []
    for action in actions:
        states.append(convert(env.get_state()))
        result = env.step(action)
        results.append(result)
        if result[2] or result[3]:
            env.reset()
    for k in range(100):
        other = PortfolioEnv(market, **SETTINGS)
        other.set_state(states[k])
        for action, expected in zip(actions[k : k + 30], results[k : k + 30], strict=True):
            result = other.step(action)
            assert result[1:4] == expected[1:4]
            for key, value in expected[0].items():
                np.testing.assert_array_equal(result[0][key], value)
            if result[2] or result[3]:
                other.reset()


def test_a_restored_batch_has_the_same_future(market):
    games, others = (PortfolioVectorEnv(market, 5, **SETTINGS) for _ in range(2))
    games.reset(seed=3)
    games.action_space.seed(0)
    actions = [games.action_space.sample() for _ in range(90)]
    for action in actions[:40]:
        games.step(action)
    others.set_state(games.get_state())
    for action in actions[40:]:
        ours, theirs = games.step(action), others.step(action)
        for a, b in zip(ours[1:4], theirs[1:4], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(ours[0]["features"], theirs[0]["features"])


def test_holding_between_rebalancing_days(market):
    env = PortfolioEnv(market, lookback=1, cost=ProportionalCost(0.01), rebalance_every=5)
    env.reset()
    for k in range(20):
        *_, info = env.step([0.25, 0.25, 0.25, 0.25, 0])
        if k % 5:
            assert info["turnover"] < 1e-15 and info["cost"] < 1e-15
        else:
            assert info["turnover"] > 1e-4
            np.testing.assert_allclose(info["target"], [0.25, 0.25, 0.25, 0.25, 0])


def test_no_trade_inside_the_band(market):
    env = PortfolioEnv(market, lookback=1, band=0.02)
    _, info = env.reset()
    target, traded = np.array([0.25, 0.25, 0.25, 0.25, 0]), 0
    for _ in range(100):
        distance = 0.5 * np.abs(info["weights"] - target)[:4].sum()
        *_, info = env.step(target)
        assert (info["turnover"] > 1e-12) == (distance > 0.02)
        traded += distance > 0.02
    assert 2 <= traded < 50


@pytest.fixture
def listed() -> Market:
    """B is listed on day 2 and has its last price on day 4."""
    prices = pd.DataFrame(
        {"A": [1.0, 1, 1, 1, 1, 1, 1], "B": [np.nan, np.nan, 4, 5, 6, np.nan, np.nan]},
        pd.bdate_range("2020-01-01", periods=7),
    )
    return Market.from_prices(prices)


@pytest.mark.parametrize("observe", [False, True])
def test_unlisted_assets_cannot_be_held(listed, observe):
    env = PortfolioEnv(listed, lookback=1, observe_tradable=observe)
    observation, _ = env.reset()
    held = []
    for t in range(6):
        if observe:
            np.testing.assert_array_equal(observation["tradable"], [1, t in (2, 3, 4), 1])
        observation, _, terminated, truncated, info = env.step([0.0, 1.0, 0.0])
        held.append(info["target"][1])
        assert info["closed"][1] == (t == 5)
    assert held == [0, 0, 1, 1, 1, 0] and truncated and not terminated
    assert info["value"] == pytest.approx(6 / 4)  # closed at the last price


def test_unlisted_assets_in_a_market_without_cash(listed):
    bare = Market(dates=listed.dates, assets=("A", "B"), prices=listed.prices[:, :2])
    env = PortfolioEnv(bare, lookback=1)
    env.reset(options={"weights": [1, 0]})
    for t in range(6):
        *_, info = env.step([0.0, 1.0])
        assert info["target"][0] == (0 if t in (2, 3, 4) else 1)
    assert info["value"] == pytest.approx(6 / 4)


def test_bad_settings(market):
    cases: list[dict[str, Any]] = [{"band": 1.0}, {"rebalance_every": 0}]
    for settings in cases:
        with pytest.raises(SettingError, match=next(iter(settings))):
            PortfolioEnv(market, **settings)


@pytest.mark.parametrize("count", [None, 3])
def test_a_state_goes_through_json(market, count):
    def made():
        if count:
            return PortfolioVectorEnv(market, count, **SETTINGS)
        return PortfolioEnv(market, **SETTINGS)

    env, other = made(), made()
    env.reset(seed=3)
    env.action_space.seed(0)
    for _ in range(10):
        env.step(env.action_space.sample())
    other.set_state(json.loads(json.dumps(env.get_state(as_json=True))))
    assert json.dumps(other.get_state(as_json=True)) == json.dumps(env.get_state(as_json=True))
    for _ in range(15):
        action = env.action_space.sample()
        np.testing.assert_array_equal(env.step(action)[1], other.step(action)[1])


def test_a_state_of_another_environment_is_refused(market, make_market):
    def started(market, **settings):
        env = PortfolioEnv(market, **(SETTINGS | settings))
        env.reset(seed=3)
        return env

    def batch(count):
        games = PortfolioVectorEnv(market, count, **SETTINGS)
        games.reset(seed=3)
        return games

    env, games = started(market), batch(3)
    before = env.get_state(as_json=True), games.get_state(as_json=True)
    with pytest.raises(SettingError, match="set_state: assets must be"):
        env.set_state(started(make_market(60, risky=3)).get_state())
    with pytest.raises(SettingError, match=r"game\.memory must hold"):
        env.set_state(started(market, reward="log_return").get_state())
    with pytest.raises(SettingError, match=r"game\.t must have shape \(\), got \(3,\)"):
        env.set_state(env.get_state() | {"game": games.get_state()["game"]})
    with pytest.raises(SettingError, match=r"game\.t must have shape \(3,\), got \(5,\)"):
        games.set_state(batch(5).get_state(as_json=True))
    with pytest.raises(SettingError, match="state must hold"):
        games.set_state({})
    assert (env.get_state(as_json=True), games.get_state(as_json=True)) == before
