"""How one trial ends, wherever it runs: its run folder, or why there are no numbers."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from experiments.tracking import Watcher
from experiments.trial import Trial, trial
from market.errors import InputError

STEP = 0.005  # progress is told in steps of this size


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: its run folder, or why there are no numbers."""

    spec: Trial
    path: Path | None = None
    error: str | None = None
    users: bool = False  # the error is an input's, not ours
    trace: str = ""


def attempt(spec: Trial, watch: Watcher) -> Outcome:
    """Run a trial; what stops it is its outcome, so that the others go on."""
    try:
        return Outcome(spec, trial(spec, watch))
    except Exception as error:  # reported by name
        users = isinstance(error, InputError)
        reason = " ".join(str(error if users else f"{type(error).__name__}: {error}").split())
        if isinstance(error, MemoryError) or "can't allocate memory" in reason:  # numpy's, torch's
            reason = "out of memory; what was trained up to the last checkpoint is kept"
        return Outcome(spec, None, reason.rstrip(": "), users, traceback.format_exc())


def teller(tell: Callable[[float], None], every: float = 0.0) -> Watcher:
    """Progress in steps, and at most once in `every` seconds, where telling it costs something."""
    told, at = 0.0, -math.inf

    def watch(done: float) -> None:
        nonlocal told, at
        if done == 1.0 or (done >= told + STEP and time.monotonic() >= at + every):
            told, at = done, time.monotonic()
            tell(done)

    return watch
