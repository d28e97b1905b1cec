"""Policies: full windows and compact rows agree, distributions are right, divergence is noticed."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy

from agents import AGENTS
from agents.base import Task
from agents.distributions import DirichletDistribution, SharedGaussian
from agents.panel_network import Shape
from agents.policies import ActorCritic
from agents.replay import CompactReplayBuffer, CompactRolloutBuffer
from agents.rollout import roll
from agents.sb3_env import observation_space
from agents.selection import DivergedError
from envs.actions import Softmax
from market import Market, SettingError
from tests.curves import Curves
from tests.test_sb3 import SMALL, revealing_market


class FullWindows(ActorCritic):
    """The usual way: every sample encodes the whole window it stands for."""

    def read(self, obs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        panel = self.panel.panel
        assert panel is not None
        offsets = torch.arange(1 - self.panel.lookback, 1)
        rows = obs["time"].long().reshape(-1, 1) + offsets
        context = None if panel.context is None else panel.context[rows]
        return self.panel.network(panel.features[rows], obs["weights"], context, panel.cash)


def market_with_context(periods: int = 120, seed: int = 0) -> Market:
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2010-01-01", periods=periods)
    prices = pd.DataFrame(100 * np.cumprod(1 + rng.normal(0, 0.01, (periods, 3)), 0), dates)
    prices.columns = pd.Index(["A", "B", "C"])
    return Market.from_prices(
        prices,
        features=rng.normal(size=(periods, 4, 2)).astype(np.float32),
        feature_names=("x", "y"),
        context=rng.normal(size=(periods, 2)).astype(np.float32),
        context_names=("u", "v"),
    )


@pytest.mark.parametrize("encoder", ["cnn", "fnn", "gru"])
def test_an_update_from_the_same_buffer_has_the_gradient_of_full_windows(encoder, monkeypatch):
    """One minibatch of PPO; both policies start from the same seed and see the same rollout."""
    market = market_with_context()
    settings = SMALL | {"lookback": 8, "encoder": encoder, "n_steps": 16, "batch_size": 128}
    gradients = []
    for policy in (ActorCritic, FullWindows):
        agent = AGENTS["ppo"](**settings, n_epochs=1, steps=128)
        agent._shape = Shape.of(market)
        monkeypatch.setattr(type(agent), "policy", lambda self, policy=policy: policy)
        model = agent.model(market, Task(), 0)
        torch.manual_seed(0)
        model.learn(128)
        gradients.append({k: p.grad.clone() for k, p in model.policy.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-4)
    assert max(g.abs().max() for g in gradients[0].values()) > 1e-3


def test_rows_looked_up_while_parameters_stand_still_are_those_encoded_anew():
    market = market_with_context()
    agent = AGENTS["ppo"](**SMALL, steps=64)
    agent._shape = Shape.of(market)
    policy: ActorCriticPolicy = agent.model(market, Task(), 0).policy
    observation = {
        "time": torch.arange(10, 90)[:, None],
        "weights": torch.rand(80, 4, generator=torch.manual_seed(0)),
    }
    policy.set_training_mode(True)
    encoded = policy.predict_values(observation)
    policy.set_training_mode(False)
    with torch.no_grad():
        torch.testing.assert_close(policy.predict_values(observation), encoded)
        for parameter in policy.parameters():
            parameter.mul_(1.5)
        policy.set_training_mode(False)  # as each rollout begins: the table is made anew
        assert (policy.predict_values(observation) - encoded).abs().max() > 1e-3


def test_dirichlet_against_scipy():
    scores = torch.tensor([[0.3, -1.0, 0.5, 0.0], [2.0, 0.0, 0.0, -3.0]], dtype=torch.float64)
    total = torch.tensor([1.7], dtype=torch.float64)
    distribution = DirichletDistribution().proba_distribution(scores, total)
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.15, 0.05]], dtype=torch.float64)
    powers = np.exp(scores.numpy())
    concentration = 0.1 + np.exp(1.7) * powers / powers.sum(1, keepdims=True)
    for i in range(2):
        theirs = scipy.stats.dirichlet(concentration[i])
        assert distribution.log_prob(weights)[i].item() == pytest.approx(theirs.logpdf(weights[i]))
        assert distribution.entropy()[i].item() == pytest.approx(theirs.entropy())
        np.testing.assert_allclose(distribution.mode()[i], theirs.mean())


def test_dirichlet_samples_stay_inside_and_have_finite_densities():
    torch.manual_seed(0)
    scores = torch.tensor([[8.0, 0.0, -8.0]]).repeat(2000, 1).requires_grad_()
    distribution = DirichletDistribution().proba_distribution(scores, torch.tensor([3.0]))
    weights = distribution.sample()
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(2000))
    distribution.log_prob(weights).sum().backward()
    assert scores.grad is not None and torch.isfinite(scores.grad).all()


def test_shared_gaussian_against_scipy_and_in_its_gradients_against_torch():
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 4, generator=rng, dtype=torch.float64).requires_grad_()
    log_std = torch.tensor([-0.7], dtype=torch.float64, requires_grad=True)
    actions = torch.randn(3, 4, generator=rng, dtype=torch.float64)
    ours = SharedGaussian().proba_distribution(scores, log_std)
    theirs: Any = torch.distributions.Normal(scores, log_std.exp() * torch.ones_like(scores))
    expected: Any = scipy.stats.norm(scores.detach().numpy(), np.exp(-0.7))
    np.testing.assert_allclose(
        ours.log_prob(actions).detach(), expected.logpdf(actions.numpy()).sum(1)
    )
    np.testing.assert_allclose(ours.entropy().detach(), expected.entropy().sum(1))
    mixed = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    gradients = [
        torch.autograd.grad(mixed @ (log_prob + 0.3 * entropy), (scores, log_std))
        for log_prob, entropy in (
            (ours.log_prob(actions), ours.entropy()),
            (theirs.log_prob(actions).sum(1), theirs.entropy().sum(1)),
        )
    ]
    torch.testing.assert_close(*gradients)
    assert torch.equal(ours.mode(), scores)


def test_shared_gaussian_samples_have_its_mean_and_deviation():
    torch.manual_seed(0)
    means = torch.tensor([[1.0, -3.0]]).repeat(40_000, 1)
    sample = SharedGaussian().proba_distribution(means, torch.tensor([0.5])).sample()
    torch.testing.assert_close(sample.mean(0), means[0], atol=0.03, rtol=0.0)
    torch.testing.assert_close(sample.std(0), torch.full((2,), np.exp(0.5)), rtol=0.02, atol=0.0)


def test_minibatches_are_those_of_stable_baselines_in_the_order_of_days(rng, monkeypatch):
    """Five environments of seven steps: the same draws, row for row but for their order."""
    space, actions = observation_space(3), Softmax().space(3)
    buffers = [
        kind(7, space, actions, n_envs=5) for kind in (CompactRolloutBuffer, DictRolloutBuffer)
    ]
    for _ in range(7):
        seen = {"time": rng.integers(0, 50, (5, 1)), "weights": rng.random((5, 3))}
        rest = [rng.random((5, 3)), rng.random(5), rng.random(5)]
        values = [torch.from_numpy(rng.random(5)) for _ in range(2)]
        for buffer in buffers:
            buffer.add(seen, *rest, *values)
    drawn, batches = rng.permutation(35), []
    monkeypatch.setattr(np.random, "permutation", lambda size: drawn[:size])
    for buffer in buffers:
        buffer.compute_returns_and_advantage(torch.zeros(5), np.zeros(5))
        batches.append(list(buffer.get(12)))
    assert len(batches[0]) == len(batches[1]) == 3
    for ours, theirs in zip(*batches, strict=True):
        order = theirs.observations["time"][:, 0].argsort(stable=True)
        assert not torch.equal(order, torch.arange(len(order)))
        for name in ("time", "weights"):
            found, expected = ours.observations[name], theirs.observations[name]
            torch.testing.assert_close(found, expected[order], check_dtype=False)
        for found, expected in zip(ours[1:], theirs[1:], strict=True):
            torch.testing.assert_close(found, expected[order])


def test_a_million_transitions_of_sac_fit_in_300_megabytes():
    space, n = observation_space(20), 1000
    buffer = CompactReplayBuffer(n, space, Softmax().space(20), n_envs=1)
    arrays: list[Any] = [*buffer.observations.values(), *buffer.next_observations.values()]
    arrays += [buffer.actions, buffer.rewards, buffer.dones, buffer.timeouts]
    assert sum(array.nbytes for array in arrays) * (1_000_000 / n) <= 300e6


DIVERGING: dict[str, dict[str, Any]] = {
    "a2c": {"n_steps": 8},
    "dqn": {},
    "policy_gradient": {"steps": 20, "lookback": 3, "width": 16, "depth": 1},
    "ppo": {"n_steps": 8},
    "qrdqn": {"learning_starts": 100},
    "recurrent_ppo": {"n_steps": 8},
    "sac": {"learning_starts": 100},
    "td3": {"learning_starts": 100},
    "tqc": {"learning_starts": 100},
}


OTHER_RATES = (1e5, 1e8, 1e11, 1e14, 1e18, 1e22, 1e30)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")  # of statistics
@pytest.mark.parametrize(
    "rate", [1e3, 1e25, *(pytest.param(rate, marks=pytest.mark.soak) for rate in OTHER_RATES)]
)
@pytest.mark.parametrize("name", sorted(DIVERGING))
def test_divergence_stops_at_once_and_leaves_the_last_good_state(name, rate):
    settings: dict[str, Any] = {"steps": 3_000} | DIVERGING[name]
    own = {} if name == "policy_gradient" else SMALL
    agent = AGENTS[name](**own, **settings, learning_rate=rate, evaluations=1)
    market = revealing_market(120)
    words = rf"^{name} diverged: .* at step \d+; .* lower learning_rate \("
    with pytest.raises(DivergedError, match=words) as error:
        agent.fit(market)
    assert 0 < error.value.step < settings["steps"]
    assert error.value.good_step < error.value.step
    weights = agent.act(market, np.ones(3) / 3)
    assert np.isfinite(weights).all()


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_dirichlet_policies_learn(name):
    market, fresh = revealing_market(), revealing_market(seed=1)
    settings = SMALL | {"steps": 8_000, "n_steps": 16, "gamma": 0.5, "learning_rate": 3e-3}
    agent = AGENTS[name](**settings, distribution="dirichlet")
    agent.fit(market, fresh, task=Task(cost=None))
    path = roll(agent, fresh, Task(cost=None))
    assert np.log1p(path.returns).mean() > 0.8 * np.log1p(0.01)


def test_patience_ends_training_early():
    """A rate so small that no evaluation betters the first."""
    curves = Curves()
    settings = SMALL | {"steps": 20_000, "evaluations": 20, "n_steps": 32, "batch_size": 256}
    agent = AGENTS["ppo"](**settings, patience=3, learning_rate=1e-12)
    agent.fit(revealing_market(120), revealing_market(80, seed=1), monitor=curves)
    steps = [step for step, values in curves.rows if "eval/sharpe" in values]
    assert max(steps) < 8_000


def test_patience_waits_for_a_trained_state():
    """The evaluation of the untrained state counts neither as the best nor as a worse one."""
    curves = Curves()
    settings = SMALL | {"steps": 2_000, "evaluations": 4, "n_steps": 16, "batch_size": 256}
    agent = AGENTS["ppo"](**settings, patience=1)
    agent.fit(revealing_market(120), revealing_market(80, seed=1), monitor=curves)
    kept = [values["eval/kept_step"] for _, values in curves.rows if "eval/kept_step" in values]
    assert kept and kept[0] > 0


def test_what_is_kept_was_trained():
    """Off policy the first update comes after `learning_starts`; what came before is not kept."""
    curves = Curves()
    settings = SMALL | {"steps": 1_000, "evaluations": 10, "learning_starts": 600}
    agent = AGENTS["sac"](**settings, batch_size=32, learning_rate=1e-2)
    agent.fit(revealing_market(120), revealing_market(80, seed=1), monitor=curves)
    steps = [step for step, values in curves.rows if "eval/sharpe" in values]
    kept = [values["eval/kept_step"] for _, values in curves.rows if "eval/kept_step" in values]
    assert sum(step < 600 for step in steps) >= 5 and kept[0] > 600


def test_schedules():
    for schedule, half in (("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)):
        settings = AGENTS["ppo"](schedule=schedule, learning_rate=2e-3).settings
        assert settings.rate(1.0) == pytest.approx(2e-3)
        assert settings.rate(0.5) == pytest.approx(2e-3 * half)
        assert settings.rate(0.0) == pytest.approx(2e-3 if schedule == "constant" else 0.0)
    with pytest.raises(SettingError, match="schedule"):
        AGENTS["ppo"](schedule="steps")
