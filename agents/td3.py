"""Twin delayed deterministic policy gradient (Fujimoto et al. 2018) over softmax scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise

from agents.critics import DeterministicActorCritic
from agents.learner import LearnerSettings
from agents.off_policy import OffPolicyAgent, OffPolicySettings
from agents.settings import Space, require


@dataclass(frozen=True, kw_only=True)
class TD3Settings(OffPolicySettings):
    """Settings of `td3`; noise is in units of half the range of scores, [-4, 4]."""

    learning_rate: float = 1e-4
    exploration_noise: float = 0.3  # standard deviation
    policy_delay: int = 2  # updates of the critics for one of the actor
    target_policy_noise: float = 0.2  # added to the target's action
    target_noise_clip: float = 0.5  # its greatest size

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, exploration_noise="[0, inf)", policy_delay="[1, inf)")
        require(self, target_policy_noise="[0, inf)", target_noise_clip="[0, inf)")


class TD3Agent(OffPolicyAgent):
    """Scores whose softmax is the target, without chance but for the noise of exploration."""

    Settings: ClassVar[type[LearnerSettings]] = TD3Settings
    space: ClassVar[Space] = {
        **OffPolicyAgent.space,
        "tau": "0.002..0.05 log",
        "exploration_noise": "0.1..0.6",
    }
    own: ClassVar[tuple[str, ...]] = ("policy_delay", "target_policy_noise", "target_noise_clip")

    def algorithm(self) -> Any:
        """Stable-baselines3's TD3."""
        return TD3

    def policy(self) -> Any:
        """Around an `AllocationNetwork` for the actor and one for each critic."""
        return DeterministicActorCritic

    def model_settings(self) -> dict[str, Any]:
        """With noise of its own for each environment, which the algorithm sees to."""
        spread = np.full(self._shape.n_assets, self.settings.exploration_noise)
        noise = NormalActionNoise(np.zeros_like(spread), spread)
        return super().model_settings() | {"action_noise": noise}
