"""What an agent may emit, and the target weights it means: `ACTIONS` by name, and `make_actions`.

    "simplex"   the weights themselves           "softmax(bound=5)"   scores
    "project"   the nearest weights              "scores"             positive parts of scores
    "lattice(4)", "moves(0.1)", "menu"           choices from a finite set: see `envs.menus`

An action map turns actions (*B, ...) into targets (*B, N), non-negative and summing to 1. All-zero
weights mean: hold nothing, so all cash (equal weights where there is no cash).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np

from envs.action_base import (
    SIMPLEX_TOLERANCE,
    ActionMap,
    Discretisation,
    Simplex,
    checked,
    off_simplex,
    refuse_off_simplex,
)
from envs.menus import Lattice, Menu, Moves
from envs.projection import project_simplex
from envs.simulator import column, dot
from market import Market, SettingError
from market.names import parse_call, unknown_name

__all__ = [
    "ACTIONS",
    "OWN_MAPS",
    "ActionMap",
    "Discretisation",
    "Lattice",
    "LongOnlyScores",
    "Menu",
    "Moves",
    "Simplex",
    "SimplexWeights",
    "Softmax",
    "make_actions",
    "softmax",
]

SCORE_BOUND = (
    10.0  # softmax of scores in [-10, 10] reaches within 1e-7 of every corner of 20 assets
)


@dataclass(frozen=True)
class SimplexWeights(ActionMap):
    """The action is the target; off the simplex it is an error if `strict`, else projected."""

    strict: bool = True
    has_cash: bool = True

    def bind(self, market: Market) -> ActionMap:
        """Remember where all-zero weights go."""
        return SimplexWeights(self.strict, market.has_cash)

    def space(self, n_assets: int) -> gymnasium.Space:
        """The simplex, or for projection the cube around it."""
        if self.strict:
            return Simplex(n_assets)
        return gymnasium.spaces.Box(-1.0, 1.0, (n_assets,), np.float32)

    def target(self, action: Any, held: np.ndarray, t: Any) -> np.ndarray:
        """Weights as they are, freed of rounding in their sum, or their Euclidean projection."""
        weights = checked(action, held.shape)
        total = np.add.reduce(weights, -1)
        off = np.abs(total - 1.0) > SIMPLEX_TOLERANCE
        if np.any(off) or np.minimum.reduce(weights, None) < 0.0:
            weights, total = self._repair(weights, total)
        return weights / total[..., None]

    def _repair(self, weights: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        empty = ~np.any(weights, axis=-1)
        if empty.any():
            weights = np.where(empty[..., None], self._nothing(weights.shape[-1]), weights)
        if not self.strict:
            weights = project_simplex(weights)
        off = off_simplex(weights)
        if off.any():
            refuse_off_simplex(weights, off, "weights")
        weights = np.maximum(weights, 0.0)
        return weights, np.add.reduce(weights, axis=-1)

    def _nothing(self, n_assets: int) -> np.ndarray:
        return np.eye(n_assets)[-1] if self.has_cash else np.full(n_assets, 1.0 / n_assets)


@dataclass(frozen=True)
class LongOnlyScores(SimplexWeights):
    """Positive parts, normalised: w = max(s, 0) / sum max(s, 0); nothing positive means cash."""

    def bind(self, market: Market) -> ActionMap:
        """Remember where all-zero weights go."""
        return LongOnlyScores(self.strict, market.has_cash)

    def space(self, n_assets: int) -> gymnasium.Space:
        """Scores in [-1, 1]."""
        return gymnasium.spaces.Box(-1.0, 1.0, (n_assets,), np.float32)

    def target(self, action: Any, held: np.ndarray, t: Any) -> np.ndarray:
        """Normalised positive parts."""
        scores = np.maximum(checked(action, held.shape), 0.0)
        total = np.add.reduce(scores, axis=-1)[..., None]
        nothing = self._nothing(scores.shape[-1])
        return np.where(total > 0.0, scores / np.where(total > 0.0, total, 1.0), nothing)


@dataclass(frozen=True)
class Softmax(ActionMap):
    """w = exp(s - max s) / sum: reaches every interior point, and every corner to 1e-7."""

    bound: float = SCORE_BOUND

    def __post_init__(self) -> None:
        if not 0.0 < self.bound < math.inf:
            raise SettingError(f"softmax: bound must be finite and > 0, got {self.bound}")

    def space(self, n_assets: int) -> gymnasium.Space:
        """Scores in [-bound, bound]; larger ones are accepted too."""
        return gymnasium.spaces.Box(-self.bound, self.bound, (n_assets,), np.float32)

    def target(self, action: Any, held: np.ndarray, t: Any) -> np.ndarray:
        """Stable softmax."""
        return softmax(checked(action, held.shape))


ACTIONS: dict[str, Callable[..., ActionMap]] = {
    "simplex": lambda: SimplexWeights(),
    "project": lambda: SimplexWeights(strict=False),
    "scores": lambda: LongOnlyScores(),
    "softmax": Softmax,
    "lattice": Lattice,
    "moves": Moves,
    "menu": Menu,
}


OWN_MAPS = (SimplexWeights, LongOnlyScores, Softmax, Lattice, Moves, Menu)  # others are checked


def make_actions(spec: str | ActionMap) -> ActionMap:
    """An action map from an expression such as "moves(0.1)", or as it is.

    Raises:
        SettingError: If the name is not in `ACTIONS` or a setting does not fit.

    """
    if isinstance(spec, ActionMap):
        return spec
    name, values, settings = parse_call(spec)
    if name not in ACTIONS:
        raise unknown_name("actions", name, ACTIONS)
    try:
        inspect.signature(ACTIONS[name]).bind(*values, **settings)
    except TypeError as error:
        raise SettingError(f"actions {name}: {error}") from None
    return ACTIONS[name](*values, **settings)


def softmax(scores: np.ndarray) -> np.ndarray:
    """exp(s - max s) / sum exp(s - max s) over the last axis."""
    if scores.ndim == 1:  # the same bits as below, in half the time
        powers = np.exp(scores - scores[scores.argmax()])
    else:  # numpy takes maxima down columns several times faster than along short rows
        down = np.ascontiguousarray(np.moveaxis(scores, -1, 0))
        powers = np.exp(scores - np.maximum.reduce(down, 0)[..., None])
    return powers / column(dot(powers, _ones(powers.shape[-1])))


@lru_cache(maxsize=64)
def _ones(n_assets: int) -> np.ndarray:
    return np.ones(n_assets)
