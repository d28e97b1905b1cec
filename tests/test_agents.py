"""What every agent keeps to: valid weights, no look-ahead, same seed same bits, save and load."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agents import AGENTS
from agents.online import OnlineAgent
from agents.settings import build_settings
from market import Market, SettingError

SMALL: dict[str, dict[str, Any]] = {
    "policy_gradient": {"lookback": 20, "steps": 5},
    "lstm": {"lookback": 20, "hidden": 8, "epochs": 2, "volatility_window": 20},
    "forecast": {"forecaster": "gru(lookback=20, width=8, epochs=2)", "volatility": 0.08},
    "ensemble": {"members": "equal_weight, risk_parity(window=40)", "period": "month"},
    "regime_switch": {"members": "equal_weight, cash", "period": "month", "window": 40},
    "stacking": {"forecasters": "mean, ridge, factor_model(components=2)"},
    "factor_blend": {"components": 2},
    "sixty_forty": {"stocks": "a", "bonds": "c"},
    "cross_sectional_momentum": {"window": 40, "skip": 5},
    "time_series_momentum": {"window": 40},
    "volatility_managed": {"window": 10, "long_window": 40},
}
for optimiser in (
    "black_litterman",
    "hierarchical_risk_parity",
    "inverse_volatility",
    "maximum_diversification",
    "maximum_sharpe",
    "mean_variance",
    "minimum_cvar",
    "minimum_variance",
    "risk_parity",
):
    SMALL[optimiser] = {"window": 40}
LEARNING = {
    "steps": 64,
    "num_envs": 2,
    "episode_length": 16,
    "lookback": 3,
    "width": 8,
    "depth": 1,
    "evaluations": 1,
}
SMALL |= {name: LEARNING | {"n_steps": 8} for name in ("a2c", "recurrent_ppo")}
SMALL |= {
    name: LEARNING | {"learning_starts": 16, "batch_size": 16} for name in ("qrdqn", "td3", "tqc")
}
OTHERS = {"dqn", "ppo", "sac"}  # in test_sb3.py and test_q_learning.py
NAMES = sorted(set(AGENTS) - OTHERS)


def small_market(n_periods=160, seed=3, cash=0.02):
    """Three correlated assets with drift on business days, and cash."""
    rng = np.random.default_rng(seed)
    shocks = rng.standard_normal((n_periods, 3)) @ np.array([[1.0, 0.6, 0], [0, 0.8, 0], [0, 0, 1]])
    prices = 100.0 * np.cumprod(1.0 + 0.0005 + 0.01 * shocks, axis=0)
    dates = pd.bdate_range("2010-01-04", periods=n_periods)
    return Market.from_prices(pd.DataFrame(prices, dates, ["a", "b", "c"]), cash_rate=cash)


def fitted(name, market, seed=0):
    train, valid = market[:100], market[100:130]
    return AGENTS[name](**SMALL.get(name, {})).fit(train, valid, seed=seed)


def held(market):
    weights = np.arange(1.0, market.n_assets + 1)
    return weights / weights.sum()


def decisions(agent, market):
    """Targets on five late days, from fixed holdings and from a start."""
    start = np.eye(market.n_assets)[-1]
    rows = range(market.n_periods - 5, market.n_periods)
    return np.array([agent.act(market.upto(t), w) for t in rows for w in (held(market), start)])


def test_registry_lists_and_refuses():
    assert sorted(AGENTS) == list(AGENTS) and len(AGENTS) == len(set(AGENTS))
    assert {"ppo", "sac", "dqn", "lstm", "mean_variance", "equal_weight"} <= set(AGENTS)
    assert "ppo" in AGENTS and "nobody" not in AGENTS
    with pytest.raises(
        SettingError, match=r"unknown agent 'mean_varience'; did you mean 'mean_var"
    ):
        AGENTS["mean_varience"]


def test_looking_at_names_imports_no_heavy_library():
    heavy = "{'torch', 'skfolio', 'stable_baselines3', 'gymnasium', 'scipy'}"
    code = (
        f"import sys; from agents import AGENTS; sorted(AGENTS); print({heavy} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_valid(name):
    market = small_market()
    made = decisions(fitted(name, market), market)
    assert made.shape == (10, 4) and (made >= 0.0).all()
    np.testing.assert_allclose(made.sum(axis=1), 1.0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bits(name):
    market = small_market()
    first, second = (decisions(fitted(name, market, seed=5), market) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_later_rows_do_not_matter(name):
    market = small_market()
    agent, t = fitted(name, market), 140
    rng = np.random.default_rng(0)
    prices = np.array(market.prices[:, :-1])
    prices[t + 1 :] *= np.exp(rng.standard_normal(prices[t + 1 :].shape))
    poisoned = Market.from_prices(pd.DataFrame(prices, market.dates, market.assets[:-1]), 0.02)
    expected = agent.act(market[: t + 1].upto(t), held(market))
    np.testing.assert_array_equal(agent.act(poisoned.upto(t), held(market)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_acting_leaves_no_trace(name):
    """A decision depends on (history, weights), not on what was asked before."""
    market = small_market()
    agent = fitted(name, market)
    before = agent.act(market.upto(140), held(market))
    decisions(agent, market)
    np.testing.assert_array_equal(agent.act(market.upto(140), held(market)), before)


@pytest.mark.parametrize("name", NAMES)
def test_save_and_load(name, tmp_path):
    market = small_market()
    agent = fitted(name, market)
    agent.save(tmp_path)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors"}
    again = AGENTS[name].load(tmp_path)
    assert again.settings == agent.settings and again.lookback == agent.lookback
    np.testing.assert_array_equal(decisions(again, market), decisions(agent, market))


@pytest.mark.parametrize("name", NAMES)
def test_lookback_is_enough(name):
    market = small_market()
    agent = fitted(name, market)
    if isinstance(agent, OnlineAgent):
        pytest.skip("online rules run from the first row")
    short = market.upto(agent.lookback - 1)
    assert agent.act(short, np.eye(4)[-1]).sum() == pytest.approx(1.0)
    recent = market[market.n_periods - agent.lookback :]
    whole = agent.act(market, np.eye(4)[-1])
    np.testing.assert_allclose(agent.act(recent, np.eye(4)[-1]), whole, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_unlisted_assets_get_nothing(name):
    market = small_market()
    prices = pd.DataFrame(np.array(market.prices[:, :-1]), market.dates, list(market.assets[:-1]))
    prices.iloc[150:, 1] = np.nan
    delisted = Market.from_prices(prices, cash_rate=0.02)
    target = fitted(name, delisted).act(delisted, np.eye(4)[-1])
    assert target[1] == 0.0 and target.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_setting_is_named(name):
    with pytest.raises(SettingError, match=r"unknown setting of .* 'windoww'"):
        AGENTS[name](windoww=3)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_plain_values(name):
    settings = AGENTS[name](**SMALL.get(name, {})).settings
    json.dumps(vars(settings))
    kind = AGENTS[name].Settings
    assert build_settings(kind, vars(settings), name) == settings


def test_settings_out_of_range_name_key_rule_and_value():
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("mean_variance", {"window": 1}, r"mean_variance: window must be in \[2, inf\), got 1"),
        ("mean_variance", {"window": 20.5}, r"window must be int, got 20.5"),
        ("mean_variance", {"risk_aversion": float("nan")}, r"risk_aversion must be in \(0, inf\)"),
        ("mean_variance", {"covariance": "x"}, r"covariance must be 'ledoit_wolf' \| .*, got 'x'"),
        ("equal_weight", {"rebalance_every": 0}, r"rebalance_every must be >= 1, got 0"),
        ("equal_weight", {"rebalance_every": True}, r"rebalance_every must be int or .*, got True"),
        ("lstm", {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ("lstm", {"volatility": 0.0}, r"volatility must be in \(0, inf\), got 0.0"),
        ("forecast", {"rule": "proportionl"}, r"unknown rule 'proportionl'; did you mean 'prop"),
        ("forecast", {"forecaster": "lstm(12)"}, r"write settings by name"),
        ("sac", {"even_days": True}, r"even_days needs counterfactual of 1 or more, got 0"),
        ("dqn", {"even_starts": True, "all_actions": False}, r"even_starts needs all_actions"),
        ("recurrent_ppo", {"counterfactual": 2}, r"counterfactual must be 0 for rec.*, got 2"),
    ]
    for name, settings, text in cases:
        with pytest.raises(SettingError, match=text):
            AGENTS[name](**settings)
