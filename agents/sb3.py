"""Stable-baselines3 agents: one wrapper that feeds, watches, keeps and stores its models.

Training plays a `PortfolioVectorEnv` with compact observations: a transition holds the row number
of its window and the weights, and the network reads windows out of the market's own array, so
buffers stay small whatever the lookback. The scaler is fitted on the training market and kept with
the model; the state of the network that did best on validation is the one that is kept.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save_file
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv

from agents.base import Agent, Monitor, Task
from agents.rollout import path_metrics, roll
from agents.settings import require
from envs import PortfolioVectorEnv
from envs.actions import ActionMap
from market import Market, SettingError
from market.features.scaling import Scaler


@dataclass(frozen=True, kw_only=True)
class SB3Settings:
    """What all these agents have in common."""

    steps: int = 100_000  # decisions, over all environments
    num_envs: int = 32  # portfolios played side by side
    episode_length: int = 252  # decisions in an episode, started at random
    lookback: int = 60  # rows of the window
    learning_rate: float = 3e-4
    gamma: float = 0.95  # the market ignores us, so only costs reach beyond the next day
    hidden: int = 64  # units of each of the two layers behind the window encoder
    embedding: int = 16  # numbers by which an asset's window is summed up
    dropout: float = 0.0  # of the window's embedding, against learning the training years by heart
    reward_scale: float = 100.0  # learning sees rewards in percent
    evaluations: int = 10  # on validation during training
    select_by: str = "sharpe"  # or "reward": which validation figure picks the state to keep
    device: str = "cpu"

    def __post_init__(self) -> None:
        at_least_one = ("steps", "num_envs", "episode_length", "lookback", "hidden", "embedding")
        require(self, **dict.fromkeys((*at_least_one, "evaluations"), "[1, inf)"))
        require(self, gamma="[0, 1)", dropout="[0, 1)")
        require(self, learning_rate="(0, inf)", reward_scale="(0, inf)")
        if self.select_by not in ("sharpe", "reward"):
            raise SettingError(f"select_by must be 'sharpe' or 'reward', got {self.select_by!r}")


class SB3Agent(Agent):
    """An agent that stable-baselines3 trains; a subclass names the algorithm and the actions."""

    Settings: ClassVar[type[SB3Settings]] = SB3Settings
    learns: ClassVar[bool] = True
    settings: Any

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.lookback = self.settings.lookback
        self._scaler: Scaler | None = None
        self._policy: Any = None
        self._shape: dict[str, int] = {}

    @abstractmethod
    def algorithm(self) -> Any:
        """The stable-baselines3 class."""

    @abstractmethod
    def actions(self) -> ActionMap:
        """What the policy emits."""

    @abstractmethod
    def model_settings(self) -> dict[str, Any]:
        """Arguments of the algorithm beyond the common ones."""

    def fit(
        self,
        train: Market,
        valid: Market | None = None,
        *,
        task: Task | None = None,
        seed: int = 0,
        monitor: Monitor | None = None,
    ) -> Self:
        """Train on `train`, keep the state that did best on `valid` (without one, the last)."""
        task, monitor, settings = task or Task(), monitor or Monitor(), self.settings
        torch.set_num_threads(1)
        self._scaler = Scaler.fit(train)
        market = self._scaler.transform(train)
        env = self._environment(market, task, seed)
        self._shape = {
            "n_assets": market.n_assets,
            "n_features": len(market.feature_names),
            "n_context": len(market.context_names),
        }
        model = self.algorithm()(
            "MultiInputPolicy",
            env,
            learning_rate=settings.learning_rate,
            gamma=settings.gamma,
            policy_kwargs=self._policy_settings(),
            seed=seed,
            device=settings.device,
            **self.model_settings(),
        )
        self._policy = model.policy
        self._show(market)
        watch = _Watch(self, valid, task, monitor)
        model.set_logger(Logger(folder=None, output_formats=[_Relay(monitor)]))
        # counted in updates on policy, in episodes off policy: about 50 points of a curve
        episodes = settings.steps // settings.episode_length
        every = 1 if isinstance(model, OnPolicyAlgorithm) else max(1, episodes // 50)
        model.learn(settings.steps, callback=watch, log_interval=every)
        if watch.best_state is not None:
            self._policy.load_state_dict(watch.best_state)
        self._policy.set_training_mode(False)
        return self

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The policy's deterministic target: the mean of its scores, or its best-valued choice."""
        if self._policy is None or self._scaler is None:
            raise SettingError(f"{type(self).__name__} must be fitted or loaded before it acts")
        window = self._scaler.transform(history[-self.lookback :])
        self._show(window)
        observation = {
            "time": torch.tensor([[self.lookback - 1]]),
            "weights": torch.as_tensor(weights, dtype=torch.float32)[None],
        }
        observation = {key: value.to(self.settings.device) for key, value in observation.items()}
        with torch.no_grad():
            action = self._policy._predict(observation, deterministic=True)
        action = action.cpu().numpy()[0]
        if isinstance(self._policy.action_space, spaces.Box) and self._policy.squash_output:
            action = self._policy.unscale_action(action)
        return self.actions().bind(history).target(action, weights, history.n_periods - 1)

    def save(self, folder: Path) -> None:
        """Settings and shapes as JSON, the scaler as JSON, the network as safetensors."""
        about = {"settings": vars(self.settings) | {}, "shape": self._shape}
        (folder / "agent.json").write_text(json.dumps(about, indent=1, default=list))
        assert self._scaler is not None
        (folder / "scaler.json").write_text(self._scaler.to_json())
        state = {key: value.clone() for key, value in self._policy.state_dict().items()}
        save_file(state, folder / "policy.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Build the network from the settings and put the stored weights in."""
        about = json.loads((folder / "agent.json").read_text())
        agent = cls(**about["settings"])
        agent._shape = about["shape"]
        agent._scaler = Scaler.from_json((folder / "scaler.json").read_text())
        policy_class = agent.algorithm().policy_aliases["MultiInputPolicy"]
        agent._policy = policy_class(
            _observation_space(agent._shape["n_assets"]),
            agent._action_space(),
            lambda _: 0.0,
            **agent._policy_settings(),
        ).to(agent.settings.device)
        agent._policy.load_state_dict(load_file(folder / "policy.safetensors"))
        agent._policy.set_training_mode(False)
        return agent

    def _environment(self, market: Market, task: Task, seed: int) -> CompactVecEnv:
        settings = self.settings
        longest = market.n_periods - settings.lookback - task.decision_lag
        games = PortfolioVectorEnv(
            market,
            settings.num_envs,
            lookback=settings.lookback,
            reward=task.reward,
            cost=task.cost,
            constraints=task.constraints,
            actions=self.actions(),
            decision_lag=task.decision_lag,
            fill=task.fill,
            episode_length=max(1, min(settings.episode_length, longest)),
            random_start=True,
            compact=True,
            autoreset_mode="SameStep",
        )
        return CompactVecEnv(games, seed, settings.reward_scale)

    def _action_space(self) -> spaces.Space:
        return self.actions().space(self._shape["n_assets"])

    def _policy_settings(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "net_arch": [settings.hidden, settings.hidden],
            "features_extractor_class": WindowExtractor,
            "features_extractor_kwargs": {
                "lookback": settings.lookback,
                "n_features": self._shape["n_features"],
                "n_context": self._shape["n_context"],
                "embedding": settings.embedding,
                "dropout": settings.dropout,
            },
        }

    def _show(self, market: Market) -> None:
        """Let every window reader of the policy (actor, critic, targets) read this market."""
        features = torch.as_tensor(np.array(market.features), device=self.settings.device)
        context = torch.as_tensor(np.array(market.context), device=self.settings.device)
        for module in self._policy.modules():
            if isinstance(module, WindowExtractor):
                module.features_panel, module.context_panel = features, context


class WindowExtractor(BaseFeaturesExtractor):
    """Row number and weights -> a vector; windows are read from the market, not the observation.

    One linear layer with tanh, shared by all assets, sums up each asset's window (L * F numbers) in
    `embedding` numbers; beside them stand the asset's weight and the context's last row.
    Output: (B, N * (embedding + 1) + G).
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        lookback: int,
        n_features: int,
        n_context: int,
        embedding: int,
        dropout: float,
    ) -> None:
        shape = observation_space["weights"].shape
        assert shape is not None
        super().__init__(observation_space, shape[0] * (embedding + 1) + n_context)
        self.lookback = lookback
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(lookback * n_features, embedding),
            torch.nn.Tanh(),
            torch.nn.Dropout(dropout),
        )
        self.features_panel = torch.zeros(0)  # (T, N, F) of the market that rows refer to
        self.context_panel = torch.zeros(0)  # (T, G)

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """Gather, encode, join."""
        rows = observations["time"].long().reshape(-1)  # (B,)
        offsets = torch.arange(1 - self.lookback, 1, device=rows.device)
        windows = self.features_panel[rows[:, None] + offsets]  # (B, L, N, F)
        flat = windows.permute(0, 2, 1, 3).flatten(2)  # (B, N, L * F)
        weights = observations["weights"][:, :, None]
        joined = torch.cat([self.encoder(flat), weights], dim=2).flatten(1)
        return torch.cat([joined, self.context_panel[rows]], dim=1)


class CompactVecEnv(VecEnv):
    """A compact `PortfolioVectorEnv` (autoreset SAME_STEP) as stable-baselines3's own `VecEnv`."""

    def __init__(self, games: PortfolioVectorEnv, seed: int, reward_scale: float) -> None:
        self.games = games
        self.reward_scale = reward_scale
        super().__init__(
            games.num_envs,
            _observation_space(games.market.n_assets),
            games.single_action_space,
        )
        self._first_seed: int | None = seed
        self._actions: np.ndarray = np.zeros(0)
        self._total = np.zeros(games.num_envs)
        self._length = np.zeros(games.num_envs, np.int64)

    def reset(self) -> dict[str, np.ndarray]:
        """Start all episodes; the seed given at first is used once."""
        observation, _ = self.games.reset(seed=self._first_seed)
        self._first_seed = None
        self._total[:], self._length[:] = 0.0, 0
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """One step; ended rows carry their last observation and whether they were cut off."""
        observation, reward, terminated, truncated, info = self.games.step(self._actions)
        ended = terminated | truncated
        self._total += reward
        self._length += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(ended):
            infos[i] = {
                "terminal_observation": info["final_obs"][i],
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                "episode": {"r": self._total[i], "l": int(self._length[i]), "t": 0.0},
            }
        self._total[ended], self._length[ended] = 0.0, 0
        scaled = (self.reward_scale * reward).astype(np.float32)
        return observation, scaled, ended, infos

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of the game, once per environment."""
        return [getattr(self.games, attr_name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: the environments of a batch share their settings."""
        raise NotImplementedError("environments of a batch share their settings")

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refused: there are no separate environments to call."""
        raise NotImplementedError("environments of a batch cannot be called one by one")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No wrapper is inside."""
        return [False] * len(self._rows(indices))

    def _rows(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))


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
    """Evaluates on validation at even intervals, keeps the best state, tells the monitor."""

    def __init__(self, agent: SB3Agent, valid: Market | None, task: Task, monitor: Monitor) -> None:
        super().__init__()
        self.agent, self.valid, self.task, self.monitor = agent, valid, task, monitor
        self.best_state: dict[str, torch.Tensor] | None = None
        self.best_score = -np.inf
        self.interval = max(1, agent.settings.steps // agent.settings.evaluations)
        self._due = 0

    def _on_step(self) -> bool:
        total = self.agent.settings.steps
        if self.n_calls % 32 == 0:
            self.monitor.progress(min(1.0, self.num_timesteps / total))
        return True

    def _on_rollout_start(self) -> None:
        # weights change between rollouts, so this is where a state is whole
        if self.num_timesteps >= self._due:
            self._evaluate()
            self._due += self.interval

    def _on_training_end(self) -> None:
        self._evaluate()
        self.monitor.progress(1.0)

    def _evaluate(self) -> None:
        if self.valid is None:
            return
        policy = self.agent._policy
        panels = _panels(policy)
        policy.set_training_mode(False)
        path = roll(self.agent, self.valid, self.task)
        _restore(policy, panels)
        values = path_metrics(path, self.valid.periods_per_year)
        for asset, weight in zip(self.valid.assets, path.targets.mean(0), strict=True):
            values[f"weight/{asset}"] = float(weight)
        values["reward"] = float(path.rewards.mean())
        self.monitor.record(self.num_timesteps, {f"eval/{key}": v for key, v in values.items()})
        score = values[self.agent.settings.select_by]
        if score > self.best_score:
            self.best_score = score
            self.best_state = {k: v.detach().clone() for k, v in policy.state_dict().items()}


def _panels(policy: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    readers = (module for module in policy.modules() if isinstance(module, WindowExtractor))
    return [(reader.features_panel, reader.context_panel) for reader in readers]


def _restore(policy: Any, panels: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    readers = (module for module in policy.modules() if isinstance(module, WindowExtractor))
    for reader, (features, context) in zip(readers, panels, strict=True):
        reader.features_panel, reader.context_panel = features, context


def _observation_space(n_assets: int) -> spaces.Dict:
    """Compact observations, for a market of any length."""
    return spaces.Dict(
        {
            "time": spaces.Box(0, np.iinfo(np.int32).max, (1,), np.int64),
            "weights": spaces.Box(0.0, 1.0, (n_assets,), np.float32),
        }
    )
