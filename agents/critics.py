"""Actors and critics of the off-policy agents around `AllocationNetwork`s, on compact observations.

The actor and each critic have a network of their own. A critic is given the weights asked for
beside those held, and values the portfolio as a sum over its assets:

    Q(t, held, w) = w . scores + pooled          scores and pooled see held, w and |w - held|

or, with a known price, as what is held after the trade is worth, less what the trade costs
(`agents.allocation_values`):

    Q(t, held, w) = W(t, w) - price(held, w)
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
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

from agents.allocation_values import AllocationValues
from agents.banded_scores import banded_plan
from agents.networks import NetworkSettings
from agents.panel_network import SALT, PanelNetwork, Shape
from agents.policies import Observation, rows_of

LOG_STD = (-5.0, 2.0)
N_CRITICS = 2


class _Made(BasePolicy):
    """What the three policies share: how actor and critics are made.

    Args:
        shape: Of the market.
        network: Sizes and kinds.
        band: Whether actions have one dimension more, see `agents.banded_scores`.
        log_std: First logarithm of an actor's standard deviation; None: it has none.
        known_price: Whether critics take a known price of the trade off.

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
        band: bool = False,
        log_std: float | None = None,
        known_price: bool = False,
        use_sde: bool = False,
        **more: Any,
    ) -> None:
        self.shape, self.network_settings, self.band = shape, network, band
        self.of_actor = {} if log_std is None else {"log_std": log_std}
        self.of_critic = {"known_price": known_price, **more}
        super().__init__(observation_space, action_space, lr_schedule)

    def make_actor(self, features_extractor: Any = None) -> Any:
        """The actor's network."""
        return self.actor_kind(**self._sizes(), **self.of_actor).to(self.device)

    def make_critic(self, features_extractor: Any = None) -> Any:
        """The critics' networks."""
        return self.critic_kind(**self._sizes(), **self.of_critic).to(self.device)

    def _sizes(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "shape": self.shape,
            "network": self.network_settings,
            "band": self.band,
        }


class Actor(BaseActor):
    """Scores are means, and the pooled value is the logarithm of the standard deviation."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        shape: Shape,
        network: NetworkSettings,
        band: bool = False,
        log_std: float = 0.0,
    ) -> None:
        BasePolicy.__init__(self, observation_space, action_space, squash_output=True)
        self.use_sde, self.first_log_std = False, log_std
        self.action_dist = SquashedDiagGaussianDistribution(shape.n_assets + band)  # type: ignore[assignment]
        self.panel = PanelNetwork(shape, network, n_values=1 + band)

    def get_action_dist_params(  # type: ignore[override]  # compact observations
        self, obs: Observation
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Means and logarithms of standard deviations, (B, N) or (B, N + 1) each."""
        scores, values = self.panel(rows_of(obs), obs["weights"])
        values = values.view(len(scores), -1)
        means = torch.cat([scores, values[:, 1:]], -1)
        log_std = self.first_log_std + values[:, :1]
        return means, log_std.clamp(*LOG_STD).expand_as(means), {}


class DeterministicActor(BaseDeterministicActor):
    """Scores, squashed by tanh."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        shape: Shape,
        network: NetworkSettings,
        band: bool = False,
    ) -> None:
        assert not band, "inside a band nothing tells an actor without chance where to go"
        BasePolicy.__init__(self, observation_space, action_space, squash_output=True)
        self.panel = PanelNetwork(shape, network)

    def forward(self, obs: Observation) -> Tensor:  # type: ignore[override]
        """Scaled actions (B, N) in [-1, 1]."""
        scores, _ = self.panel(rows_of(obs), obs["weights"])
        return torch.tanh(scores)


class Critic(BaseCritic):
    """Two values of weights asked for, of networks of their own."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        shape: Shape,
        network: NetworkSettings,
        band: bool = False,
        known_price: bool = False,
    ) -> None:
        BaseModel.__init__(self, observation_space, action_space)
        self.share_features_extractor, self.n_critics = False, N_CRITICS
        self.each = _valuers(shape, network, action_space, band, known_price)

    def forward(  # type: ignore[override]  # compact observations
        self, obs: Observation, actions: Tensor
    ) -> tuple[Tensor, ...]:
        """One (B, 1) for each critic, for scaled actions (B, N) in [-1, 1]."""
        return tuple(valuer(obs, actions) for valuer in self.each)

    def q1_forward(self, obs: Observation, actions: Tensor) -> Tensor:  # type: ignore[override]
        """The first alone."""
        worth: Tensor = self.each[0](obs, actions)
        return worth


