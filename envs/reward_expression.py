"""Reading `log_return - 0.1 * turnover`: names, numbers, settings, `+ - * /`, brackets, no more.

The text is parsed with `ast` and walked over a fixed list of nodes; nothing in it is evaluated.
`module:Name` and `file.py:Name` stand for a user's code, with blanks around a minus beside them; in
quotes where the path holds blanks or signs.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from envs.reward_base import Reward
from market import SettingError

MAX_LENGTH = 1_000
_PLUGIN = re.compile(
    r"""'[^']*' | "[^"]*" | (?P<plugin> (?!-) [^\s'"()+*,:=]+ : [^\W\d]\w* )""", re.X
)

Build = Callable[[str, list[Any], dict[str, Any]], Reward]


def read_expression(text: str, build: Build) -> Reward:
    """The reward an expression stands for.

    Args:
        text: Names of rewards, with settings in brackets if need be, added and scaled.
        build: Makes a reward of a name, positional and keyword settings.

    Raises:
        SettingError: With the position, counted from 1, of what is not understood.

    """
    text = " ".join(text.split())
    if not text or not text.isprintable() or len(text) > MAX_LENGTH:
        raise SettingError(
            f"reward must be 1 to {MAX_LENGTH} printable characters, got {text[:50]!r}"
        )
    return _Reader(text, build).read()


class _Reader:
    """One expression being read: its text, for positions, and the names found in it."""

    def __init__(self, text: str, build: Build) -> None:
        self.text = text
        self.shown = text if len(text) <= 100 else f"{text[:100]}..."
        self.build = build
        self.plugins: dict[int, str] = {}  # position in bytes, as `ast` counts -> reference

    def read(self) -> Reward:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # odd spellings that Python only warns of
                tree = ast.parse(_PLUGIN.sub(self._mask, self.text), mode="eval")
            value = self._value(tree.body)
        except SyntaxError as error:
            self._fail(f"{error.msg} at position {error.offset or len(self.text) + 1}")
        except (RecursionError, MemoryError):
            self._fail("brackets or signs are nested too deeply")
        if not isinstance(value, Reward):
            self._fail("a number alone is no reward")
        return value

    def _mask(self, match: re.Match[str]) -> str:
        """Put an equally long name in the place of a reference to a user's code."""
        reference = match["plugin"]
        if reference is None:
            return match[0]
        self.plugins[len(self.text[: match.start()].encode())] = reference
        return "_" * len(reference.encode())

    def _value(self, node: ast.expr) -> Reward | float:
        match node:
            case ast.Constant(value=str() as name):
                return self._named(node, name, [], {})
            case ast.Constant():
                return self._number(node)
            case ast.Name(id=name):
                return self._named(node, self.plugins.get(node.col_offset, name), [], {})
            case ast.Call(func=ast.Name() | ast.Constant(value=str())):
                return self._call(node)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign):
                value = self._value(node.operand)
                return -value if isinstance(sign, ast.USub) else value
            case ast.BinOp():
                return self._combined(node)
        self._refuse(node, "only rewards, numbers and + - * / can be used")

    def _combined(self, node: ast.BinOp) -> Reward | float:
        left, right = self._value(node.left), self._value(node.right)
        numbers = [isinstance(side, float) for side in (left, right)]
        match node.op:
            case (ast.Add() | ast.Sub()) as sign:
                if numbers[0] != numbers[1]:
                    self._refuse(node, "a number can only scale a reward")
                return left + right if isinstance(sign, ast.Add) else left - right  # type: ignore[operator]
            case ast.Mult():
                if not any(numbers):
                    self._refuse(node, "rewards add and scale, they do not multiply")
                return left * right  # type: ignore[operator]
            case ast.Div():
                if not isinstance(right, float) or right == 0.0:
                    self._refuse(node, "a reward can only be divided by a number other than 0")
                return left / right
        self._refuse(node, "only + - * / can be used")

    def _call(self, node: ast.Call) -> Reward:
        function = node.func
        written = function.id if isinstance(function, ast.Name) else function.value  # type: ignore[attr-defined]
        name = self.plugins.get(function.col_offset, written)
        settings: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg in settings:
                self._refuse(keyword.value, "each setting must be given once, by its name")
            settings[keyword.arg] = self._setting(keyword.value)
        return self._named(node, name, [self._setting(value) for value in node.args], settings)

    def _setting(self, node: ast.expr) -> float | str | bool | None:
        match node:
            case ast.Constant(value=str() | bool() | None):
                return node.value  # type: ignore[return-value]
            case ast.Constant(value=int() as number):
                return number
            case ast.Constant():
                return self._number(node)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
        self._refuse(node, "a setting must be a number, a quoted text, True, False or None")

    def _number(self, node: ast.Constant) -> float:
        value = node.value
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
            return float(value)
        self._refuse(node, "a number must be real and finite")

    def _named(
        self, node: ast.expr, name: str, values: list[Any], settings: dict[str, Any]
    ) -> Reward:
        try:
            return self.build(name, values, settings)
        except SettingError as error:
            raise SettingError(
                f"{error} (position {self._position(node)} of `{self.shown}`)"
            ) from error

    def _position(self, node: ast.expr) -> int:
        return len(self.text.encode()[: node.col_offset].decode(errors="replace")) + 1

    def _refuse(self, node: ast.expr, rule: str) -> NoReturn:
        self._fail(f"{rule}, see position {self._position(node)}")

    def _fail(self, what: str) -> NoReturn:
        raise SettingError(f"reward `{self.shown}`: {what}") from None
