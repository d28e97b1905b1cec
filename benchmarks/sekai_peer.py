"""The fastest peer, sekai, in a virtual environment of its own beside this file."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from benchmarks.timing import Task
from market import Market

VERSION = "sekai==0.2.0"
HERE = Path(__file__).parent
VENV = HERE / ".venv-peers"
PYTHON = VENV / "bin" / "python"


class Sekai:
    """A running worker; as a context manager it is stopped at the end."""

    def __init__(self, market: Market) -> None:
        self._folder = tempfile.TemporaryDirectory()
        prices = Path(self._folder.name) / "prices.npy"
        np.save(prices, market.prices[:, : market.n_assets - market.has_cash])
        command = [str(PYTHON), str(HERE / "sekai_worker.py"), str(prices)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Sekai:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()
        self._folder.cleanup()

    def task(self, num_envs: int, n_steps: int) -> Task:
        """Steps of `num_envs` environments, timed by the worker itself."""

        def run() -> tuple[int, float]:
            assert self._process.stdin is not None and self._process.stdout is not None
            print(
                json.dumps({"num_envs": num_envs, "steps": n_steps}),
                file=self._process.stdin,
                flush=True,
            )
            answer = self._process.stdout.readline()
            if not answer:
                raise RuntimeError("the worker of sekai ended; its error stands above")
            return num_envs * n_steps, float(answer)

        return run


def install() -> str | None:
    """Make the virtual environment where there is none; what went wrong, or None."""
    ready = [str(PYTHON), "-c", "import sekai"]
    if PYTHON.exists() and subprocess.run(ready, capture_output=True).returncode == 0:
        return None
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", VERSION]
    for command in ([sys.executable, "-m", "venv", str(VENV)], pip):
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            lines = made.stderr.strip().splitlines() or ["no message"]
            return f"{VERSION} could not be installed: {lines[-1]}"
    return None
