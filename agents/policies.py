"""Policies for stable-baselines3 around an `AllocationNetwork`, on compact observations.

An observation names the newest known day and the weights, see `agents.panel_network`. Actor and
value of `ActorCritic` share one network; `SoftActorCritic` has one for the actor and one for each
critic, which is given the weights asked for beside those held.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    Distribution,
    SquashedDiagGaussianDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel, BasePolicy
from stable_baselines3.common.policies import ContinuousCritic as BaseCritic
from stable_baselines3.sac.policies import Actor as BaseActor
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor, nn

from agents.distributions import DirichletDistribution
from agents.networks import NetworkSettings
from agents.panel_network import PanelNetwork, Shape

Observation = dict[str, Tensor]
LOG_STD = (-5.0, 2.0)


class ActorCritic(ActorCriticPolicy):
    """Scores as the mean of a Gaussian, or weights from a Dirichlet distribution; and values.

    Args:
        shape: Of the market.
        network: Sizes and kinds.
        distribution: "gaussian" over scores whose softmax is the target, with one standard
            deviation for all assets; or "dirichlet" over the target itself.
        log_std: Logarithm of the first standard deviation.

    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Any,
        *,
        shape: Shape,
        network: NetworkSettings,
        distribution: str = "gaussian",
        log_std: float = 0.0,
        use_sde: bool = False,
    ) -> None:
        self.shape, self.network_settings = shape, network
        self.kind, self.first_log_std = distribution, log_std
        super().__init__(observation_space, action_space, lr_schedule)

    def _build(self, lr_schedule: Any) -> None:
        self.panel = PanelNetwork(self.shape, self.network_settings)
        if self.kind == "dirichlet":
            self.action_dist = DirichletDistribution()
            first = math.log(2.0 * self.shape.n_assets)  # concentrations of 2: spread out
            self.log_total = nn.Parameter(torch.full((1,), first))
        else:
            self.log_std = nn.Parameter(torch.full((1,), self.first_log_std))
        rate = lr_schedule(1)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=rate, eps=1e-5)

    def set_training_mode(self, mode: bool) -> None:
        """Off training, parameters stand still: each day is encoded once."""
        super().set_training_mode(mode)
        self.panel.stand(not mode)

    def forward(  # type: ignore[override]  # compact observations
        self, obs: Observation, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (B, N), values (B, 1), log probabilities (B,)."""
        distribution, values = self._heads(obs)
        actions = distribution.get_actions(deterministic)
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(  # type: ignore[override]  # compact observations
        self, obs: Observation, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values (B, 1), log probabilities and entropies (B,)."""
        distribution, values = self._heads(obs)
        return values, distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: Observation) -> Distribution:  # type: ignore[override]
        """Of actions."""
        return self._heads(obs)[0]

    def predict_values(self, obs: Observation) -> Tensor:  # type: ignore[override]
        """Values (B, 1)."""
        return self._heads(obs)[1]

    def read(self, obs: Observation) -> tuple[Tensor, Tensor]:
        """Scores (B, N) and values (B,)."""
        scores, values = self.panel(rows_of(obs), obs["weights"])
        return scores, values

    def _heads(self, obs: Observation) -> tuple[Distribution, Tensor]:
        scores, values = self.read(obs)
        parameter = self.log_total if self.kind == "dirichlet" else self.log_std
        distribution = self.action_dist.proba_distribution(scores, parameter)
        return distribution, values.unsqueeze(1)


class SoftActorCritic(SACPolicy):
    """Squashed Gaussian over scores, two critics and their targets.

    Args:
        shape: Of the market.
        network: Sizes and kinds.

    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Any,
        *,
        shape: Shape,
        network: NetworkSettings,
        use_sde: bool = False,
    ) -> None:
        self.shape, self.network_settings = shape, network
        super().__init__(observation_space, action_space, lr_schedule)

    def make_actor(self, features_extractor: Any = None) -> Actor:
        """The actor's network."""
        return Actor(**self._sizes()).to(self.device)

    def make_critic(self, features_extractor: Any = None) -> Critic:
        """The critics' networks."""
        return Critic(**self._sizes()).to(self.device)

    def _sizes(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "shape": self.shape,
            "network": self.network_settings,
        }


class Actor(BaseActor):
    """Scores are means, and the pooled value is the logarithm of the standard deviation."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        shape: Shape,
        network: NetworkSettings,
    ) -> None:
        BasePolicy.__init__(self, observation_space, action_space, squash_output=True)
        self.use_sde = False
        self.action_dist = SquashedDiagGaussianDistribution(shape.n_assets)  # type: ignore[assignment]
        self.panel = PanelNetwork(shape, network)

    def get_action_dist_params(  # type: ignore[override]  # compact observations
        self, obs: Observation
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Means and logarithms of standard deviations, (B, N) each."""
        scores, values = self.panel(rows_of(obs), obs["weights"])
        log_std = values.clamp(*LOG_STD).unsqueeze(1).expand_as(scores)
        return scores, log_std, {}


class Critic(BaseCritic):
    """Two values of weights asked for: w . scores + pooled value, given held, w and |w - held|."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        shape: Shape,
        network: NetworkSettings,
    ) -> None:
        BaseModel.__init__(self, observation_space, action_space)
        self.share_features_extractor, self.n_critics = False, 2
        self.bound = float(action_space.high[0])
        panels = [PanelNetwork(shape, network, n_inputs=3, salt=salt) for salt in (1, 2)]
        self.panels = nn.ModuleList(panels)

    def forward(  # type: ignore[override]  # compact observations
        self, obs: Observation, actions: Tensor
    ) -> tuple[Tensor, ...]:
        """One (B, 1) for each critic, for scaled actions (B, N) in [-1, 1]."""
        return tuple(self._value(panel, obs, actions) for panel in self.panels)

    def q1_forward(self, obs: Observation, actions: Tensor) -> Tensor:  # type: ignore[override]
        """The first alone."""
        return self._value(self.panels[0], obs, actions)

    def _value(self, panel: nn.Module, obs: Observation, actions: Tensor) -> Tensor:
        held, target = obs["weights"], (self.bound * actions).softmax(-1)
        inputs = torch.stack([held, target, (target - held).abs()], -1)
        scores, values = panel(rows_of(obs), inputs)
        total: Tensor = (scores * target).sum(-1) + values
        return total.unsqueeze(1)


def rows_of(obs: Observation) -> Tensor:
    """Row numbers, (B,)."""
    return obs["time"].long().reshape(-1)
