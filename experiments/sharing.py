"""Agents that an ensemble would train and that are there already: taken from their finished run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agents.base import Agent
from experiments.config import AgentConfig
from experiments.evaluate import load_agent
from experiments.reuse import other_software
from experiments.run_dir import RunFolder
from experiments.runs import Run

BLOCKS = ("experiment", "data", "split", "task", "seeds")  # what must not differ


def trained_alike(run: RunFolder, name: str, settings: Mapping[str, Any]) -> Agent | None:
    """The agent of a finished run of the same experiment that was trained just as it would be here.

    Args:
        run: Of the ensemble.
        name: Of the agent.
        settings: All of them.

    Returns:
        None unless data, split, task, seed, settings, source and versions are the same.

    """
    ours = Run.read(run.path)
    if "walk" in ours.config:  # each window trains on other rows
        return None
    for folder in sorted(run.path.parent.parent.glob(f"*/{run.path.name}")):
        other = Run.read(folder)
        if other.finished and _alike(ours, other) and _is(other, name, settings):
            config = AgentConfig(name=name, settings=dict(settings))
            return load_agent(other, config) if (folder / "model").is_dir() else None
    return None


def _alike(ours: Run, other: Run) -> bool:
    same = all(ours.config.get(key) == other.config.get(key) for key in BLOCKS)
    data = [run.manifest.get("data", {}).get("sha256") for run in (ours, other)]
    return same and "walk" not in other.config and data[0] == data[1] and not other_software(other)


def _is(run: Run, name: str, settings: Mapping[str, Any]) -> bool:
    agent = dict(run.config.get("agent", {}))
    agent.pop("label", None)
    return agent.pop("name", None) == name and agent == json.loads(json.dumps(settings))
