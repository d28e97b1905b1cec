"""Ctrl-C and SIGTERM: the first lets training reach a point to go on from, the second ends at once.

    with catching(): ... with safe_points(): agent.fit(...)      the monitor calls `reached`

Outside training, and in training that keeps no checkpoints, the first ends at once, too.
"""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The user, or the system, wants this process to end.

    Attributes:
        status: To exit with, 128 and the number of the signal.

    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.status = 128 + signum

    def advise(self, command: str) -> None:
        """Say how to go on."""
        again = [word for word in shlex.split(command) if word != "--overwrite"]
        if again:
            self.args = (f"{self}; go on with: {shlex.join(again)}",)


class _Requests:
    """What was asked for; signals belong to the process, so there is one of these."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self.waits = False  # whether a point to go on from will be reached


_requests = _Requests()


@contextmanager
def catching() -> Iterator[None]:
    """Within, both signals do what this module's head says; in threads, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _heard) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _requests.asked, _requests.waits = None, False


@contextmanager
def safe_points() -> Iterator[None]:
    """Within, a training may say by `waiting` that it reaches points to go on from."""
    try:
        yield
    finally:
        _requests.waits = False
    reached()


def waiting() -> None:
    """From now on, to the end of `safe_points`, the first signal waits for `reached`."""
    _requests.waits = True


def asked() -> bool:
    """Whether a signal waits."""
    return _requests.asked is not None


def reached() -> None:
    """End here if that was asked for.

    Raises:
        Stopped: Then.

    """
    if _requests.asked is not None:
        raise Stopped(_requests.asked)


def _heard(signum: int, frame: Any) -> None:
    if _requests.waits and _requests.asked is None:
        _requests.asked = signum
        return
    raise Stopped(signum)
