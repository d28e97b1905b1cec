"""Deep Q-learning (Mnih et al. 2015) over a lattice of allocations; see `q_learning` for more."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from stable_baselines3 import DQN
from torch import nn

from agents import name_of
from agents.allocation_values import AllocationValues
from agents.base import Task
from agents.device import to_host
from agents.lattice_policy import LatticePolicy, PointsAndHold
from agents.learner import LearnerSettings
from agents.off_policy import population, tell_prices, updates_and_replay
from agents.panel_network import Panel, check_finite
from agents.q_learning import Population, QLearner
from agents.replay import TakenReplayBuffer
from agents.response import Meaning, slopes
from agents.sb3 import SB3Agent
from agents.selection import Selection
from agents.settings import Space, require
from envs.actions import Lattice
from envs.menus import lattice_points
from market import DataError, Market, SettingError

SMALL = 256  # choices up to which all are learned from at once unless told otherwise


@dataclass(frozen=True, kw_only=True)
class LatticeSettings(LearnerSettings):
    """What agents that choose among the allocations of a lattice have in common."""

    lattice: int = 4  # weights in steps of 1/lattice
    double: bool = True  # choose by one network, value by the other
    dueling: bool = True  # a value of the day, and how much better each allocation is
    steps: int = 40_000
    num_envs: int = 64
    lookback: int = 20
    gamma: float = 0.98
    learning_rate: float = 2e-3
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    exploration_fraction: float = 0.3
    exploration_final_eps: float = 0.05
    max_grad_norm: float = 10.0
    target_every: int = 2  # updates between copies to the slow network
    buffer_size: int = 100_000
    batch_size: int = 256
    train_every: int = 4  # steps of all environments between updates
    updates: int = 2  # gradient steps at each
    learning_starts: int = 2_000
    n_steps: int = 1  # rewards before values are believed

    def __post_init__(self) -> None:
        super().__post_init__()
        names = "lattice target_every buffer_size batch_size train_every updates n_steps"
        require(self, **dict.fromkeys(names.split(), "[1, inf)"), learning_starts="[0, inf)")
        require(self, exploration_fraction="(0, 1]", exploration_final_eps="[0, 1]")
        require(self, max_grad_norm="(0, inf)")


@dataclass(frozen=True, kw_only=True)
class DQNSettings(LatticeSettings):
    """Settings of `dqn`. Those from `buffer_size` to `n_steps` are of plain DQN alone."""

    all_actions: bool | None = None  # learn from all allocations at once; None: up to 256 of them
    log_every: int = 10  # updates
    even_starts: bool = False  # spread the days episodes start on evenly, with all actions

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, log_every="[1, inf)")
        if self.even_starts and self.all_actions is False:
            raise SettingError("even_starts needs all_actions, got false")


class LatticeAgent(SB3Agent):
    """Values every allocation of a lattice, and holding, by replay; acts by the best."""

    meaning: Meaning = "value"
    _names: tuple[str, ...] | list[str] = ()

    def policy_settings(self) -> dict[str, Any]:
        """A network for each copy."""
        return {"values": self.build, "double": self.settings.double}

    def build(self) -> AllocationValues:
        """The values of the lattice."""
        settings = self.settings
        points = torch.as_tensor(lattice_points(self._shape.n_assets, settings.lattice))
        values = AllocationValues(self._shape, settings.network(), points, dueling=settings.dueling)
        return self.begun(values)

    def actions(self) -> PointsAndHold:
        """All weights in steps of 1/lattice, and holding."""
        return PointsAndHold(self.settings.lattice)

    def model_settings(self) -> dict[str, Any]:
        """Exploration, replay, and how often the slow copy follows."""
        settings = self.settings
        names = "buffer_size batch_size learning_starts max_grad_norm"
        keys = f"{names} exploration_fraction exploration_final_eps".split()
        own = {key: getattr(settings, key) for key in keys}
        between = settings.num_envs * settings.train_every  # decisions between updates
        return (own | updates_and_replay(settings)) | {
            "replay_buffer_class": TakenReplayBuffer,
            "target_update_interval": max(
                settings.num_envs, settings.target_every * between // settings.updates
            ),
        }

    def model(self, market: Market, task: Task, seed: int) -> Any:
        """The algorithm, told what trades cost."""
        model = super().model(market, task, seed)
        tell_prices(model.policy, self._population(market, task, seed).prices())
        return model

    def train(self, market: Market, task: Task, seed: int, selection: Selection) -> None:
        """Name and report the choices, then let the algorithm learn."""
        self.name_choices(market, selection)
        super().train(market, task, seed, selection)

    def name_choices(self, market: Market, selection: Selection) -> None:
        """Keep the choices' names for `about`; report the lattice and their number."""
        self._names = self.actions().names(market)
        lattice = float(self.settings.lattice)
        figures = {"choices/lattice": lattice, "choices/number": float(len(self._names))}
        selection.monitor.record(0, figures)

    def decide(self, row: int, weights: np.ndarray, history: Market) -> np.ndarray:
        """The best-valued point, or what is held."""
        return self.decide_all(np.array([row]), weights[None], history)[0]

    def decide_all(self, rows: np.ndarray, weights: np.ndarray, market: Market) -> np.ndarray:
        """The same at many rows, (B,), each with its holdings: (B, N)."""
        if market.n_assets != self._shape.n_assets:
            raise DataError(
                f"{market.name}: has {market.n_assets} assets, the lattice that "
                f"{name_of(type(self))} chooses from has {self._shape.n_assets}"
            )
        device = self.settings.device
        held = torch.as_tensor(weights, dtype=torch.float32, device=device)
        with torch.no_grad():
            worth = self.network.choices(torch.as_tensor(rows, device=device), held)
        check_finite(worth.sum())
        return self.actions().target(to_host(worth.argmax(1)), weights, rows)

    def preference(self, rows: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        """What a unit more of each asset is worth, by the values of all points."""
        return slopes(self.network.choices(rows, held)[:, :-1], self.network.points)

    def about(self) -> dict[str, Any]:
        """The choices by name, in the order of their values."""
        return {"actions": self._names}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """With the names of its choices."""
        agent = super().load(folder)
        agent._names = json.loads((folder / "agent.json").read_text())["actions"]
        return agent

    def _population(self, market: Market, task: Task, seed: int, **more: bool) -> Population:
        points = lattice_points(market.n_assets, self.settings.lattice)
        return population(points, self.settings, market, task, seed, **more)


class DQNAgent(LatticeAgent):
    """Deep Q-learning over a lattice.

    With `all_actions` each day teaches the value of every allocation (`agents.q_learning`);
    without, stable-baselines3's DQN learns from the one taken. Network and choices are the same.
    """

    Settings: ClassVar[type[LearnerSettings]] = DQNSettings
    space: ClassVar[Space] = {
        **LatticeAgent.space,
        "lattice": "2..6",
        "n_steps": [1, 5, 21],
    }

    def algorithm(self) -> Any:
        """Stable-baselines3's DQN."""
        return DQN

    def policy(self) -> Any:
        """With the values of the lattice."""
        return LatticePolicy

    def trained_part(self, model: Any) -> nn.Module:
        """The values; their slow copy is of use in training alone."""
        values: nn.Module = model.policy.q_net.values
        return values

    def train(self, market: Market, task: Task, seed: int, selection: Selection) -> None:
        """From all allocations at once where there are few, else from those taken."""
        settings = self.settings
        size, wanted = Lattice(settings.lattice).size(market.n_assets), settings.all_actions
        if not (size <= SMALL if wanted is None else wanted):
            if settings.even_starts:
                raise SettingError(
                    f"even_starts needs all_actions, got {size:,} allocations, of which only "
                    f"{SMALL} or fewer are learned at once by default; set all_actions true"
                )
            super().train(market, task, seed, selection)
            return
        self.name_choices(market, selection)
        portfolios = self._population(market, task, seed, even_starts=settings.even_starts)
        self.network = self.build().to(settings.device)
        self.network.set_prices(*portfolios.prices())
        self.show(Panel.of(market, settings.device))
        QLearner(self.network, portfolios, settings, seed).learn(selection)
