"""Soft actor-critic (Haarnoja et al. 2018) over softmax scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from stable_baselines3 import SAC

from agents.banded_scores import BandedScores
from agents.critics import SoftActorCritic
from agents.learner import LearnerSettings
from agents.off_policy import BOUND, OffPolicyAgent, OffPolicySettings
from agents.settings import Space
from envs.actions import ActionMap


@dataclass(frozen=True, kw_only=True)
class SACSettings(OffPolicySettings):
    """Settings of `sac`."""

    band: bool = False  # a no-trade band around what the scores propose
    log_std: float = 0.0  # logarithm of the first standard deviation, before squashing
    ent_coef: str = "auto_0.1"  # tuned towards the target entropy, from 0.1


class SACAgent(OffPolicyAgent):
    """A squashed Gaussian over scores whose softmax is the target; acts by the mean."""

    Settings: ClassVar[type[LearnerSettings]] = SACSettings
    space: ClassVar[Space] = {**OffPolicyAgent.space, "tau": "0.002..0.05 log"}
    own: ClassVar[tuple[str, ...]] = ("ent_coef",)

    def actions(self) -> ActionMap:
        """As ever, or scores with a band."""
        return BandedScores(bound=BOUND) if self.settings.band else super().actions()

    def policy_settings(self) -> dict[str, Any]:
        """With the band, and how far the actor tries first."""
        own = {key: getattr(self.settings, key) for key in ("band", "log_std")}
        return super().policy_settings() | own

    def algorithm(self) -> Any:
        """Stable-baselines3's SAC."""
        return SAC

    def policy(self) -> Any:
        """Around an `AllocationNetwork` for the actor and one for each critic."""
        return SoftActorCritic
