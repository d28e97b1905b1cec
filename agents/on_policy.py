"""What PPO, A2C and recurrent PPO have in common: settings, distributions, actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from agents.banded_scores import BandedScores
from agents.base import Task
from agents.learner import LearnerSettings
from agents.policies import ActorCritic
from agents.replay import CompactRolloutBuffer
from agents.sb3 import SB3Agent
from agents.sb3_env import CompactVecEnv
from agents.settings import require
from envs.actions import ActionMap, SimplexWeights, Softmax
from market import Market, SettingError


@dataclass(frozen=True, kw_only=True)
class OnPolicySettings(LearnerSettings):
    """What agents that learn from what the policy itself just did have in common."""

    steps: int = 120_000
    num_envs: int = 256
    n_steps: int = 32  # decisions of each environment between updates
    gae_lambda: float = 0.9
    ent_coef: float = 0.0
    max_grad_norm: float = 0.5
    distribution: Literal["gaussian", "dirichlet"] = "gaussian"  # of scores, or of the weights
    log_std: float = 0.0  # logarithm of the Gaussian's first standard deviation
    band: bool = False  # a no-trade band around what the scores propose, for "gaussian"
    cost_warmup: float = 0.0  # share of the steps in which costs are phased in, for log growth

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, n_steps="[1, inf)", gae_lambda="[0, 1]", max_grad_norm="(0, inf)")
        require(self, cost_warmup="[0, 1]")
        if self.band and self.distribution != "gaussian":
            raise SettingError(f"band needs distribution 'gaussian', got {self.distribution!r}")


class OnPolicyAgent(SB3Agent):
    """A Gaussian over scores whose softmax is the target, or a Dirichlet over the target.

    Acts by the distribution's mean: the softmax of the mean scores, or the mean weights.
    """

    own: ClassVar[tuple[str, ...]] = ()  # settings the algorithm takes beyond those of all

    def policy(self) -> Any:
        """Around an `AllocationNetwork`."""
        return ActorCritic

    def actions(self) -> ActionMap:
        """Softmax of scores in [-10, 10], or the weights, freed of rounding in their sum."""
        if self.settings.distribution == "dirichlet":
            return SimplexWeights(strict=False)
        return BandedScores() if self.settings.band else Softmax()

    def policy_settings(self) -> dict[str, Any]:
        """With the distribution."""
        settings = self.settings
        own = {key: getattr(settings, key) for key in ("distribution", "log_std", "band")}
        return super().policy_settings() | own

    def environment(self, market: Market, task: Task, seed: int) -> CompactVecEnv:
        """With costs phased in: else a policy learns that trades cost before what they are for."""
        games = super().environment(market, task, seed)
        games.phase_in_costs(self.settings.cost_warmup * self.settings.steps)
        return games

    def model_settings(self) -> dict[str, Any]:
        """The algorithm's own."""
        keys = ("n_steps", "gae_lambda", "ent_coef", "max_grad_norm", *self.own)
        settings = {key: getattr(self.settings, key) for key in keys}
        return settings | {"rollout_buffer_class": CompactRolloutBuffer}
