"""`PortfolioEnv`: time, accounting, spaces, seeds and errors, each against its own oracle."""

import dataclasses
import itertools
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from envs import PortfolioEnv
from envs.actions import Lattice, Simplex
from envs.costs import ProportionalCost
from market import ActionError, DataError, Market, SettingError

ROOT = Path(__file__).resolve().parent.parent


def play(env, policy, **reset):
    """All infos of an episode under `policy(observation, info)`."""
    observation, info = env.reset(**reset)
    infos, over = [info], False
    while not over:
        observation, reward, terminated, truncated, info = env.step(policy(observation, info))
        infos.append(info | {"reward": reward, "observation": observation})
        over = terminated or truncated
    return infos


def constant(weights):
    return lambda observation, info: np.array(weights)


def test_constant_weights_earn_every_return(make_market):
    """Days 1..T give exactly T returns: none is dropped at either end."""
    market = make_market(60)
    weights = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
    infos = play(PortfolioEnv(market, lookback=1), constant(weights), seed=0)
    growth = 1 + market.returns[1:] @ weights
    assert len(infos) - 1 == 59
    assert infos[-1]["value"] == pytest.approx(np.prod(growth), rel=1e-13)
    assert infos[0]["date"] == market.dates[0] and infos[-1]["date"] == market.dates[-1]


def test_first_and_last_day_matter():
    frame = pd.DataFrame({"A": [1.0, 2.0, 2.0, 2.0, 6.0]}, pd.bdate_range("2020-01-01", periods=5))
    market = Market.from_prices(frame, cash_rate=None)
    infos = play(PortfolioEnv(market, lookback=1), constant([1.0]))
    assert infos[-1]["value"] == 6.0  # 2 on the first day, 3 on the last


@pytest.mark.parametrize("lookback", [1, 20])
@pytest.mark.parametrize("lag", [0, 1, 3])
def test_windows_end_at_the_decision(make_market, lookback, lag):
    market = make_market(60)
    env = PortfolioEnv(market, lookback=lookback, decision_lag=lag)
    observation, info = env.reset()
    t = market.index(info["date"])
    assert t == lookback - 1 + lag
    while True:
        window = market.features[t - lag - lookback + 1 : t - lag + 1]
        np.testing.assert_array_equal(observation["features"], window)
        observation, _, terminated, truncated, info = env.step([0, 0, 0, 0, 1])
        t += 1
        if terminated or truncated:
            break
    assert t == 59


def test_costs_are_charged_on_drifted_weights():
    """A day on which prices move: rebalancing to the same target is a trade and costs."""
    frame = pd.DataFrame(
        {"A": [1.0, 2.0, 2.0], "B": [1.0, 1.0, 1.0]}, pd.bdate_range("2020-01-01", periods=3)
    )
    market = Market.from_prices(frame, cash_rate=None)
    env = PortfolioEnv(market, lookback=1, cost=ProportionalCost(0.1))
    env.reset(options={"weights": [0.5, 0.5]})
    *_, info = env.step([0.5, 0.5])
    assert info["cost"] == 0.0 and info["turnover"] == 0.0
    np.testing.assert_allclose(info["weights"], [2 / 3, 1 / 3])
    *_, info = env.step([0.5, 0.5])
    # sell s of A: s * 0.9 buys s * 0.9 / 1.1 of B; equal after: 2/3 - s = 1/3 + s * 9 / 11
    sold = (1 / 3) / (1 + 9 / 11)
    assert info["mu"] == pytest.approx(2 * (2 / 3 - sold), abs=1e-15)
    *_, info = play(env, lambda o, i: i["weights"], options={"weights": [0.5, 0.5]})
    assert info["value"] == pytest.approx(1.5, abs=1e-15) and info["cost"] == pytest.approx(0)


def test_nothing_after_the_decision_is_seen(make_market):
    """Everything after t is replaced: observations, costs and rewards up to t stay, to the bit."""
    before = make_market(80)
    for t in (30, 45, 60):
        prices = before.prices.copy()
        prices[t + 1 :] *= np.random.default_rng(t).uniform(0.1, 9, prices[t + 1 :].shape)
        after = Market(dates=before.dates, assets=before.assets, prices=prices)
        policy = lambda o, i: np.roll(i["weights"], 1)  # noqa: E731
        for market_a, market_b in ((before, after),):
            a = PortfolioEnv(market_a, lookback=10, cost=ProportionalCost(0.01))
            b = PortfolioEnv(market_b, lookback=10, cost=ProportionalCost(0.01))
            (first, info_a), (second, info_b) = a.reset(seed=1), b.reset(seed=1)
            for _ in range(9, t):
                for key in first:
                    np.testing.assert_array_equal(first[key], second[key])
                first, reward_a, *_, info_a = a.step(policy(first, info_a))
                second, reward_b, *_, info_b = b.step(policy(second, info_b))
                assert reward_a == reward_b and info_a["value"] == info_b["value"]
            np.testing.assert_array_equal(first["features"], second["features"])


