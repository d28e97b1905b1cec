"""Names a user writes: `name(arguments)` texts, and the errors for names that do not exist."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from market.errors import SettingError


def unknown_name(
    kind: str, name: object, valid: Iterable[str], also: Mapping[str, str] | None = None
) -> SettingError:
    """The error for a name that is not in `valid`: says the nearest one and lists them all.

    `also` has what other names mean, in small letters; these are not the nearest by spelling.
    """
    choices = sorted(valid)
    meant = (also or {}).get(str(name).lower())
    near = [meant] if meant else nearest(str(name), choices)
    hint = f"; did you mean '{near[0]}'?" if near else ";"
    return SettingError(f"unknown {kind} {str(name)!r}{hint} valid: {', '.join(choices) or 'none'}")


def nearest(name: str, choices: Sequence[str]) -> list[str]:
    """The choice that was likely meant, alone, or nothing.

    That is one with the same letters and digits, or with those of the name's first word
    ("AAPL US Equity"), else the most alike.
    """
    for part in (name, *re.split(r"[ .:/-]", name)[:1]):
        same = [choice for choice in choices if _letters(choice) == _letters(part)]
        if same:
            return same[:1]
    small = {choice.lower(): choice for choice in reversed(choices)}
    return [small[near] for near in difflib.get_close_matches(name.lower(), small, n=1)]


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def parse_call(text: str, *, words: bool = False) -> tuple[str, list[Any], dict[str, Any]]:
    """Read "name" or "name(1, window=20)" without evaluating anything but literals.

    Args:
        text: What a user wrote.
        words: Whether values may stand without quotes: `rule=top_k(k=1)` and `target=return` are
            texts then, `[a, b(c=1)]` a list of texts, and true, false and none what they say.

    Returns:
        The name (dots allowed), positional arguments and keyword arguments.

    Raises:
        SettingError: If the text has another form.

    """
    try:
        source = _WORD.sub(_marked, text.strip()) if words else f"_{text.strip()}"
        node = ast.parse(source, mode="eval").body  # "_": `return` is a keyword
        arguments: list[ast.expr] = []
        keywords: list[ast.keyword] = []
        if isinstance(node, ast.Call):
            arguments, keywords, node = node.args, node.keywords, node.func
        read = partial(_word_value, source) if words else ast.literal_eval
        name = _plain(_dotted(node)) if words else _dotted(node)[1:]
        if any(keyword.arg is None for keyword in keywords):
            raise ValueError("**")
        named = {str(keyword.arg)[words:]: read(keyword.value) for keyword in keywords}
        return name, [read(argument) for argument in arguments], named
    except (SyntaxError, ValueError, TypeError):
        raise SettingError(f"cannot read {text!r}; write it as name or name(20)") from None


_WORD = re.compile(r"""("[^"]*"|'[^']*')|(\b[A-Za-z_]\w*)""")
_CONSTANTS = {"true": True, "false": False, "none": None, "null": None}


def _marked(found: re.Match[str]) -> str:
    """A word with a mark in front, so that none is a keyword; quoted text as it is."""
    return found[1] or f"_{found[2]}"


def _plain(source: str) -> str:
    """Source without the marks."""
    return _WORD.sub(lambda found: found[1] or found[2][1:], source)


def _word_value(source: str, node: ast.expr) -> Any:
    """A literal, or the text of a word or call."""
    if isinstance(node, ast.List | ast.Tuple):
        return [_word_value(source, item) for item in node.elts]
    if not isinstance(node, ast.Name | ast.Attribute | ast.Call):
        return ast.literal_eval(node)
    _dotted(node.func if isinstance(node, ast.Call) else node)
    text = _plain(ast.get_source_segment(source, node) or "")
    return _CONSTANTS.get(text.lower(), text)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError("not a name")
