"""The on-policy policy around an `AllocationNetwork`; those with critics are in `agents.critics`.

An observation names the newest known day and the weights, see `agents.panel_network`. Actor and
value share one network.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from agents.distributions import DirichletDistribution
from agents.networks import NetworkSettings
from agents.panel_network import PanelNetwork, Shape

Observation = dict[str, Tensor]


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
        ActorCriticPolicy.__init__(self, observation_space, action_space, lr_schedule)

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
        return self.distribute(scores), values.unsqueeze(1)

    def distribute(self, scores: Tensor) -> Distribution:
        """The distribution of actions for scores (B, N)."""
        parameter = self.log_total if self.kind == "dirichlet" else self.log_std
        return self.action_dist.proba_distribution(scores, parameter)


def rows_of(obs: Observation) -> Tensor:
    """Row numbers, (B,)."""
    return obs["time"].long().reshape(-1)
