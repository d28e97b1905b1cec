"""Checkpoints of one training: whole or not there, noticed when damaged, and free of pickles.

    checkpoints/000007/  state.json  arrays.npz  weights.safetensors  manifest.json (last)

A checkpoint is written under a temporary name and renamed when every file of it is on the disk;
the manifest holds the digest of each file, and its own. The last two are kept, so that one remains
whatever happens to the newest.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.storage import sync_folder, writing
from experiments.tree_codec import Encoded, decode, encode
from market.errors import DataError

FOLDER = "checkpoints"
KEPT = 2
FILES = ("state.json", "arrays.npz", "weights.safetensors")
_MANIFEST = "manifest.json"
_WORKING = ".tmp-"


class Saved(NamedTuple):
    """A checkpoint as it was read."""

    number: int
    state: Any
    about: dict[str, Any]  # where the run's other files stood
    damaged: list[str]  # newer ones that cannot be used, and why


class Checkpoints:
    """Those of one run.

    Args:
        folder: Of the run.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._last = max(self.numbers(), default=0)
        self._sound: list[int] = []  # those read or written here

    def numbers(self) -> list[int]:
        """Those on disk, rising; whether they are sound is seen when they are read."""
        names = [path.name for path in self.folder.glob("[0-9]*")]
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, state: Any, about: Mapping[str, Any]) -> int:
        """Write the next checkpoint, and then remove all but the last two that are sound.

        Args:
            state: What `tree_codec` can take apart.
            about: Plain values beside it.

        Returns:
            Its number.

        Raises:
            SettingError: If it cannot be written; those before it are untouched.

        """
        parts, number = encode(state), self._last + 1
        path = self.folder / f"{number:06d}"
        with writing(path):
            self._prepare()
            working = self.folder / f"{_WORKING}{secrets.token_hex(8)}"
            try:
                working.mkdir()
                _write(working, parts, about)
                sync_folder(working)
                os.rename(working, path)
            finally:
                shutil.rmtree(working, ignore_errors=True)
            sync_folder(self.folder)
        self._last = number
        self._sound = [*self._sound, number][-KEPT:]
        for old in set(self.numbers()) - set(self._sound):
            shutil.rmtree(self.folder / f"{old:06d}")
        return number

    def newest(self, check: Callable[[dict[str, Any]], None] | None = None) -> Saved | None:
        """The newest sound checkpoint; None where there is none at all.

        Args:
            check: Raises DataError where what lies beside the checkpoint does not fit its `about`.

        Raises:
            DataError: If there are some and none is sound; with the reason for each. None is
                removed.

        """
        damaged: list[str] = []
        for number in reversed(self.numbers()):
            folder = self.folder / f"{number:06d}"
            try:
                state, about = _read(folder)
                if check is not None:
                    check(about)
            except DataError as error:
                damaged.append(f"{folder}: {error}")
                continue
            self._sound = [number]
            return Saved(number, state, about, damaged)
        if damaged:
            raise DataError(
                f"no checkpoint can be used: {'; '.join(damaged)}. Mend them, or --overwrite "
                "begins anew"
            )
        return None

    def _prepare(self) -> None:
        """Make the folder, and remove what a crash left half written."""
        if not self.folder.is_dir():
            self.folder.mkdir()
            sync_folder(self.folder.parent)
        for left in self.folder.glob(f"{_WORKING}*"):
            shutil.rmtree(left)

    def clear(self) -> None:
        """Remove them all: the training they were of is finished."""
        if self.folder.is_dir():
            shutil.rmtree(self.folder)


def _write(folder: Path, parts: Encoded, about: Mapping[str, Any]) -> None:
    from safetensors.torch import save

    text = json.dumps({"about": dict(about), "state": parts.json}, allow_nan=False)
    with _new_file(folder / FILES[0]) as file:
        file.write(text.encode())
    with _new_file(folder / FILES[1]) as file:
        np.savez(file, **parts.arrays)  # type: ignore[arg-type]  # none is called allow_pickle
    with _new_file(folder / FILES[2]) as file:
        file.write(save(parts.tensors))
    files = {name: _digest(folder / name) for name in FILES}
    with _new_file(folder / _MANIFEST) as file:
        file.write(_manifest(files))


@contextmanager
def _new_file(path: Path) -> Iterator[Any]:
    """A file that is on the disk when the block ends."""
    with writing(path), open(path, "xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _manifest(files: Mapping[str, Any]) -> bytes:
    """The manifest's text, of which every byte counts."""
    inner = json.dumps(files, sort_keys=True)
    seal = hashlib.sha256(inner.encode()).hexdigest()
    return f'{{"files": {inner},\n "sha256": "{seal}"}}\n'.encode()


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _read(folder: Path) -> tuple[Any, dict[str, Any]]:
    """State and what lies beside it.

    Raises:
        DataError: If a file is missing or not the one that was written.

    """
    from safetensors.torch import load_file

    try:
        _check(folder)
        found = json.loads((folder / FILES[0]).read_text("utf-8"))
        with np.load(folder / FILES[1], allow_pickle=False) as file:
            arrays = dict(file.items())
        parts = Encoded(found["state"], arrays, load_file(folder / FILES[2]))
    except OSError as error:
        raise DataError(f"{Path(error.filename or folder).name}: {error.strerror}") from error
    return decode(parts), found["about"]


def _check(folder: Path) -> None:
    raw = (folder / _MANIFEST).read_bytes()
    try:
        files = json.loads(raw)["files"]
        sound = _manifest(files) == raw and set(files) == set(FILES)
    except (ValueError, KeyError, TypeError):  # ValueError: JSON and UTF-8
        sound = False
    if not sound:
        raise DataError(f"{_MANIFEST} is damaged")
    for name in FILES:
        if _digest(folder / name) != files[name]:
            raise DataError(f"{name} is not the file that was written")
