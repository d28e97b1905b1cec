"""`allocgym train --resume RUN`: go on with a run that was cut off, by its folder alone."""

from __future__ import annotations

import os
from pathlib import Path

from experiments.commands import experiment_of, run_training
from experiments.options import options_of
from experiments.runs import Run
from experiments.settings import CommandLine, build, refuse_foreign_code, resolve
from experiments.walk_config import WalkForwardConfig
from experiments.yaml_file import read_yaml
from market.errors import SettingError


def resume(line: CommandLine, text: str, command: str) -> int:
    """Go on with a run, whatever command made it."""
    folder = Path(text)
    run = Run.read(folder)
    if not run.config:
        raise SettingError(f"--resume: {text} is no run folder: {run.error}")
    if line.words or "overwrite" in line.flags:
        raise SettingError("--resume takes the settings of its run; --key value may change some")
    document = read_yaml(folder / "config.yaml")
    if "trust" not in line.flags:
        refuse_foreign_code(document, line.pairs)
    place = folder.resolve().parent.parent
    document.values.update(results=os.path.relpath(place.parent), experiment=place.name)
    if "walk" in document.values:
        walks = build(
            WalkForwardConfig, resolve(document, line.pairs, list(options_of(WalkForwardConfig)))
        )
        return run_training(walks.experiments(), 1, command, line.flags)
    config = experiment_of(document, line.pairs)
    return run_training([config], 1, command, line.flags)
