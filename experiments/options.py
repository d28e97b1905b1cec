"""Which settings there are: `--key`, type, default and help, read off the config dataclasses.

Beneath `agent.` stand the agent's own settings. jsonargparse prints the help and checks the types.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, get_type_hints

import jsonargparse

from experiments.yaml_file import parse_value
from market.errors import SettingError

_ATTRIBUTE = re.compile(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", re.MULTILINE)
_COMMENT = re.compile(r"^    (\w+): [^#\n]*#\s+(.+)$", re.MULTILINE)
_MODE = "allocgym"
jsonargparse.set_loader(_MODE, parse_value, exceptions=(SettingError,))


class Option(NamedTuple):
    """One leaf of the settings: `--key`, its type, default and help."""

    key: str
    hint: Any
    default: Any
    help: str
    group: str


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


def unset(options: Iterable[Option]) -> list[Option]:
    """The same without defaults: what is not given is the run's own."""
    return [option._replace(default=None) for option in options]


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


def show_help(prog: str, arguments: str, text: str, options: Sequence[Option], epilog: str) -> None:
    """Print what a command does, its options in groups, and examples."""
    parser = make_parser(options, prog=prog, description=text, epilog=epilog)
    parser.usage = f"{prog} {arguments}"
    parser.print_help()


def make_parser(options: Sequence[Option], **about: Any) -> jsonargparse.ArgumentParser:
    """A jsonargparse parser of these options, in their groups; `about` are its own arguments."""
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
