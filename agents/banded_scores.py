"""Scores with a no-trade band as actions, for the agents that stable-baselines3 trains.

    action (N + 1,): N scores, and how wide the band around their softmax is
    half-width = sigmoid(action[N] - 3), at first about 5 % of the portfolio

The target is that of `agents.band_policy`: what is held, where the band has it, else its nearest
edge. The chance in the scores that a policy explores with then costs nothing within the band, and
not to trade at all is an action like others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from agents.band_policy import Plan
from envs.action_base import ActionMap, checked
from envs.actions import SCORE_BOUND
from envs.simulator import Array, namespace

_OFFSET = 3.0


@dataclass(frozen=True)
class BandedScores(ActionMap):
    """N scores in [-bound, bound], and one number more that sets the width of the band."""

    bound: float = SCORE_BOUND

    def space(self, n_assets: int) -> gymnasium.Space:
        """A cube of N + 1 dimensions; larger numbers are accepted too."""
        return gymnasium.spaces.Box(-self.bound, self.bound, (n_assets + 1,), np.float32)

    def target(self, action: Any, held: np.ndarray, t: Any) -> np.ndarray:
        """The nearest edge of the band, or what is held."""
        shape = (*held.shape[:-1], held.shape[-1] + 1)
        return banded_plan(checked(action, shape)).target(held)


def banded_plan(scores: Array) -> Plan:
    """Proposal and band of actions (*B, N + 1), numpy or torch, (*B, N) each."""
    xp = namespace(scores)
    asked, width = scores[..., :-1], scores[..., -1:]
    grown = xp.exp(asked - xp.max(asked, axis=-1, keepdims=True))
    proposal = grown / xp.sum(grown, axis=-1, keepdims=True)
    half = 1.0 / (1.0 + xp.exp(_OFFSET - width))
    none, all_of_it = xp.zeros_like(proposal), xp.ones_like(proposal)
    low, high = xp.maximum(proposal - half, none), xp.minimum(proposal + half, all_of_it)
    return Plan(proposal, low, high)
