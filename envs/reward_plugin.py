"""A user's own reward: found by `module:Name` or `file.py:Name`, and checked at every step.

A reward is a subclass of `Reward`, an instance of one, or a function of the transition that returns
an array of shape (*B,); `market.plugin` finds it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from envs.reward_base import Memory, Reward
from envs.simulator import Array, Transition, namespace
from market import Market, SettingError
from market.plugin import guarded, refuse_python

GREATEST_REWARD = 1e12  # what is beyond overflows when a learner squares it in float32

Result = TypeVar("Result")


class RewardFault(SettingError):
    """A reward that is no number a learner can use.

    Attributes:
        row: Of the portfolio in its batch, one index a batch axis.

    """

    def __init__(self, message: str, row: tuple[int, ...]) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True)
class PlugIn(Reward):
    """Somebody else's reward: its values are checked, its errors are reported under its name.

    Args:
        source: A Reward, or a function of the transition.
        text: What it was built from.
        name: The term's name.

    """

    source: Reward | Callable[[Transition], Array]
    text: str = field(compare=False)
    name: str

    @classmethod
    def wrap(
        cls,
        source: Any,
        values: Sequence[Any] = (),
        settings: Mapping[str, Any] | None = None,
        reference: str = "",
    ) -> PlugIn:
        """Check that `source` can be a reward; a class is built with the settings given.

        Raises:
            SettingError: If it is neither a Reward nor a function of one argument.

        """
        settings = settings or {}
        label = reference or getattr(source, "__name__", type(source).__name__).strip("<>")
        given = ", ".join([*map(repr, values), *(f"{k}={v!r}" for k, v in settings.items())])
        if isinstance(source, type):
            if not issubclass(source, Reward) or inspect.isabstract(source):
                raise SettingError(
                    f"reward `{label}`: a class must subclass Reward and write __call__"
                )
            source = _guarded(label, lambda: source(*values, **settings))
        elif given:
            raise SettingError(f"reward `{label}`: only a class takes settings, got ({given})")
        elif not isinstance(source, Reward):
            _check_function(label, source)
        name = source.name if isinstance(source, Reward) else label.rpartition(":")[2]
        text = f"{reference}({given})" if given else reference or name
        return cls(source, text, name)

    def initial(self, batch_shape: tuple[int, ...], xp: Any = np) -> Memory:
        """The source's memory; each array must start with the batch shape."""
        if not isinstance(self.source, Reward):
            return {}
        source = self.source
        memory = _guarded(self.name, lambda: source.initial(batch_shape, xp))
        if not isinstance(memory, dict):
            raise SettingError(
                f"reward `{self.name}`: initial must return a dict, got {memory!r:.50}"
            )
        for key, array in memory.items():
            shape = tuple(getattr(array, "shape", ()))
            if not hasattr(array, "shape") or shape[: len(batch_shape)] != tuple(batch_shape):
                raise SettingError(
                    f"reward `{self.name}`: memory {key!r} must be an array of leading shape "
                    f"{batch_shape}, got {array!r:.50}"
                )
        return memory

    def bind(self, market: Market) -> Reward:
        """The source bound."""
        if not isinstance(self.source, Reward):
            return self
        source = self.source
        bound = _guarded(self.name, lambda: source.bind(market))
        if not isinstance(bound, Reward):
            raise SettingError(
                f"reward `{self.name}`: bind must return a Reward, got {bound!r:.50}"
            )
        return PlugIn(bound, self.text, self.name)

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """The source's reward, checked."""
        source, (transition, memory) = self.source, _own((transition, memory))
        if not isinstance(source, Reward):
            values = _guarded(self.name, lambda: source(transition))
            return check_reward(values, self.name, transition.portfolio_return), memory
        result = _guarded(self.name, lambda: source(transition, memory))
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
            raise SettingError(
                f"reward `{self.name}`: __call__ must return (reward, memory), got {result!r:.50}"
            )
        return check_reward(result[0], self.name, transition.portfolio_return), result[1]

    def __str__(self) -> str:
        return self.text


def check_reward(values: Any, name: str, like: Array) -> Array:
    """A reward's values as a float64 array, refused unless they are finite and one a portfolio.

    Args:
        values: What the reward returned.
        name: The reward, for the message.
        like: An array of the shape and library they must have, (*B,).

    Raises:
        SettingError: Naming the reward and the rule.
        RewardFault: Naming the first value that breaks it, with its row.

    """
    xp = np if isinstance(like, np.generic) else namespace(like)
    shape, dtype = tuple(like.shape), str(getattr(values, "dtype", ""))
    if not isinstance(values, float | int) and not any(
        k in dtype for k in ("float", "int", "bool")
    ):
        raise SettingError(f"reward `{name}` must return an array of numbers, got {values!r:.50}")
    if xp is not np and type(values) is type(like):
        array = xp.astype(values, xp.float64)  # keeps the gradient
    else:
        array = _guarded(name, lambda: xp.asarray(values, dtype=xp.float64))
    if tuple(array.shape) != shape:
        raise SettingError(
            f"reward `{name}` must return shape {shape}, got shape {tuple(array.shape)}"
        )
    within = xp.abs(array) <= GREATEST_REWARD  # False for nan
    if not bool(xp.all(within)):
        row = tuple(int(i) for i in np.argwhere(~np.asarray(within))[0])
        where = f" in row {row[0] if len(row) == 1 else row}" if row else ""
        raise RewardFault(
            f"reward `{name}` must be finite and within {GREATEST_REWARD:g}, "
            f"got {float(array[row]):g}{where}",
            row,
        )
    return array


def _own(parts: Any) -> Any:
    """Numpy arrays copied, inside tuples and dicts too: the caller's code may write to them."""
    if isinstance(parts, np.ndarray):
        return parts.copy()
    if isinstance(parts, dict):
        return {key: _own(part) for key, part in parts.items()}
    if isinstance(parts, tuple):
        owned = map(_own, parts)
        return type(parts)._make(owned) if isinstance(parts, Transition) else tuple(owned)
    return parts


def _guarded(name: str, call: Callable[[], Result]) -> Result:
    return guarded(name, "reward", call)


def _check_function(label: str, source: Any) -> None:
    """Refuse what is not a function of one argument, the transition."""
    owner = source
    while isinstance(owner, functools.partial):
        owner = owner.func
    if not callable(owner):
        raise SettingError(
            f"reward `{label}` must be an expression, a Reward or a function of the transition, "
            f"got {source!r:.50}"
        )
    refuse_python(getattr(owner, "__module__", None) or "", label, "reward")
    try:
        inspect.signature(source).bind(None)
    except (TypeError, ValueError):
        raise SettingError(
            f"reward `{label}` must be a function of one argument, the transition"
        ) from None
