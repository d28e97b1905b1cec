"""Truncated quantile critics (Kuznetsov et al. 2020) over softmax scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sb3_contrib import TQC

from agents.critics import QuantileActorCritic
from agents.learner import LearnerSettings
from agents.sac import SACAgent, SACSettings
from agents.settings import require
from market import SettingError


@dataclass(frozen=True, kw_only=True)
class TQCSettings(SACSettings):
    """Settings of `tqc`."""

    n_quantiles: int = 10  # of each of the two critics
    drop_quantiles: int = 1  # the greatest of each, left out of what is aimed at

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, n_quantiles="[1, inf)", drop_quantiles="[0, inf)")
        if self.drop_quantiles >= self.n_quantiles:
            raise SettingError(
                f"drop_quantiles must be less than n_quantiles = {self.n_quantiles}, "
                f"got {self.drop_quantiles}"
            )


class TQCAgent(SACAgent):
    """SAC whose critics value a distribution, and whose greatest quantiles are left out."""

    Settings: ClassVar[type[LearnerSettings]] = TQCSettings

    def algorithm(self) -> Any:
        """sb3-contrib's TQC."""
        return TQC

    def policy(self) -> Any:
        """SAC's actor, critics of quantiles."""
        return QuantileActorCritic

    def policy_settings(self) -> dict[str, Any]:
        """With the number of quantiles."""
        return super().policy_settings() | {"n_quantiles": self.settings.n_quantiles}

    def model_settings(self) -> dict[str, Any]:
        """With what is left out."""
        dropped = {"top_quantiles_to_drop_per_net": self.settings.drop_quantiles}
        return super().model_settings() | dropped
