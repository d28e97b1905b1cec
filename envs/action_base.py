"""What every action map shares: the simplex as a space, the interfaces, and checks of actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space

from market import ActionError, Market

SIMPLEX_TOLERANCE = 1e-6
_LARGEST = 1e100  # of a score: sums of them stay finite


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
    def target(self, action: Any, held: np.ndarray, t: Any) -> np.ndarray:
        """What an action asks for.

        Args:
            action: As the space has it, with leading batch shape *B; never changed.
            held: Drifted weights before the trade, (*B, N).
            t: The newest row of the bound market that the decision may see, int or (*B,).

        Returns:
            Target weights, (*B, N) float64, non-negative and summing to 1.

        Raises:
            ActionError: If the action is malformed.

        """


class Discretisation(ActionMap):
    """A finite set of actions, for value learners. Your own needs `size`, `names` and `target`.

        class AllOrNothing(Discretisation):
            def size(self, n_assets):
                return 2

            def names(self, market):
                return ["all in cash", "all assets equally"]

            def target(self, action, held, t):
                n_assets = held.shape[-1]
                menu = np.stack([np.eye(n_assets)[-1], np.full(n_assets, 1 / n_assets)])
                return menu[self.choice(action, held)]

        PortfolioEnv(market, actions=AllOrNothing())

    What reads the market's past keeps it in `bind` and looks at rows <= t only; see `envs.menus`.
    """

    @abstractmethod
    def size(self, n_assets: int) -> int:
        """The number of actions; raises SettingError where there are too many."""

    @abstractmethod
    def names(self, market: Market) -> list[str]:
        """What each action does, for reports."""

    def space(self, n_assets: int) -> gymnasium.Space:
        """Actions 0 .. size - 1."""
        return gymnasium.spaces.Discrete(self.size(n_assets))

    def choice(self, action: Any, held: np.ndarray) -> np.ndarray:
        """The action as integers (*B,) in 0 .. size - 1; else an ActionError."""
        chosen, size = np.asarray(action), self.size(held.shape[-1])
        if chosen.shape != held.shape[:-1] or not np.issubdtype(chosen.dtype, np.integer):
            raise ActionError(
                f"action must be integers of shape {held.shape[:-1]}, got {chosen.dtype} "
                f"{chosen.shape}"
            )
        outside = (chosen < 0) | (chosen >= size)
        if outside.any():
            raise ActionError(f"action must be in 0 .. {size - 1}, got {chosen[outside].flat[0]}")
        return chosen


def checked(action: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The action as finite float64 of this shape; else an ActionError that says where."""
    try:
        values = np.asarray(action, np.float64, order="C")  # sums depend on the order in memory
    except (TypeError, ValueError):
        raise ActionError(f"action must be {shape} numbers, got {type(action).__name__}") from None
    if values.shape != shape:
        raise ActionError(f"action must have shape {shape}, got {values.shape}")
    usable = np.abs(values) < _LARGEST
    if b"\0" in usable.tobytes():  # a third of the time of `all`
        bad = tuple(int(x) for x in np.argwhere(~usable)[0])
        where = f"environment {bad[0]}, asset {bad[1]}" if len(bad) > 1 else f"asset {bad[0]}"
        rule = f"within {_LARGEST:g}" if np.isfinite(values[bad]) else "finite"
        raise ActionError(f"action must be {rule}, got {values[bad]} at {where}")
    return values


def off_simplex(weights: np.ndarray) -> np.ndarray:
    """Which rows (*B,) are no weights: negative, not finite, or not summing to 1, to 1e-6."""
    on = np.abs(np.add.reduce(weights, -1) - 1.0) <= SIMPLEX_TOLERANCE
    return ~(on & (np.minimum.reduce(weights, -1) >= -SIMPLEX_TOLERANCE))


def refuse_off_simplex(weights: np.ndarray, off: np.ndarray, what: str) -> None:
    """Raise an ActionError that shows the first row that is no weights."""
    row = tuple(int(x) for x in np.argwhere(off)[0])
    where = f"environment {row[0]}: " if row else ""
    raise ActionError(
        f"{where}{what} must be >= 0 and sum to 1 (within {SIMPLEX_TOLERANCE}), got sum "
        f"{weights[row].sum():.9g} and least weight {weights[row].min():.6g}"
    )


def checked_target(target: Any, held: np.ndarray, actions: ActionMap) -> np.ndarray:
    """What a user's own map returned, as weights (*B, N); else an ActionError that names it."""
    weights, name = np.asarray(target, np.float64, order="C"), type(actions).__name__
    if weights.shape != held.shape:
        raise ActionError(
            f"{name}: target weights must have shape {held.shape}, got {weights.shape}"
        )
    off = off_simplex(weights)
    if off.any():
        refuse_off_simplex(weights, off, f"target weights of {name}")
    weights = np.maximum(weights, 0.0)
    return weights / weights.sum(-1, keepdims=True)
