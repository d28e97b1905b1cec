"""What a checkpoint costs: size, processor time, and the share of training it can take.

    python -m benchmarks.checkpoints

A short training at the agents' default sizes on the bundled data; every checkpoint that is offered
is written. In a run they are 10 seconds apart, or 100 times what the last one took.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from agents import AGENTS
from agents.base import Monitor
from experiments.checkpoints import Checkpoints
from market import load_market

SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {"steps": 24_576},
    "sac": {"steps": 3_000},
    "dqn": {"steps": 2_000},
    "policy_gradient": {"steps": 6},
    "lstm": {"epochs": 4},
}


class Writer(Monitor):
    """Writes every checkpoint and takes the time."""

    def __init__(self, folder: Path) -> None:
        self.checkpoints = Checkpoints(folder)
        self.seconds = list[float]()

    def checkpoint(self, state: Any) -> None:
        """Write it."""
        started = time.process_time()
        self.checkpoints.save(state(), {})
        self.seconds.append(time.process_time() - started)

    @property
    def size(self) -> int:
        """Bytes of the newest."""
        newest = max(self.checkpoints.folder.iterdir())
        return sum(path.stat().st_size for path in newest.iterdir())


def main() -> None:
    """Print a table."""
    train, valid, _ = load_market("multi_asset").split("2012-12-31", "2015-12-31")
    print("agent              checkpoints      size   processor time   share of training at most")
    for name, settings in SETTINGS.items():
        with tempfile.TemporaryDirectory() as folder:
            writer = Writer(Path(folder))
            AGENTS[name](**settings).fit(train, valid, monitor=writer)
            took = float(np.median(writer.seconds))
            share = took / max(10.0, 100.0 * took)
            print(
                f"{name:18} {len(writer.seconds):11}  {writer.size / 1024:5.0f} KiB "
                f"{1000.0 * took:13.1f} ms {share:23.2%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
