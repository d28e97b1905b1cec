"""Finished runs are kept: the same settings on the same data are not computed twice.

Where something differs the command is refused with the list of differences, because going on
would overwrite a result; `--overwrite` does. Other versions of the software are only told.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.config import Common
from experiments.provenance import git_commit, software_versions
from experiments.runs import Run
from experiments.settings import CODE, named_code
from market.errors import SettingError

IGNORED = ("results", "workers")


def foreign_code(config: Common) -> dict[str, str]:
    """Digest of each source file of the user's own that the settings name."""
    found = {}
    for _, text in named_code(dataclasses.asdict(config)):
        for place in CODE.findall(text):
            path = _source(place)
            if path is not None and path.is_file():
                found[place] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _source(place: str) -> Path | None:
    if place.endswith(".py"):
        return Path(place).expanduser()
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def is_done(path: Path, settings: Mapping[str, Any], data: str, code: Mapping[str, str]) -> bool:
    """Whether this run is there already.

    Args:
        path: The run folder.
        settings: Resolved.
        data: Digest of the data.
        code: Digests of the user's own code.

    Raises:
        SettingError: If a finished run is there that was made from something else.

    """
    if not (path / "manifest.json").is_file():
        return False
    run = Run.read(path)
    if not run.finished:
        return False
    found = list(differences(run, settings, data, code))
    if found:
        raise SettingError(
            f"{path} is finished and was made from something else: {'; '.join(found)}. Choose "
            "another --experiment, or --overwrite"
        )
    return True


def differences(
    run: Run, settings: Mapping[str, Any], data: str, code: Mapping[str, str]
) -> Iterator[str]:
    """What is not as it was when the run was made: "key new, was old"."""
    ours, theirs = dict(_flat(settings)), dict(_flat(run.config))
    for key in sorted(ours.keys() | theirs.keys()):
        if key not in IGNORED and ours.get(key) != theirs.get(key):
            yield f"{key} {ours.get(key)}, was {theirs.get(key)}"
    if run.manifest.get("data", {}).get("sha256") != data:
        yield "the data have other numbers"
    before = run.manifest.get("code") or {}
    for place in sorted(code.keys() | before.keys()):
        if code.get(place) != before.get(place):
            yield f"the code of {place} has changed"


def other_software(run: Run) -> list[str]:
    """Versions that differ from those a kept run was made with."""
    before = run.manifest.get("versions", {})
    found = [
        f"{name} {before.get(name)} (now {version})"
        for name, version in software_versions().items()
        if before.get(name) != version
    ]
    commit = git_commit()
    if run.manifest.get("git_commit") != commit:
        found.append(f"source {str(run.manifest.get('git_commit'))[:12]} (now {str(commit)[:12]})")
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
