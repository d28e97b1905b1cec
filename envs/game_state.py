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


def as_json(state: Any) -> Any:
    """A state of `get_state` as what JSON knows: arrays as lists, exact both ways."""
    if isinstance(state, dict):
        return {key: as_json(value) for key, value in state.items()}
    if isinstance(state, list):
        return [as_json(value) for value in state]
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def checked_state(
    state: Any, keys: tuple[str, ...], assets: tuple[str, ...], like: GameState
) -> GameState:
    """The game of a state handed to `set_state`; lists, as JSON has them, will do for arrays.

    Args:
        state: As `get_state` returned it.
        keys: What it must hold besides "assets" and "game".
        assets: Names of the market's assets.
        like: A state of the environment that is to go on.

    Raises:
        SettingError: If a part is missing, or of other assets or another shape.

    """
    _same_keys("state", state, {"assets", "game", *keys})
    if tuple(state["assets"]) != assets:
        raise SettingError(
            f"set_state: assets must be {', '.join(assets)}, got {', '.join(state['assets'])}"
        )
    _check_part("game", state["game"], plain_state(like))
    return state_of(state["game"])


def _check_part(name: str, part: Any, like: Any) -> None:
    if isinstance(like, dict):
        _same_keys(name, part, set(like))
        for key, inner in like.items():
            _check_part(f"{name}.{key}", part[key], inner)
        return
    shape = np.shape(part)
    if shape != like.shape:
        raise SettingError(f"set_state: {name} must have shape {like.shape}, got {shape}")


def _same_keys(name: str, part: Any, keys: set[str]) -> None:
    if not isinstance(part, dict) or set(part) != keys:
        got = ", ".join(sorted(part)) if isinstance(part, dict) else repr(part)[:50]
        raise SettingError(
            f"set_state: {name} must hold {', '.join(sorted(keys)) or 'nothing'}; got {got}"
        )


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
