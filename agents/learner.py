"""What all agents that learn a network have in common: settings, scaling, selection, storage.

The scaler is fitted on the training market and kept with the network; the state of the network that
did best on validation is the one that is kept. Models are stored as JSON and safetensors.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from math import cos, pi
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from agents import name_of
from agents.base import Agent, Monitor, Task
from agents.device import check_device
from agents.networks import NetworkSettings
from agents.panel_network import Panel, Shape, readers
from agents.response import Meaning, NoNetwork, Response, end_to_end
from agents.rollout import roll
from agents.schedule import with_cash
from agents.selection import Selection, figures
from agents.settings import Space, as_dict, require
from market import Market, SettingError
from market.features.scaling import Scaler

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda left: 1.0,
    "linear": lambda left: left,
    "cosine": lambda left: 0.5 - 0.5 * cos(pi * left),
}


@dataclass(frozen=True, kw_only=True)
class LearnerSettings:
    """What these agents have in common; sizes of the network as in `NetworkSettings`."""

    steps: int = 100_000  # decisions, over all environments
    num_envs: int = 32  # portfolios played side by side
    episode_length: int = 252  # decisions in an episode, started at random
    lookback: int = 60  # rows of the window
    encoder: str = "cnn"
    mixing: str = "pooled"
    width: int = 16
    depth: int = 2
    dropout: float = 0.0
    normalisation: str = "none"
    learning_rate: float = 3e-4
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # of the rate, down to 0
    scaling: Literal["standard", "robust", "rank", "normal", "rolling"] = "standard"  # of features
    gamma: float = 0.95  # the market ignores us, so only costs reach beyond the next day
    reward_scale: float = 100.0  # learning sees rewards in percent
    less_market: bool = False  # and less the growth of equal weights, which is nobody's doing
    explore_starts: float = 0.0  # share of episodes that start from random weights
    evaluations: int = 10  # on validation during training
    patience: int | None = None  # evaluations without a new best before training stops
    select_by: Literal["sharpe", "reward"] = "sharpe"  # what picks the state to keep
    device: str = "cpu"
    threads: int = 1  # of torch

    def __post_init__(self) -> None:
        whole = ("steps", "num_envs", "episode_length", "evaluations", "patience", "threads")
        require(self, **dict.fromkeys(whole, "[1, inf)"))
        require(self, gamma="[0, 1)", learning_rate="(0, inf)", reward_scale="(0, inf)")
        require(self, explore_starts="[0, 1]")
        check_device(self.device)
        self.network()

    def network(self) -> NetworkSettings:
        """The network's part."""
        return NetworkSettings(**{key.name: getattr(self, key.name) for key in _NETWORK})

    def rate(self, left: float) -> float:
        """The learning rate when this fraction of training is left."""
        return self.learning_rate * SCHEDULES[self.schedule](left)


Network = TypeVar("Network", bound=nn.Module)
_NETWORK = fields(NetworkSettings)
ROLLING_ROWS = 252  # that "rolling" scaling looks back on


def _behind(scaling: str) -> int:
    """Rows before a window that its scaled values depend on."""
    return ROLLING_ROWS - 1 if scaling == "rolling" else 0