class QuantileCritic(BaseQuantileCritic):
    """The same with so many quantiles of the return, which differ in the pooled part alone."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        shape: Shape,
        network: NetworkSettings,
        n_quantiles: int,
        band: bool = False,
        known_price: bool = False,
    ) -> None:
        BaseModel.__init__(self, observation_space, action_space)
        self.share_features_extractor, self.n_critics = False, N_CRITICS
        self.n_quantiles, self.quantiles_total = n_quantiles, N_CRITICS * n_quantiles
        self.each = _valuers(shape, network, action_space, band, known_price, n_quantiles)

    def forward(self, obs: Observation, action: Tensor) -> Tensor:  # type: ignore[override]
        """Quantiles (B, critics, Q) for scaled actions (B, N) in [-1, 1]."""
        return torch.stack([valuer(obs, action) for valuer in self.each], 1)


class SoftActorCritic(_Made, SACPolicy):
    """Squashed Gaussian over scores, two critics and their targets."""

    actor_kind, critic_kind = Actor, Critic


class DeterministicActorCritic(_Made, TD3Policy):
    """Scores squashed by tanh, two critics, and targets of all three."""

    actor_kind, critic_kind = DeterministicActor, Critic


class QuantileActorCritic(_Made, TQCPolicy):
    """Squashed Gaussian over scores, and two critics of `n_quantiles` each."""

    actor_kind, critic_kind = Actor, QuantileCritic


class Valuer(nn.Module):
    """Values of scaled actions (B, N), or (B, N + 1) with a band: (B, 1), or quantiles (B, Q)."""

    def __init__(
        self,
        bound: float,
        band: bool,
        shape: Shape,
        network: NetworkSettings,
        n_quantiles: int | None,
    ) -> None:
        super().__init__()
        self.bound, self.band = bound, band
        self.build(shape, network, n_quantiles)

    @abstractmethod
    def build(self, shape: Shape, network: NetworkSettings, n_quantiles: int | None) -> None:
        """Make the network."""

    def target(self, held: Tensor, actions: Tensor) -> Tensor:
        """The weights asked for, (B, N)."""
        scores = self.bound * actions
        return banded_plan(scores).target(held) if self.band else scores.softmax(-1)


class HeldAndAsked(Valuer):
    """w . scores + pooled value, of a network that is given held, w and |w - held|."""

    def build(self, shape: Shape, network: NetworkSettings, n_quantiles: int | None) -> None:
        """See `Valuer`."""
        self.panel = PanelNetwork(shape, network, n_inputs=3, n_values=n_quantiles or 1)

    def forward(self, obs: Observation, actions: Tensor) -> Tensor:
        """See `Valuer`."""
        held = obs["weights"]
        target = self.target(held, actions)
        inputs = torch.stack([held, target, (target - held).abs()], -1)
        each, pooled = self.panel(rows_of(obs), inputs)
        total: Tensor = (each * target).sum(-1, keepdim=True) + pooled.view(len(target), -1)
        return total


class AfterTheTrade(Valuer):
    """W of what is held after the trade, less the price of the trade."""

    def build(self, shape: Shape, network: NetworkSettings, n_quantiles: int | None) -> None:
        """See `Valuer`."""
        none = torch.zeros(0, shape.n_assets)
        self.worth = AllocationValues(shape, network, none, dueling=True, n_quantiles=n_quantiles)

    def forward(self, obs: Observation, actions: Tensor) -> Tensor:
        """See `Valuer`."""
        held = obs["weights"].unsqueeze(1)
        target = self.target(obs["weights"], actions).unsqueeze(1)
        worth = self.worth.quantiles(rows_of(obs), target).squeeze(1)
        return worth - self.worth.price(held, target).squeeze(1)


def _valuers(
    shape: Shape,
    network: NetworkSettings,
    action_space: spaces.Box,
    band: bool,
    known_price: bool,
    n_quantiles: int | None = None,
) -> nn.ModuleList:
    """Of the critics, each with parameters of its own."""
    kind = AfterTheTrade if known_price else HeldAndAsked
    bound, salts = float(action_space.high[0]), range(1, N_CRITICS + 1)
    salted = [dataclasses.replace(shape, seed=shape.seed + SALT * salt) for salt in salts]
    return nn.ModuleList(kind(bound, band, each, network, n_quantiles) for each in salted)
