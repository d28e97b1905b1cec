"""A process that imports the slow libraries once and forks a child for each call, to be killed.

    <- {"call": "train", "arguments": {..}, "kill_after": seconds or null}    -> exit status

It alone waits for its children, so that it never kills another's process of the same number.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def train(config: dict[str, Any], seed: int = 0) -> None:
    """One trial."""
    from experiments.outcome import attempt
    from experiments.trial import Trial

    outcome = attempt(Trial(experiment(config), seed), lambda done: None)
    if outcome.error:
        print(f"{outcome.error}\n{outcome.trace}", file=sys.stderr)
        raise SystemExit(1)


def experiment(config: dict[str, Any]) -> Any:
    """An experiment, or a walk-forward where the settings have a block of it, on a price file."""
    from experiments.config import AgentConfig, DataConfig, ExperimentConfig
    from experiments.walk_config import WalkConfig, WindowedConfig

    given = dict(config)
    prices, agent, walk = given.pop("prices"), given.pop("agent"), given.pop("walk", None)
    given |= {
        "data": DataConfig(source="files", options={"path": prices}),
        "agent": AgentConfig.of(agent),
    }
    if walk is not None:
        return WindowedConfig(walk=WalkConfig(**walk), **given)
    return ExperimentConfig(**given)


def save(folder: str, line: int) -> None:
    """Save a checkpoint, and die at the so-many-th line of the code that does it."""
    from experiments import checkpoints, storage

    store = checkpoints.Checkpoints(Path(folder))
    store.newest()
    with dying_at(line, checkpoints, storage):
        store.save({"value": 2}, {})


def keep(folder: str, line: int) -> None:
    """Store a second download of one series, and die at the so-many-th line of it."""
    import pandas as pd

    from market.sources import download_cache

    store = download_cache.DownloadCache("vendor", folder)
    frame = pd.DataFrame({"value": [2.0]}, pd.DatetimeIndex(["2020-01-01"], name="date"))
    with dying_at(line, download_cache):
        store.write("A", frame, {})


@contextlib.contextmanager
def dying_at(line: int, *modules: Any) -> Iterator[None]:
    """As kill -9 at the so-many-th line that these modules run: nothing is cleaned up."""
    ours = {module.__file__ for module in modules}
    seen = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in ours:
            return None
        if event == "line":
            seen += 1
            if seen == line:
                os._exit(9)
        return trace

    sys.settrace(trace)
    yield
    sys.settrace(None)


def command(argv: list[str], folder: str, room: int | None = None) -> None:
    """The command line in a folder, in a process that may grow by so many bytes."""
    import resource

    from experiments.cli import main

    os.chdir(folder)
    if room is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + room
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with contextlib.redirect_stdout(sys.stderr):  # ours tells the exit status
        raise SystemExit(main(argv))


SLOW = (
    "sb3_contrib",
    "torch._dynamo",  # which the first optimiser imports
    "array_api_compat.torch",
    "agents.dqn",
    "agents.ppo",
    "agents.sac",
    "agents.forecast_agent",
    "agents.policy_gradient",
    "experiments.outcome",
    "experiments.walk_forward",
    "market.sources.files",
    "pyarrow.parquet",
    "safetensors.torch",
    "tensorboard.compat.proto.event_pb2",
    "tensorboard.summary.writer.record_writer",
    "torch.utils.tensorboard",
)
CALLS: dict[str, Callable[..., None]] = {
    "train": train,
    "save": save,
    "keep": keep,
    "command": command,
}


def main() -> None:
    for name in SLOW:
        importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                CALLS[asked["call"]](**asked["arguments"])
                status = 0
            except SystemExit as end:
                status = int(end.code or 0)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(ended(pid, asked["kill_after"]), flush=True)


def ended(pid: int, kill_after: float | None) -> int:
    """Exit status of a child, which is killed when its time is over."""
    deadline = None if kill_after is None else time.monotonic() + kill_after
    while True:
        found, status = os.waitpid(pid, 0 if deadline is None else os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = None
        time.sleep(0.001)


if __name__ == "__main__":
    main()
