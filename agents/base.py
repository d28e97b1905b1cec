"""What every allocator is: something that is fitted on the past and turns history into weights.

An agent is built from settings, `fit` on a training market (a validation market may pick the best
state), asked with `act`, and stored with `save` and `load`. It is handed only rows up to the day of
its decision, so it cannot look ahead.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from agents import name_of
from agents.settings import NoSettings, Space, as_dict, build_settings
from envs import PortfolioEnv
from envs.costs import Cost, ProportionalCost
from market import Market


@dataclass(frozen=True, kw_only=True)
class Task:
    """The rules an agent trains and is judged under; the fields are those of `PortfolioEnv`."""

    cost: Cost | None = ProportionalCost(0.001)  # noqa: RUF009  # frozen
    reward: Any = "log_return"
    constraints: tuple[Any, ...] = ()
    decision_lag: int = 0
    fill: str = "close"
    rebalance_every: int = 1
    band: float = 0.0

    def env(self, market: Market, **settings: Any) -> PortfolioEnv:
        """An environment of this task over a market."""
        rules = {key: getattr(self, key) for key in self.__dataclass_fields__}
        return PortfolioEnv(market, **(rules | settings))


class Monitor:
    """Where training reports to; this one drops everything. Experiments write it to files."""

    folder: Path | None = None  # for TensorBoard files of the training library

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars of one moment, named `train/..`, `eval/..` or `time/..`."""

    def progress(self, done: float) -> None:
        """The fraction of the work that is done, in [0, 1]."""

    def resume(self) -> Any:
        """The newest state that `checkpoint` kept of this very training, or None: begin.

        What was recorded after it is forgotten, so call it before the first update.
        """
        return None

    def checkpoint(self, state: Callable[[], Any]) -> None:
        """Called between updates, where training can be gone on from; kept now and then.

        Args:
            state: All that the rest of training depends on, as dicts, lists, numbers, text, arrays
                and tensors. They are read before this returns, so they need no copy.

        """

    def trained(self, name: str, settings: Mapping[str, Any]) -> Agent | None:
        """An agent of this name and settings, trained already on the same data, task and seed."""
        return None


class Agent(ABC):
    """An allocator.

    Attributes:
        Settings: The frozen dataclass of what can be set; `Agent(**settings)` builds and checks it.
        space: What `allocgym tune` tries of each setting: a range as text, or a list of choices
            (`agents.search`).
        lookback: Rows of history `act` needs; the first decision is at row `lookback - 1`.
        hindsight: True where the agent was shown the future on purpose; never ranked.
        binding: Limits of the task that the last decision stands at where the agent itself keeps to
            them, so that the environment has nothing to move.
        failed: Why the last decision could not be made, where it could not; what was held stayed.

    """

    Settings: ClassVar[type] = NoSettings
    space: ClassVar[Space] = MappingProxyType({})
    lookback: int = 1
    hindsight: ClassVar[bool] = False
    binding: Mapping[str, bool] = MappingProxyType({})
    failed: str | None = None

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = build_settings(self.Settings, settings, name_of(type(self)))

    def fit(
        self,
        train: Market,
        valid: Market | None = None,
        *,
        task: Task | None = None,
        seed: int = 0,
        monitor: Monitor | None = None,
    ) -> Self:
        """Learn from `train`; choose among states of learning by `valid`. Rules need no learning.

        Args:
            train: The past to learn from.
            valid: Later data for early stopping and for picking the best state, or None.
            task: Costs, reward and limits; the default charges 0.1 % of what is traded.
            seed: Of all randomness.
            monitor: Told of progress and learning curves.

        Returns:
            The agent itself.

        """
        return self

    @abstractmethod
    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """Target weights.

        Args:
            history: All that is known at the decision, at least `lookback` rows.
            weights: What is held, drifted, shape (N,).

        Returns:
            Weights to hold next, non-negative, summing to 1, shape (N,).

        """

    def save(self, folder: Path) -> None:
        """Write what `load` needs into an existing folder, as JSON and tensors, never pickles.

        The default suits an agent that is nothing but its settings.
        """
        if not hasattr(self, "settings"):
            raise NotImplementedError(f"{name_of(type(self))} cannot be saved")
        (folder / "settings.json").write_text(json.dumps(as_dict(self.settings), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Rebuild a saved agent without running code from the folder."""
        return cls(**json.loads((folder / "settings.json").read_text()))


class Constant(Agent):
    """The same target weights on every day.

    Args:
        weights: (N,) in the market's order, or by asset name (others get none).

    """

    def __init__(self, weights: Any) -> None:
        self.weights = weights

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The constant weights."""
        if isinstance(self.weights, Mapping):
            return np.array([float(self.weights.get(asset, 0.0)) for asset in history.assets])
        return np.asarray(self.weights, np.float64)
