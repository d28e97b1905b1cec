"""No-trade bands, known prices and counterfactual advantages of the agents of stable-baselines3."""

from typing import Any

import numpy as np
import pytest
import torch

from agents import AGENTS
from agents.banded_scores import BandedScores, banded_plan
from agents.base import Task
from agents.critics import AfterTheTrade
from agents.sb3_env import CompactVecEnv
from envs import PortfolioVectorEnv
from envs.actions import Softmax
from envs.costs import ProportionalCost
from market import SettingError
from tests.test_sb3 import SMALL, revealing_market

TASK = Task(cost=ProportionalCost(0.001))
QUICK: dict[str, Any] = SMALL | {"learning_rate": 3e-3, "gamma": 0.5, "explore_starts": 0.5}
REPLAY: dict[str, Any] = {"learning_starts": 200, "batch_size": 128, "steps": 1_500}
ROLLOUT: dict[str, Any] = {"n_steps": 32, "batch_size": 128, "steps": 3_000}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("ppo", ROLLOUT | {"band": True, "counterfactual": 1, "own_critic": True}),
    "recurrent_ppo": ("recurrent_ppo", ROLLOUT | {"band": True}),
    "sac": ("sac", REPLAY | {"band": True, "known_price": True, "counterfactual": 2}),
    "td3": ("td3", REPLAY | {"known_price": True}),
    "tqc": ("tqc", REPLAY | {"band": True, "known_price": True, "n_quantiles": 5}),
}


def built(kind: str, **more: Any) -> Any:
    name, settings = KINDS[kind]
    return AGENTS[name](**QUICK | settings | more)


