"""Values as they are written in a file or on a command line, as the type an option asks for."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from experiments.options import Option, make_parser
from experiments.yaml_file import parse_value
from market.errors import SettingError

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}
_UNIONS = (type(int | str),)


class Given(NamedTuple):
    """A value as it was written; on a command line it is still text."""

    value: Any
    where: str
    is_text: bool


def check_type(option: Option, given: Given) -> Any:
    """The value as the option's type.

    Raises:
        SettingError: If it is of another type, or holds a character that no path can.

    """
    parser, value, hint = make_parser([option]), given.value, option.hint
    if _holds_nul(value):
        place = f" ({given.where})" if given.where else ""
        raise SettingError(
            f"{option.key} must not hold the character NUL, got {written(value)}{place}"
        )
    try:
        if given.is_text and _takes_text(hint):
            return parser.parse_args([f"--{option.key}={value}"])[option.key]
        typed = _read(value, hint) if given.is_text else value
        # jsonargparse takes null for "not given"
        if (typed is None and not _takes_null(hint)) or (
            isinstance(typed, str) and not _takes_text(hint)
        ):
            raise argparse.ArgumentError(None, "text")
        nested: Any = _whole(typed, hint)
        for part in reversed(option.key.split(".")):
            nested = {part: nested}
        return parser.parse_object(nested)[option.key]
    except argparse.ArgumentError:
        place = f" ({given.where})" if not given.is_text and given.where else ""
        raise SettingError(f"{_wrong(option, value)}{place}") from None


def _holds_nul(value: Any) -> bool:
    """Whether a text in it holds a zero, which the system takes for the end of a path."""
    if isinstance(value, Mapping):
        return any(_holds_nul(one) for pair in value.items() for one in pair)
    if isinstance(value, (list, tuple)):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value


def takes(hint: Any, kind: Any) -> bool:
    """Whether a type is `kind`, or a union with it inside."""
    members = get_args(hint) if get_origin(hint) in (Union, *_UNIONS) else (hint,)
    return any((get_origin(member) or member) is kind for member in members)


def _takes_text(hint: Any) -> bool:
    """Whether text may stand there; where not, jsonargparse would read a number out of text."""
    return any(takes(hint, kind) for kind in (str, Any, Literal))


def _takes_null(hint: Any) -> bool:
    return hint is Any or takes(hint, type(None))


def _read(text: str, hint: Any) -> Any:
    """What an option's text means where no text may stand."""
    try:
        return parse_value(_as_list(text) if takes(hint, list) else text)
    except SettingError:
        return text


def _whole(value: Any, hint: Any) -> Any:
    """1e5 as 100000 where a whole number is asked for."""
    asked = takes(hint, int) and not takes(hint, float)
    return int(value) if asked and isinstance(value, float) and value.is_integer() else value


def _as_list(text: str) -> str:
    """`a, f(1, 2)` as a JSON list of texts; what is a list, a number or null stays as it is."""
    if text.startswith("[") or text in ("null", "") or re.fullmatch(r"[-+]?\d+", text):
        return text
    items, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            items.append("")
        else:
            items[-1] += letter
    items = [item.strip() for item in items]
    return json.dumps([parse_value(item) if item.startswith("{") else item for item in items])


def _wrong(option: Option, value: Any) -> str:
    """`key must be a number, got 'x'`, with the item where it is one of a list."""
    if isinstance(value, list) and takes(option.hint, list):
        odd = [(i, item) for i, item in enumerate(value) if not isinstance(item, str)]
        if odd and "str" in str(option.hint):
            i, item = odd[0]
            return f"{option.key}[{i}] must be text, got {written(item)}; put it in quotes"
    quote = ""
    if isinstance(value, (int, float)) and takes(option.hint, str):
        quote = "; put it in quotes"
    return f"{option.key} must be {describe(option.hint)}, got {written(value)}{quote}"


def written(value: Any) -> str:
    """A value for a message: as YAML has it, not too long."""
    return json.dumps(value) if isinstance(value, bool) or value is None else repr(value)[:80]


def describe(hint: Any) -> str:
    """A type in words."""
    origin, members = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, members))
    if origin in (Union, *_UNIONS):
        return " or ".join(describe(member) for member in members if member is not type(None))
    if origin is list:
        return "a list" if members == (Any,) else f"a list of {_PLURALS.get(members[0], 'values')}"
    if origin is dict or hint is dict:
        return "a mapping"
    return _WORDS.get(hint, str(hint))
