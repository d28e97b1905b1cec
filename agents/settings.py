"""Settings of agents, forecasters and rules: frozen dataclasses, checked when they are built.

Every error is one line that names the owner, the key, the rule and the value.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from market import SettingError
from market.names import unknown_name

Settings = TypeVar("Settings")
Space = Mapping[str, Any]  # what tuning tries of each setting: ranges as text, choices as lists


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoSettings:
    """Of an agent that has nothing to set."""


def build_settings(kind: type[Settings], given: Mapping[str, Any], owner: str) -> Settings:
    """The settings dataclass `kind` from keywords.

    Args:
        kind: A keyword-only dataclass; ranges are its own business, in `__post_init__`.
        given: Values by name; what is not given keeps its default.
        owner: What errors call the thing that is being set up.

    Raises:
        SettingError: If a key is unknown, or naming every value of the wrong type, else every one
            that is out of range.

    """
    known = [entry.name for entry in dataclasses.fields(kind)]  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    for key in given:
        if key not in known:
            raise unknown_name(f"setting of {owner}", key, known)
    wrong = [
        f"{key} must be {_described(hints[key])}, got {value!r}"
        for key, value in given.items()
        if not _fits(value, hints[key])
    ]
    if wrong:
        raise SettingError(f"{owner}: {'; '.join(wrong)}")
    try:
        return kind(**given)
    except SettingError as error:
        told = [text for key in given if (text := _out_of_range(kind, key, given))]
        raise SettingError(f"{owner}: {'; '.join(dict.fromkeys(told)) or error}") from None


class RangeError(SettingError):
    """A number outside of its interval, whatever the other settings are."""


def _out_of_range(kind: type, key: str, given: Mapping[str, Any]) -> str:
    """Why one value is refused beside the defaults of all others, if it is out of its range."""
    needed = {
        entry.name: given[entry.name]
        for entry in dataclasses.fields(kind)
        if entry.default is entry.default_factory is dataclasses.MISSING and entry.name in given
    }
    try:
        kind(**needed | {key: given[key]})
    except RangeError as error:
        return str(error)
    except SettingError:  # a clash with a default that is not what was asked for
        return ""
    return ""


def require(settings: Any, **intervals: str) -> None:
    """Check numbers against intervals, such as window="[2, inf)" or dropout="[0, 1)".

    Texts and None are left alone: a union's other members are checked by type.
    """
    for key, interval in intervals.items():
        value = getattr(settings, key)
        if isinstance(value, (int, float)) and not _inside(value, interval):
            raise RangeError(f"{key} must be in {interval}, got {value!r}")


def as_dict(settings: Any) -> dict[str, Any]:
    """Settings as plain values for JSON."""
    return dataclasses.asdict(settings)


def _inside(value: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = low <= value if interval[0] == "[" else low < value
    below = value <= high if interval[-1] == "]" else value < high
    return above and below


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type among int, float, bool, str, None, Literal and their unions."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, member) for member in get_args(hint))
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float:
        return isinstance(value, (int, float))
    return not isinstance(hint, type) or isinstance(value, hint)


def _described(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_described(member) for member in get_args(hint))
    if get_origin(hint) is Literal:
        return " | ".join(repr(choice) for choice in get_args(hint))
    return "none" if hint is type(None) else getattr(hint, "__name__", str(hint))
