"""YAML as settings are written in it: read without surprises, and with line numbers for errors.

Differences from what a plain YAML 1.1 loader does, each of which has cost somebody a day:

    NO, on, TRUE  text (only true and false are truth values)   010    the number 10, not 8
    1:30          text, not 90                                  1e-4   a number, not text
    2012-12-31    text, not a date                              !!tag  an error: builds no objects
    a key twice   an error
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from market.errors import SettingError

MAX_BYTES = 1_000_000
MAX_VALUES = 10_000  # after aliases are expanded
MAX_DEPTH = 32
_INTEGER = re.compile(r"[-+]?\d+")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_TAG = "tag:yaml.org,2002:"

Path_ = tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """A mapping read from YAML.

    Attributes:
        values: Nested plain values.
        lines: Line of each key, by its path of keys.
        name: The file.

    """

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Path_, int] = field(default_factory=dict)
    name: str = ""

    def where(self, *path: str) -> str:
        """`line 7 of file.yaml`, for messages."""
        line = self.lines.get(path)
        return f"line {line} of {self.name}" if line else self.name


def read_yaml(path: str | Path) -> Document:
    """Read a settings file.

    Raises:
        SettingError: If it is missing, too large, no YAML, holds a key twice or an object, or
            expands without end; the message names the file and the line.

    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise SettingError(f"settings file {path} {kind}")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SettingError(f"{path}: must be at most {MAX_BYTES} bytes, got {size}")
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"cannot read settings file {path}: {error}") from None
    reader = _Reader(str(path))
    values = reader.read(text)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise SettingError(f"{path}: must hold `key: value` lines, got {str(values)[:40]!r}")
    return Document(values, reader.lines, str(path))


def parse_value(text: str, name: str = "value") -> Any:
    """One value as it is typed on a command line: a number, text, a list, a mapping.

    Raises:
        SettingError: If it is no YAML.

    """
    return _Reader(name).read(text)


class _Reader:
    """Turns the node graph of PyYAML into plain values, counting what it builds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Path_, int] = {}
        self.count = 0

    def read(self, text: str) -> Any:
        try:
            self._check_depth(text)
            node = yaml.compose(text, Loader=yaml.BaseLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f"line {mark.line + 1} of " if mark else ""
            raise SettingError(f"{line}{self.name}: {error.problem or error.context}") from None
        except yaml.YAMLError as error:
            raise SettingError(f"{self.name}: {' '.join(str(error).split())}") from None
        return None if node is None else self._value(node, ())

    def _check_depth(self, text: str) -> None:
        """Refuse deep nesting before anything recursive sees it."""
        depth = 0
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise SettingError(f"{self.name}: nested deeper than {MAX_DEPTH} levels")

    def _value(self, node: yaml.Node, path: Path_) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise SettingError(f"{self.name}: more than {MAX_VALUES} values once aliases expand")
        if len(path) > MAX_DEPTH:
            raise SettingError(f"{self.name}: nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, "map")
            return {key: self._value(part, (*path, key)) for key, part in self._items(node, path)}
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "seq")
            return [self._value(part, (*path, str(i))) for i, part in enumerate(node.value)]
        self._check_tag(node, "str")
        text = self._text(node)
        return text if getattr(node, "style", None) else _plain(text)

    def _text(self, node: yaml.Node) -> str:
        """A scalar's text; JSON writes characters beyond the first 65,536 as two halves."""
        text: str = node.value
        try:
            text.encode()
        except UnicodeEncodeError:
            try:
                return text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                line = node.start_mark.line + 1
                raise SettingError(
                    f"line {line} of {self.name}: {ascii(text)[:80]} holds half of a character"
                ) from None
        return text

    def _items(self, node: yaml.MappingNode, path: Path_) -> Iterator[tuple[str, yaml.Node]]:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node.value, str):
                raise SettingError(f"line {line} of {self.name}: a key must be text")
            key = self._text(key_node)
            if node.flow_style and ":" in key and value_node.value == "":
                raise SettingError(
                    f"line {line} of {self.name}: {key!r} is a key without a value; write a space "
                    f"after the colon: {{{key.replace(':', ': ', 1)}}}"
                )
            if key in seen:
                raise SettingError(
                    f"{self.name}: key '{'.'.join((*path, key))}' appears twice, "
                    f"on lines {seen[key]} and {line}"
                )
            seen[key] = line
            self.lines[(*path, key)] = line
            yield key, value_node

    def _check_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag not in (None, "!", _TAG + kind):
            line = node.start_mark.line + 1
            tag = node.tag.replace(_TAG, "!!")
            raise SettingError(f"line {line} of {self.name}: tag {tag} is not allowed here")


def _plain(text: str) -> Any:
    """The meaning of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) <= 300 else text
    if _NUMBER.fullmatch(text):
        return float(re.sub(r"\.(?=[a-zA-Z])", "", text))
    return text
