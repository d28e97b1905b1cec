"""Parts of the learners against loops and other ways to the same numbers: replay, double, LSTM."""

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from stable_baselines3.common.buffers import DictReplayBuffer

import agents
from agents import AGENTS
from agents.base import Monitor, Task
from agents.networks import NetworkSettings, make_encoder
from agents.off_policy import clip_before_steps
from agents.panel_network import Panel, Shape, readers
from agents.replay import CompactReplayBuffer
from agents.rollout import roll
from agents.sb3_env import observation_space
from benchmarks import usual
from envs.actions import Softmax
from envs.costs import ProportionalCost
from market import DataError, Market
from market.features.scaling import Scaler
from tests.test_policies import market_with_context
from tests.test_sb3 import LEARNERS, SMALL, revealing_market

ENVS = 3


def filled(n_steps: int, added: int, size: int = 20) -> CompactReplayBuffer:
    """Transitions numbered through, of episodes that end at random, some of them cut off."""
    rng = np.random.default_rng(0)
    buffer = CompactReplayBuffer(
        size * ENVS,
        observation_space(2),
        Softmax().space(2),
        n_envs=ENVS,
        n_steps=n_steps,
        gamma=0.9,
    )
    for k in range(added):
        number = ENVS * k + np.arange(ENVS)
        now: dict[str, np.ndarray] = {
            "time": number[:, None],
            "weights": np.ones((ENVS, 2), np.float32),
        }
        later: dict[str, np.ndarray] = {
            "time": 1000 + number[:, None],
            "weights": np.zeros((ENVS, 2), np.float32),
        }
        done = rng.random(ENVS) < 0.2
        infos = [{"TimeLimit.truncated": bool(d and rng.random() < 0.5)} for d in done]
        buffer.add(now, later, np.zeros((ENVS, 2)), rng.normal(size=ENVS), done, infos)
    return buffer


@pytest.mark.parametrize("added", [12, 33])  # before and after the buffer has gone round
def test_returns_over_several_steps_against_a_loop(added):
    buffer, n = filled(3, added), 3
    batch = buffer.sample(400)
    newest = (buffer.pos - 1) % buffer.buffer_size
    numbers = buffer.observations["time"][..., 0]
    assert batch.discounts is not None
    for b in range(400):
        number = int(batch.observations["time"][b])
        k, env = (int(place[0]) for place in np.nonzero(numbers == number))
        reward, discount = 0.0, 1.0
        for j in range(n):
            last = (k + j) % buffer.buffer_size
            reward += discount * buffer.rewards[last, env]
            discount *= 0.9
            if buffer.dones[last, env] or last == newest:
                break
        assert batch.rewards[b].item() == pytest.approx(reward, rel=1e-5, abs=1e-6)
        assert batch.discounts[b].item() == pytest.approx(discount)
        assert int(batch.next_observations["time"][b]) == 1000 + numbers[last, env]
        ended = buffer.dones[last, env] * (1 - buffer.timeouts[last, env])
        assert batch.dones[b].item() == ended


def test_one_step_replay_is_that_of_stable_baselines(monkeypatch, rng):
    buffer = filled(1, 33)
    places, envs = rng.integers(20, size=50), rng.integers(ENVS, size=50)
    monkeypatch.setattr(buffer, "rng", SimpleNamespace(integers=lambda *_, **__: envs))
    ours = buffer._get_samples(places)
    monkeypatch.setattr(np.random, "randint", lambda *_, **__: envs)
    theirs = DictReplayBuffer._get_samples(buffer, places)
    for part in ("rewards", "dones", "actions"):
        assert torch.equal(getattr(ours, part), getattr(theirs, part)), part
    for part in ("observations", "next_observations"):
        for key, shown in getattr(theirs, part).items():
            assert torch.equal(getattr(ours, part)[key], shown), (part, key)


def test_replay_draws_every_transition_and_repeats_itself():
    batches = [filled(1, 33).sample(2000) for _ in range(2)]
    assert torch.equal(batches[0].rewards, batches[1].rewards)
    assert len(torch.unique(batches[0].observations["time"])) == 20 * ENVS


