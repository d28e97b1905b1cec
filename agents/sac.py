"""Soft actor-critic (Haarnoja et al. 2018) over softmax scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from stable_baselines3 import SAC

from agents.critics import SoftActorCritic
from agents.learner import LearnerSettings
from agents.off_policy import OffPolicyAgent, OffPolicySettings
from agents.settings import Space


@dataclass(frozen=True, kw_only=True)
class SACSettings(OffPolicySettings):
    """Settings of `sac`."""

    ent_coef: str = "auto_0.1"  # tuned towards the target entropy, from 0.1


class SACAgent(OffPolicyAgent):
    """A squashed Gaussian over scores whose softmax is the target; acts by the mean."""

    Settings: ClassVar[type[LearnerSettings]] = SACSettings
    space: ClassVar[Space] = {**OffPolicyAgent.space, "tau": "0.002..0.05 log"}
    own: ClassVar[tuple[str, ...]] = ("ent_coef",)

    def algorithm(self) -> Any:
        """Stable-baselines3's SAC."""
        return SAC

    def policy(self) -> Any:
        """Around an `AllocationNetwork` for the actor and one for each critic."""
        return SoftActorCritic
