"""Writing so that it lasts: what cannot be written is said with its path and size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from market.errors import SettingError


@contextmanager
def writing(path: Path, size: int | None = None) -> Iterator[None]:
    """Name the file if the system cannot write it, as on a full disk.

    Args:
        path: The file.
        size: Bytes to be written, where they are known; else how far it came is told.

    Raises:
        SettingError: With path, size and the system's reason.

    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingError(f"cannot write {path} ({_amount(path, size)}): {reason}") from error


def _amount(path: Path, size: int | None) -> str:
    if size is not None:
        return f"{size:,} bytes"
    return f"after {path.stat().st_size if path.exists() else 0:,} bytes"


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system lets folders be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_files(folder: Path) -> None:
    """Put everything in a folder on the disk, before it is renamed."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