@pytest.mark.parametrize("kind", list(KINDS))
def test_learns_and_comes_back_from_disk(kind, tmp_path):
    market = revealing_market(300)
    agent = built(kind).fit(market, task=TASK, seed=1)
    rows, held = np.arange(10, 60), np.tile([0.3, 0.5, 0.2], (50, 1))
    with agent.reading(market):
        targets = agent.decide_all(rows, held, market)
    moves = market.features[rows, :, 0]
    assert (targets * moves).sum(-1).mean() > 0.2 * np.abs(moves).max()  # leans on the signal
    agent.save(tmp_path)
    again = type(agent).load(tmp_path)
    one = agent.act(market.upto(20), held[0])
    np.testing.assert_array_equal(again.act(market.upto(20), held[0]), one)
    np.testing.assert_allclose(one, targets[10], rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("kind", ["ppo", "sac"])
def test_same_seed_same_weights(kind):
    market = revealing_market(120)
    few = {"steps": 600, "learning_starts": 100} if kind == "sac" else {"steps": 600}
    first, second = (built(kind, **few).fit(market, task=TASK, seed=2) for _ in range(2))
    for name, part in first.network.state_dict().items():
        assert torch.equal(part, second.network.state_dict()[name]), name


def test_the_band_is_that_of_the_formula_in_numpy_and_torch():
    scores, width = np.log([0.5, 0.3, 0.2]), 3.0 + np.log(0.1 / 0.9)  # half-width 0.1
    action = np.append(scores, width)
    inside, above = np.array([0.45, 0.38, 0.17]), np.array([0.8, 0.15, 0.05])
    target = BandedScores().target(np.stack([action, action]), np.stack([inside, above]), 0)
    np.testing.assert_allclose(target[0], inside, rtol=0.0, atol=1e-12)
    # 0.8 comes down to 0.6, 0.15 and 0.05 up to 0.2 and 0.1; of the rest, 0.1, the second may take
    # 0.2 more and the third 0.2 more, so they take half each
    np.testing.assert_allclose(target[1], [0.6, 0.25, 0.15], rtol=0.0, atol=1e-9)
    plan = banded_plan(torch.as_tensor(np.stack([action, action])))
    np.testing.assert_allclose(
        plan.target(torch.as_tensor(np.stack([inside, above]))).numpy(), target, atol=1e-12
    )
    np.testing.assert_allclose(plan.proposal[0].numpy(), [0.5, 0.3, 0.2], atol=1e-12)


def test_a_wide_band_never_trades():
    agent = built("ppo", steps=300).fit(revealing_market(120), task=TASK, seed=0)
    with torch.no_grad():
        agent.network.panel.network.head.value[-1].bias[1] = 50.0
    held = np.array([0.7, 0.1, 0.2])
    np.testing.assert_allclose(agent.act(revealing_market(120), held), held, rtol=0, atol=1e-12)


def test_critics_take_the_measured_price_off():
    agent = built("sac", steps=400, learning_starts=100).fit(
        revealing_market(120), task=Task(cost=ProportionalCost(0.05)), seed=0
    )
    critic = agent.network.critic.each[0]
    assert isinstance(critic, AfterTheTrade)
    # 5 % of each leg, cash apart, of rewards in percent; logarithms make it a little more
    np.testing.assert_allclose(critic.worth.spread.numpy()[:2], 5.0, rtol=0.1)
    observation = {"time": torch.full((4, 1), 30), "weights": torch.rand(4, 3).softmax(-1)}
    wide = torch.tensor([[0.1, -0.2, 0.3, 1.0]]).expand(4, 4)  # half-width 0.73: holds mostly
    narrow = torch.tensor([[0.1, -0.2, 0.3, -1.0]]).expand(4, 4)
    with torch.no_grad(), agent.reading(revealing_market(120)):
        for action in (wide, narrow):
            held = observation["weights"].unsqueeze(1)
            target = critic.target(observation["weights"], action).unsqueeze(1)
            paid = (target - held).abs() @ critic.worth.spread + (target - held) @ critic.worth.tilt
            expected = critic.worth(observation["time"][:, 0], target) - paid
            torch.testing.assert_close(critic(observation, action), expected, rtol=1e-4, atol=1e-4)


def games(**settings: Any) -> CompactVecEnv:
    rules = PortfolioVectorEnv(
        revealing_market(80),
        6,
        lookback=1,
        actions=Softmax(),
        cost=ProportionalCost(0.02),
        episode_length=5,
        random_start=True,
        compact=True,
        autoreset_mode="SameStep",
    )
    env = CompactVecEnv(rules, 0, 10.0, **settings)
    env.phase_in_costs(6 * 8.0)
    return env


def test_what_was_tried_is_what_playing_gives():
    env = games(less_market=True, explore_starts=0.5)
    rng, seen = np.random.default_rng(1), env.reset()
    kept = []
    for _ in range(12):
        action = rng.normal(size=(6, 3)).astype(np.float32)
        env.step_async(action)
        after, reward, ended, _ = env.step_wait()
        kept.append((seen, action, reward, after, ended))
        seen = after
    for ago, (seen, action, reward, after, ended) in enumerate(reversed(kept), 1):
        steps_ago = np.full(6, ago)
        tried = env.tried(seen["time"][:, 0], seen["weights"], action, steps_ago)
        np.testing.assert_allclose(tried.reward, reward, rtol=0.0, atol=1e-5)
        if not ended.any():
            np.testing.assert_array_equal(tried.rows, after["time"][:, 0])
            np.testing.assert_allclose(tried.weights, after["weights"], rtol=0.0, atol=1e-6)


def test_what_is_tried_can_be_held_for_days():
    """Against the growth of buying and holding; the data end three days after the last row."""
    env, market = games(), revealing_market(80)
    env._warmup = 0.0
    rows, held = np.array([10, 30, 77]), np.tile([0.2, 0.3, 0.5], (3, 1))
    tried = env.tried(rows, held, np.log([[0.6, 0.3, 0.1]] * 3), np.ones(3, int), 0.9, 4)
    for i, days in enumerate([4, 4, 2]):
        growth = np.cumprod(1.0 + market.returns[rows[i] + 1 : rows[i] + 1 + days], 0)
        values = np.append(1.0, growth @ [0.6, 0.3, 0.1])
        first = env.tried(rows, held, np.log([[0.6, 0.3, 0.1]] * 3), np.ones(3, int)).reward[i]
        later = 10.0 * np.diff(np.log(values))[1:] @ 0.9 ** np.arange(1, days)
        assert tried.reward[i] == pytest.approx(first + later, abs=1e-5)
        end = growth[-1] * [0.6, 0.3, 0.1]
        np.testing.assert_allclose(tried.weights[i], end / end.sum(), rtol=0.0, atol=1e-9)
        assert tried.rows[i] == rows[i] + days
        assert tried.discount[i] == pytest.approx(0.9**days)


def test_a_replay_tries_actions_anew():
    """Rewards and what follows are those of the actions shown, half of which were never taken."""
    market = revealing_market(120)
    agent = built("sac", steps=400, learning_starts=100)
    agent._shape = agent._shape.of(market)
    model = agent.model(market, TASK, 0)
    model.learn(300)
    stored = model.replay_buffer.actions[: model.replay_buffer.size()].reshape(-1, 4)
    sample = model.replay_buffer.sample(200)
    seen, next_seen = sample.observations, sample.next_observations
    known = (sample.actions.numpy()[:, None] == stored).all(-1).any(-1)
    assert 0.3 < known.mean() < 0.7
    rows, held = seen["time"].numpy()[:, 0], seen["weights"].double().numpy()
    target = BandedScores().target(4.0 * sample.actions.numpy(), held, rows)
    going = rows < 117  # the data end at row 119
    np.testing.assert_array_equal(next_seen["time"].numpy()[going, 0], rows[going] + 2)
    after = target[going] * (1.0 + market.returns[rows[going] + 1])
    after = after * (1.0 + market.returns[rows[going] + 2])
    np.testing.assert_allclose(
        next_seen["weights"].numpy()[going], after / after.sum(-1, keepdims=True), atol=1e-6
    )
    np.testing.assert_allclose(sample.discounts.numpy()[going], 0.25, atol=1e-7)
    assert (sample.dones == 0.0).all()


def test_days_are_dealt_like_cards():
    """In as many samples as there are decisions each day comes once, with what follows on it."""
    market = revealing_market(120)
    agent = built("sac", steps=400, learning_starts=300, even_days=True)
    agent._shape = agent._shape.of(market)
    model = agent.model(market, TASK, 0)
    model.learn(200)
    first, days = agent.lookback - 1, 119 - (agent.lookback - 1)
    samples = [model.replay_buffer.sample(k) for k in (days - 5, 15)]
    rows = np.concatenate([sample.observations["time"].numpy()[:, 0] for sample in samples])
    np.testing.assert_array_equal(np.sort(rows[:days]), np.arange(first, 119))
    assert len(set(rows[days:])) == 10 and not (np.diff(rows) == 1).all()
    sample = samples[0]
    rows, held = (sample.observations[key].numpy() for key in ("time", "weights"))
    actions = 4.0 * sample.actions.numpy()
    came = model.env.tried(rows[:, 0], held.astype(float), actions, np.zeros(len(rows)), 0.5, 2)
    np.testing.assert_allclose(sample.rewards.numpy()[:, 0], came.reward, atol=1e-5)
    np.testing.assert_array_equal(sample.next_observations["time"].numpy()[:, 0], came.rows)


def test_critics_take_off_what_is_charged_while_costs_are_phased_in():
    market = revealing_market(120)
    agent = built("sac", steps=400, learning_starts=100, cost_warmup=0.5)
    agent._shape = agent._shape.of(market)
    model = agent.model(market, TASK, 0)
    prices = [part.worth for part in (*model.critic.each, *model.critic_target.each)]
    assert len(prices) == 4 and all((each.spread == 0.0).all() for each in prices)
    model.learn(100)  # of 200 in which costs rise
    part, share = prices[0].spread[:2].clone(), model.num_timesteps / 200
    model.learn(200, reset_num_timesteps=False)
    assert all(torch.equal(each.spread, prices[0].spread) for each in prices)
    full = prices[0].spread[:2]
    np.testing.assert_allclose(full.numpy(), 0.1, rtol=0.1)  # 0.1 % in rewards in percent
    assert 0.4 < share < 0.9
    torch.testing.assert_close(part, share * full)


def test_an_actor_begins_as_spread_as_it_is_told():
    observation = {"time": torch.full((5, 1), 30), "weights": torch.full((5, 3), 1 / 3)}
    found = []
    for log_std in (0.0, -2.0):
        agent = built("sac", steps=300, log_std=log_std)
        agent._shape = agent._shape.of(revealing_market(120))
        model = agent.model(revealing_market(120), TASK, 0)
        with torch.no_grad():
            found.append(model.actor.get_action_dist_params(observation)[1])
    torch.testing.assert_close(found[0] - 2.0, found[1])


def test_some_episodes_start_from_random_weights():
    assert (games().reset()["weights"] == [0.0, 0.0, 1.0]).all()
    env = games(explore_starts=0.5)
    fresh = [(env.reset()["weights"][:, 2] < 1.0).mean() for _ in range(40)]
    assert 0.35 < np.mean(fresh) < 0.65


def test_the_policy_has_no_advantage_over_itself():
    """Advantages are those of the action over the mean: nothing where both are the same."""
    agent = built("ppo", steps=300, cost_warmup=0.5)
    agent._shape = agent._shape.of(revealing_market(200))
    model = agent.model(revealing_market(200), Task(cost=ProportionalCost(0.01)), 0)
    model._setup_learn(300)
    model.policy.set_training_mode(False)
    with torch.no_grad():
        model.policy.log_std.fill_(-20.0)
    model.collect_rollouts(model.env, _Callback(), model.rollout_buffer, model.n_steps)
    assert np.abs(model.rollout_buffer.rewards).max() > 0.01
    assert np.abs(model.rollout_buffer.advantages).max() < 1e-3
    returns = model.rollout_buffer.returns - model.rollout_buffer.values
    assert np.abs(returns).max() > 0.01  # values are learned from what came, as ever


class _Callback:
    """What collecting calls; nothing is asked of it."""

    def on_rollout_start(self) -> None:
        pass

    def on_rollout_end(self) -> None:
        pass

    def update_locals(self, seen: dict[str, Any]) -> None:
        pass

    def on_step(self) -> bool:
        return True


def test_bands_that_cannot_be_are_named():
    with pytest.raises(SettingError, match="band needs distribution 'gaussian', got 'dirichlet'"):
        AGENTS["ppo"](band=True, distribution="dirichlet")
    with pytest.raises(SettingError, match="explore_starts must be in"):
        AGENTS["sac"](explore_starts=1.5)
