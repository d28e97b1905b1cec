"""Training that goes on from a checkpoint is training that never stopped, to the bit.

Every learner, one environment and four, with normalisation and with rewards that remember: the
state is taken apart to JSON, arrays and tensors, and put together again in a fresh agent.
"""

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from agents import AGENTS
from agents.base import Monitor, Task
from agents.kept_parts import files_of
from agents.selection import Selection
from experiments.tree_codec import Encoded, decode, encode
from market.errors import DataError, SettingError

SMALL = {"lookback": 5, "width": 4, "depth": 1}
RL = SMALL | {"num_envs": 4, "episode_length": 12, "evaluations": 2}
OFF = RL | {"steps": 80, "learning_starts": 16, "batch_size": 8, "train_every": 2}
ON = RL | {"steps": 160, "n_steps": 4}
PG = SMALL | {"steps": 10, "evaluations": 2, "segments": 4, "segment_length": 8}
INNER = "cash, lstm(lookback=5, hidden=4, epochs=6, patience=6, volatility_window=5)"
MEMBERS = [
    "equal_weight",
    "policy_gradient(lookback=5, width=4, depth=1, steps=6, evaluations=2, segments=4, "
    "segment_length=8)",
    f"ensemble(members='{INNER}', period=week)",
]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("ppo", ON | {"batch_size": 16, "n_epochs": 2}),
    "ppo of one environment": ("ppo", ON | {"num_envs": 1, "steps": 80, "batch_size": 8}),
    "ppo, normalised": (
        "ppo",
        ON | {"normalisation": "layer", "dropout": 0.2, "scaling": "robust", "less_market": True},
    ),
    "ppo, dirichlet": ("ppo", ON | {"distribution": "dirichlet", "cost_warmup": 0.8}),
    "a2c": ("a2c", ON),
    "recurrent_ppo": ("recurrent_ppo", ON | {"batch_size": 16}),
    "sac": ("sac", OFF),
    "sac of one environment": ("sac", OFF | {"num_envs": 1, "steps": 24, "learning_starts": 6}),
    "sac, a full replay": ("sac", OFF | {"buffer_size": 40, "n_steps": 3, "ent_coef": "0.1"}),
    "sac, days dealt anew": (
        "sac",
        OFF
        | {"counterfactual": 2, "even_days": True, "known_price": True, "band": True}
        | {"cost_warmup": 0.8, "explore_starts": 0.5, "log_std": -1.0},
    ),
    "td3": ("td3", OFF),
    "tqc": ("tqc", OFF),
    "dqn, all actions": ("dqn", RL | {"steps": 48, "target_every": 3}),
    "dqn, all actions, normalised": ("dqn", RL | {"steps": 40, "normalisation": "layer"}),
    "dqn": ("dqn", OFF | {"all_actions": False}),
    "dqn of one environment": ("dqn", OFF | {"all_actions": False, "num_envs": 1, "steps": 40}),
    "qrdqn": ("qrdqn", OFF),
    "policy_gradient": ("policy_gradient", PG | {"explore": 0.5}),
    "policy_gradient, dropout": ("policy_gradient", PG | {"dropout": 0.3}),
    "lstm": ("lstm", {"lookback": 5, "hidden": 4, "epochs": 10, "patience": 10}),
    "forecasters": (
        "forecast",
        {"forecaster": "gru(lookback=5, width=4, depth=1, epochs=5, ensemble=2, noise=0.1)"},
    ),
    "stacking": (
        "stacking",
        {
            "forecasters": "mean, gru(lookback=5, width=4, depth=1, epochs=6), "
            "fnn(lookback=5, width=4, depth=1, epochs=6)"
        },
    ),
    "an ensemble": (
        "ensemble",
        {"members": MEMBERS, "period": "week", "weighting": "validation"},
    ),
}
TASK = Task(reward="differential_sharpe - 0.1 * turnover")


def through_files(state: Any) -> Any:
    """As a checkpoint gives it back."""
    parts = encode(state)
    text = json.dumps(parts.json, allow_nan=False)
    arrays = {key: array.copy() for key, array in parts.arrays.items()}
    return decode(Encoded(json.loads(text), arrays, load(save(parts.tensors))))


class Keeper(Monitor):
    """Keeps every curve, and every checkpoint with where the curves stood; goes on from one."""

    def __init__(self, start: Any = None) -> None:
        self.start, self.rows = start, list[Any]()
        self.checkpoints: list[tuple[int, Any]] = []

    def record(self, step, values):
        self.rows.append((step, {key: repr(value) for key, value in values.items()}))

    def checkpoint(self, state):
        if self.start is None:
            self.checkpoints.append((len(self.rows), through_files(state())))

    def resume(self):
        self.rows.clear()
        return self.start