def test_both_checkers_pass(make_market):
    context = np.zeros((90, 2), np.float32)
    market = dataclasses.replace(make_market(90), context=context, context_names=("a", "b"))
    for actions in ("simplex", "project", "scores", "softmax", "lattice"):
        for compact in (False, True):
            env = PortfolioEnv(market, lookback=10, actions=actions, compact=compact)
            with warnings.catch_warnings():
                # advice on bounds and image shapes that does not apply to market features
                warnings.filterwarnings("ignore", "(?s).*A Box observation space m..imum value is")
                warnings.filterwarnings("ignore", "(?s).*For Box action spaces, we recommend")
                warnings.filterwarnings("ignore", category=UserWarning, module="stable_baselines3")
                check_env(env, skip_render_check=True)
                sb3_check_env(env)


def test_registered_by_name():
    env = gymnasium.make("allocgym/Portfolio-v0", lookback=5)
    assert isinstance(env.unwrapped, PortfolioEnv)
    assert env.unwrapped.market.name == "multi_asset"
    games = gymnasium.make_vec("allocgym/Portfolio-v0", num_envs=3, lookback=5)
    assert type(games.unwrapped).__name__ == "PortfolioVectorEnv" and games.num_envs == 3


def test_same_seed_same_episodes(make_market):
    env = PortfolioEnv(make_market(), lookback=5, random_start=True, episode_length=20)
    env.action_space.seed(3)
    actions = [env.action_space.sample() for _ in range(20)]
    steps = [itertools.chain(actions) for _ in range(2)]
    runs = [play(env, lambda o, i, s=s: next(s), seed=9) for s in steps]
    for a, b in zip(*runs, strict=True):
        assert a["date"] == b["date"] and a["value"] == b["value"]
        np.testing.assert_array_equal(a["weights"], b["weights"])
    starts = {env.reset(seed=s)[1]["date"] for s in range(30)}
    assert len(starts) > 10


def test_hash_seed_does_not_matter():
    code = (
        "from envs import PortfolioEnv; import numpy as np\n"
        "env = PortfolioEnv('multi_asset', lookback=3, random_start=True, episode_length=9)\n"
        "print(env.reset(seed=4), env.step(np.ones(5) / 5))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(outputs) == 1


def test_episode_bounds_flags_and_later_steps(make_market):
    env = PortfolioEnv(make_market(60), lookback=10, episode_length=7)
    infos = play(env, constant([0.2] * 5), options={"start": 30})
    assert len(infos) - 1 == 7
    with pytest.raises(ActionError, match="reset"):
        env.step([0.2] * 5)
    with pytest.raises(ActionError, match="reset"):
        PortfolioEnv(make_market(60), lookback=10).step([0.2] * 5)


def test_ruin_terminates_with_finite_reward():
    frame = pd.DataFrame({"A": [1.0, 1e-13, 1e-13, 1.0]}, pd.bdate_range("2020-01-01", periods=4))
    env = PortfolioEnv(Market.from_prices(frame), lookback=1, ruin=1e-6)
    env.reset()
    observation, reward, terminated, truncated, info = env.step([1.0, 0.0])
    assert terminated and not truncated and np.isfinite(reward) and 0 <= info["value"] < 1e-6
    assert env.observation_space.contains(observation)
    with pytest.raises(ActionError):
        env.step([1.0, 0.0])


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ([np.nan, 0, 0, 0, 1], "finite.*asset 0"),
        ([0, np.inf, 0, 0, 1], "finite.*asset 1"),
        ([0.5, 0.5], "shape"),
        ([4.0] * 5, "sum"),
        ([1.2, -0.2, 0, 0, 0], "least weight -0.2"),
        ("all in", "numbers"),
    ],
)
def test_bad_actions_are_named_and_change_nothing(market, action, words):
    env, twin = (PortfolioEnv(market, lookback=5) for _ in range(2))
    for each in (env, twin):
        each.reset(seed=0)
    with pytest.raises(ActionError, match=words):
        env.step(action)
    good = np.array([0.1, 0.2, 0.3, 0.2, 0.2])
    assert env.step(good)[1] == twin.step(good)[1]


