"""Going on with runs that were cut off: only with what they were made from, unless told otherwise.

A run goes on from its newest sound checkpoint, a walk-forward with the windows it has and the
checkpoint of the one that was being trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from experiments.checkpoints import FOLDER
from experiments.reuse import differences, other_software
from experiments.runs import Run
from market.errors import SettingError

Existing = Literal["continue", "allow_changes", "overwrite"]
_WORK = (f"{FOLDER}/[0-9]*", "windows/[0-9]*", f"windows/.*.part/{FOLDER}/[0-9]*")


@dataclass(frozen=True)
class Leftover:
    """A run that was cut off, with work in it that need not be done again.

    Attributes:
        run: As it lies there.
        existing: "continue", or "allow_changes" to go on though something has changed since.

    """

    run: Run
    existing: Existing

    @classmethod
    def at(cls, path: Path, existing: Existing) -> Self | None:
        """The one in this folder; None where nothing can be gone on with, or is not to be.

        One that diverged was not cut off: from any state of it the same would come.
        """
        if existing == "overwrite" or not (path / "manifest.json").is_file():
            return None
        if not any(found for pattern in _WORK for found in path.glob(pattern)):
            return None
        run = Run.read(path)
        over = run.finished or "diverged" in run.manifest
        return None if over else cls(run, existing)

    def changes(self, settings: Mapping[str, Any], data: str, code: Mapping[str, str]) -> list[str]:
        """What differs from then, as `reuse.differences` and `reuse.other_software` put it.

        Raises:
            SettingError: If anything does and that is not allowed.

        """
        found = [*differences(self.run, settings, data, code), *other_software(self.run)]
        if found and self.existing == "continue":
            raise SettingError(
                f"{self.run.path} was cut off and was made from something else: "
                f"{'; '.join(found)}. --allow-changes goes on all the same and notes it, "
                "--overwrite begins anew"
            )
        return found

    def continued(self, changes: list[str]) -> list[dict[str, Any]]:
        """For the manifest: each time the run was gone on with, and what had changed."""
        before: list[dict[str, Any]] = self.run.manifest.get("continued", [])
        return [*before, {"changes": changes}]


def existing_of(flags: set[str]) -> Existing:
    """What to do with runs that are there."""
    if {"overwrite", "allow_changes"} <= flags:
        raise SettingError("--overwrite and --allow-changes: give one of them")
    if "overwrite" in flags:
        return "overwrite"
    return "allow_changes" if "allow_changes" in flags else "continue"
