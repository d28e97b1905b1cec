"""TensorBoard's file of one run, which can be cut back and gone on with.

TensorBoard's own writer begins a new file at every start and writes from a thread of its own. Here
there is one file, written at once, whose length is known; after a crash it is cut to what the
checkpoint knew of, so that no point is lost or there twice.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from experiments.storage import writing

PATTERN = "events.out.tfevents.*"


class EventFile:
    """Events appended to the file in a folder, which is made where there is none.

    Args:
        folder: Where TensorBoard looks.

    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.record_writer import (  # type: ignore[import-untyped]
            RecordWriter,
        )

        found = sorted(folder.glob(PATTERN))
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
        self.path = found[0] if found else folder / f"{name}.{os.getpid()}.{secrets.token_hex(4)}"
        self._file = self.path.open("ab")
        self._records = RecordWriter(self._file)
        if not self._file.tell():
            self._add(file_version="brain.Event:2")

    def scalar(self, name: str, value: float, step: int) -> None:
        """One point of a curve."""
        from torch.utils.tensorboard.summary import scalar

        self.summary(scalar(name, value), step)

    def summary(self, summary: Any, step: int | None = None) -> None:
        """Anything TensorBoard can show."""
        self._add(summary=summary, step=step)

    def sync(self) -> int:
        """Put all on the disk; the file's size."""
        with writing(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._file.tell()

    def cut(self, size: int) -> bool:
        """Forget what was written after the file had this size; False if it is shorter."""
        if self.sync() < size:
            return False
        self._file.truncate(size)
        self._file.seek(size)
        return True

    def close(self) -> None:
        """Write what is left."""
        with writing(self.path):
            self._file.close()

    def _add(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

        with writing(self.path):
            self._records.write(Event(wall_time=time.time(), **event).SerializeToString())