def test_the_callers_action_is_untouched_and_observations_are_not_shared(market):
    env = PortfolioEnv(market, lookback=5)
    first, _ = env.reset(seed=0)
    kept = {key: value.copy() for key, value in first.items()}
    action = np.array([0.5, 0.5, 0, 0, 0])
    second, *_ = env.step(action)
    assert (action == [0.5, 0.5, 0, 0, 0]).all()
    second["features"][:] = 7.0
    for key in first:
        np.testing.assert_array_equal(first[key], kept[key])
    assert (env.market.features != 7.0).all()


def test_zero_weights_mean_cash(market):
    env = PortfolioEnv(market, lookback=5)
    env.reset(options={"weights": [1, 0, 0, 0, 0]})
    *_, info = env.step(np.zeros(5))
    np.testing.assert_array_equal(info["target"], [0, 0, 0, 0, 1])


def test_softmax_reaches_every_corner_and_survives_large_scores(make_market):
    market = make_market(30, risky=19)
    env = PortfolioEnv(market, lookback=5, actions="softmax")
    env.reset()
    for corner in range(20):
        *_, info = env.step(np.where(np.arange(20) == corner, 10.0, -10.0).astype(np.float32))
        assert info["target"][corner] > 1 - 1e-6
    scores = np.full(20, -1e3)
    scores[3] = 1e3
    *_, info = env.step(scores)
    assert info["target"][3] == 1.0 and abs(info["target"].sum() - 1) < 1e-12


def test_lattice_is_every_step_of_a_quarter():
    lattice = Lattice(4)
    assert lattice.size(5) == 70
    rows = np.array([lattice.target(np.array(i), np.zeros(5), 0) for i in range(70)])
    grid = [p for p in itertools.product(range(5), repeat=5) if sum(p) == 4]
    assert {tuple((row * 4).astype(int)) for row in rows} == set(grid)
    with pytest.raises(SettingError, match="portfolios"):
        lattice.size(60)


def test_simplex_space_samples_itself():
    space = Simplex(7, seed=0)
    draws = np.array([space.sample() for _ in range(2000)])
    assert all(space.contains(draw) for draw in draws)
    np.testing.assert_allclose(draws.mean(0), 1 / 7, atol=0.01)
    assert not space.contains(np.full(7, 0.2, np.float32))


def test_bad_settings_are_named(market):
    bad_settings: list[tuple[dict[str, Any], str]] = [
        ({"lookback": 500}, "lookback 500.*120"),
        ({"lookback": 0}, "lookback must be >= 1"),
        ({"fill": "noon"}, "fill"),
        ({"fill": "next_open"}, "opens"),
        ({"actions": "guess"}, "actions"),
        ({"reward": "log_retrun"}, "log_return"),
        ({"render_mode": "hologram"}, "render_mode"),
        ({"episode_length": 0}, "episode_length"),
    ]
    for settings, words in bad_settings:
        with pytest.raises((SettingError, DataError), match=words):
            PortfolioEnv(market, **settings)
    env = PortfolioEnv(market, lookback=20)
    bad_options: list[tuple[dict[str, Any], str]] = [
        ({"start": "1990-01-01"}, "outside"),
        ({"start": 3}, "between"),
        ({"weights": [1, 1]}, "weights"),
        ({"starts": 3}, "unknown option"),
    ]
    for options, words in bad_options:
        with pytest.raises((SettingError, DataError), match=words):
            env.reset(options=options)


def test_fill_at_the_next_open_splits_the_return():
    """What is held moves overnight, then trades at the open, then the target moves intraday."""
    dates = pd.bdate_range("2020-01-01", periods=3)
    prices = np.array([[100.0, 50.0], [110.0, 50.0], [121.0, 60.0]])
    opens = np.array([[99.0, 50.0], [105.0, 40.0], [115.5, 55.0]])
    market = Market(dates=dates, assets=("A", "B"), prices=prices, opens=opens)
    env = PortfolioEnv(market, lookback=1, fill="next_open")
    env.reset(options={"weights": [1.0, 0.0]})
    *_, info = env.step([0.0, 1.0])
    assert info["value"] == pytest.approx((105 / 100) * (50 / 40))
    *_, info = env.step([0.0, 1.0])
    assert info["value"] == pytest.approx((105 / 100) * (50 / 40) * (60 / 50))


def test_render_ansi(market):
    env = PortfolioEnv(market, lookback=5, render_mode="ansi")
    env.reset()
    text = env.render()
    assert isinstance(text, str) and "value 1.0000" in text and "cash 100.0 %" in text
