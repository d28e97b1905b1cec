"""Proximal policy optimisation (Schulman et al. 2017) over softmax scores or weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from stable_baselines3 import PPO

from agents.learner import LearnerSettings
from agents.on_policy import OnPolicyAgent, OnPolicySettings
from agents.settings import Space, require


@dataclass(frozen=True, kw_only=True)
class PPOSettings(OnPolicySettings):
    """Settings of `ppo`."""

    batch_size: int = 2048
    learning_rate: float = 1e-3
    n_epochs: int = 5
    clip_range: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, batch_size="[2, inf)", n_epochs="[1, inf)", clip_range="(0, inf)")


class PPOAgent(OnPolicyAgent):
    """Several passes over what was collected, with clipped changes of probability."""

    Settings: ClassVar[type[LearnerSettings]] = PPOSettings
    space: ClassVar[Space] = {**OnPolicyAgent.space, "clip_range": "0.1..0.4"}
    own: ClassVar[tuple[str, ...]] = ("n_epochs", "clip_range")

    def algorithm(self) -> Any:
        """Stable-baselines3's PPO."""
        return PPO

    def model_settings(self) -> dict[str, Any]:
        """With minibatches no greater than what was collected."""
        collected = self.settings.num_envs * self.settings.n_steps
        batch = {"batch_size": min(self.settings.batch_size, collected)}
        return super().model_settings() | batch