class Learner(Agent):
    """An agent with a network; a subclass builds it, trains it and reads decisions off it."""

    Settings: ClassVar[type[LearnerSettings]] = LearnerSettings
    space: ClassVar[Space] = {
        "learning_rate": "1e-4..1e-2 log",
        "encoder": ["fnn", "cnn", "gru"],
        "width": [8, 16, 32],
        "dropout": "0.0..0.4",
        "lookback": [20, 60, 120],
        "gamma": "0.0..0.99",
    }
    learns: ClassVar[bool] = True
    settings: Any

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.lookback = self.settings.lookback + _behind(self.settings.scaling)
        self.network: Any = None
        self._scaler: Scaler | None = None
        self._shape = Shape(0, 0, 0)
        self._read: Market | None = None  # the market `reading` shows
        self._start: dict[str, Tensor] | None = None  # parameters to begin with

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, untrained, for markets of `self._shape`."""

    @abstractmethod
    def train(self, market: Market, task: Task, seed: int, selection: Selection) -> None:
        """Train `self.network` on a scaled market, calling `selection` on the way."""

    @abstractmethod
    def decide(self, row: int, weights: np.ndarray, history: Market) -> np.ndarray:
        """Target weights (N,) at a row of the market the network was shown."""

    def fit(
        self,
        train: Market,
        valid: Market | None = None,
        *,
        task: Task | None = None,
        seed: int = 0,
        monitor: Monitor | None = None,
    ) -> Self:
        """Train on `train`, keep the state that did best on `valid` (without one, the last).

        Raises:
            DivergedError: As soon as a parameter is not finite; the agent is left in its last good
                state.

        """
        torch.set_num_threads(self.settings.threads)
        task = task or Task()
        self._scaler = Scaler.fit(train, self.settings.scaling, window=ROLLING_ROWS)
        market = self._scaler.transform(train)
        self._shape = Shape.of(market, seed)
        selection = Selection(
            name_of(type(self)),
            lambda: self.network,
            self.settings,
            None if valid is None else lambda: self._figures(valid, task),
            monitor or Monitor(),
        )
        self.train(market, task, seed, selection)
        selection.finish()
        self.network.train(False)
        return self

    def warm_start(self, before: Learner) -> None:
        """Let the next `fit` begin with what a fitted agent of the same settings has learned.

        All the network's parameters are taken over, critics included; the scaler, the optimiser's
        moments and the replay begin anew.
        """
        if before.network is None:
            raise SettingError(f"{name_of(type(self))}: warm_start needs a fitted agent")
        state = before.network.state_dict()
        self._start = {key: value.detach().clone() for key, value in state.items()}

    def begun(self, network: Network) -> Network:
        """The network with the parameters of a warm start, where there is one."""
        if self._start is not None:
            network.load_state_dict(self._start)
        return network

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The network's deterministic target; what cannot be held goes to cash."""
        if self.network is None or self._scaler is None:
            raise SettingError(f"{name_of(type(self))} must be fitted or loaded before it acts")
        row = history.n_periods - 1
        if self._read is None:
            window = self._scaler.transform(history[-self.lookback :])[-self.settings.lookback :]
            self.show(Panel.of(window, self.settings.device))
            row = self.settings.lookback - 1
        target, listed = self.decide(row, weights, history), history.tradable[-1]
        return target if listed.all() else with_cash(np.where(listed, target, 0.0), history)

    meaning: Meaning = "weight"  # of `preference`

    def preference(self, rows: Tensor, held: Tensor) -> Tensor:
        """What `act` follows, differentiably, (B, N); rows (B,) of what is shown, held (B, N)."""
        raise NoNetwork(f"{name_of(type(self))}: its network cannot be explained")

    def response(self, history: Market, weights: np.ndarray) -> Response:
        """The network's answer to the newest window as a function of the window."""
        assert self._scaler is not None
        window = self._scaler.transform(history[-self.lookback :])[-self.settings.lookback :]
        cash = Panel.of(window, self.settings.device).cash

        def answer(features: Tensor, context: Tensor, held: Tensor) -> Tensor:
            panel, rows = end_to_end(features, context, cash)
            self.show(panel)
            return self.preference(rows, held)

        return Response.of(window, weights, answer, self.meaning)

    def show(self, panel: Panel | None, *, still: bool = False) -> None:
        """Let every part of the network read this market."""
        for reader in readers(self.network):
            reader.show(panel, still=still)

    @contextmanager
    def reading(self, market: Market) -> Iterator[None]:
        """Within, `act` is asked about rows of this market alone, which is encoded just once."""
        assert self._scaler is not None
        kept = [(reader, reader.panel, reader.still) for reader in readers(self.network)]
        panel, self._read = Panel.of(self._scaler.transform(market), self.settings.device), market
        training = self.network.training
        self.network.train(False)
        self.show(panel, still=True)
        try:
            yield
        finally:
            self._read = None
            self.network.train(training)
            for reader, before, still in kept:
                reader.show(before, still=still)

    def _figures(self, market: Market, task: Task) -> dict[str, float]:
        """Of the network as it is, played through a market."""
        with self.reading(market):
            return figures(roll(self, market, task), market)

    def save(self, folder: Path) -> None:
        """Settings and shapes as JSON, the scaler as JSON, the network as safetensors."""
        about = {"settings": as_dict(self.settings), "shape": asdict(self._shape)} | self.about()
        (folder / "agent.json").write_text(json.dumps(about, indent=1) + "\n")
        assert self._scaler is not None
        (folder / "scaler.json").write_text(self._scaler.to_json())
        state = {key: value.clone() for key, value in self.network.state_dict().items()}
        save_file(state, folder / "policy.safetensors")

    def about(self) -> dict[str, Any]:
        """What the stored JSON says beside settings and shapes."""
        return {}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Build the network from the settings and put the stored weights in."""
        about = json.loads((folder / "agent.json").read_text())
        agent = cls(**about["settings"])
        agent._shape = Shape(**about["shape"])
        agent._scaler = Scaler.from_json((folder / "scaler.json").read_text())
        agent.network = agent.build().to(agent.settings.device)
        agent.network.load_state_dict(load_file(folder / "policy.safetensors"))
        agent.network.train(False)
        return agent
