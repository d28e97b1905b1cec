"""The usual way to train the network of `ppo`: whole windows from sixteen environments."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import ObservationWrapper, spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor
from torch.nn import functional

from agents.networks import NetworkSettings
from agents.panel_network import Shape
from agents.policies import ActorCritic
from benchmarks.games import LOOKBACK, RATE
from envs import PortfolioEnv
from envs.costs import ProportionalCost
from market import Market

NUM_ENVS, N_STEPS = 16, 128


class Windows(ObservationWrapper):
    """What the network reads of a portfolio environment: features and weights, float32."""

    def __init__(self, env: PortfolioEnv) -> None:
        super().__init__(env)
        inner: Any = env.observation_space
        names = ("features", "weights")
        self.observation_space = spaces.Dict({name: inner[name] for name in names})

    def observation(self, observation: Any) -> dict[str, np.ndarray]:
        """Those two of all there is."""
        return {name: observation[name] for name in ("features", "weights")}


class WindowActorCritic(ActorCritic):
    """The network of `ActorCritic` on windows that come with each observation.

    Its convolutions are those of torch over each window, as they are usually written; parameters
    and results are the same.
    """

    def read(self, obs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Scores (B, N) and values (B,)."""
        network, n_assets = self.panel.network, obs["weights"].shape[1]
        cash = torch.arange(n_assets, device=obs["weights"].device) == n_assets - 1
        table = network.mix(convolved(network.encoder, obs["features"]), None, cash)
        scores, values = network.decide(table, obs["weights"])
        return scores, values


def convolved(encoder: Any, windows: Tensor) -> Tensor:
    """What the encoder `cnn` makes of windows (B, L, N, F), by dilated convolutions: (B, N, H)."""
    batch, days, n_assets, n_features = windows.shape
    series = windows.permute(0, 2, 3, 1).reshape(batch * n_assets, n_features, days)
    width, first = encoder.width, encoder.first
    weight = first.weight.view(width, encoder.kernel, n_features).transpose(1, 2)
    x = functional.relu(functional.conv1d(series, weight, first.bias))
    for i, join in enumerate(encoder.joins):
        earlier, later = join.weight.split(width, 1)
        passing = torch.eye(width, device=x.device)
        weight = torch.stack([earlier, later + passing], -1)
        dilation = encoder.stride * 2**i
        x = functional.relu(functional.conv1d(x, weight, join.bias, dilation=dilation))
    return x[..., -1].view(batch, n_assets, width)


def ppo(market: Market, network: NetworkSettings) -> PPO:
    """Stable-baselines3's own, 16 environments, its defaults but for shorter rollouts.

    10 epochs of minibatches of 64, as by default; 128 decisions of each environment between
    updates where 2,048 are usual, which makes no difference to the time of a step.
    """
    settings: dict[str, Any] = {
        "lookback": LOOKBACK,
        "actions": "softmax",
        "cost": ProportionalCost(RATE),
        "episode_length": 252,
        "random_start": True,
    }
    games = DummyVecEnv([lambda: Windows(PortfolioEnv(market, **settings))] * NUM_ENVS)
    policy = {"shape": Shape.of(market), "network": network}
    return PPO(
        WindowActorCritic, games, n_steps=N_STEPS, policy_kwargs=policy, seed=0, device="cpu"
    )
