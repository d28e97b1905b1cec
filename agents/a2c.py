"""Advantage actor-critic (Mnih et al. 2016), synchronous, over softmax scores or weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from stable_baselines3 import A2C

from agents.learner import LearnerSettings
from agents.on_policy import OnPolicyAgent, OnPolicySettings


@dataclass(frozen=True, kw_only=True)
class A2CSettings(OnPolicySettings):
    """Settings of `a2c`."""

    n_steps: int = 8
    learning_rate: float = 1e-3
    normalize_advantage: bool = True


class A2CAgent(OnPolicyAgent):
    """One step of the gradient on all that was collected; Adam in the place of RMSProp."""

    Settings: ClassVar[type[LearnerSettings]] = A2CSettings
    own: ClassVar[tuple[str, ...]] = ("normalize_advantage",)

    def algorithm(self) -> Any:
        """Stable-baselines3's A2C."""
        return A2C

    def model_settings(self) -> dict[str, Any]:
        """With the policy's own optimiser."""
        return super().model_settings() | {"use_rms_prop": False}
