"""Values of a lattice of allocations as policies for DQN and QR-DQN.

Both take the greatest of the slow network's values of tomorrow. Double Q-learning (van Hasselt et
al. 2016), which neither library has, is the slow network showing but one choice: the one that the
network under training values most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from sb3_contrib.qrdqn.policies import QuantileNetwork as BaseQuantileNetwork
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.dqn.policies import QNetwork as BaseNetwork
from torch import Tensor

from agents.allocation_values import AllocationValues
from agents.policies import Observation, rows_of
from envs.action_base import Discretisation
from envs.menus import lattice_points, portfolio_name
from market import Market


@dataclass(frozen=True)
class PointsAndHold(Discretisation):
    """A lattice's allocations, then "hold": keep what is held, and pay nothing.

    Args:
        k: Weights come in steps of 1/k.

    """

    k: int

    def size(self, n_assets: int) -> int:
        """Points and one."""
        return len(lattice_points(n_assets, self.k)) + 1

    def names(self, market: Market) -> list[str]:
        """Such as "50 % sp500, 50 % cash", and "hold"."""
        points = lattice_points(market.n_assets, self.k)
        return [*(portfolio_name(point, market) for point in points), "hold"]

    def target(self, action: Any, held: np.ndarray, t: Any) -> np.ndarray:
        """The chosen point, or what is held."""
        choice = self.choice(action, held)[..., None]
        points = lattice_points(held.shape[-1], self.k)
        chosen = points[np.minimum(choice[..., 0], len(points) - 1)]
        kept = held / held.sum(-1, keepdims=True)
        return np.where(choice == len(points), kept, chosen)


class LatticePolicy(DQNPolicy):
    """Two copies, one slow, of `AllocationValues`.

    Args:
        values: Builds one, on the CPU.
        double: Whether the slow copy values what the other one chooses.

    """

    q_net: QNetwork
    q_net_target: QNetwork

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Any,
        *,
        values: Any,
        double: bool,
    ) -> None:
        self.make_values = values
        super().__init__(observation_space, action_space, lr_schedule)
        if double:
            self.q_net_target.choose_by(self.q_net.values)

    def make_q_net(self) -> QNetwork:
        """The values as stable-baselines3 asks for them."""
        values = self.make_values()
        return QNetwork(self.observation_space, self.action_space, values).to(self.device)


class QuantileLatticePolicy(QRDQNPolicy):
    """The same for QR-DQN, with `AllocationValues` of several quantiles."""

    quantile_net: QuantileNetwork
    quantile_net_target: QuantileNetwork

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Any,
        *,
        values: Any,
        double: bool,
        n_quantiles: int,
        optimizer_class: Any = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.make_values = values
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            n_quantiles=n_quantiles,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        if double:
            self.quantile_net_target.choose_by(self.quantile_net.values)

    def make_quantile_net(self) -> QuantileNetwork:
        """The values as sb3-contrib asks for them."""
        values = self.make_values()
        return QuantileNetwork(self.observation_space, self.action_space, values).to(self.device)


class _Choices(BasePolicy):
    """Values of all choices; or of one, where another network chooses."""

    def __init__(
        self, observation_space: spaces.Space, action_space: Any, values: AllocationValues
    ) -> None:
        BasePolicy.__init__(self, observation_space, action_space)
        self.values = values
        self._chooser: tuple[AllocationValues, ...] = ()  # in a tuple, to be no part of this module

    def choose_by(self, chooser: AllocationValues) -> None:
        """Show only the value of what this network would choose."""
        self._chooser = (chooser,)

    def shown(self, obs: Observation) -> Tensor:
        """Values (B, A + 1, Q) of the points and of holding, or (B, 1, Q) of the chosen one.

        That is the one the observation says was taken, or what another network chooses.
        """
        rows, held = rows_of(obs), obs["weights"]
        if "taken" in obs:
            return self.values.taken_quantiles(rows, held, obs["taken"].long())
        worth = self.values.choice_quantiles(rows, held)
        for chooser in self._chooser:
            best = chooser.choices(rows, held).argmax(1)
            worth = worth[torch.arange(len(best), device=best.device), best].unsqueeze(1)
        return worth


class QNetwork(_Choices, BaseNetwork):
    """For DQN."""

    def forward(self, obs: Observation) -> Tensor:  # type: ignore[override]
        """Values (B, A + 1), or (B, 1)."""
        return self.shown(obs).squeeze(-1)


class QuantileNetwork(_Choices, BaseQuantileNetwork):
    """For QR-DQN."""

    def forward(self, obs: Observation) -> Tensor:  # type: ignore[override]
        """Quantiles (B, Q, A + 1), or (B, Q, 1)."""
        return self.shown(obs).transpose(1, 2)
