"""Settings from a file and from `--dotted.key value`, typed and checked as one.

Every problem is one line naming the key, the value, the rule, and the place it was written at.
Types and help come from the config dataclasses and, beneath `agent.`, from the agent's settings.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import jsonargparse

from experiments.yaml_file import Document, parse_value
from market.errors import SettingError

SHORT = {"agent": "agent.name", "data": "data.source", "task.cost": "task.cost.buy"}
_ATTRIBUTE = re.compile(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", re.MULTILINE)
_COMMENT = re.compile(r"^    (\w+): [^#\n]*#\s+(.+)$", re.MULTILINE)
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


class Option(NamedTuple):
    """One leaf of the settings: `--key`, its type, default and help."""

    key: str
    hint: Any
    default: Any
    help: str
    group: str


class Given(NamedTuple):
    """A value as it was written; on a command line it is still text."""

    value: Any
    where: str
    is_text: bool


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


def options_of(kind: type, prefix: str = "", group: str = "") -> Iterator[Option]:
    """The leaves of a config dataclass, nested ones dotted."""
    hints, texts = get_type_hints(kind), _attribute_texts(kind)
    for entry in dataclasses.fields(kind):
        key, hint = f"{prefix}{entry.name}", hints[entry.name]
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            title = (inspect.getdoc(hint) or "").splitlines()[0]
            yield from options_of(hint, f"{key}.", title)
        elif not entry.metadata.get("hidden"):
            yield Option(key, hint, _default(entry), texts.get(entry.name, ""), group)


def agent_options(kind: type, name: str) -> Iterator[Option]:
    """The settings of an agent's class: its `Settings`, else what its constructor takes."""
    group, prefix = f"Settings of agent {name}.", "agent."
    settings = getattr(kind, "Settings", None)
    if dataclasses.is_dataclass(settings) and dataclasses.fields(settings):
        for option in options_of(settings, prefix):  # type: ignore[arg-type]
            yield option._replace(group=group)
        return
    hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    for parameter in list(inspect.signature(kind).parameters.values()):
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            default = None if parameter.default is parameter.empty else parameter.default
            yield Option(
                f"{prefix}{parameter.name}", hints.get(parameter.name, Any), default, "", group
            )


def flatten(document: Document, options: Sequence[Option]) -> dict[str, Given]:
    """What a settings file says, by dotted key."""
    leaves, found = {option.key for option in options}, {}
    groups = {key[: match.start()] for key in leaves for match in re.finditer(r"\.", key)}

    def walk(values: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for name, value in values.items():
            here = (*path, name)
            key, where = ".".join(here), document.where(*here)
            if key in groups and isinstance(value, dict | None):
                walk(value or {}, here)
            elif key in leaves or key in SHORT:
                found[key] = Given(value, where, is_text=False)
            elif key in groups:
                raise SettingError(f"{key} must be a mapping, got {_written(value)} ({where})")
            else:
                raise unknown_key(key, options, where)

    walk(document.values, ())
    return found


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
            base = given[owner].value if owner in given else {}
            inside = {**base, key.removeprefix(f"{owner}."): parse_value(text, f"--{key}")}
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


def check_type(option: Option, given: Given) -> Any:
    """The value as the option's type.

    Raises:
        SettingError: If it is of another type.

    """
    parser, value, hint = _parser([option]), given.value, option.hint
    try:
        if given.is_text and _takes_text(hint):
            return parser.parse_args([f"--{option.key}={value}"])[option.key]
        typed = _read(value, hint) if given.is_text else value
        if isinstance(typed, str) and not _takes_text(hint):
            raise argparse.ArgumentError(None, "text")
        nested: Any = _whole(typed, hint)
        for part in reversed(option.key.split(".")):
            nested = {part: nested}
        return parser.parse_object(nested)[option.key]
    except (jsonargparse.ArgumentError, argparse.ArgumentError):
        place = f" ({given.where})" if not given.is_text and given.where else ""
        raise SettingError(f"{_wrong(option, value)}{place}") from None


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


def unknown_key(key: str, options: Sequence[Option], where: str) -> SettingError:
    """The error for a key there is none of: where it stands and the nearest one there is."""
    bare = key.removeprefix("--")
    keys = {option.key for option in options}
    choices = keys | {k.rpartition(".")[0] for k in keys} - {""}
    near = difflib.get_close_matches(bare, choices, n=1) or [
        option.key
        for option in options
        if difflib.SequenceMatcher(None, bare.split(".")[-1], option.key.split(".")[-1]).ratio()
        > 0.8
    ]
    hint = f"; did you mean '{near[0]}'?" if near else f"; valid: {', '.join(sorted(keys))}"
    place = f" ({where})" if where else ""
    return SettingError(f"unknown setting '{key}'{place}{hint}")


def show_help(prog: str, arguments: str, text: str, options: Sequence[Option], epilog: str) -> None:
    """Print what a command does, its options in groups, and examples."""
    parser = _parser(options, prog=prog, description=text, epilog=epilog)
    parser.usage = f"{prog} {arguments}"
    parser.print_help()


def _parser(options: Sequence[Option], **about: Any) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        exit_on_error=False, parser_mode=_MODE, formatter_class=_Formatter, **about
    )
    groups: dict[str, Any] = {}
    for option in options:
        title = option.group or "The run."
        if title not in groups:
            groups[title] = parser.add_argument_group(title.rstrip("."))
        groups[title].add_argument(
            f"--{option.key}",
            type=option.hint,
            default=option.default,
            help=option.help or None,
        )
    return parser


