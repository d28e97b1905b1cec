"""Proximal policy optimisation (Schulman et al. 2017) over softmax scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from stable_baselines3 import PPO

from agents.learner import LearnerSettings
from agents.policies import ActorCritic
from agents.sb3 import SB3Agent
from envs.actions import ActionMap, SimplexWeights, Softmax


@dataclass(frozen=True, kw_only=True)
class PPOSettings(LearnerSettings):
    """Settings of `ppo`."""

    steps: int = 120_000
    num_envs: int = 256
    n_steps: int = 32  # decisions of each environment between updates
    batch_size: int = 2048
    learning_rate: float = 1e-3
    n_epochs: int = 5
    gae_lambda: float = 0.9
    clip_range: float = 0.2
    ent_coef: float = 0.0
    max_grad_norm: float = 0.5
    distribution: Literal["gaussian", "dirichlet"] = "gaussian"  # of scores, or of the weights


class PPOAgent(SB3Agent):
    """A Gaussian over scores whose softmax is the target, or a Dirichlet over the target.

    Acts by the distribution's mean: the softmax of the mean scores, or the mean weights.
    """

    Settings: ClassVar[type[LearnerSettings]] = PPOSettings

    def algorithm(self) -> Any:
        """Stable-baselines3's PPO."""
        return PPO

    def policy(self) -> Any:
        """Around an `AllocationNetwork`."""
        return ActorCritic

    def actions(self) -> ActionMap:
        """Softmax of scores in [-10, 10], or the weights, freed of rounding in their sum."""
        dirichlet = self.settings.distribution == "dirichlet"
        return SimplexWeights(strict=False) if dirichlet else Softmax()

    def policy_settings(self) -> dict[str, Any]:
        """With the distribution."""
        return super().policy_settings() | {"distribution": self.settings.distribution}

    def model_settings(self) -> dict[str, Any]:
        """PPO's own."""
        settings = self.settings
        keys = ("n_steps", "n_epochs", "gae_lambda", "clip_range", "ent_coef", "max_grad_norm")
        collected = settings.num_envs * settings.n_steps
        own = {key: getattr(settings, key) for key in keys}
        return own | {"batch_size": min(settings.batch_size, collected)}
