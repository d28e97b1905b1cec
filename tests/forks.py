"""The test's side of `fork_server.py`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class Forks:
    """Calls in children of a process that has imported everything; a context manager."""

    def __init__(self, log: Path) -> None:
        self.log = log.open("w+")
        self.process: Any = subprocess.Popen(
            [sys.executable, str(HERE / "fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=HERE.parent,
            env=os.environ | {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.log.close()

    def run(self, call: str, *, kill_after: float | None = None, **arguments: Any) -> int:
        """Exit status of a call, negative where a signal ended it."""
        asked = {"call": call, "arguments": arguments, "kill_after": kill_after}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def said(self) -> str:
        """All that children wrote on standard error."""
        self.log.seek(0)
        return self.log.read()
