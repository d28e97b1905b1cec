"""Trainings of several parts, one after the other: after a cut, what is done is not done again.

A checkpoint of the whole holds the files of every part that is done, as its `save` writes them, and
the state of the part under training.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from agents.base import Monitor
from market import SettingError

Files = dict[str, np.ndarray]  # path inside the part's folder -> bytes, uint8
Save = Callable[[Path], None]


class Parts:
    """What is done and what is under way in one training; gone on with if its monitor kept that.

    Args:
        monitor: Of the whole training.

    Raises:
        SettingError: If what the monitor kept is of another kind of training.

    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._files: dict[str, Files | None] = {}  # None: done, and cannot be saved
        self._to_save: dict[str, Save] = {}  # done here, and not asked for their files yet
        self._cut: tuple[str, Any] = ("", None)  # the part that was under way, and its state
        kept = monitor.resume()
        if kept is None:
            return
        try:
            self._files, self._cut = dict(kept["done"]), (kept["part"], kept["state"])
        except (LookupError, TypeError, ValueError) as error:
            raise SettingError("the checkpoint does not fit: it is of no training in parts") from (
                error
            )

    def under_way(self, key: str) -> bool:
        """Whether this part was being trained when the training was cut off."""
        return self._cut[0] == key

    @contextmanager
    def unpacked(self, key: str) -> Iterator[Path | None]:
        """A folder with the files of a part that was done before the cut; None: train it."""
        files = self._files.get(key)
        if files is None:
            yield None
            return
        with tempfile.TemporaryDirectory() as name:
            unpack(files, Path(name))
            yield Path(name)

    def done(self, key: str, save: Save) -> None:
        """A part is trained; one that cannot be saved is trained again after a cut, in silence."""
        self._to_save[key] = save
        self.monitor.checkpoint(lambda: self._snapshot("", None))

    def part(self, key: str, prefix: str, place: int, count: int) -> Monitor:
        """Who watches the training of a part, `place` of `count`; its curves are `prefix/..`."""
        return _Part(self, key, None if key in self._files else prefix, (place, count))

    def take_state(self, key: str) -> Any:
        """The state this part was cut off in, once; None where there is none."""
        if not self.under_way(key):
            return None
        state, self._cut = self._cut[1], ("", None)
        return state

    def checkpoint(self, key: str, state: Callable[[], Any]) -> None:
        """Between updates of a part."""
        self.monitor.checkpoint(lambda: self._snapshot(key, state()))

    def _snapshot(self, key: str, state: Any) -> dict[str, Any]:
        while self._to_save:
            done, save = self._to_save.popitem()
            try:
                self._files[done] = files_of(save)
            except NotImplementedError:
                self._files[done] = None
        return {"done": self._files, "part": key, "state": state}


class _Part(Monitor):
    """One part's share of the whole; without a prefix its curves are there already."""

    def __init__(self, parts: Parts, key: str, prefix: str | None, place: tuple[int, int]) -> None:
        self.parts, self.key, self.prefix, self.place = parts, key, prefix, place
        self.folder = parts.monitor.folder

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on under the prefix."""
        if self.prefix is not None:
            named = {f"{self.prefix}/{key}": value for key, value in values.items()}
            self.parts.monitor.record(step, named)

    def progress(self, done: float) -> None:
        """Pass on as part of the whole."""
        self.parts.monitor.progress((self.place[0] + done) / self.place[1])

    def resume(self) -> Any:
        """Of this part alone; the whole was gone on with before."""
        return self.parts.take_state(self.key)

    def checkpoint(self, state: Callable[[], Any]) -> None:
        """With all that is done."""
        self.parts.checkpoint(self.key, state)


def files_of(save: Save) -> Files:
    """What `save` writes into an empty folder, in order of names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {
            path.relative_to(folder).as_posix(): np.frombuffer(path.read_bytes(), np.uint8)
            for path in files
        }


def unpack(files: Files, folder: Path) -> None:
    """Write them into an empty folder.

    Raises:
        SettingError: If a name leads out of it: then somebody else made them.

    """
    for name, data in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise SettingError(f"the checkpoint holds a file {name!r}, which leads out of its part")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
