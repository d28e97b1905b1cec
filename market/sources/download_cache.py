"""Downloads kept on disk: Parquet, each with its sha256 and the date it was made.

    <folder>/<source>/<key>.json                what is stored: file, sha256, date, first, last
    <folder>/<source>/<key>-<sha256>.parquet    the data

A data file is never written over: a new one appears under its own name, then the entry is replaced
in one step, then the old file goes. Whatever happens in between, the entry names a whole file.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from market.errors import DataError

CACHE_VARIABLE = "ALLOCGYM_CACHE"


@dataclass(frozen=True)
class Stored:
    """Data out of the cache."""

    frame: pd.DataFrame
    entry: dict[str, Any]

    @property
    def downloaded(self) -> str:
        """The day it was downloaded."""
        return str(self.entry["downloaded"])[:10]


@dataclass(frozen=True)
class DownloadCache:
    """The copies of one source.

    Attributes:
        source: Such as "yahoo".
        folder: Where all sources keep theirs; `cache_folder()` when None.

    """

    source: str
    folder: str | Path | None = None

    @property
    def place(self) -> Path:
        """The folder of this source."""
        return (cache_folder() if self.folder is None else Path(self.folder)) / self.source

    def read(self, key: str) -> Stored | None:
        """What is stored under a key, or None.

        Raises:
            DataError: If the file is missing or is not what was downloaded.

        """
        path = self._entry_path(key)
        for attempt in (1, 2):  # another process may have replaced both between our two reads
            try:
                entry = json.loads(path.read_text(encoding="utf-8"))
                content = (self.place / entry["file"]).read_bytes()
                break
            except FileNotFoundError:
                if not path.exists():
                    return None
                if attempt == 2:
                    raise self._spoiled(path, "the file it names is gone") from None
            except (ValueError, KeyError, TypeError):
                raise self._spoiled(path, "is damaged") from None
        found = hashlib.sha256(content).hexdigest()
        if found != entry["sha256"]:
            reason = f"file changed since it was downloaded on {entry['downloaded'][:10]}"
            raise self._spoiled(self.place / entry["file"], reason)
        return Stored(pd.read_parquet(io.BytesIO(content)), entry)

    def write(
        self, key: str, frame: pd.DataFrame, facts: Mapping[str, Any], keep_old: bool = False
    ) -> dict[str, Any]:
        """Store a frame indexed by dates; returns its entry.

        Args:
            key: Such as a ticker.
            frame: What was downloaded, whole.
            facts: More for the entry; nothing secret.
            keep_old: Whether the file this replaces stays, as `entry["previous"]`.

        """
        self.place.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        frame.to_parquet(buffer)
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        path = self._entry_path(key)
        old = _entry_or_nothing(path)
        dates = pd.DatetimeIndex(frame.index.get_level_values(0))
        entry = {
            "key": key,
            "source": self.source,
            "file": f"{_file_name(key)}-{digest[:16]}.parquet",
            "sha256": digest,
            "downloaded": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "rows": len(frame),
            "first": f"{dates.min():%Y-%m-%d}",
            "last": f"{dates.max():%Y-%m-%d}",
            **facts,
        }
        previous = [*old.get("previous", []), *([old["file"]] if keep_old and old else [])]
        if previous:
            entry["previous"] = previous
        write_whole(self.place / entry["file"], content)
        write_whole(path, json.dumps(entry, indent=1).encode())
        if old and not keep_old and old["file"] != entry["file"]:
            (self.place / old["file"]).unlink(missing_ok=True)
        return entry

    def _entry_path(self, key: str) -> Path:
        return self.place / f"{_file_name(key)}.json"

    def _spoiled(self, path: Path, reason: str) -> DataError:
        return DataError(
            f"{self.source}: {path}: {reason}; delete it, or download it again with refresh=True"
        )


def cache_folder() -> Path:
    """Where downloads are kept: $ALLOCGYM_CACHE, or the platform's place for caches."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "allocgym"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that its name never stands for half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk has no name of its own
        raise


def _entry_or_nothing(path: Path) -> dict[str, Any]:
    """The entry that is about to be replaced; a damaged one counts as none."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return entry if isinstance(entry, dict) and "file" in entry else {}


def _file_name(key: str) -> str:
    return quote(key, safe="^=-_&")
