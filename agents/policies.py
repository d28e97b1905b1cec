"""The on-policy policy around an `AllocationNetwork`; those with critics are in `agents.critics`.

An observation names the newest known day and the weights, see `agents.panel_network`. Actor and
value share one network unless told otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from agents.distributions import DirichletDistribution, SharedGaussian
from agents.networks import NetworkSettings
from agents.panel_network import PanelNetwork, Shape, readers

Observation = dict[str, Tensor]


class ActorCritic(ActorCriticPolicy):
    """Scores as the mean of a Gaussian, or weights from a Dirichlet distribution; and values.

    Args:
        shape: Of the market.
        network: Sizes and kinds.
        distribution: "gaussian" over scores whose softmax is the target, with one standard
            deviation for all assets; or "dirichlet" over the target itself.
        log_std: Logarithm of the first standard deviation.
        band: Whether a Gaussian has one dimension more, the width of a no-trade band (see
            `agents.banded_scores`); its mean is a second pooled value.
        own_critic: Whether values have a network of their own, and are held . scores + pooled.

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
        band: bool = False,
        own_critic: bool = False,
        use_sde: bool = False,
    ) -> None:
        self.shape, self.network_settings = shape, network
        self.kind, self.first_log_std, self.band = distribution, log_std, band
        self.own_critic = own_critic
        ActorCriticPolicy.__init__(self, observation_space, action_space, lr_schedule)

    def _build(self, lr_schedule: Any) -> None:
        n_values = 2 if self.band else 1
        self.panel = PanelNetwork(self.shape, self.network_settings, n_values=n_values)
        self.critic = None
        if self.own_critic:
            self.critic = PanelNetwork(self.shape, self.network_settings, salt=1)
        if self.kind == "dirichlet":
            self.action_dist = DirichletDistribution()
            first = math.log(2.0 * self.shape.n_assets)  # concentrations of 2: spread out
            self.log_total = nn.Parameter(torch.full((1,), first))
        else:
            self.action_dist = SharedGaussian()
            self.log_std = nn.Parameter(torch.full((1,), self.first_log_std))
        rate = lr_schedule(1)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=rate, eps=1e-5)

    def set_training_mode(self, mode: bool) -> None:
        """Off training, parameters stand still: each day is encoded once."""
        super().set_training_mode(mode)
        for reader in readers(self):
            reader.stand(not mode)

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
        return self.distribute(self.parted(*self.panel(rows_of(obs), obs["weights"]))[0])

    def predict_values(self, obs: Observation) -> Tensor:  # type: ignore[override]
        """Values (B, 1)."""
        if self.critic is not None:
            return self._valued(self.critic, obs).unsqueeze(1)
        return self._heads(obs)[1]

    def read(self, obs: Observation) -> tuple[Tensor, Tensor]:
        """Scores (B, N), or (B, N + 1) with a band, and values (B,)."""
        scores, values = self.parted(*self.panel(rows_of(obs), obs["weights"]))
        return scores, values if self.critic is None else self._valued(self.critic, obs)

    def _valued(self, critic: PanelNetwork, obs: Observation) -> Tensor:
        each, pooled = critic(rows_of(obs), obs["weights"])
        return (each * obs["weights"]).sum(-1) + pooled

    def parted(self, scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What actions are made of, and values (B,), from the network's two outputs."""
        if not self.band:
            return scores, values
        return torch.cat([scores, values[:, 1:]], -1), values[:, 0]

    def _heads(self, obs: Observation) -> tuple[Distribution, Tensor]:
        scores, values = self.read(obs)
        return self.distribute(scores), values.unsqueeze(1)

    def distribute(self, scores: Tensor) -> Distribution:
        """The distribution of actions for scores (B, N)."""
        parameter = self.log_total if self.kind == "dirichlet" else self.log_std
        return self.action_dist.proba_distribution(scores, parameter)


def rows_of(obs: Observation) -> Tensor:
    """Row numbers, (B,)."""
    return obs["time"].long().reshape(-1)
