"""The training loop of `policy_gradient`: segments, gradients, and the states worth keeping."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from agents.band_policy import BandPolicy
from agents.base import Monitor
from agents.simulated_paths import Played, SimulatedMarket
from agents.utilities import UTILITIES
from market import SettingError

if TYPE_CHECKING:
    from agents.policy_gradient import PolicyGradientSettings

_PERCENT = 100.0  # the loss is in percent, so that gradients are far above Adam's epsilon

Evaluate = Callable[[], dict[str, float]]


class TrainingDiverged(SettingError):
    """A loss or a parameter became infinite or nan; the agent holds the last good state.

    Attributes:
        step: The update at which it happened.

    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Ascent:
    """One training run: optimiser, memory of weights, and the best state on validation.

    Args:
        policy: Trained in place.
        world: The training market.
        settings: Those of the agent.
        seed: Of segments and of weights to start from.
        monitor: Told of curves and progress.
        evaluate: Figures of the policy on validation, "utility", "sharpe" and "reward" among them;
            None: there is no validation, and the last state is kept.

    """

    def __init__(
        self,
        policy: BandPolicy,
        world: SimulatedMarket,
        settings: PolicyGradientSettings,
        seed: int,
        monitor: Monitor,
        evaluate: Evaluate | None,
    ) -> None:
        self.policy, self.world, self.settings = policy, world, settings
        self.monitor, self.evaluate = monitor, evaluate
        self.rng = np.random.default_rng(seed)
        self.held = self._first_weights()
        self.length = min(settings.segment_length, world.last + 1 - world.first)
        self.optimiser = _optimiser(policy, settings)
        self.good = copied(policy)
        self.best: dict[str, Tensor] | None = None
        self.best_score, self.best_evaluation = -np.inf, 0

    def run(self) -> None:
        """All updates; validation at even intervals, and before the first and after the last."""
        settings, evaluation = self.settings, 0
        for update in range(settings.steps):
            if update * settings.evaluations >= evaluation * settings.steps:
                if self._evaluated(update, evaluation):
                    break
                evaluation += 1
            self._update(update)
            self.monitor.progress((update + 1) / settings.steps)
        else:
            self._check(settings.steps)
            self._evaluated(settings.steps, evaluation)
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
        played = self.world.play(self.policy, starts, self.length, self._start_weights(starts))
        utility, loss = self._objective(played, update)
        self._finite(loss, update)
        self.good = copied(self.policy)
        self.optimiser.zero_grad()
        loss.backward()
        limit = self.settings.max_gradient
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), limit)
        self._finite(norm, update)
        self.optimiser.step()
        self._remember(starts, played.held)
        self._report(update, rate, utility, norm, played)

    def _objective(self, played: Played, update: int) -> tuple[Tensor, Tensor]:
        """Utility per period, and the loss: what is to be minimised, in percent.

        Costs are phased in: a share of them counts at first. Else, before it knows what a trade is
        good for, a policy learns that trades cost, and may never trade again.
        """
        settings = self.settings
        share = min(1.0, update / max(settings.cost_warmup * settings.steps, 1e-9))
        counted = played.returns
        if share < 1.0:
            counted = (1.0 + counted) * played.mu ** (share - 1.0) - 1.0
        worth = UTILITIES[settings.utility]
        utility = worth(counted, played.risk_free, settings.risk_aversion)
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
        weights[world.first] = world.rules.start_weights(row=world.first)
        return torch.as_tensor(weights, device=world.device)

    def _start_weights(self, starts: np.ndarray) -> Tensor:
        """What was held there last time, or now and then anything, (B, N)."""
        anything = self.rng.dirichlet(np.ones(self.world.n_assets), len(starts))
        chosen = self.rng.random(len(starts)) < self.settings.explore
        device = self.world.device
        mask = torch.as_tensor(chosen, device=device)[:, None]
        return torch.where(mask, torch.as_tensor(anything, device=device), self.held[starts])

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
            self._finite(self._objective(played, update)[1], update)

    def _finite(self, value: Tensor, update: int) -> None:
        """Stop where the loss or its gradient is not finite, with the state before."""
        if bool(torch.isfinite(value)):
            return
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
                "train/cost": 1.0 - played.mu.mean().item(),
                "train/violation": played.violation.mean().item(),
                "train/band": played.band.mean().item(),
                "train/gradient": norm.item(),
                "train/learning_rate": rate,
            },
        )

    def _evaluated(self, update: int, evaluation: int) -> bool:
        """Keep the state if it is the best so far; whether patience has run out."""
        if self.evaluate is None:
            return False
        self.policy.eval()
        values = self.evaluate()
        self.monitor.record(update, {f"eval/{key}": value for key, value in values.items()})
        score, patience = values[self.settings.select_by], self.settings.patience
        if score > self.best_score:
            self.best_score, self.best_evaluation = score, evaluation
            self.best = copied(self.policy)
        return patience is not None and evaluation - self.best_evaluation >= patience


def _optimiser(policy: BandPolicy, settings: PolicyGradientSettings) -> torch.optim.Optimizer:
    """AdamW; biases and the scores of single assets are not decayed."""
    parameters = list(policy.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [each for each in parameters if each.ndim > 1]},
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    rate, decay = settings.learning_rate, settings.weight_decay
    return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)


def copied(policy: BandPolicy) -> dict[str, Tensor]:
    """The policy's parameters as they are now."""
    return {key: value.detach().clone() for key, value in policy.state_dict().items()}
