"""Quantile regression DQN (Dabney et al. 2018) over a lattice of allocations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from sb3_contrib import QRDQN
from torch import nn

from agents.allocation_values import AllocationValues
from agents.dqn import LatticeAgent, LatticeSettings
from agents.lattice_policy import QuantileLatticePolicy
from agents.learner import LearnerSettings
from agents.settings import Space, require
from envs.menus import lattice_points


@dataclass(frozen=True, kw_only=True)
class QRDQNSettings(LatticeSettings):
    """Settings of `qrdqn`."""

    n_quantiles: int = 10  # of the return of each allocation

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, n_quantiles="[1, inf)")


class QRDQNAgent(LatticeAgent):
    """Learns the distribution of each allocation's return; acts by the best mean."""

    Settings: ClassVar[type[LearnerSettings]] = QRDQNSettings
    space: ClassVar[Space] = {
        **LatticeAgent.space,
        "lattice": "2..6",
        "n_quantiles": [5, 10, 25],
    }

    def algorithm(self) -> Any:
        """sb3-contrib's QR-DQN."""
        return QRDQN

    def policy(self) -> Any:
        """With the values of the lattice."""
        return QuantileLatticePolicy

    def policy_settings(self) -> dict[str, Any]:
        """With the number of quantiles."""
        return super().policy_settings() | {"n_quantiles": self.settings.n_quantiles}

    def build(self) -> AllocationValues:
        """The quantiles of the lattice's values."""
        settings = self.settings
        points = torch.as_tensor(lattice_points(self._shape.n_assets, settings.lattice))
        values = AllocationValues(
            self._shape,
            settings.network(),
            points,
            dueling=settings.dueling,
            n_quantiles=settings.n_quantiles,
        )
        return self.begun(values)

    def trained_part(self, model: Any) -> nn.Module:
        """The values; their slow copy is of use in training alone."""
        values: nn.Module = model.policy.quantile_net.values
        return values
