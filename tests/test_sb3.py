"""What stable-baselines3 trains learns, repeats itself to the bit, and comes back from disk."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from stable_baselines3.common.vec_env import VecEnv

from agents import AGENTS
from agents.base import Task
from agents.rollout import roll
from agents.sb3_env import CompactVecEnv
from envs import PortfolioVectorEnv
from envs.costs import ProportionalCost
from market import Market, SettingError
from market.features.scaling import Scaler
from tests.curves import Curves

SMALL: dict[str, Any] = {
    "num_envs": 8,
    "episode_length": 40,
    "lookback": 3,
    "width": 16,
    "depth": 1,
}
REPLAY = {"learning_starts": 200, "batch_size": 128}
QUICK = {"learning_rate": 3e-3, "gamma": 0.5}
LEARNERS: dict[str, dict[str, Any]] = {
    "a2c": {"steps": 4_000, "n_steps": 8},
    "dqn": {"steps": 4_000},
    "ppo": {"steps": 6_000, "n_steps": 32, "batch_size": 128},
    "qrdqn": {"steps": 2_500, "lattice": 2} | REPLAY,
    "recurrent_ppo": {"steps": 4_000, "n_steps": 32, "batch_size": 128},
    "sac": {"steps": 2_000} | REPLAY,
    "td3": {"steps": 2_000} | REPLAY,
    "tqc": {"steps": 2_000} | REPLAY,
}
for settings in LEARNERS.values():
    settings |= QUICK


def revealing_market(periods=400, seed=0) -> Market:
    """Two assets; the feature says which of them rises by 1 % tomorrow while the other falls."""
    rng = np.random.default_rng(seed)
    winner = rng.integers(0, 2, periods)
    moves = np.where(winner[:, None] == np.arange(2), 0.01, -0.01)
    dates = pd.bdate_range("2010-01-01", periods=periods)
    prices = pd.DataFrame(100 * np.cumprod(1 + moves, 0), dates, ["A", "B"])
    signal = np.zeros((periods, 3, 1), np.float32)
    signal[:-1, :2, 0] = moves[1:]
    return Market.from_prices(prices, features=signal, feature_names=("tomorrow",))


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_learns_what_the_feature_tells(name):
    market, fresh = revealing_market(), revealing_market(seed=1)
    agent = AGENTS[name](**SMALL, **LEARNERS[name])
    agent.fit(market, fresh, task=Task(cost=None), seed=0)
    path = roll(agent, fresh, Task(cost=None))
    assert np.log1p(path.returns).mean() > 0.8 * np.log1p(0.01)


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_same_seed_same_weights_and_the_same_after_loading(name, tmp_path):
    market = revealing_market(120)
    settings = SMALL | LEARNERS[name] | {"steps": 600, "evaluations": 2}
    runs: list[tuple[np.ndarray, Curves]] = []
    for seed in (7, 7, 8):
        torch.manual_seed(len(runs))  # what ran before must not matter
        curves = Curves()
        agent = AGENTS[name](**settings).fit(market, market[-60:], seed=seed, monitor=curves)
        runs.append((roll(agent, market, Task()).targets, curves))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert repr(runs[0][1].rows) == repr(runs[1][1].rows)
    assert repr(runs[0][1].rows) != repr(runs[2][1].rows)
    agent.save(tmp_path)
    loaded = AGENTS[name].load(tmp_path)
    np.testing.assert_array_equal(roll(loaded, market, Task()).targets, runs[2][0])
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_curves_and_progress_are_reported():
    curves = Curves()
    settings = SMALL | LEARNERS["ppo"] | {"steps": 2048, "evaluations": 4}
    AGENTS["ppo"](**settings).fit(revealing_market(), revealing_market(seed=2), monitor=curves)
    names = set().union(*(values for _, values in curves.rows))
    evaluation = {"sharpe", "return", "drawdown", "turnover", "cost", "weight/A", "weight/cash"}
    assert {f"eval/{name}" for name in evaluation} <= names
    assert {"train/value_loss", "rollout/ep_rew_mean"} <= names
    steps = [step for step, values in curves.rows if "eval/sharpe" in values]
    assert len(steps) >= 4 and steps == sorted(steps)
    assert curves.fractions[-1] == 1.0 and curves.fractions == sorted(curves.fractions)


def test_the_state_that_did_best_on_validation_is_kept():
    """Validation where the signal is turned round: the first state that was trained is the best."""
    train = revealing_market()
    turned = revealing_market(seed=3)
    valid = Market.from_prices(
        pd.DataFrame(turned.prices[:, :2], turned.dates, ["A", "B"]),
        features=-turned.features,
        feature_names=("tomorrow",),
    )
    task, curves = Task(cost=None), Curves()
    agent = AGENTS["ppo"](**SMALL, **(LEARNERS["ppo"] | {"steps": 16_000}))
    agent.fit(train, valid, task=task, seed=0, monitor=curves)
    curve = {step: row["eval/sharpe"] for step, row in curves.rows if "eval/sharpe" in row}
    untrained, *scores = curve.values()
    assert max(scores) > scores[-1] + 1
    kept = next(row["eval/kept_step"] for _, row in curves.rows if "eval/kept_step" in row)
    assert curve[int(kept)] == max(scores) and untrained not in scores
    path = roll(agent, valid, task)
    excess = path.returns - path.risk_free
    assert excess.mean() / excess.std(ddof=1) * np.sqrt(252) == pytest.approx(max(scores), rel=1e-5)


def test_the_scaler_sees_the_training_rows_alone():
    market = revealing_market(300)
    train, valid = market.split(market.dates[199])
    agent = AGENTS["ppo"](**SMALL, **(LEARNERS["ppo"] | {"steps": 256})).fit(train, valid)
    assert agent._scaler == Scaler.fit(market[:200])


def test_agents_decide_from_the_past_alone():
    market = revealing_market(120)
    agent = AGENTS["ppo"](**SMALL, **(LEARNERS["ppo"] | {"steps": 256})).fit(market)
    weights = np.array([0.2, 0.3, 0.5])
    for t in (10, 50, 90):
        whole = agent.act(market.upto(t), weights)
        np.testing.assert_array_equal(agent.act(market[t - 2 : t + 1], weights), whole)


def test_the_adapter_keeps_stable_baselines_contract():
    games = PortfolioVectorEnv(
        revealing_market(60),
        4,
        lookback=3,
        cost=ProportionalCost(0.01),
        actions="softmax",
        episode_length=5,
        random_start=True,
        compact=True,
        autoreset_mode="SameStep",
    )
    env = CompactVecEnv(games, seed=3, reward_scale=10.0)
    assert isinstance(env, VecEnv)
    first = env.reset()
    total = np.zeros(4)
    for k in range(5):
        env.step_async(np.ones((4, 3)))
        observation, reward, ended, infos = env.step_wait()
        assert reward.dtype == np.float32 and ended.all() == (k == 4)
        total += reward / 10
    for i, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        assert info["terminal_observation"]["time"][0] == first["time"][i, 0] + 5
        assert info["episode"]["l"] == 5
        assert info["episode"]["r"] == pytest.approx(total[i], rel=1e-5)
        assert observation["time"][i, 0] >= 2


def test_bad_settings_are_named():
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("ppo", {"gamma": 1.5}, "gamma.*1.5"),
        ("sac", {"num_envs": 0}, "num_envs.*0"),
        ("dqn", {"lattice": 0}, "lattice"),
        ("ppo", {"learning_rat": 1.0}, "learning_rate"),
        ("ppo", {"select_by": "luck"}, "select_by"),
        ("a2c", {"gae_lambda": 2.0}, r"^a2c: gae_lambda must be in \[0, 1\], got 2.0"),
        ("td3", {"tau": 0.0}, r"^td3: tau must be in \(0, 1\], got 0.0"),
        ("tqc", {"drop_quantiles": 10}, "^tqc: drop_quantiles must be less than n_quantiles = 10"),
        ("qrdqn", {"n_quantiles": 0}, "^qrdqn: n_quantiles"),
        ("recurrent_ppo", {"encoder": "cnn"}, "^recurrent_ppo: encoder must be lstm, got 'cnn'"),
        ("sac", {"device": "abacus"}, "^sac: device must be one of torch's that is here"),
    ]
    for name, settings, words in cases:
        with pytest.raises(SettingError, match=words):
            AGENTS[name](**settings)
    with pytest.raises(SettingError, match=r"^ppo must be fitted"):
        AGENTS["ppo"]().act(revealing_market(100), np.ones(3) / 3)
