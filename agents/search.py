"""What tuning may try: ranges and choices of an agent's settings.

In a class, a settings file and on the command line they are written alike:

    learning_rate: 1e-5..1e-2 log      a range; drawn evenly in the logarithm
    horizon: 1..21                     whole numbers, where both ends are; 0.0..0.5 are fractions
    encoder: [fnn, cnn]                choices
    width: null                        not tried; stays as it is
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from market import SettingError

_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*\.\.\s*({_NUMBER})(\s+log)?\s*")


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included; whole numbers where both are."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        return self.low <= value <= self.high


Choices = tuple[Any, ...]


def read_space(given: Mapping[str, Any]) -> dict[str, Range | Choices]:
    """Ranges and choices by setting.

    Args:
        given: Setting -> text of a range, list of choices, or None for "not tried".

    Raises:
        SettingError: If something is neither, or holds nothing to choose from.

    """
    return {key: _read(key, value) for key, value in given.items() if value is not None}


def _read(key: str, value: Any) -> Range | Choices:
    if isinstance(value, (list, tuple)):
        if len(set(map(repr, value))) < max(1, len(value)):
            raise SettingError(f"space.{key}: choices must be at least 1 and differ, got {value}")
        return tuple(value)
    match = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise SettingError(
            f"space.{key}: must be a range such as 1..10 or 1e-5..1e-2 log, or a list of choices; "
            f"got {value!r}"
        )
    low, high = (
        int(end) if end.lstrip("+-").isdigit() else float(end) for end in match.groups()[:2]
    )
    if isinstance(low, float) or isinstance(high, float):
        low, high = float(low), float(high)
    if not low < high or (match[3] and low <= 0):
        rule = "rise from above 0" if match[3] else "rise"
        raise SettingError(f"space.{key}: a range must {rule}, got {value!r}")
    return Range(low, high, bool(match[3]))
