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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from agents.band_policy import BandPolicy
from agents.base import Agent, Monitor, Task
from agents.forecasters import one_thread, reproducible
from agents.networks import NetworkSettings
from agents.rollout import path_metrics, roll
from agents.settings import as_dict, require
from agents.simulated_paths import UTILITIES, Played, SimulatedMarket, cash_flag, only_tradable
from market import Market, SettingError
from market.features.scaling import Scaler

_PERCENT = 100.0  # the loss is in percent, so that gradients are far above Adam's epsilon


class TrainingDiverged(SettingError):
    """A loss or a parameter became infinite or nan; the agent holds the last good state.

    Attributes:
        step: The update at which it happened.

    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


@dataclass(frozen=True, kw_only=True)
class PolicyGradientSettings:
    """Settings of `policy_gradient`."""

    utility: Literal["log_growth", "mean_variance", "crra", "sharpe"] = "log_growth"
    risk_aversion: float = 5.0  # of mean_variance and crra
    steps: int = 400  # updates
    segments: int = 64  # played side by side in an update; where there are fewer, all
    segment_length: int = 40  # decisions
    learning_rate: float = 3e-3
    schedule: Literal["cosine", "constant"] = "cosine"  # cosine: down to 0 at the last update
    max_gradient: float = 1.0  # gradients of a greater norm are scaled down to it
    weight_decay: float = 1e-4  # of the parameters, as in AdamW
    towards_equal: float = 0.0  # utility lost per squared distance of the proposal to equal weights
    violation_penalty: float = 1.0  # utility lost per unit by which a target is outside the limits
    band: bool = True  # whether the policy has a band in which it does not trade
    encoder: str = "cnn"
    mixing: str = "pooled"
    width: int = 32
    depth: int = 2
    dropout: float = 0.0
    normalisation: str = "none"
    lookback: int = 60  # rows of the window
    evaluations: int = 20  # on validation during training
    patience: int | None = None  # evaluations without a better one before training stops
    select_by: Literal["utility", "sharpe", "reward"] = "utility"  # validation figure, picks a state
    device: str = "cpu"

    def __post_init__(self) -> None:
        counts = ("steps", "segments", "segment_length", "lookback", "evaluations", "patience")
        require(self, **dict.fromkeys(counts, "[1, inf)"))
        positive = ("risk_aversion", "learning_rate", "max_gradient")
        require(self, **dict.fromkeys(positive, "(0, inf)"))
        penalties = ("weight_decay", "towards_equal", "violation_penalty")
        require(self, **dict.fromkeys(penalties, "[0, inf)"))
        self.network()
        try:
            torch.device(self.device)
        except RuntimeError:
            raise SettingError(f"device must be one of torch's, got {self.device!r}") from None

    def network(self) -> NetworkSettings:
        """Those of the network."""
        keys = ("encoder", "mixing", "width", "depth", "dropout", "normalisation", "lookback")
        return NetworkSettings(**{key: getattr(self, key) for key in keys})


class PolicyGradientAgent(Agent):
    """A network whose weights maximise the utility of simulated paths; see this module's head."""

    Settings: ClassVar[type] = PolicyGradientSettings
    learns: ClassVar[bool] = True
    settings: PolicyGradientSettings

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.lookback = self.settings.lookback
        self.policy: BandPolicy | None = None
        self._scaler: Scaler | None = None

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
            TrainingDiverged: If a loss or parameter is no longer finite; the agent then holds the
                last state whose loss was.

        """
        task = task or Task()
        torch.set_num_threads(1)
        self._scaler = Scaler.fit(train)
        world = SimulatedMarket(
            self._scaler.transform(train), task, self.lookback, self.settings.device
        )
        with reproducible(seed):
            self.policy = self._new_policy(len(train.feature_names), len(train.context_names), seed)
            _Training(self, self.policy, world, valid, task, seed, monitor or Monitor()).run()
        return self

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """The policy's target; the same question gets the same answer."""
        policy, window = self._policy(), self._scaled(history[-self.lookback :])
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

    def decide(self, table: Tensor, history: Market, weights: np.ndarray) -> np.ndarray:
        """The target from a row of the network's table (1, N, H), the last of `history`."""
        held = torch.as_tensor(weights, dtype=torch.float64, device=table.device)[None]
        tradable = None
        if not history.tradable[-1].all():
            tradable = torch.as_tensor(history.tradable[-1].copy(), device=table.device)
        target = self._policy().decide(table, held, tradable).target
        if tradable is not None:
            target = only_tradable(target, tradable, history.has_cash)
        return target[0].cpu().numpy()

    def save(self, folder: Path) -> None:
        """Settings and scaler as JSON, the network as safetensors."""
        policy, scaler = self._policy(), self._scaler
        assert scaler is not None
        (folder / "agent.json").write_text(json.dumps(as_dict(self.settings), indent=1) + "\n")
        (folder / "scaler.json").write_text(scaler.to_json())
        save_file(_copied(policy), folder / "policy.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Build the network from the settings and put the stored weights in."""
        agent = cls(**json.loads((folder / "agent.json").read_text()))
        agent._scaler = Scaler.from_json((folder / "scaler.json").read_text())
        sizes = len(agent._scaler.names), len(agent._scaler.context_names)
        agent.policy = agent._new_policy(*sizes, seed=0)
        agent.policy.load_state_dict(load_file(folder / "policy.safetensors"))
        agent.policy.eval()
        return agent

    def _new_policy(self, n_features: int, n_context: int, seed: int) -> BandPolicy:
        settings = self.settings
        network = settings.network()
        policy = BandPolicy(n_features, n_context, network, has_band=settings.band, seed=seed)
        return policy.to(settings.device)

    def _policy(self) -> BandPolicy:
        if self.policy is None:
            raise SettingError(f"{type(self).__name__} must be fitted or loaded before it acts")
        return self.policy

    def _scaled(self, history: Market) -> Market:
        assert self._scaler is not None
        return self._scaler.transform(history)


class _Reader(Agent):
    """The agent, on one market whose table is computed once; the market is scaled already."""

    def __init__(self, agent: PolicyGradientAgent, world: SimulatedMarket) -> None:
        self.agent, self.lookback = agent, agent.lookback
        with torch.inference_mode():
            network = agent._policy().network
            self.table = network.table_panel(world.panel, world.context, world.cash)

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        row = history.n_periods - self.lookback
        with torch.inference_mode():
            return self.agent.decide(self.table[row : row + 1], history, weights)


class _Training:
    """One training run: optimiser, memory of weights, and the states worth keeping."""

    def __init__(
        self,
        agent: PolicyGradientAgent,
        policy: BandPolicy,
        world: SimulatedMarket,
        valid: Market | None,
        task: Task,
        seed: int,
        monitor: Monitor,
    ) -> None:
        self.agent, self.policy, self.world = agent, policy, world
        self.task, self.monitor, self.settings = task, monitor, agent.settings
        self.valid = None if valid is None else agent._scaled(valid)
        self.seen = self.valid and SimulatedMarket(
            self.valid, task, agent.lookback, self.settings.device
        )
        self.rng = np.random.default_rng(seed)
        self.held = self._first_weights()
        self.length = min(self.settings.segment_length, world.last + 1 - world.first)
        self.optimiser = torch.optim.AdamW(
            policy.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
        )
        self.best: dict[str, Tensor] | None = None
        self.best_score, self.best_evaluation = -np.inf, 0

    def run(self) -> None:
        """All updates; validation at even intervals, and before the first and after the last."""
        settings, evaluation = self.settings, 0
        for update in range(settings.steps):
            if update * settings.evaluations >= evaluation * settings.steps:
                if self._evaluate(update, evaluation):
                    break
                evaluation += 1
            self._update(update)
            self.monitor.progress((update + 1) / settings.steps)
        else:
            self._check(settings.steps)
            self._evaluate(settings.steps, evaluation)
        if self.best is not None:
            self.policy.load_state_dict(self.best)
        self.policy.eval()
        self.monitor.progress(1.0)

    def _update(self, update: int) -> None:
        self.policy.train()
        rate = self._rate(update)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        starts = self._starts()
        played = self.world.play(self.policy, starts, self.length, self.held[starts])
        utility, loss = self._objective(played)
        self._finite(loss, update)
        self.good = _copied(self.policy)
        self.optimiser.zero_grad()
        loss.backward()
        limit = self.settings.max_gradient
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), limit)
        self._finite(norm, update)
        self.optimiser.step()
        self._remember(starts, played.held)
        self._report(update, rate, utility, norm, played)

    def _objective(self, played: Played) -> tuple[Tensor, Tensor]:
        """Utility per period, and the loss: what is to be minimised, in percent."""
        settings = self.settings
        utility = UTILITIES[settings.utility](
            played.returns, played.risk_free, settings.risk_aversion
        )
        penalty = settings.violation_penalty * played.violation.mean()
        if settings.towards_equal:
            penalty = penalty + settings.towards_equal * played.imbalance.mean()
        return utility, -_PERCENT * (utility - penalty)

    def _starts(self) -> np.ndarray:
        """Rows of the first decisions: segments end to end from a random row, all or some."""
        first, count = self.world.first, self.world.last + 1 - self.world.first
        offset = int(self.rng.integers(min(self.length, count - self.length + 1)))
        starts = first + np.arange(offset, count - self.length + 1, self.length)
        if len(starts) > self.settings.segments:
            starts = np.sort(self.rng.choice(starts, self.settings.segments, replace=False))
        return starts

    def _first_weights(self) -> Tensor:
        """A guess at what is held on each row, (T, N): anything; on the first row a start."""
        world = self.world
        weights = self.rng.dirichlet(np.ones(world.n_assets), len(world.panel))
        weights[world.first] = world.rules.start_weights()
        return torch.as_tensor(weights, device=world.device)

    def _remember(self, starts: np.ndarray, held: Tensor) -> None:
        """Weights met by the policy, for the segments that will start there."""
        for s, weights in enumerate(held[1:]):
            self.held[starts + s + 1] = weights

    def _rate(self, update: int) -> float:
        settings = self.settings
        if settings.schedule == "constant":
            return settings.learning_rate
        return settings.learning_rate * 0.5 * (1.0 + np.cos(np.pi * update / settings.steps))

    def _check(self, update: int) -> None:
        """Refuse a last state that cannot play."""
        self.policy.eval()
        with torch.no_grad():
            starts = self._starts()
            played = self.world.play(self.policy, starts, self.length, self.held[starts])
            self._finite(self._objective(played)[1], update)

    def _finite(self, value: Tensor, update: int) -> None:
        """Stop where the loss or its gradient is not finite, with the state before."""
        if bool(torch.isfinite(value)):
            return
        if update:
            self.policy.load_state_dict(self.good)
        self.policy.eval()
        raise TrainingDiverged(
            f"policy_gradient diverged at step {update}: the loss or its gradient is {value:g}; "
            f"the last good state is kept; lower learning_rate ({self.settings.learning_rate:g})",
            update,
        )

    def _report(
        self, update: int, rate: float, utility: Tensor, norm: Tensor, played: Played
    ) -> None:
        self.monitor.record(
            update + 1,
            {
                "train/utility": utility.item(),
                "train/turnover": played.turnover.mean().item(),
                "train/cost": played.cost.mean().item(),
                "train/violation": played.violation.mean().item(),
                "train/band": played.band.mean().item(),
                "train/gradient": norm.item(),
                "train/learning_rate": rate,
            },
        )

    def _evaluate(self, update: int, evaluation: int) -> bool:
        """Play validation, keep the best state; whether patience has run out."""
        if self.valid is None or self.seen is None:
            return False
        self.policy.eval()
        path = roll(_Reader(self.agent, self.seen), self.valid, self.task)
        values = path_metrics(path, self.valid.periods_per_year)
        for asset, weight in zip(self.valid.assets, path.targets.mean(0), strict=True):
            values[f"weight/{asset}"] = float(weight)
        returns, free = torch.from_numpy(path.returns), torch.from_numpy(path.risk_free)
        settings = self.settings
        values["utility"] = UTILITIES[settings.utility](
            returns, free, settings.risk_aversion
        ).item()
        values["reward"] = float(path.rewards.mean())
        self.monitor.record(update, {f"eval/{key}": value for key, value in values.items()})
        if values[settings.select_by] > self.best_score:
            self.best_score, self.best_evaluation = values[settings.select_by], evaluation
            self.best = _copied(self.policy)
        patience = settings.patience
        return patience is not None and evaluation - self.best_evaluation >= patience


def _copied(policy: BandPolicy) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in policy.state_dict().items()}
