"""Proximal policy optimisation (Schulman et al. 2017) over softmax scores or weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from stable_baselines3 import PPO

from agents.base import Task
from agents.counterfactual import CounterfactualBuffer, over_own_action
from agents.learner import LearnerSettings
from agents.on_policy import OnPolicyAgent, OnPolicySettings
from agents.settings import Space, require
from market import Market


@dataclass(frozen=True, kw_only=True)
class PPOSettings(OnPolicySettings):
    """Settings of `ppo`."""

    batch_size: int = 2048
    learning_rate: float = 1e-3
    n_epochs: int = 5
    clip_range: float = 0.2
    own_critic: bool = False  # values by a network of their own
    counterfactual: int = 0  # days both are held for advantages over the policy's own mean; 0: GAE

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, batch_size="[2, inf)", n_epochs="[1, inf)", clip_range="(0, inf)")
        require(self, counterfactual="[0, inf)")


class PPOAgent(OnPolicyAgent):
    """Several passes over what was collected, with clipped changes of probability."""

    Settings: ClassVar[type[LearnerSettings]] = PPOSettings
    space: ClassVar[Space] = {**OnPolicyAgent.space, "clip_range": "0.1..0.4"}
    own: ClassVar[tuple[str, ...]] = ("n_epochs", "clip_range")

    def algorithm(self) -> Any:
        """Stable-baselines3's PPO."""
        return PPO

    def policy_settings(self) -> dict[str, Any]:
        """With the critic's network."""
        return super().policy_settings() | {"own_critic": self.settings.own_critic}

    def model_settings(self) -> dict[str, Any]:
        """With minibatches no greater than what was collected."""
        collected = self.settings.num_envs * self.settings.n_steps
        batch = {"batch_size": min(self.settings.batch_size, collected)}
        settings = super().model_settings() | batch
        if self.settings.counterfactual:
            settings["rollout_buffer_class"] = CounterfactualBuffer
        return settings

    def model(self, market: Market, task: Task, seed: int) -> Any:
        """With the baseline of counterfactual advantages, where they are asked for."""
        model = super().model(market, task, seed)
        if self.settings.counterfactual:
            days = self.settings.counterfactual
            model.rollout_buffer.advantage = over_own_action(model, days)
        return model
