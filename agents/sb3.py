"""Stable-baselines3 agents: we build and configure, it trains.

Training plays a `PortfolioVectorEnv` with compact observations (`agents.sb3_env`); the networks of
`agents.policies` read windows out of the market's own array.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor, nn

from agents.banded_scores import BandedScores, banded_plan
from agents.base import Monitor, Task
from agents.device import to_host
from agents.learner import Learner
from agents.panel_network import Panel, readers
from agents.replay import CompactReplayBuffer
from agents.sb3_env import CompactVecEnv, observation_space
from agents.sb3_state import AlgorithmState
from agents.selection import DivergedError, Selection
from envs import PortfolioVectorEnv
from envs.actions import ActionMap, Softmax
from market import Market


class SB3Agent(Learner):
    """An agent that stable-baselines3 trains; a subclass names algorithm, policy and actions."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if isinstance(self.actions(), BandedScores):
            self.meaning = "proposal"

    @abstractmethod
    def algorithm(self) -> Any:
        """The stable-baselines3 class."""

    @abstractmethod
    def policy(self) -> Any:
        """The policy class."""

    @abstractmethod
    def actions(self) -> ActionMap:
        """What the policy emits."""

    @abstractmethod
    def model_settings(self) -> dict[str, Any]:
        """Arguments of the algorithm beyond the common ones."""

    def policy_settings(self) -> dict[str, Any]:
        """Arguments of the policy."""
        return {"shape": self._shape, "network": self.settings.network()}

    def build(self) -> nn.Module:
        """The policy by itself."""
        policy: nn.Module = self.policy()(
            observation_space(self._shape.n_assets),
            self.actions().space(self._shape.n_assets),
            self.settings.rate,
            **self.policy_settings(),
        )
        return policy

    def model(self, market: Market, task: Task, seed: int) -> Any:
        """The algorithm with its environment and policy, which reads the market."""
        settings = self.settings
        model = self.algorithm()(
            self.policy(),
            self.environment(market, task, seed),
            learning_rate=settings.rate,
            gamma=settings.gamma,
            policy_kwargs=self.policy_settings(),
            seed=seed,
            device=settings.device,
            **self.model_settings(),
        )
        if isinstance(model, OffPolicyAlgorithm) and isinstance(
            model.replay_buffer, CompactReplayBuffer
        ):
            model.replay_buffer.rng = np.random.default_rng([seed, 1])
        self.begun(self.trained_part(model))
        panel = Panel.of(market, settings.device)
        for reader in readers(model.policy):
            reader.show(panel)
        return model

    def trained_part(self, model: Any) -> nn.Module:
        """What is selected, stored and asked to act."""
        policy: nn.Module = model.policy
        return policy

    def train(self, market: Market, task: Task, seed: int, selection: Selection) -> None:
        """Let the algorithm learn."""
        settings = self.settings
        model = self.model(market, task, seed)
        self.network = self.trained_part(model)
        model.set_logger(Logger(folder=None, output_formats=[_Relay(selection.monitor)]))
        # counted in updates on policy, in episodes off policy: about 50 points of a curve
        episodes = settings.steps // settings.episode_length
        every = 1 if isinstance(model, OnPolicyAlgorithm) else max(1, episodes // 50)
        selection.follow(AlgorithmState(model))
        begun = model._last_obs is not None  # a checkpoint was gone on from
        try:
            model.learn(
                settings.steps - model.num_timesteps,
                callback=_Watch(selection),
                log_interval=every,
                reset_num_timesteps=not begun,
            )
        except DivergedError:
            raise
        except FloatingPointError as error:
            raise selection.diverged(model.num_timesteps, str(error)) from error
        except ValueError:  # what distributions say to parameters that are not finite
            selection.check(model.num_timesteps)
            raise

    def decide(self, row: int, weights: np.ndarray, history: Market) -> np.ndarray:
        """The target of the policy's deterministic action."""
        return self.decide_all(np.array([row]), weights[None], history)[0]

    def decide_all(self, rows: np.ndarray, weights: np.ndarray, market: Market) -> np.ndarray:
        """The same at many rows of what is shown, (B,), each with its holdings: (B, N)."""
        device = self.settings.device
        observation = {
            "time": torch.as_tensor(rows, device=device).unsqueeze(1),
            "weights": torch.as_tensor(weights, dtype=torch.float32, device=device),
        }
        with torch.no_grad():
            action = to_host(self.network._predict(observation, deterministic=True))
        actions = self.actions()
        if isinstance(actions, Softmax | BandedScores) and self.network.squash_output:
            action = actions.bound * action
        return actions.bind(market).target(action, weights, rows)

    def preference(self, rows: Tensor, held: Tensor) -> Tensor:
        """The target weights of the deterministic action."""
        action: Tensor = self.network._predict({"time": rows, "weights": held}, deterministic=True)
        actions = self.actions()
        if not isinstance(actions, Softmax | BandedScores):
            return action / action.sum(-1, keepdim=True)
        scores = actions.bound * action if self.network.squash_output else action
        scores = scores.clamp(-actions.bound, actions.bound)
        return scores.softmax(-1) if isinstance(actions, Softmax) else banded_plan(scores).proposal

    def environment(self, market: Market, task: Task, seed: int) -> CompactVecEnv:
        """Portfolios of random episodes under the task's rules."""
        settings = self.settings
        rules = {key: getattr(task, key) for key in task.__dataclass_fields__}
        games = PortfolioVectorEnv(
            market,
            settings.num_envs,
            lookback=settings.lookback,
            actions=self.actions(),
            episode_length=episode_length(settings, market, task),
            random_start=True,
            compact=True,
            autoreset_mode="SameStep",
            **rules,
        )
        return CompactVecEnv(
            games, seed, settings.reward_scale, settings.less_market, settings.explore_starts
        )


def episode_length(settings: Any, market: Market, task: Task) -> int:
    """As set, or as much of it as the market has room for."""
    longest = market.n_periods - settings.lookback - task.decision_lag
    return max(1, min(settings.episode_length, longest))


class _Relay(KVWriter):
    """Hands stable-baselines3's own curves to the monitor."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor

    def write(self, key_values: dict, key_excluded: dict, step: int = 0) -> None:
        kept = {
            key: float(value)
            for key, value in key_values.items()
            if key.startswith(("train/", "rollout/")) and isinstance(value, (int, float, np.number))
        }
        if kept:
            self.monitor.record(step, kept)

    def close(self) -> None:
        pass


class _Watch(BaseCallback):
    """Lets the selection look between updates, where a state is whole."""

    def __init__(self, selection: Selection) -> None:
        super().__init__()
        self.selection = selection

    def _on_step(self) -> bool:
        if self.n_calls % 32 == 0:
            self.selection.progress(self.num_timesteps)
        return not self.selection.stopped

    def _on_rollout_start(self) -> None:
        self.selection.look(self.num_timesteps, self._trained())

    def _on_training_end(self) -> None:
        self.selection.end(self.num_timesteps, self._trained())

    def _trained(self) -> bool:
        """Whether there was an update; off policy the first comes after `learning_starts`."""
        model: Any = self.model
        return model._n_updates > 0
