"""Values of a lattice of allocations as a policy for stable-baselines3's DQN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
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

    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Any,
        *,
        values: Any,
    ) -> None:
        self.make_values = values
        super().__init__(observation_space, action_space, lr_schedule)

    def make_q_net(self) -> QNetwork:
        """The values as stable-baselines3 asks for them."""
        values = self.make_values()
        return QNetwork(self.observation_space, self.action_space, values).to(self.device)


class QNetwork(BaseNetwork):
    """Values (B, A + 1) of the points and of holding."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: Any,
        values: AllocationValues,
    ) -> None:
        BasePolicy.__init__(self, observation_space, action_space)
        self.values = values

    def forward(self, obs: Observation) -> Tensor:  # type: ignore[override]
        """Of compact observations."""
        return self.values.choices(rows_of(obs), obs["weights"])
