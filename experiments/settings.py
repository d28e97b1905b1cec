"""Settings from a file and from `--dotted.key value`, typed and checked as one.

Every problem is one line naming the key, the value, the rule, and the place it was written at.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from experiments.agent_text import read_agent
from experiments.config import AgentConfig
from experiments.options import Option
from experiments.values import Given, check_type, takes, written
from experiments.yaml_file import Document, parse_value, read_yaml
from market.errors import InputError, SettingError
from market.plugin import CODE

_NEVER_CODE = ("data.options", "results", "experiment")
SHORT = {"agent": "agent.name", "data": "data.source", "task.cost": "task.cost.buy"}


@dataclass
class CommandLine:
    """Tokens sorted: what stands alone, `--key value` pairs, and flags."""

    words: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)


def read_tokens(tokens: Sequence[str], flags: Sequence[str] = ()) -> CommandLine:
    """Sort tokens; dashes inside a key stand for underscores.

    Raises:
        SettingError: If a key has no value.

    """
    line, rest = CommandLine(), iter(tokens)
    for token in rest:
        if token in ("-h", "--help"):
            line.flags.add("help")
        elif not token.startswith("--"):
            line.words.append(token)
        else:
            name, joined, value = token[2:].partition("=")
            key = name.replace("-", "_")
            if key in flags and not joined:
                line.flags.add(key)
                continue
            if not joined:
                value = next(rest, "--")
                if value.startswith("--"):
                    raise SettingError(f"--{name} needs a value")
            line.pairs.append((key, value))
    return line


def resolve(
    document: Document, pairs: Sequence[tuple[str, str]], options: Sequence[Option]
) -> dict[str, Any]:
    """Typed values by dotted key, of all that is given; the command line wins over the file.

    Raises:
        SettingError: Naming every key that is unknown or has a value of the wrong type.

    """
    known = {option.key: option for option in options}
    given = _expanded(flatten(document, options))
    typed, problems = {}, []
    for key, text in pairs:
        key = SHORT.get(key, key)
        owner = _mapping_above(key, known)
        if key not in known and not owner:
            raise unknown_key(f"--{key}", options, "")
        if owner:
            base = check_type(known[owner], given[owner]) if owner in given else {}
            inside = _with_entry(base, key.removeprefix(f"{owner}."), text, owner)
            given[owner] = Given(inside, f"--{key}", is_text=False)
        else:
            given[key] = Given(text, f"--{key}", is_text=True)
    for key, entry in given.items():
        try:
            typed[key] = check_type(known[key], entry)
        except SettingError as error:
            problems.append(str(error))
    if problems:
        raise SettingError("; ".join(problems))
    return typed


def _with_entry(base: Mapping[str, Any], name: str, text: str, owner: str) -> dict[str, Any]:
    """A mapping with one entry more; options of data may hold mappings: data.options.tables.mine.

    Elsewhere a dot is part of the name, such as that of an asset.
    """
    value = parse_value(text, f"--{owner}.{name}")
    outer, _, inner = name.partition(".")
    if owner != "data.options" or not inner:
        return {**base, name: value}
    within = base.get(outer, {})
    if not isinstance(within, Mapping):
        raise SettingError(f"--{owner}.{name}: {owner}.{outer} is {written(within)}, no mapping")
    return {**base, outer: {**within, inner: value}}


def build(kind: type, values: Mapping[str, Any]) -> Any:
    """A config dataclass from typed values by dotted key; the problems of all blocks at once."""
    hints, fields, problems = get_type_hints(kind), {}, []
    for entry in dataclasses.fields(kind):
        hint, prefix = hints[entry.name], f"{entry.name}."
        if entry.name in values:
            fields[entry.name] = values[entry.name]
        elif dataclasses.is_dataclass(hint):
            own = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
            try:
                fields[entry.name] = build(hint, own)  # type: ignore[arg-type]
            except SettingError as error:
                problems.append(str(error))
    try:
        built = kind(**fields)
    except SettingError as error:
        problems.append(str(error))
    if problems:
        raise SettingError("; ".join(problems))
    return built


def together(*checks: Callable[[], Any]) -> list[Any]:
    """What each returns; where some refuse, the problems of all at once."""
    made, problems = [], []
    for check in checks:
        try:
            made.append(check())
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise SettingError("; ".join(problems))
    return made


def changed(config: Any, values: Mapping[str, Any]) -> Any:
    """A config dataclass with some values replaced, by dotted key."""
    own: dict[str, Any] = {}
    for key, value in values.items():
        block, _, rest = key.partition(".")
        own[block] = (
            changed(own.get(block, getattr(config, block)), {rest: value}) if rest else value
        )
    return dataclasses.replace(config, **own)


def settings_file(words: Sequence[str]) -> Document:
    """The one settings file among a command's words, or an empty one."""
    if len(words) > 1:
        raise SettingError(f"expected at most one settings file, got {' '.join(words)}")
    return read_yaml(words[0]) if words else Document()


