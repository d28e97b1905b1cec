"""One process a run folder: a lock that says who holds it and ends with its process.

The lock is the system's, on a file that names host and process; a file whose process is gone, say
after a kill, holds nobody up.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.storage import writing
from market.errors import SettingError

FILE = ".lock"
GRACE = 5.0  # seconds
_log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made if missing.

    Raises:
        SettingError: If another process holds it, with its number and host.

    """
    path = folder / FILE
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        handle = _taken(path)
    try:
        before = os.pread(handle, 1000, 0)
        if before:
            _log.warning("%s: taken over from %s, which is gone", folder, _owner(before))
        with writing(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(_ours()).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held, so that nobody else's is removed
        os.close(handle)


def _taken(path: Path) -> int:
    """A handle on the file, locked; the file may have been removed while we waited for it.

    A process that was killed as it started another one, git say, leaves the lock with that one for
    the moment that it needs to begin.
    """
    deadline = time.monotonic() + GRACE
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 1000, 0)
            os.close(handle)
            if _is_gone(owner) and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise SettingError(f"{path.parent} is in use by {_owner(owner)}") from None
        if path.exists() and os.path.samestat(path.stat(), os.fstat(handle)):
            return handle
        os.close(handle)


def _ours() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _is_gone(text: bytes) -> bool:
    """Whether who wrote the file ran on this machine, and does no more."""
    try:
        owner = json.loads(text)
        if owner["host"] != socket.gethostname():
            return False
        os.kill(int(owner["pid"]), 0)  # sends nothing
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, PermissionError):
        return False
    return False


def _owner(text: bytes) -> str:
    """Who wrote the file; one that is just being written says nothing yet."""
    try:
        owner = json.loads(text)
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