@pytest.mark.parametrize("name", ["dqn", "qrdqn"])
def test_double_learning_values_what_the_other_network_chooses(name):
    market = revealing_market(60)
    settings = SMALL | {"lattice": 2}
    networks = []
    for double in (True, False):
        agent = AGENTS[name](**settings, double=double)
        agent._shape = Shape.of(market)
        policy = agent.model(market, Task(), 0).policy
        fast, slow = (
            (policy.q_net, policy.q_net_target)
            if name == "dqn"
            else (policy.quantile_net, policy.quantile_net_target)
        )
        generator = torch.manual_seed(1)
        with torch.no_grad():
            for part in (*fast.parameters(), *slow.parameters()):
                part.add_(0.3 * torch.randn(part.shape, generator=generator))
        networks.append((fast, slow))
    observation = {
        "time": torch.arange(5, 35)[:, None],
        "weights": torch.tensor(np.random.default_rng(0).dirichlet(np.ones(3), 30)).float(),
    }
    (fast, shown), (_, plain) = networks
    with torch.no_grad():
        choice = fast.values.choices(observation["time"][:, 0], observation["weights"]).argmax(1)
        every, one = plain(observation), shown(observation)
    assert every.shape[-1] == 7 and one.shape[-1] == 1
    for b, k in enumerate(choice):
        torch.testing.assert_close(one[b, ..., 0], every[b, ..., k])
    greedy = (every if name == "dqn" else every.mean(1)).argmax(1)
    assert (greedy != choice).any()


def test_quantiles_have_the_mean_that_is_acted_on():
    market = market_with_context()
    agent = AGENTS["qrdqn"](**SMALL, lattice=2, n_quantiles=5)
    agent._shape = Shape.of(market)
    values = agent.build()
    values.panel.show(Panel.of(market))
    rows, held = torch.tensor([5, 9]), torch.full((2, 4), 0.25)
    quantiles = values.choice_quantiles(rows, held)
    assert quantiles.shape == (2, 11, 5)
    torch.testing.assert_close(quantiles.mean(-1), values.choices(rows, held))


@pytest.mark.parametrize("name", ["dqn", "qrdqn"])
@pytest.mark.parametrize("gamma", [0.0, 0.9])
def test_only_what_was_taken_is_valued(name: str, gamma: float):
    """The value of each stored choice, picked out of all values, and of any where none counts."""
    market = market_with_context()
    agent = AGENTS[name](**SMALL, lattice=2, gamma=gamma, learning_starts=10, train_every=1)
    agent._shape = Shape.of(market)
    model = agent.model(market, Task(cost=ProportionalCost(0.01)), 0)
    model.learn(64)
    sample = model.replay_buffer.sample(50)
    policy = model.policy
    network = policy.q_net if name == "dqn" else policy.quantile_net
    seen, taken = sample.observations, sample.observations["taken"]
    assert (sample.actions == 0).all() and taken.max() == 10 and len(taken.unique()) > 5
    with torch.no_grad():
        shown = network(seen)
        every = network.values.choice_quantiles(seen["time"][:, 0], seen["weights"])
        following = network(sample.next_observations)
    assert network.values.spread.max() > 0.0
    for b, k in enumerate(taken[:, 0]):
        torch.testing.assert_close(shown[b].flatten(), every[b, k])
    assert following.shape[-1] == (11 if gamma else 1)


def test_gradients_are_clipped_before_steps():
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    clip_before_steps(optimizer, 0.5)
    (weight * torch.tensor([3.0, 0.0, 4.0, 0.0])).sum().backward()
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.3, 0.0, -0.4, 0.0]))


@pytest.mark.parametrize("name", ["sac", "td3", "tqc"])
def test_actor_and_critics_are_clipped(name):
    market = revealing_market(60)
    agent = AGENTS[name](**SMALL, max_grad_norm=1e-3)
    agent._shape = Shape.of(market)
    model = agent.model(market, Task(), 0)
    for part in (model.actor, model.critic):
        for parameter in part.parameters():
            parameter.grad = torch.ones_like(parameter)
        part.optimizer.step()
        norm = torch.nn.utils.get_total_norm([p.grad for p in part.parameters()])
        assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def recurrent(market: Market, depth: int = 2) -> Any:
    agent = AGENTS["recurrent_ppo"](**(SMALL | {"lookback": 6, "depth": depth, "n_steps": 12}))
    agent._shape = Shape.of(market)
    return agent, agent.model(market, Task(), 0)


def observed(rows: Any, n_assets: int) -> dict[str, torch.Tensor]:
    rows = torch.as_tensor(rows).reshape(-1, 1)
    weights = torch.rand(len(rows), n_assets, generator=torch.manual_seed(0)).softmax(1)
    return {"time": rows, "weights": weights}


@pytest.mark.parametrize("with_context", [False, True])
def test_stepping_an_lstm_is_replaying_its_window(with_context):
    market = market_with_context() if with_context else revealing_market(120)
    _, model = recurrent(market)
    policy, n = model.policy, market.n_assets
    states = model._last_lstm_states.pi
    states = tuple(part[:, :2].contiguous() for part in states)  # two sequences side by side
    policy.set_training_mode(False)
    with torch.no_grad():
        for day in range(6):
            last = observed([20 + day, 70 + day], n)
            starts = torch.tensor([float(day == 0)] * 2)
            distribution, values, states = policy._step(last, states, starts)
        replayed, same_values = policy._heads(last)
    torch.testing.assert_close(distribution.mode(), replayed.mode())
    torch.testing.assert_close(values, same_values)


