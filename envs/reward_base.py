"""What a reward is: a function of a transition and a memory, which adds and scales.

    value, memory = reward(transition, memory)     value (*B,)       0.5 * (a - 0.1 * b) is a reward

Memory is a dict of arrays with leading batch shape *B that the caller carries from step to step,
so a batch resets some rows with one `where`, and a reward object holds settings alone. Rewards are
pure: they return a new memory and leave the one they were given as it was.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import Field, dataclass, field, fields, is_dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from envs.simulator import Array, Transition
from market import Market, SettingError

Memory = dict[str, Array]


class Reward(ABC):
    """A reward: subclass it and write `__call__`; what needs memory also writes `initial`.

    Settings are the fields of a frozen dataclass. `name` labels the term in `info["reward_terms"]`
    and in TensorBoard; without one it is the class's name.
    """

    name: str = "reward"

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    @abstractmethod
    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """The reward of one period, (*B,), and the memory for the next."""

    def terms(self, transition: Transition, memory: Memory) -> tuple[dict[str, Array], Memory]:
        """The named parts, which add up to the reward, and the memory for the next period."""
        reward, memory = self(transition, memory)
        return {self.name: reward}, memory

    def initial(self, batch_shape: tuple[int, ...], xp: Any = np) -> Memory:
        """Memory at the start of an episode; arrays of leading shape `batch_shape`."""
        return {}

    def bind(self, market: Market) -> Reward:
        """This reward for one market: where asset names become columns."""
        return self

    def weighted(self) -> tuple[tuple[float, Reward], ...]:
        """The weights and rewards this one is the sum of."""
        return ((1.0, self),)

    def __add__(self, other: Reward) -> Reward:
        if not isinstance(other, Reward):
            return NotImplemented
        return weighted_sum((*self.weighted(), *other.weighted()))

    def __radd__(self, other: float) -> Reward:
        return self if isinstance(other, Real) and other == 0 else NotImplemented  # for sum()

    def __mul__(self, weight: float) -> Reward:
        if not isinstance(weight, Real):
            return NotImplemented
        return weighted_sum((float(weight) * own, part) for own, part in self.weighted())

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Reward:
        return self * (1.0 / float(divisor)) if isinstance(divisor, Real) else NotImplemented

    def __neg__(self) -> Reward:
        return -1.0 * self

    def __sub__(self, other: Reward) -> Reward:
        return self + (-other) if isinstance(other, Reward) else NotImplemented

    def __str__(self) -> str:
        """The expression that builds this reward, with the settings that are not the default."""
        entries: tuple[Field[Any], ...] = fields(self) if is_dataclass(self) else ()
        shown = [(e.name, getattr(self, e.name), e.default) for e in entries if e.repr]
        changed = [f"{name}={value!r}" for name, value, default in shown if value != default]
        return f"{self.name}({', '.join(changed)})" if changed else self.name


@dataclass(frozen=True)
class WeightedSum(Reward):
    """Rewards times weights, each a term of its own.

    Terms are what each part contributes, weight included, so they add up to the reward. A second
    part of the same name is called `<name>_2`.
    """

    parts: tuple[tuple[float, Reward], ...]
    plan: tuple[Any, ...] = field(init=False, repr=False, compare=False)
    name = "sum"

    def __post_init__(self) -> None:
        names = [reward.name for _, reward in self.parts]
        plan = []
        for i, (weight, reward) in enumerate(self.parts):
            taken = names[:i].count(reward.name)
            label = f"{reward.name}_{taken + 1}" if taken else reward.name
            keys = tuple((key, f"{label}.{key}") for key in reward.initial(()))
            plan.append((label, weight, reward, keys))
        object.__setattr__(self, "plan", tuple(plan))

    def weighted(self) -> tuple[tuple[float, Reward], ...]:
        """The parts themselves."""
        return self.parts

    def initial(self, batch_shape: tuple[int, ...], xp: Any = np) -> Memory:
        """The memories of all parts, each key under its term's name."""
        return {
            outer: start[inner]
            for _, _, reward, keys in self.plan
            for start in [reward.initial(batch_shape, xp)]
            for inner, outer in keys
        }

    def bind(self, market: Market) -> Reward:
        """Every part bound."""
        return WeightedSum(tuple((weight, reward.bind(market)) for weight, reward in self.parts))

    def terms(self, transition: Transition, memory: Memory) -> tuple[dict[str, Array], Memory]:
        """What each part contributes."""
        terms, after = {}, {}
        for label, weight, reward, keys in self.plan:
            value, own = reward(transition, {inner: memory[outer] for inner, outer in keys})
            terms[label] = weight * value
            for inner, outer in keys:
                after[outer] = own[inner]
        return terms, after

    def __call__(self, transition: Transition, memory: Memory) -> tuple[Array, Memory]:
        """The sum of the terms."""
        terms, memory = self.terms(transition, memory)
        first, *rest = terms.values()
        return sum(rest, start=first), memory

    def __str__(self) -> str:
        """An expression `make_reward` understands."""
        text = ""
        for weight, reward in self.parts:
            sign = "-" if weight < 0 else "+"
            scaled = str(reward) if abs(weight) == 1 else f"{_plain(abs(weight))} * {reward}"
            text += f" {sign} {scaled}" if text else f"{'-' if weight < 0 else ''}{scaled}"
        return text


def weighted_sum(parts: Iterable[tuple[float, Reward]]) -> Reward:
    """The sum of weights times rewards, equal rewards merged; a reward alone stays itself.

    Raises:
        SettingError: If a weight is not finite.

    """
    merged: list[tuple[float, Reward]] = []
    for weight, reward in parts:
        if not math.isfinite(weight):
            raise SettingError(f"reward: weight of {reward} must be finite, got {weight}")
        same = next((i for i, (_, other) in enumerate(merged) if other == reward), None)
        if same is None:
            merged.append((weight, reward))
        else:
            merged[same] = (merged[same][0] + weight, reward)
    if len(merged) == 1 and merged[0][0] == 1.0:
        return merged[0][1]
    return WeightedSum(tuple(merged))


def _plain(number: float) -> str:
    return repr(number).removesuffix(".0")


def check_number(reward: Reward, key: str, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse a setting that is not a number in [low, high]; the message names reward and key."""
    value = getattr(reward, key)
    kind = Integral if whole else Real
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= float(value) <= high:
        what = "a whole number" if whole else "a number"
        raise SettingError(
            f"{reward.name}: `{key}` must be {what} in [{low:g}, {high:g}], got {value!r}"
        )
