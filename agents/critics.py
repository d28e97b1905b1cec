"""Actors and critics of the off-policy agents around `AllocationNetwork`s, on compact observations.

The actor and each critic have a network of their own. A critic is given the weights asked for
beside those held, and values the portfolio as a sum over its assets:

    Q(t, held, w) = w . scores + pooled          scores and pooled see held, w and |w - held|
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib.tqc.policies import Critic as BaseQuantileCritic
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.policies import ContinuousCritic as BaseCritic
from stable_baselines3.sac.policies import Actor as BaseActor
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import Actor as BaseDeterministicActor
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from agents.networks import NetworkSettings
from agents.panel_network import PanelNetwork, Shape
from agents.policies import Observation, rows_of

LOG_STD = (-5.0, 2.0)
N_CRITICS = 2


class _Made(BasePolicy):
    """What the three policies share: how actor and critics are made.

    Args:
        shape: Of the market.
        network: Sizes and kinds.

    """

    actor_kind: type[nn.Module]
    critic_kind: type[nn.Module]

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Any,
        *,
        shape: Shape,
        network: NetworkSettings,
        use_sde: bool = False,
        **more: Any,
    ) -> None:
        self.shape, self.network_settings, self.of_critic = shape, network, more
        super().__init__(observation_space, action_space, lr_schedule)

    def make_actor(self, features_extractor: Any = None) -> Any:
        """The actor's network."""
        return self.actor_kind(**self._sizes()).to(self.device)

    def make_critic(self, features_extractor: Any = None) -> Any:
        """The critics' networks."""
        return self.critic_kind(**self._sizes(), **self.of_critic).to(self.device)

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


class DeterministicActor(BaseDeterministicActor):
    """Scores, squashed by tanh."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        shape: Shape,
        network: NetworkSettings,
    ) -> None:
        BasePolicy.__init__(self, observation_space, action_space, squash_output=True)
        self.panel = PanelNetwork(shape, network)

    def forward(self, obs: Observation) -> Tensor:  # type: ignore[override]
        """Scaled actions (B, N) in [-1, 1]."""
        scores, _ = self.panel(rows_of(obs), obs["weights"])
        return torch.tanh(scores)


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
        self.share_features_extractor, self.n_critics = False, N_CRITICS
        self.bound = float(action_space.high[0])
        self.panels = _panels(shape, network)

    def forward(  # type: ignore[override]  # compact observations
        self, obs: Observation, actions: Tensor
    ) -> tuple[Tensor, ...]:
        """One (B, 1) for each critic, for scaled actions (B, N) in [-1, 1]."""
        return tuple(asset_values(panel, obs, self.bound * actions) for panel in self.panels)

    def q1_forward(self, obs: Observation, actions: Tensor) -> Tensor:  # type: ignore[override]
        """The first alone."""
        return asset_values(self.panels[0], obs, self.bound * actions)


class QuantileCritic(BaseQuantileCritic):
    """The same with so many quantiles of the return, which differ in the pooled part alone."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        shape: Shape,
        network: NetworkSettings,
        n_quantiles: int,
    ) -> None:
        BaseModel.__init__(self, observation_space, action_space)
        self.share_features_extractor, self.n_critics = False, N_CRITICS
        self.n_quantiles, self.quantiles_total = n_quantiles, N_CRITICS * n_quantiles
        self.bound = float(action_space.high[0])
        self.panels = _panels(shape, network, n_quantiles)

    def forward(self, obs: Observation, action: Tensor) -> Tensor:  # type: ignore[override]
        """Quantiles (B, critics, Q) for scaled actions (B, N) in [-1, 1]."""
        each = [asset_values(panel, obs, self.bound * action) for panel in self.panels]
        return torch.stack(each, 1)


class SoftActorCritic(_Made, SACPolicy):
    """Squashed Gaussian over scores, two critics and their targets."""

    actor_kind, critic_kind = Actor, Critic


class DeterministicActorCritic(_Made, TD3Policy):
    """Scores squashed by tanh, two critics, and targets of all three."""

    actor_kind, critic_kind = DeterministicActor, Critic


class QuantileActorCritic(_Made, TQCPolicy):
    """Squashed Gaussian over scores, and two critics of `n_quantiles` each."""

    actor_kind, critic_kind = Actor, QuantileCritic


def asset_values(panel: nn.Module, obs: Observation, scores: Tensor) -> Tensor:
    """Values of the weights that are the softmax of scores (B, N): (B, 1), or quantiles (B, Q)."""
    held, target = obs["weights"], scores.softmax(-1)
    inputs = torch.stack([held, target, (target - held).abs()], -1)
    each, pooled = panel(rows_of(obs), inputs)
    total: Tensor = (each * target).sum(-1, keepdim=True) + pooled.view(len(target), -1)
    return total


def _panels(shape: Shape, network: NetworkSettings, n_values: int = 1) -> nn.ModuleList:
    """Networks of the critics, each with parameters of its own."""
    salts = range(1, N_CRITICS + 1)
    return nn.ModuleList(
        PanelNetwork(shape, network, n_inputs=3, n_values=n_values, salt=salt) for salt in salts
    )
