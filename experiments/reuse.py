"""Finished runs are kept: the same settings on the same data are not computed twice.

Where something differs the command is refused with the list of differences, because going on
would overwrite a result; `--overwrite` does. Other versions of the software are only told. A
setting that did not exist when a run was made stood, in effect, at its default: the run is kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.agent_choice import agent_class
from experiments.config import Common, DataConfig, SplitConfig, TaskConfig
from experiments.cross_config import FoldsConfig
from experiments.options import agent_options, options_of
from experiments.provenance import git_commit, software_versions
from experiments.runs import Run
from experiments.settings import named_code
from experiments.walk_config import WalkConfig
from market.errors import SettingError
from market.plugin import CODE

IGNORED = ("results", "workers")
BLOCKS = {
    "data": DataConfig,
    "split": SplitConfig,
    "walk": WalkConfig,
    "folds": FoldsConfig,
    "task": TaskConfig,
}


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
    before = {
        "settings": run.config,
        "data": run.manifest.get("data", {}).get("sha256"),
        "code": run.manifest.get("code"),
    }
    return changes({"settings": settings, "data": data, "code": code}, before)


def changes(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """What is not as it was, in words, of what two things were made from.

    Args:
        ours: `settings`, resolved; `data`, their digest; `code`, digests of the user's own.
        theirs: The same, of then.

    """
    yield from changed_settings(ours["settings"], theirs["settings"])
    if ours["data"] != theirs["data"]:
        yield "the data have other numbers"
    code, before = ours["code"], theirs.get("code") or {}
    for place in sorted(code.keys() | before.keys()):
        if code.get(place) != before.get(place):
            yield f"the code of {place} has changed"


def changed_settings(settings: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[str]:
    """Settings that are not as they were: "key new, was old"; what was not there was its default.

    Args:
        settings: Resolved, of now.
        before: Of then, as a run keeps them.

    """
    ours, theirs = dict(_flat(settings)), dict(_flat(before))
    if ours.keys() - theirs.keys():
        theirs = _defaults(ours, BLOCKS.keys() & before.keys()) | theirs
    for key in sorted(ours.keys() | theirs.keys()):
        if key not in IGNORED and ours.get(key) != theirs.get(key):
            yield f"{key} {ours.get(key)}, was {theirs.get(key)}"


def _defaults(ours: Mapping[str, Any], blocks: Iterable[str]) -> dict[str, Any]:
    """Defaults of those settings, of these blocks and of the agent, that `ours` has."""
    options = [option for name in blocks for option in options_of(BLOCKS[name], f"{name}.")]
    name = ours.get("agent.name")
    if name is not None:
        options += agent_options(agent_class(str(name)), str(name))
    found = dict(_flat({option.key: option.default for option in options}))
    return {key: value for key, value in found.items() if key in ours}


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
    """Leaves by dotted key, tuples as lists; the one agent of a list as `agent`."""
    for key, value in values.items():
        if prefix + key == "agents" and isinstance(value, list) and len(value) == 1:
            yield from _flat(value[0], "agent.")
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value