class _Formatter(argparse.RawDescriptionHelpFormatter, jsonargparse.DefaultHelpFormatter):
    """Keeps the line breaks of descriptions and examples."""


_MODE = "allocgym"
jsonargparse.set_loader(_MODE, parse_value, exceptions=(SettingError,))


def _expanded(given: dict[str, Given]) -> dict[str, Given]:
    """Short forms, such as `agent: ppo`, by their full keys."""
    for short in [key for key in given if key in SHORT]:
        given.setdefault(SHORT[short], given.pop(short))
    return given


def _mapping_above(key: str, known: Mapping[str, Option]) -> str:
    """The option of mapping type that `key` is an entry of, or nothing."""
    parts = key.split(".")
    above = (".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1))
    return next((k for k in above if k in known and _takes(known[k].hint, dict)), "")


def _takes(hint: Any, kind: Any) -> bool:
    """Whether a type is `kind`, or a union with it inside."""
    members = get_args(hint) if get_origin(hint) in (Union, *_UNIONS) else (hint,)
    return any((get_origin(member) or member) is kind for member in members)


_UNIONS = (type(int | str),)


def _takes_text(hint: Any) -> bool:
    """Whether text may stand there; where not, jsonargparse would read a number out of text."""
    return any(_takes(hint, kind) for kind in (str, Any, Literal))


def _read(text: str, hint: Any) -> Any:
    """What an option's text means where no text may stand."""
    try:
        return parse_value(_as_list(text) if _takes(hint, list) else text)
    except SettingError:
        return text


def _whole(value: Any, hint: Any) -> Any:
    """1e5 as 100000 where a whole number is asked for."""
    asked = _takes(hint, int) and not _takes(hint, float)
    return int(value) if asked and isinstance(value, float) and value.is_integer() else value


def _as_list(text: str) -> str:
    """`a, f(1, 2)` as a JSON list of texts; what is a list, a number or null stays as it is."""
    if text.startswith("[") or text in ("null", "") or re.fullmatch(r"[-+]?\d+", text):
        return text
    parts = re.findall(r"(?:[^,({\[]|\([^)]*\)|\{[^}]*\}|\[[^\]]*\])+", text)
    items = [part.strip() for part in parts]
    return json.dumps([parse_value(item) if item.startswith("{") else item for item in items])


def _wrong(option: Option, value: Any) -> str:
    """`key must be a number, got 'x'`, with the item where it is one of a list."""
    if isinstance(value, list) and _takes(option.hint, list):
        odd = [(i, item) for i, item in enumerate(value) if not isinstance(item, str)]
        if odd and "str" in str(option.hint):
            i, item = odd[0]
            return f"{option.key}[{i}] must be text, got {_written(item)}; put it in quotes"
    quote = ""
    if isinstance(value, (int, float)) and _takes(option.hint, str):
        quote = "; put it in quotes"
    return f"{option.key} must be {describe(option.hint)}, got {_written(value)}{quote}"


def _written(value: Any) -> str:
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


def _default(entry: dataclasses.Field) -> Any:
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return None if entry.default is dataclasses.MISSING else entry.default


def _attribute_texts(kind: type) -> dict[str, str]:
    """What a dataclass and those above it say of their fields: `Attributes`, or a comment each."""
    texts: dict[str, str] = {}
    for owner in kind.__mro__[-2::-1]:
        found = _COMMENT.findall(_source(owner)) + _ATTRIBUTE.findall(owner.__doc__ or "")
        texts |= {name: " ".join(text.split()) for name, text in found}
    return texts


def _source(owner: type) -> str:
    try:
        return inspect.getsource(owner)
    except (OSError, TypeError):  # typed in by hand
        return ""
