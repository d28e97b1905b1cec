"""Rates of several tasks whose repeats take turns, so that noise of the machine meets them all.

Time is the processor's, not the clock's: of one thread both are the same on a quiet machine, and on
a busy one the time that others run is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Task = Callable[[], tuple[int, float]]  # runs once; environment steps done, seconds taken


def timed(run: Callable[[], object], steps: int, before: Callable[[], object]) -> Task:
    """A task that calls `before` untimed, then `run`, which makes `steps` environment steps."""

    def task() -> tuple[int, float]:
        before()
        start = time.process_time()
        run()
        return steps, time.process_time() - start

    return task


def best_rates(tasks: Mapping[str, Task], repeats: int) -> dict[str, float]:
    """Steps a second of each task: its best of `repeats` turns, after one to warm up."""
    best = dict.fromkeys(tasks, 0.0)
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            steps, seconds = task()
            if turn:
                best[name] = max(best[name], steps / seconds)
    return best
