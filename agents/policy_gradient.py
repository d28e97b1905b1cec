"""Ascent of the utility of whole simulated paths, by the gradient that the simulator passes back.

An update plays many segments of the training years at once (`agents.simulated_paths`), costs and
limits included, and follows the exact gradient of their utility with Adam. A segment starts from
the weights that the policy itself held there when it last came by, so that the policy is trained on
holdings it meets (Jiang, Xu & Liang, A deep reinforcement learning framework for the financial
portfolio management problem, 2017, who call the store a portfolio-vector memory). The gradient ends
with its segment.

    weights held[t] --segment from t--> utility, and weights held[t + 1 ..] for the next time
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from agents import name_of
from agents.ascent import Ascent
from agents.band_policy import BandPolicy, Plan
from agents.base import Agent, Monitor, Task
from agents.device import check_device, to_host
from agents.forecasters import one_thread, reproducible
from agents.networks import NetworkSettings
from agents.response import Response
from agents.rollout import roll
from agents.selection import Selection, figures
from agents.settings import Space, as_dict, require
from agents.simulated_paths import SimulatedMarket, cash_flag, only_tradable
from agents.utilities import UTILITIES
from market import DataError, Market, SettingError
from market.features.scaling import Scaler


@dataclass(frozen=True, kw_only=True)
class PolicyGradientSettings:
    """Settings of `policy_gradient`."""

    utility: Literal["log_growth", "mean_variance", "crra", "sharpe"] = "log_growth"
    risk_aversion: float = 5.0  # of mean_variance and crra
    steps: int = 100  # updates
    segments: int = 64  # played side by side in an update; where there are fewer, all
    segment_length: int = 40  # decisions
    learning_rate: float = 1e-3  # where a signal is sure, ten times as much finds it sooner
    schedule: Literal["cosine", "constant"] = "cosine"  # cosine: down to 0 at the last update
    max_gradient: float = 1.0  # gradients of a greater norm are scaled down to it
    weight_decay: float = 0.1  # of the network's matrices, as in AdamW
    towards_equal: float = 0.0  # utility lost per squared distance of the proposal to equal weights
    violation_penalty: float = 1.0  # utility lost per unit by which a target is outside the limits
    band: bool = True  # a band in which the policy does not trade, where trading costs anything
    sees_weights: bool = False  # whether the proposal, too, depends on what is held; slower
    cost_warmup: float = 0.3  # share of the updates over which costs are phased in
    explore: float = 0.2  # share of segments that start from random weights
    own_scores: bool = True  # a learned score per asset; the assets are then those of training
    encoder: str = "cnn"
    mixing: str = "pooled"
    width: int = 16
    depth: int = 2
    dropout: float = 0.0
    normalisation: str = "none"
    lookback: int = 60  # rows of the window
    evaluations: int = 10  # on validation during training
    patience: int | None = None  # evaluations without a better one before training stops
    select_by: Literal["utility", "sharpe", "reward"] = "utility"  # figure of validation
    device: str = "cpu"
    threads: int = 1  # of torch

    def __post_init__(self) -> None:
        counts = "steps segments segment_length lookback evaluations patience threads"
        require(self, **dict.fromkeys(counts.split(), "[1, inf)"))
        positive = ("risk_aversion", "learning_rate", "max_gradient")
        require(self, **dict.fromkeys(positive, "(0, inf)"))
        penalties = ("weight_decay", "towards_equal", "violation_penalty")
        require(
            self, **dict.fromkeys(penalties, "[0, inf)"), explore="[0, 1]", cost_warmup="[0, 1]"
        )
        self.network()
        check_device(self.device)

    def network(self) -> NetworkSettings:
        """Those of the network."""
        keys = ("encoder", "mixing", "width", "depth", "dropout", "normalisation", "lookback")
        return NetworkSettings(**{key: getattr(self, key) for key in keys})


class PolicyGradientAgent(Agent):
    """A network whose weights maximise the utility of simulated paths; see this module's head."""

    Settings: ClassVar[type] = PolicyGradientSettings
    space: ClassVar[Space] = {
        "learning_rate": "1e-4..1e-2 log",
        "encoder": ["fnn", "cnn", "gru"],
        "width": [8, 16, 32],
        "dropout": "0.0..0.4",
        "lookback": [20, 60, 120],
        "weight_decay": "0.01..1.0 log",
        "cost_warmup": "0.0..0.6",
    }
    learns: ClassVar[bool] = True
    settings: PolicyGradientSettings

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.lookback = self.settings.lookback
        self.policy: BandPolicy | None = None
        self._scaler: Scaler | None = None
        self._about: dict[str, Any] = {}
        self._start: PolicyGradientAgent | None = None
        self._reader: _Reader | None = None  # of the market `reading` shows

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
            DivergedError: If a loss or parameter is no longer finite; the agent then holds the last
                state whose loss was.

        """
        task = task or Task()
        torch.set_num_threads(self.settings.threads)
        self._scaler = Scaler.fit(train)
        world = SimulatedMarket(
            self._scaler.transform(train), task, self.lookback, self.settings.device
        )
        with reproducible(seed):
            self._about = {
                "n_features": len(train.feature_names),
                "n_context": len(train.context_names),
                "has_band": self.settings.band and not world.is_free,
                "n_known": train.n_assets if self.settings.own_scores else 0,
            }
            self.policy = self._new_policy(seed)
            if self._start is not None:
                self._take_over(self.policy, self._start)
            selection = Selection(
                name_of(type(self)),
                self._policy,
                self.settings,
                None if valid is None else self._validation(valid, task),
                monitor or Monitor(),
            )
            Ascent(self.policy, world, self.settings, seed, selection).run()
        self.policy.eval()
        return self

    def warm_start(self, before: PolicyGradientAgent) -> None:
        """Let the next `fit` go on from what a fitted agent has learned: online continuation.

        The memory of weights held is filled anew, by the policy itself, on the new days.
        """
        before._policy()
        self._start = before

    def _take_over(self, policy: BandPolicy, before: PolicyGradientAgent) -> None:
        if self._about != before._about:
            raise SettingError(
                f"{name_of(type(self))}: cannot go on from {before._about} with {self._about}"
            )
        policy.load_state_dict(before._policy().state_dict())

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The policy's target; the same question gets the same answer."""
        if self._reader is not None:
            return self._reader.act(history, weights)
        policy, window = self._policy(), self._scaled(history[-self.lookback :])
        if self._about["n_known"] not in (0, window.n_assets):
            raise DataError(
                f"{history.name}: has {window.n_assets} assets, training had "
                f"{self._about['n_known']}; train with own_scores=False to change assets"
            )
        device = self.settings.device
        features = torch.as_tensor(np.array(window.features), device=device)[None]
        context = torch.as_tensor(np.array(window.context), device=device)[None]
        with torch.inference_mode(), one_thread():
            table = policy.network.table(
                features,
                context if window.context_names else None,
                cash_flag(window).to(device),
            )
            return self.decide(table, window, weights)

    @contextmanager
    def reading(self, market: Market) -> Iterator[None]:
        """Within, `act` is asked about rows of this market alone, which is encoded just once."""
        world = SimulatedMarket(self._scaled(market), Task(), self.lookback, self.settings.device)
        self._policy().eval()
        self._reader = _Reader(self, world)
        try:
            yield
        finally:
            self._reader = None

    def decide_all(self, rows: np.ndarray, weights: np.ndarray, market: Market) -> np.ndarray:
        """Targets (B, N) at rows (B,) of the market being read, each with its holdings (B, N)."""
        assert self._reader is not None
        return self._reader.decide_all(rows, weights, market)

    def decide(self, table: Tensor, history: Market, weights: np.ndarray) -> np.ndarray:
        """The target from a row of the network's table (1, N, H), the last of `history`."""
        held = torch.as_tensor(weights, dtype=torch.float64, device=table.device)[None]
        tradable = torch.as_tensor(history.tradable[-1].copy(), device=table.device)
        target = self._policy().plan(table, held, tradable).target(held)
        if not history.tradable[-1].all():
            target = only_tradable(target, tradable, history.has_cash)
        target = to_host(target[0])
        return target / target.sum()

    def response(self, history: Market, weights: np.ndarray) -> Response:
        """The proposal as a function of the window."""
        window, policy = self._scaled(history[-self.lookback :]), self._policy()
        cash = cash_flag(window).to(self.settings.device)
        tradable = torch.as_tensor(window.tradable[-1].copy())

        def answer(features: Tensor, context: Tensor, held: Tensor) -> Tensor:
            shared = context if window.context_names else None
            table = policy.network.table(features, shared, cash)
            return policy.plan(table, held, tradable).proposal

        return Response.of(window, weights, answer, "proposal")

    def save(self, folder: Path) -> None:
        """Settings and scaler as JSON, the network as safetensors."""
        policy, scaler = self._policy(), self._scaler
        assert scaler is not None
        about = {"settings": as_dict(self.settings), "policy": self._about}
        (folder / "agent.json").write_text(json.dumps(about, indent=1) + "\n")
        (folder / "scaler.json").write_text(scaler.to_json())
        state = {key: value.clone() for key, value in policy.state_dict().items()}
        save_file(state, folder / "policy.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Build the network from the settings and put the stored weights in."""
        about = json.loads((folder / "agent.json").read_text())
        agent = cls(**about["settings"])
        agent._scaler = Scaler.from_json((folder / "scaler.json").read_text())
        agent._about = about["policy"]
        agent.policy = agent._new_policy()
        agent.policy.load_state_dict(load_file(folder / "policy.safetensors"))
        agent.policy.eval()
        return agent

    def _validation(self, valid: Market, task: Task) -> Callable[[], dict[str, float]]:
        """A function that plays the policy through validation, day by day, as a back-test does."""
        market, settings = self._scaled(valid), self.settings
        world = SimulatedMarket(market, task, self.lookback, settings.device)

        def evaluate() -> dict[str, float]:
            self._policy().eval()
            path = roll(_Reader(self, world), market, task)
            returns, free = torch.tensor(path.returns), torch.tensor(path.risk_free)
            utility = UTILITIES[settings.utility](returns, free, settings.risk_aversion)
            return figures(path, market) | {"utility": float(utility)}

        return evaluate

    def _new_policy(self, seed: int = 0) -> BandPolicy:
        settings = self.settings
        network, sees_weights = settings.network(), settings.sees_weights
        policy = BandPolicy(**self._about, settings=network, sees_weights=sees_weights, seed=seed)
        return policy.to(settings.device)

    def _policy(self) -> BandPolicy:
        if self.policy is None:
            raise SettingError(f"{name_of(type(self))} must be fitted or loaded before it acts")
        return self.policy

    def _scaled(self, history: Market) -> Market:
        assert self._scaler is not None
        return self._scaler.transform(history)


class _Reader(Agent):
    """The agent on one market, already scaled, for which all that can be is computed at once."""

    def __init__(self, agent: PolicyGradientAgent, world: SimulatedMarket) -> None:
        self.agent, self.lookback, self.plans = agent, agent.lookback, None
        policy = agent._policy()
        with torch.inference_mode():
            self.table = policy.network.table_panel(world.panel, world.context, world.cash)
            if not policy.sees_weights and world.tradable is None:
                plans = policy.plan(self.table, torch.zeros(0))
                self.plans = Plan(*(to_host(part) for part in plans))

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        return self._at(history.n_periods - 1, history, weights)

    def decide_all(self, rows: np.ndarray, weights: np.ndarray, market: Market) -> np.ndarray:
        """See `PolicyGradientAgent`."""
        if self.plans is not None:
            return self._planned(rows, weights)
        each = zip(rows, weights, strict=True)
        return np.stack([self._at(row, market.upto(row), held) for row, held in each])

    def _at(self, row: int, history: Market, weights: np.ndarray) -> np.ndarray:
        if self.plans is not None:
            return self._planned(row, weights)
        place = row - self.lookback + 1
        with torch.inference_mode():
            return self.agent.decide(self.table[place : place + 1], history, weights)

    def _planned(self, rows: Any, weights: np.ndarray) -> np.ndarray:
        assert self.plans is not None
        plan = Plan(*(part[rows - self.lookback + 1] for part in self.plans))
        target: np.ndarray = plan.target(weights)
        return target / target.sum(-1, keepdims=True)
