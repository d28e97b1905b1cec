"""Names a user writes: `name(arguments)` texts, and the errors for names that do not exist."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from typing import Any

from market.errors import SettingError


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> SettingError:
    """The error for a name that is not in `valid`: says the nearest one and lists them all."""
    choices = sorted(valid)
    near = difflib.get_close_matches(str(name), choices, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ";"
    return SettingError(f"unknown {kind} {str(name)!r}{hint} valid: {', '.join(choices) or 'none'}")


def parse_call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Read "name" or "name(1, window=20)" without evaluating anything but literals.

    Returns:
        The name (dots allowed), positional arguments and keyword arguments.

    Raises:
        SettingError: If the text has another form.

    """
    try:
        node = ast.parse(f"_{text.strip()}", mode="eval").body  # "_": `return` is a keyword
        arguments: list[ast.expr] = []
        keywords: list[ast.keyword] = []
        if isinstance(node, ast.Call):
            arguments, keywords, node = node.args, node.keywords, node.func
        name = _dotted(node)[1:]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in keywords}
        return name, [ast.literal_eval(argument) for argument in arguments], named
    except (SyntaxError, ValueError, TypeError):
        raise SettingError(f"cannot read {text!r}; write it as name or name(20)") from None


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError("not a name")