def test_sequences_are_evaluated_as_they_were_played():
    """Log probabilities of a rollout again, from stored states and whole sequences at once."""
    _, model = recurrent(market_with_context())
    torch.manual_seed(0)
    _, callback = model._setup_learn(1000, None)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    model.policy.set_training_mode(True)
    counted = 0
    for data in model.rollout_buffer.get(40):
        values, log_prob, _ = model.policy.evaluate_actions(
            data.observations, data.actions, data.lstm_states, data.episode_starts
        )
        mask = data.mask > 0
        counted += int(mask.sum())
        torch.testing.assert_close(log_prob[mask], data.old_log_prob[mask], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            values.flatten()[mask], data.old_values[mask], atol=1e-4, rtol=1e-4
        )
    assert counted == model.n_steps * model.n_envs


def test_a_recurrent_agent_answers_the_same_whatever_was_asked_before():
    market = revealing_market(120)
    settings = SMALL | LEARNERS["recurrent_ppo"] | {"steps": 512}
    agent = AGENTS["recurrent_ppo"](**settings).fit(market)
    held = np.array([0.2, 0.3, 0.5])
    first = agent.act(market.upto(60), held)
    targets = roll(agent, market, Task()).targets
    assert np.ptp(targets, axis=0).max() > 1e-4
    np.testing.assert_array_equal(agent.act(market.upto(60), held), first)
    np.testing.assert_array_equal(agent.act(market[58:61], held), first)


def test_rolling_scaling_looks_further_back():
    rng = np.random.default_rng(0)
    base = revealing_market(420)
    features = (base.features + rng.normal(0, 0.1, base.features.shape)).astype(np.float32)
    market = base.with_values(features, base.context)
    agent = AGENTS["ppo"](**SMALL, **(LEARNERS["ppo"] | {"steps": 256}), scaling="rolling")
    assert agent.lookback == SMALL["lookback"] + 251
    agent.fit(market[:350], market[60:])
    assert agent._scaler == Scaler.fit(market[:350], "rolling", window=252)
    held = np.array([0.2, 0.3, 0.5])
    whole = agent.act(market.upto(400), held)
    short = agent.act(market[400 - agent.lookback + 1 : 401], held)
    np.testing.assert_allclose(short, whole, atol=1e-6)
    assert np.abs(agent.act(market[398:401], held) - whole).max() > 1e-6  # too little to scale by
    with agent.reading(market):
        read = agent.act(market.upto(400), held)
    np.testing.assert_allclose(read, whole, atol=1e-5)


@pytest.mark.parametrize("name", ["dqn", "policy_gradient", "ppo", "qrdqn", "sac"])
def test_a_warm_start_goes_on_from_what_was_learned(name):
    """With a rate of nothing, what was learned stays; without the start, it is not there."""
    market, held = revealing_market(), np.array([0.2, 0.3, 0.5])
    settings = {"lookback": 3, "depth": 1, "width": 16, "segment_length": 20}
    learned = LEARNERS[name] | SMALL if name in LEARNERS else settings | {"steps": 20}
    learned = learned | {"steps": min(learned["steps"], 1_500)}
    before = AGENTS[name](**learned).fit(market, task=Task(cost=None))
    for warm in (True, False):
        after = AGENTS[name](**(learned | {"learning_rate": 1e-30, "steps": 1}))
        if warm:
            after.warm_start(before)
        after.fit(market, task=Task(cost=None), seed=5)
        same = [
            np.allclose(before.act(market.upto(t), held), after.act(market.upto(t), held))
            for t in range(10, 40)
        ]
        assert all(same) == warm


@pytest.mark.parametrize("name", ["a2c", "dqn", "recurrent_ppo", "sac", "td3"])
def test_the_number_of_assets_may_change_but_for_a_lattice(name):
    settings = SMALL | LEARNERS[name] | {"steps": 300, "lattice": 2}
    if name != "dqn":
        del settings["lattice"]
    agent = AGENTS[name](**settings).fit(revealing_market(120))
    dates = pd.bdate_range("2012-01-02", periods=40)
    prices = 100 + np.random.default_rng(0).normal(size=(40, 4)).cumsum(0)
    signal = np.zeros((40, 5, 1), np.float32)
    frame = pd.DataFrame(prices, dates, list("ABCD"))
    more = Market.from_prices(frame, features=signal, feature_names=("tomorrow",))
    held = np.full(5, 0.2)
    if name == "dqn":
        with pytest.raises(DataError, match=r"has 5 assets, the lattice that dqn .* has 3"):
            agent.act(more, held)
    else:
        assert agent.act(more, held).sum() == pytest.approx(1.0)


