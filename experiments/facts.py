"""What was run, for a reader who wants to run it again: read from the manifests, each fact once."""

from collections.abc import Callable, Sequence
from typing import Any

import yaml

from experiments.runs import Run
from experiments.summary import agent_labels

Manifest = dict[str, Any]


def _text(value: Any, joint: str = ", ") -> str:
    return joint.join(map(str, value)) if isinstance(value, list) else str(value or "")


def _span(section: str, *keys: str) -> Callable[[Manifest], str]:
    """Reads `[a, b]` at one key, or a and b at two."""

    def read(manifest: Manifest) -> str:
        found = [manifest.get(section, {}).get(key) for key in keys]
        return _text(found if len(found) > 1 and any(found) else found[0], " to ")

    return read


FACTS: dict[str, Callable[[Manifest], str]] = {
    "Data": lambda manifest: _text(manifest.get("data", {}).get("name")),
    "Data span": _span("data", "start", "end"),
    "Assets": lambda manifest: _text(manifest.get("data", {}).get("assets")),
    "Data sha256": lambda manifest: _text(manifest.get("data", {}).get("sha256")),
    "Training": _span("splits", "train"),
    "Validation": _span("splits", "valid"),
    "Test": _span("splits", "test"),
    "Cost": lambda manifest: _text(manifest.get("cost")),
    "Reward": lambda manifest: _text(manifest.get("reward")),
    "Constraints": lambda manifest: _text(manifest.get("constraints")),
    "Source commit": lambda manifest: _text(manifest.get("git_commit")),
    "Command": lambda manifest: _text(manifest.get("command")),
}


def facts(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Name and values of each fact; where runs differ, every value with its agents."""
    labels = {id(run): name for name, group in agent_labels(runs).items() for run in group}
    known = [run for run in runs if run.manifest]
    rows = []
    for name, read in FACTS.items():
        holders: dict[str, dict[str, None]] = {}
        for run in known:
            holders.setdefault(read(run.manifest), {})[labels[id(run)]] = None
        alike = len(holders) == 1
        holders.pop("", None)
        values = [text if alike else f"{text} ({', '.join(who)})" for text, who in holders.items()]
        if values:
            rows.append((name, values))
    return rows


def versions(runs: Sequence[Run]) -> dict[str, str]:
    """Version of each package; several, if runs differ."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for package, version in run.manifest.get("versions", {}).items():
            found.setdefault(str(package), {})[str(version)] = None
    return {package: ", ".join(several) for package, several in found.items()}


def configs(runs: Sequence[Run]) -> dict[str, str]:
    """Settings of each agent's first run that has any, as YAML."""
    first: dict[str, str] = {}
    for name, group in agent_labels(runs).items():
        for run in [run for run in group if run.config][:1]:
            first[name] = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    return first


def notes(runs: Sequence[Run]) -> list[str]:
    """Caveats of the data, what was odd about the files, decisions that failed; each once."""
    found: dict[str, None] = {}
    for run in runs:
        given = run.manifest.get("data", {}).get("notes") or []
        found |= dict.fromkeys(map(str, given) if isinstance(given, list) else [str(given)])
    for run in runs:
        found |= dict.fromkeys(f"{run.agent} seed {run.seed}: {note}" for note in run.notes)
        if failed := run.manifest.get("failed_decisions"):
            text = f"{len(failed)} decisions failed and traded nothing, the first on {failed[0]}"
            found[f"{run.agent} seed {run.seed}: {text}"] = None
    return list(found)
