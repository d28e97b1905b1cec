"""What an episode's future depends on, what a step gives, and their plain form for files."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from envs.simulator import State, Transition
from market import ActionError, SettingError


class GameState(NamedTuple):
    """Everything an episode's future depends on, but for the random generator."""

    t: Any  # int or (*B,) int64: row of the next decision
    start: Any  # int or (*B,): row of the episode's first decision
    end: Any  # int or (*B,): row at which the episode is truncated
    portfolio: State
    memory: dict[str, np.ndarray]  # of the reward
    limits: dict[str, np.ndarray]  # of the constraints


class Outcome(NamedTuple):
    """What one step gave."""

    transition: Transition
    reward: np.ndarray  # (*B,)
    terms: dict[str, np.ndarray]  # (*B,) each; they add up to the reward
    terminated: np.ndarray  # (*B,) bool
    truncated: np.ndarray  # (*B,) bool
    binding: dict[str, np.ndarray]  # (*B,) bool per constraint
    unmet: Any  # (*B,) bool: a limit could not be met
    closed: np.ndarray | None  # (*B, N) bool: held, and sold since it stopped trading


def plain_state(state: GameState) -> dict[str, Any]:
    """The state as a dict of dicts, arrays and numbers, copied."""
    kept = state._asdict() | {"portfolio": state.portfolio._asdict()}
    return {
        key: {name: np.copy(array) for name, array in value.items()}
        if isinstance(value, dict)
        else np.copy(value)
        for key, value in kept.items()
    }


def state_of(kept: dict[str, Any]) -> GameState:
    """The inverse of `plain_state`; lists, as JSON has them, will do for arrays."""
    parts: dict[str, Any] = {
        key: {name: _numbers(array) for name, array in value.items()}
        if isinstance(value, dict)
        else _numbers(value)
        for key, value in kept.items()
    }
    return GameState(**(parts | {"portfolio": State(**parts["portfolio"])}))


def _numbers(value: Any) -> Any:
    """An array of its own; a number where it has no axis."""
    return np.array(value)[()]


def check_options(options: dict[str, Any]) -> None:
    """Refuse options of `reset` other than those there are."""
    for key in options:
        if key not in ("weights", "start"):
            raise SettingError(f"reset: unknown option {key!r}; choose from weights, start")


def finished() -> ActionError:
    """The error for a step that no episode is waiting for."""
    return ActionError("step called before reset or after the episode ended; call reset first")
