"""Soft actor-critic (Haarnoja et al. 2018) over softmax scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from stable_baselines3 import SAC

from agents.learner import LearnerSettings
from agents.policies import SoftActorCritic
from agents.sb3 import SB3Agent
from envs.actions import ActionMap, Softmax


@dataclass(frozen=True, kw_only=True)
class SACSettings(LearnerSettings):
    """Settings of `sac`."""

    steps: int = 8_000
    num_envs: int = 16
    buffer_size: int = 100_000
    batch_size: int = 128
    train_every: int = 4  # steps of all environments between updates
    updates: int = 2  # gradient steps at each
    learning_starts: int = 2_000
    tau: float = 0.01
    ent_coef: str = "auto_0.1"  # tuned towards the target entropy, from 0.1


class SACAgent(SB3Agent):
    """A squashed Gaussian over scores whose softmax is the target; acts by the mean."""

    Settings: ClassVar[type[LearnerSettings]] = SACSettings

    def algorithm(self) -> Any:
        """Stable-baselines3's SAC."""
        return SAC

    def policy(self) -> Any:
        """Around an `AllocationNetwork`."""
        return SoftActorCritic

    def actions(self) -> ActionMap:
        """Softmax of scores in [-4, 4]: the squashed policy starts spread over the simplex."""
        return Softmax(bound=4.0)

    def model_settings(self) -> dict[str, Any]:
        """SAC's own."""
        keys = ("buffer_size", "batch_size", "learning_starts", "tau", "ent_coef")
        own = {key: getattr(self.settings, key) for key in keys}
        settings = self.settings
        return own | {"train_freq": settings.train_every, "gradient_steps": settings.updates}
