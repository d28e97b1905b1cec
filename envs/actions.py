"""What an agent may emit, and the target weights it means.

An action map turns actions (*B, ...) into targets (*B, N), non-negative and summing to 1; `held`
are the drifted weights before the trade. All-zero weights mean: hold nothing, so all cash (equal
weights where there is no cash). No map changes the caller's array.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space

from envs.projection import project_simplex
from market import ActionError, Market, SettingError

SIMPLEX_TOLERANCE = 1e-6
SCORE_BOUND = (
    10.0  # softmax of scores in [-10, 10] reaches within 1e-7 of every corner of 20 assets
)
MAX_LATTICE = 20_000


class Simplex(gymnasium.spaces.Box):
    """Weights in [0, 1] that sum to 1 over the last axis; samples uniformly over the simplex."""

    def __init__(self, *shape: int, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(0.0, 1.0, shape, np.float32, seed=seed)

    def sample(self, mask: None = None, probability: None = None) -> np.ndarray:
        """Draw from the flat Dirichlet distribution."""
        draw = self.np_random.dirichlet(np.ones(self.shape[-1]), self.shape[:-1])
        return draw.astype(np.float32)

    def contains(self, x: Any) -> bool:
        """Whether `x` holds points of the simplex, to 1e-6."""
        if not super().contains(x):
            return False
        off = np.abs(np.asarray(x).sum(-1, dtype=np.float64) - 1.0)
        return bool((off <= SIMPLEX_TOLERANCE).all())

    def __repr__(self) -> str:
        return f"Simplex{self.shape}"


@batch_space.register(Simplex)
def _batch_simplex(space: Simplex, n: int = 1) -> Simplex:
    """A batch of simplices samples simplices, not a cube."""
    return Simplex(n, *space.shape, seed=deepcopy(space.np_random))


class ActionMap(ABC):
    """Actions to target weights, for a market of N assets."""

    def bind(self, market: Market) -> ActionMap:
        """The map for this market; raises SettingError where it does not fit."""
        return self

    @abstractmethod
    def space(self, n_assets: int) -> gymnasium.Space:
        """The action space of one environment."""

    @abstractmethod
    def target(self, action: Any, held: np.ndarray) -> np.ndarray:
        """Target weights (*B, N) float64; raises ActionError for malformed actions."""


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

    def target(self, action: Any, held: np.ndarray) -> np.ndarray:
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
            total = np.add.reduce(weights, axis=-1)
        bad = (np.abs(total - 1.0) > SIMPLEX_TOLERANCE) | (weights.min(-1) < -SIMPLEX_TOLERANCE)
        if not self.strict:
            weights = project_simplex(weights)
        elif bad.any():
            row = tuple(int(x) for x in np.argwhere(bad)[0])
            where = f"environment {row[0]}: " if row else ""
            raise ActionError(
                f"{where}weights must be >= 0 and sum to 1 (within {SIMPLEX_TOLERANCE}), got sum "
                f"{total[row]:.6g} and least weight {weights[row].min():.6g}"
            )
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

    def target(self, action: Any, held: np.ndarray) -> np.ndarray:
        """Normalised positive parts."""
        scores = np.maximum(checked(action, held.shape), 0.0)
        total = np.add.reduce(scores, axis=-1)[..., None]
        nothing = self._nothing(scores.shape[-1])
        return np.where(total > 0.0, scores / np.where(total > 0.0, total, 1.0), nothing)


@dataclass(frozen=True)
class Softmax(ActionMap):
    """w = exp(s - max s) / sum: reaches every interior point, and every corner to 1e-7."""

    bound: float = SCORE_BOUND

    def space(self, n_assets: int) -> gymnasium.Space:
        """Scores in [-bound, bound]; larger ones are accepted too."""
        return gymnasium.spaces.Box(-self.bound, self.bound, (n_assets,), np.float32)

    def target(self, action: Any, held: np.ndarray) -> np.ndarray:
        """Stable softmax."""
        return softmax(checked(action, held.shape))


class Discretisation(ActionMap):
    """A finite set of actions, for value learners; implement `size` and `target` for your own."""

    @abstractmethod
    def size(self, n_assets: int) -> int:
        """The number of actions."""

    @abstractmethod
    def names(self, market: Market) -> list[str]:
        """What each action does, for reports."""

    def space(self, n_assets: int) -> gymnasium.Space:
        """Actions 0 .. size - 1."""
        return gymnasium.spaces.Discrete(self.size(n_assets))


@dataclass(frozen=True)
class Lattice(Discretisation):
    """All weights in steps of 1/k: C(k + N - 1, N - 1) portfolios."""

    k: int = 4

    def size(self, n_assets: int) -> int:
        """C(k + N - 1, N - 1), refused beyond 20,000."""
        if self.k < 1:
            raise SettingError(f"lattice: k must be >= 1, got {self.k}")
        size = math.comb(self.k + n_assets - 1, n_assets - 1)
        if size > MAX_LATTICE:
            raise SettingError(
                f"lattice: steps of 1/{self.k} over {n_assets} assets make {size:,} "
                f"portfolios, more than {MAX_LATTICE:,}; use a smaller k, or pairwise moves (Moves)"
            )
        return size

    def names(self, market: Market) -> list[str]:
        """Such as "50 % sp500, 50 % cash"."""
        return [portfolio_name(row, market) for row in lattice_points(market.n_assets, self.k)]

    def target(self, action: Any, held: np.ndarray) -> np.ndarray:
        """The chosen portfolio."""
        menu = lattice_points(held.shape[-1], self.k)
        return menu[checked_choice(action, len(menu), held.shape[:-1])]


ACTIONS: dict[str, Callable[[], ActionMap]] = {
    "simplex": SimplexWeights,
    "project": lambda: SimplexWeights(strict=False),
    "scores": LongOnlyScores,
    "softmax": Softmax,
    "lattice": Lattice,
}


def make_actions(spec: str | ActionMap) -> ActionMap:
    """An action map from its name in `ACTIONS`, or as it is."""
    if isinstance(spec, ActionMap):
        return spec
    if spec not in ACTIONS:
        raise SettingError(
            f"actions: unknown {spec!r}; choose from {sorted(ACTIONS)} or a Discretisation"
        )
    return ACTIONS[spec]()


def softmax(scores: np.ndarray) -> np.ndarray:
    """exp(s - max s) / sum exp(s - max s) over the last axis."""
    powers = np.exp(scores - np.maximum.reduce(scores, -1)[..., None])
    return powers / np.add.reduce(powers, -1)[..., None]


@lru_cache(maxsize=8)
def lattice_points(n_assets: int, k: int) -> np.ndarray:
    """All non-negative integer vectors that sum to k, over k, in lexical order, (size, N)."""
    if n_assets == 1:
        return np.ones((1, 1))
    rows = [
        np.column_stack([np.full(len(rest), first), rest * (k - first)])
        for first in range(k + 1)
        for rest in (
            lattice_points(n_assets - 1, k - first) if first < k else np.zeros((1, n_assets - 1)),
        )
    ]
    return np.concatenate(rows) / k


def portfolio_name(weights: np.ndarray, market: Market) -> str:
    """The non-zero weights in words."""
    parts = zip(weights, market.assets, strict=True)
    return ", ".join(f"{100 * weight:.3g} % {asset}" for weight, asset in parts if weight > 0.0)


def checked(action: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The action as finite float64 of this shape; else an ActionError that says where."""
    try:
        values = np.asarray(action, np.float64)
    except (TypeError, ValueError):
        raise ActionError(f"action must be {shape} numbers, got {type(action).__name__}") from None
    if values.shape != shape:
        raise ActionError(f"action must have shape {shape}, got {values.shape}")
    # one sum is finite only if all are: a third of the time of asking each
    if not math.isfinite(np.add.reduce(values, None)) and not np.isfinite(values).all():
        bad = tuple(int(x) for x in np.argwhere(~np.isfinite(values))[0])
        where = f"environment {bad[0]}, asset {bad[1]}" if len(bad) > 1 else f"asset {bad[0]}"
        raise ActionError(f"action must be finite, got {values[bad]} at {where}")
    return values


def checked_choice(action: Any, size: int, shape: tuple[int, ...]) -> np.ndarray:
    """The action as integers in 0 .. size - 1 of the expected shape; else an ActionError."""
    choice = np.asarray(action)
    if choice.shape != shape or not np.issubdtype(choice.dtype, np.integer):
        raise ActionError(
            f"action must be integers of shape {shape}, got {choice.dtype} {choice.shape}"
        )
    if ((choice < 0) | (choice >= size)).any():
        bad = choice[(choice < 0) | (choice >= size)].flat[0]
        raise ActionError(f"action must be in 0 .. {size - 1}, got {bad}")
    return choice
