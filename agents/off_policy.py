"""What SAC, TD3 and TQC have in common: settings, replay, gradient clipping, actions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from agents.allocation_values import AllocationValues
from agents.base import Task
from agents.counterfactual import TryingReplayBuffer
from agents.learner import LearnerSettings
from agents.q_learning import Population
from agents.replay import CompactReplayBuffer
from agents.sb3 import SB3Agent, episode_length
from agents.settings import require
from envs.actions import ActionMap, Softmax
from envs.rules import Rules
from market import Market, SettingError

BOUND = 4.0  # of scores


@dataclass(frozen=True, kw_only=True)
class OffPolicySettings(LearnerSettings):
    """What agents that learn from a replay of scores and their outcomes have in common."""

    steps: int = 8_000
    num_envs: int = 16
    buffer_size: int = 100_000
    batch_size: int = 128
    train_every: int = 4  # steps of all environments between updates
    updates: int = 2  # gradient steps at each
    learning_starts: int = 2_000
    tau: float = 0.01  # share of the parameters the slow networks take over at each update
    n_steps: int = 1  # rewards before values are believed
    max_grad_norm: float = 100.0  # gradients of a greater norm are scaled down to it
    counterfactual: int = 0  # days what is tried anew in the replay is held; 0: nothing is
    even_days: bool = False  # and on all days of the market alike, not on those that were stored
    cost_warmup: float = 0.0  # share of the steps in which costs are phased in, for log growth
    known_price: bool = False  # critics value what is held after the trade, less its measured price

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, counterfactual="[0, inf)", cost_warmup="[0, 1]")
        whole = ("buffer_size", "batch_size", "train_every", "updates", "n_steps")
        require(self, **dict.fromkeys(whole, "[1, inf)"), learning_starts="[0, inf)")
        require(self, tau="(0, 1]", max_grad_norm="(0, inf)")
        if self.even_days and not self.counterfactual:
            raise SettingError("even_days needs counterfactual of 1 or more, got 0")


class OffPolicyAgent(SB3Agent):
    """An agent whose actor emits scores in [-4, 4]; their softmax is the target."""

    own: ClassVar[tuple[str, ...]] = ()  # settings the algorithm takes beyond those of all

    def actions(self) -> ActionMap:
        """Softmax of scores in [-4, 4]: the squashed policy starts spread over the simplex."""
        return Softmax(bound=BOUND)

    def policy_settings(self) -> dict[str, Any]:
        """With what critics know of prices."""
        return super().policy_settings() | {"known_price": self.settings.known_price}

    def model_settings(self) -> dict[str, Any]:
        """Replay, and the algorithm's own."""
        keys = ("buffer_size", "batch_size", "learning_starts", "tau", *self.own)
        own = {key: getattr(self.settings, key) for key in keys} | updates_and_replay(self.settings)
        if self.settings.counterfactual:
            own["replay_buffer_class"] = TryingReplayBuffer
        return own

    def model(self, market: Market, task: Task, seed: int) -> Any:
        """With clipped gradients, which stable-baselines3 does not have; told what trades cost."""
        model = super().model(market, task, seed)
        told = None
        if self.settings.counterfactual:
            replay = model.replay_buffer
            replay.env, replay.days = model.env, self.settings.counterfactual
            replay.even_days = self.settings.even_days
        if self.settings.known_price:
            rng = np.random.default_rng([seed, 2])
            points = rng.dirichlet(np.ones(market.n_assets), 4 * market.n_assets)
            portfolios = population(points, self.settings, market, task, seed)
            prices = portfolios.prices()
            told = partial(tell_prices, model.policy, prices)
            told(0.0 if self.settings.cost_warmup else 1.0)
        model.env.phase_in_costs(self.settings.cost_warmup * self.settings.steps, told)
        for optimizer in (model.actor.optimizer, model.critic.optimizer):
            clip_before_steps(optimizer, self.settings.max_grad_norm)
        return model


def updates_and_replay(settings: Any) -> dict[str, Any]:
    """When the algorithm updates, and from what."""
    return {
        "train_freq": settings.train_every,
        "gradient_steps": settings.updates,
        "replay_buffer_class": CompactReplayBuffer,
        "replay_buffer_kwargs": {"n_steps": settings.n_steps, "gamma": settings.gamma},
    }


def population(
    points: np.ndarray,
    settings: Any,
    market: Market,
    task: Task,
    seed: int,
    *,
    even_starts: bool = False,
) -> Population:
    """Portfolios that try all points (A, N) under the task's rules."""
    rules = Rules(
        market,
        lookback=settings.lookback,
        actions="simplex",
        episode_length=episode_length(settings, market, task),
        random_start=True,
        ruin=0.0,
        **{key: getattr(task, key) for key in task.__dataclass_fields__},
    )
    return Population(
        rules,
        points,
        settings.num_envs,
        settings.reward_scale,
        np.random.default_rng([seed, 0]),
        settings.device,
        settings.less_market,
        even_starts,
    )


def tell_prices(policy: nn.Module, prices: tuple[Tensor, Tensor], share: float = 1.0) -> None:
    """Let all parts of a policy that value allocations know a share of what trades cost."""
    spread, tilt = prices
    for part in policy.modules():
        if isinstance(part, AllocationValues):
            part.set_prices(share * spread, share * tilt)


def clip_before_steps(optimizer: torch.optim.Optimizer, limit: float) -> None:
    """Scale gradients down to a norm before each step of an optimiser."""

    def clip(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        torch.nn.utils.clip_grad_norm_(_parameters(optimizer), limit)

    optimizer.register_step_pre_hook(clip)


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    return (each for group in optimizer.param_groups for each in group["params"])