def test_threads_are_as_asked():
    try:
        AGENTS["ppo"](**SMALL, steps=64, n_steps=8, threads=2).fit(revealing_market(60))
        assert torch.get_num_threads() == 2
        AGENTS["ppo"](**SMALL, steps=64, n_steps=8).fit(revealing_market(60))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("depth", [1, 3])
def test_the_usual_way_of_the_benchmark_is_the_same_network(depth):
    """Convolutions of torch over whole windows against the encoder's own form."""
    encoder = make_encoder(5, NetworkSettings(width=8, depth=depth, lookback=20), seed=3)
    windows = torch.randn(6, 20, 4, 5, generator=torch.manual_seed(0))
    torch.testing.assert_close(
        usual.convolved(encoder, windows), encoder.encode(windows), atol=1e-5, rtol=1e-4
    )


class Heard(Monitor):
    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def record(self, step, values):
        self.values |= values


@pytest.mark.parametrize("all_actions", [True, False])
def test_dqn_reports_its_discretisation(all_actions, tmp_path):
    heard = Heard()
    settings = SMALL | {"steps": 300, "learning_starts": 50, "lattice": 3}
    agent = AGENTS["dqn"](**settings, all_actions=all_actions)
    agent.fit(revealing_market(120), monitor=heard)
    assert heard.values["choices/lattice"] == 3 and heard.values["choices/number"] == 11
    assert len(agent.about()["actions"]) == 11


def test_all_actions_is_the_default_where_the_set_is_small(monkeypatch):
    from agents import dqn

    asked = []
    monkeypatch.setattr(dqn.QLearner, "learn", lambda self, selection: asked.append("all"))
    for lattice in (4, 30):  # 15 and 496 allocations of three assets
        agent = AGENTS["dqn"](**SMALL, lattice=lattice, steps=8, learning_starts=100)
        agent.fit(revealing_market(60))
        asked.append(str(lattice))
    assert asked == ["all", "4", "30"]


MOVES = {"cpu", "numpy", "cuda"}
ROOTS = ["a2c", "policy_gradient", "ppo", "qrdqn", "recurrent_ppo", "sac", "td3", "tqc"]
OF_OTHERS = {"forecasters"}


def trees() -> dict[str, ast.Module]:
    """The modules of this package that the learners import, and those that these import."""
    found: dict[str, ast.Module] = {}
    waiting = list(ROOTS)
    while waiting:
        name = waiting.pop()
        if name in found or name in OF_OTHERS:
            continue
        path = Path(agents.__file__).parent / f"{name}.py"
        found[name] = ast.parse(path.read_text())
        for node in ast.walk(found[name]):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agents."):
                waiting.append(str(node.module).split(".")[1])
    return found


def test_nothing_leaves_the_device_but_through_one_door():
    """Calls of `.cpu()`, `.numpy()` and `.cuda()`: in `agents.device` alone."""
    where = {
        f"{name}.{node.func.attr}"
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in MOVES
    }
    assert where == {"device.cpu", "device.numpy"}


@pytest.mark.parametrize("name", ["ppo", "recurrent_ppo", "sac", "td3", "tqc", "dqn", "qrdqn"])
def test_gradients_make_no_tensor_on_a_device_by_default(name):
    """With a default device that holds no numbers, only what names its device can be added up."""
    market = market_with_context()
    agent = AGENTS[name](**(SMALL | {"encoder": "lstm", "lookback": 6}))
    agent._shape = Shape.of(market)
    policy = agent.model(market, Task(), 0).policy
    observation, actions = observed([10, 11, 40], 4), torch.zeros(3, 4)
    rest: tuple[Any, ...] = ()
    if name == "recurrent_ppo":
        state = (torch.zeros(1, 3, 5 * 16), torch.zeros(1, 3, 5 * 16))
        rest = (type("States", (), {"pi": state})(), torch.ones(3))
    with torch.device("meta"):
        assert torch.zeros(1).is_meta
        if hasattr(policy, "evaluate_actions"):
            outputs = policy.evaluate_actions(observation, actions, *rest)
        elif hasattr(policy, "critic"):
            actions = policy.actor(observation)
            outputs = (actions, *policy.critic(observation, actions))
        else:
            outputs = tuple(part(observation) for part in policy.children())
        loss = sum(output.sum() for output in outputs if output is not None)
        loss.backward()
    assert not loss.is_meta and torch.isfinite(loss)
    read = [part for reader in readers(policy) for part in reader.parameters()]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in read)
