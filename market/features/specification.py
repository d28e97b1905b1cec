"""Specifications of features: "rsi", "return(5)", "volatility(window=60)", "mine.py:spread(20)"."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from market.errors import SettingError
from market.features.registry import FEATURES, Feature
from market.features.user import user_feature
from market.names import parse_call, unknown_name


class Specification(NamedTuple):
    """A feature with all its parameters."""

    name: str
    settings: dict[str, Any]
    feature: Feature

    @property
    def text(self) -> str:
        """The shortest text: "return", "return(5)"; equal features have equal texts."""
        defaults = list(self.feature.parameters.values())
        values = list(self.settings.values())
        while values and values[-1] == defaults[len(values) - 1]:
            values.pop()
        return f"{self.name}({', '.join(map(str, values))})" if values else self.name


def parse_feature(spec: str) -> Specification:
    """Read a specification.

    Raises:
        SettingError: If a name is unknown, or a parameter unknown, of another type or out of range.

    """
    text = str(spec).strip()
    head, bracket, rest = text.partition("(")
    own = ":" in head
    name, values, named = parse_call("own" + bracket + rest if own else text)
    if own:
        name = head.strip()
        feature = user_feature(name)
    elif name in FEATURES:
        feature = FEATURES[name]
    else:
        raise unknown_name("feature", name, FEATURES)
    settings = feature.parameters
    if len(values) > len(settings):
        raise SettingError(f"feature {spec!r}: takes at most {len(settings)} parameters")
    for key, value in [*zip(settings, values, strict=False), *named.items()]:
        if key not in settings:
            raise unknown_name(f"parameter of feature '{name}'", key, settings)
        if not own:
            _check_parameter(name, key, value, settings[key])
        settings[key] = value
    return Specification(name, settings, feature)


def parse_features(specs: Sequence[str]) -> list[Specification]:
    """Read a list of specifications and files of them."""
    return [parse_feature(spec) for spec in expand_features(specs)]


def expand_features(specs: str | Sequence[str]) -> list[str]:
    """The specifications, with what a YAML file lists in the place of its name.

    Args:
        specs: Such as ["return(5)", "mine.yaml"], or one file.

    Raises:
        SettingError: If it is neither, or a file is not as it must be.

    """
    if isinstance(specs, str) and not _is_file(specs):
        raise SettingError(f"features: must be a list of specifications, got {specs!r}")
    found: list[str] = []
    for spec in [specs] if isinstance(specs, str) else specs:
        found += read_feature_set(spec) if _is_file(spec) else [spec]
    return found


def read_feature_set(path: str | Path) -> list[str]:
    """A feature set from a YAML file: a list of specifications, one a line after a dash.

    Raises:
        SettingError: If the file is missing, or holds anything else.

    """
    try:
        found = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise SettingError(f"features: {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise SettingError(f"features: {path} is not YAML: {reason}") from None
    if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
        raise SettingError(
            f"features: {path} must hold a list of specifications, got {found!r:.80}"
        )
    for entry in found:
        parse_feature(entry)
    return found


def _is_file(spec: object) -> bool:
    return isinstance(spec, str) and spec.strip().lower().endswith((".yaml", ".yml"))


def _check_parameter(feature: str, key: str, value: Any, default: Any) -> None:
    """Numbers of rows are at least 1; a lag may be 0, and has no default where it is None."""
    whole = default is None or isinstance(default, int)
    least = 0 if key == "lag" else 1
    if type(value) is not (int if whole else type(default)) or (whole and value < least):
        rule = f"a whole number >= {least}" if whole else f"a {type(default).__name__}"
        raise SettingError(f"feature '{feature}': {key} must be {rule}, got {value!r}")
