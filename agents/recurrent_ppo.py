"""Recurrent PPO: an LSTM runs over the days of an episode, its state carried from step to step.

In training the state starts at zero with each episode and is carried, as sb3-contrib does it. To
act, the last `lookback` days are replayed from a state of zero: the answer is a function of the
history that is shown and of nothing else, whatever was asked before. The LSTM sees features and
context, which do not depend on what was decided, so that the replay needs no past decisions; what
is held enters after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sb3_contrib import RecurrentPPO

from agents.learner import LearnerSettings
from agents.ppo import PPOAgent, PPOSettings
from agents.recurrent_policy import RecurrentActorCritic
from agents.settings import Space
from market import SettingError


@dataclass(frozen=True, kw_only=True)
class RecurrentPPOSettings(PPOSettings):
    """Settings of `recurrent_ppo`."""

    steps: int = 60_000
    num_envs: int = 64
    lookback: int = 60  # days replayed to act
    encoder: str = "lstm"
    depth: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder != "lstm":
            raise SettingError(f"encoder must be lstm, got {self.encoder!r}")
        if self.counterfactual:
            raise SettingError(
                f"counterfactual must be 0 for recurrent_ppo, got {self.counterfactual}"
            )


class RecurrentPPOAgent(PPOAgent):
    """PPO with a state carried along; see this module's head."""

    Settings: ClassVar[type[LearnerSettings]] = RecurrentPPOSettings
    space: ClassVar[Space] = {**PPOAgent.space, "encoder": ["lstm"]}

    def algorithm(self) -> Any:
        """sb3-contrib's recurrent PPO."""
        return RecurrentPPO

    def policy(self) -> Any:
        """Around an `AllocationNetwork` whose encoder is stepped."""
        return RecurrentActorCritic

    def model_settings(self) -> dict[str, Any]:
        """With sb3-contrib's own rollouts: whole sequences."""
        settings = super().model_settings()
        del settings["rollout_buffer_class"]
        return settings
