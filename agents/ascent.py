"""The training loop of `policy_gradient`: segments, gradients, and the states worth keeping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from agents.band_policy import BandPolicy
from agents.selection import Selection
from agents.simulated_paths import Played, SimulatedMarket
from agents.utilities import UTILITIES

if TYPE_CHECKING:
    from agents.policy_gradient import PolicyGradientSettings

_PERCENT = 100.0  # the loss is in percent, so that gradients are far above Adam's epsilon


class Ascent:
    """One training run; between updates it is wholly described by its attributes.

    Args:
        policy: Trained in place.
        world: The training market.
        settings: Those of the agent.
        seed: Of segments and of weights to start from.
        selection: Watches, and keeps the best state.

    Attributes:
        update: Updates made.
        held: What the policy held on each row when it last came by, (T, N).
        optimiser: With its moments.
        rng: Of all that is random but dropout, which has torch's generator.

    """

    def __init__(
        self,
        policy: BandPolicy,
        world: SimulatedMarket,
        settings: PolicyGradientSettings,
        seed: int,
        selection: Selection,
    ) -> None:
        self.policy, self.world, self.settings = policy, world, settings
        self.selection, self.update = selection, 0
        self.rng = np.random.default_rng(seed)
        self.held = self._first_weights()
        self.length = min(settings.segment_length, world.last + 1 - world.first)
        self.optimiser = _optimiser(policy, settings)

    def run(self) -> None:
        """All updates, with a look before each and after the last."""
        selection = self.selection
        selection.follow(self)
        while self.update < self.settings.steps and not selection.stopped:
            selection.look(self.update)
            if not selection.stopped:
                self.advance()
                selection.progress(self.update)
        if not selection.stopped:
            self._check()
            selection.end(self.update)
        selection.finish()

    def snapshot(self) -> dict[str, Any]:
        """See `agents.selection.Loop`."""
        return {
            "policy": self.policy.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "held": self.held,
            "rng": self.rng.bit_generator.state,
            "update": self.update,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """See `agents.selection.Loop`."""
        self.policy.load_state_dict(snapshot["policy"])
        self.optimiser.load_state_dict(snapshot["optimiser"])
        self.held.copy_(snapshot["held"])
        self.rng.bit_generator.state = snapshot["rng"]
        self.update = snapshot["update"]

    def advance(self) -> None:
        """One update."""
        self.policy.train()
        rate = self._rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        starts = self._starts()
        played = self.world.play(self.policy, starts, self.length, self._start_weights(starts))
        utility, loss = self._objective(played)
        self.selection.check(self.update, loss.detach())
        self.selection.mark(self.update)
        self.optimiser.zero_grad()
        loss.backward()
        limit = self.settings.max_gradient
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), limit)
        self.selection.check(self.update, norm, "the gradient of the loss")
        self.optimiser.step()
        self._remember(starts, played.held)
        self.update += 1
        self._report(rate, utility, norm, played)

    def _objective(self, played: Played) -> tuple[Tensor, Tensor]:
        """Utility per period, and the loss: what is to be minimised, in percent.

        Costs are phased in: a share of them counts at first. Else, before it knows what a trade is
        good for, a policy learns that trades cost, and may never trade again.
        """
        settings = self.settings
        share = min(1.0, self.update / max(settings.cost_warmup * settings.steps, 1e-9))
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

    def _rate(self) -> float:
        settings = self.settings
        if settings.schedule == "constant":
            return settings.learning_rate
        return settings.learning_rate * 0.5 * (1.0 + np.cos(np.pi * self.update / settings.steps))

    def _check(self) -> None:
        """Refuse a last state that cannot play."""
        self.policy.eval()
        with torch.no_grad():
            starts = self._starts()
            played = self.world.play(self.policy, starts, self.length, self.held[starts])
            self.selection.check(self.update, self._objective(played)[1])

    def _report(self, rate: float, utility: Tensor, norm: Tensor, played: Played) -> None:
        figures: dict[str, Any] = {
            "utility": utility.detach(),
            "turnover": played.turnover.mean(),
            "cost": 1.0 - played.mu.detach().mean(),
            "violation": played.violation.detach().mean(),
            "band": played.band.mean(),
            "gradient": norm,
            "learning_rate": rate,
        }
        values = {f"train/{key}": float(value) for key, value in figures.items()}
        self.selection.monitor.record(self.update, values)


def _optimiser(policy: BandPolicy, settings: PolicyGradientSettings) -> torch.optim.Optimizer:
    """AdamW; biases and the scores of single assets are not decayed."""
    parameters = list(policy.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [each for each in parameters if each.ndim > 1]},
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    rate, decay = settings.learning_rate, settings.weight_decay
    return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)