def agent_name(document: Document, pairs: Sequence[tuple[str, str]]) -> str:
    """The agent asked for, so that its settings can be read."""
    named = [value for key, value in pairs if key in ("agent", "agent.name")]
    block = document.values.get("agent")
    given = block.get("name") if isinstance(block, dict) else block
    name = named[-1] if named else given if isinstance(given, str) else AgentConfig().name
    return read_agent(name).name


def agent_config(values: dict[str, Any]) -> AgentConfig:
    """Take the agent's block out of the values."""
    keys = [key for key in values if key.startswith("agent.")]
    own = {key.removeprefix("agent."): values.pop(key) for key in keys}
    return AgentConfig.of({"name": AgentConfig().name, **own})


def refuse_foreign_code(document: Document, pairs: Sequence[tuple[str, str]]) -> None:
    """A settings file may come from anyone: what it names is run only if the user says so."""
    given = {SHORT.get(key, key) for key, _ in pairs}
    for key, text in named_code(document.values):
        if SHORT.get(key, key) not in given:
            raise SettingError(f"{key}: {text!r} in {document.name} is code; add --trust to run it")


def named_code(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Key and text of every value that names a user's code, as module:Name or file.py:Name."""
    if key in _NEVER_CODE:
        return
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from named_code(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from named_code(value, key)
    elif isinstance(values, str) and CODE.search(values):
        yield key, values


def flatten(document: Document, options: Sequence[Option]) -> dict[str, Given]:
    """What a settings file says, by dotted key."""
    leaves, found = {option.key for option in options}, {}
    groups = {key[: match.start()] for key in leaves for match in re.finditer(r"\.", key)}

    def walk(values: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for name, value in values.items():
            here = (*path, name)
            key, where = ".".join(here), document.where(*here)
            if "." in name:  # one way to write a key, so that checks of the file see all of it
                raise SettingError(f"key '{name}' ({where}): write its parts as nested blocks")
            if key in groups and isinstance(value, dict | None):
                walk(value or {}, here)
            elif key in leaves or key in SHORT:
                found[key] = Given(value, where, is_text=False)
            elif key in groups:
                raise SettingError(f"{key} must be a mapping, got {written(value)} ({where})")
            else:
                raise unknown_key(key, options, where)

    walk(document.values, ())
    return found


def unknown_key(key: str, options: Sequence[Option], where: str) -> SettingError:
    """The error for a key there is none of: where it stands and the nearest one there is."""
    bare = key.removeprefix("--")
    keys = {option.key for option in options}
    choices = keys | {k.rpartition(".")[0] for k in keys} - {""}
    near = difflib.get_close_matches(bare, choices, n=1)
    if not near:  # the right word in the wrong block, such as learning_rate for agent.learning_rate
        words = {choice.rpartition(".")[2]: choice for choice in sorted(choices)}
        last = bare.rpartition(".")[2]
        near = [words[word] for word in difflib.get_close_matches(last, words, n=1, cutoff=0.8)]
    hint = f"; did you mean '{near[0]}'?" if near else f"; valid: {', '.join(sorted(keys))}"
    place = f" ({where})" if where else ""
    return SettingError(f"unknown setting '{key}'{place}{hint}")


def _expanded(given: dict[str, Given]) -> dict[str, Given]:
    """Short forms, such as `agent: ppo`, by their full keys."""
    for short in [key for key in given if key in SHORT]:
        given.setdefault(SHORT[short], given.pop(short))
    return given


def _mapping_above(key: str, known: Mapping[str, Option]) -> str:
    """The option of mapping type that `key` is an entry of, or nothing."""
    parts = key.split(".")
    above = (".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1))
    return next((k for k in above if k in known and takes(known[k].hint, dict)), "")