def parameters(agent) -> dict[str, np.ndarray]:
    if hasattr(agent, "members") or hasattr(agent.settings, "forecasters"):
        return files_of(agent.save)
    if hasattr(agent, "forecaster"):
        found = agent.forecaster.tensors()
    else:
        found = (getattr(agent, "network", None) or agent.policy).state_dict()
    return {key: value.numpy().copy() for key, value in found.items()}


def trained(name, settings, market, start=None):
    torch.manual_seed(99 if start is None else 1234)  # what is left in it must not matter
    monitor = Keeper(start)
    agent = AGENTS[name](**settings)
    agent.fit(market[:90], market[80:], task=TASK, seed=3, monitor=monitor)
    return monitor, parameters(agent)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("positions", [3, pytest.param(10, marks=pytest.mark.soak)])
def test_a_training_that_went_on_is_one_that_never_stopped(case, positions, make_market):
    name, settings = CASES[case]
    market = make_market(periods=120, risky=2)
    whole, expected = trained(name, settings, market)
    assert len(whole.checkpoints) >= 10
    for place in np.linspace(0, len(whole.checkpoints) - 1, positions).round().astype(int):
        n_rows, state = whole.checkpoints[place]
        went_on, found = trained(name, settings, market, through_files(state))
        assert went_on.rows == whole.rows[n_rows:], f"checkpoint {place}"
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg=f"checkpoint {place}: {key}")


def test_checkpoints_change_nothing(make_market):
    """Training that is asked for its state at every chance is training that never is."""
    market = make_market(periods=120, risky=2)
    for case in ("ppo", "sac", "dqn, all actions", "policy_gradient", "lstm"):
        name, settings = CASES[case]
        asked, found = trained(name, settings, market)
        silent = Keeper()
        silent.checkpoint = lambda state: None  # type: ignore[method-assign]
        agent = AGENTS[name](**settings)
        agent.fit(market[:90], market[80:], task=TASK, seed=3, monitor=silent)
        assert silent.rows == asked.rows
        for key, value in parameters(agent).items():
            np.testing.assert_array_equal(value, found[key])


def test_what_the_state_leaves_out_shows(make_market, monkeypatch):
    """The comparison can fail: without the old generator of numpy, PPO's minibatches differ."""
    import agents.selection as selection

    market = make_market(periods=120, risky=2)
    name, settings = CASES["ppo"]
    whole, expected = trained(name, settings, market)
    state = whole.checkpoints[3][1]
    monkeypatch.setattr(selection, "set_generator_states", lambda states: None)
    _, found = trained(name, settings, market, state)
    assert any((found[key] != value).any() for key, value in expected.items())


def test_a_checkpoint_of_another_network_is_refused_by_name(make_market):
    market = make_market(periods=120, risky=2)
    for case in ("ppo", "policy_gradient"):
        name, settings = CASES[case]
        whole, _ = trained(name, settings, market)
        with pytest.raises(SettingError, match=f"{name}: the checkpoint does not fit: ") as caught:
            trained(name, settings | {"width": 8}, market, whole.checkpoints[2][1])
        assert "\n" not in str(caught.value)


def test_a_state_is_exact_and_holds_no_pickles():
    state = {
        "numbers": [1, 2**127, -0.1, float("-inf"), True, None, "text"],
        3: {"array": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.zeros((0, 2))},
        "tensor": torch.tensor([0.1, float("nan")]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "pair": (1.5, (2, "three")),
        "scalar": np.float64(0.1),
    }
    found = through_files(state)
    assert list(found) == list(state)
    assert found["numbers"] == state["numbers"] and found["numbers"][4] is True
    assert found["pair"] == (1.5, (2, "three"))
    assert found["scalar"] == 0.1
    np.testing.assert_array_equal(found[3]["array"], state[3]["array"])  # type: ignore[index]
    assert found[3]["array"].dtype == np.float32 and found[3]["empty"].shape == (0, 2)
    assert torch.equal(found["bytes"], torch.arange(5, dtype=torch.uint8))
    np.testing.assert_array_equal(found["tensor"].numpy(), np.array([0.1, np.nan], np.float32))


@pytest.mark.parametrize("thing", [object(), np.array([object()]), {1, 2}, Selection])
def test_what_is_no_plain_state_is_refused(thing):
    with pytest.raises(TypeError, match="a state cannot hold"):
        encode({"a": thing})


@pytest.mark.parametrize(
    "text", [{"a": 1, "b": 2}, {"array": "7"}, {"dict": [[1]]}, {"float": "x"}]
)
def test_a_state_that_was_never_written_is_refused(text):
    with pytest.raises(DataError, match="the state cannot be read"):
        decode(Encoded(text, {}, {}))
