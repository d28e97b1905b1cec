"""The run folder: everything one trial leaves behind, written so that a crash never corrupts it.

    results/<experiment>/<agent>/seed_<nnn>/
        config.yaml     resolved settings         manifest.json     what ran, on what, how it ended
        metrics.jsonl   one JSON object a line    backtest.parquet  one row a test period
        checkpoints/    the last two states of training, there until it is finished
        model/          the agent's own files     events.out.*      TensorBoard's curves
        robustness.parquet  returns of the same agent under harder rules
        windows/        of a walk-forward: one folder a refit, there only when it is complete

Whole files appear by rename, so a reader sees the old one or the new one and nothing between.
Metrics are appended line by line; a line torn by a crash is left out when read, and said so.
"""

import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
import yaml

from experiments.provenance import git_commit, software_versions
from experiments.runs import Run, check_backtest, find_runs
from experiments.storage import sync_folder, writing
from market.errors import DataError, InputError, SettingError

__all__ = ["Run", "RunFolder", "check_name", "find_runs", "run_path", "write_atomic"]


NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OURS = (
    "manifest.json",
    "config.yaml",
    "explanation.json",
    "metrics.jsonl",
    "backtest.parquet",
    "robustness.parquet",
)


def check_name(key: str, name: str) -> str:
    """The name, if it can safely be a folder: letters, digits, `.`, `_`, `-`, and not `.` or `..`.

    Raises:
        SettingError: If it is anything else.
    """
    if not NAME.fullmatch(name) or set(name) == {"."}:
        raise SettingError(
            f"`{key}` must be 1 to 64 letters, digits, '.', '_' or '-', got {name[:80]!r}"
        )
    return name


def run_path(root: str | Path, experiment: str, agent: str, seed: int) -> Path:
    """The folder of one run, certain to lie inside `root` once links are resolved.

    Raises:
        SettingError: If a name is not allowed, the seed is negative, or a link leads out of `root`.
    """
    if seed < 0:
        raise SettingError(f"`seed` must be at least 0, got {seed}")
    root = Path(root)
    names = check_name("experiment", experiment), check_name("agent", agent)
    path = root.joinpath(*names, f"seed_{seed:03d}")
    if not path.resolve().is_relative_to(root.resolve()):
        raise SettingError(f"run folder must lie inside {root}, but {path} leads out of it")
    return path


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a whole file under a temporary name in the same folder, then rename it into place.

    The old file stays untouched until the new one is complete and on the disk.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        # O_EXCL refuses a planted link; 0o666 leaves the rights to the user's umask
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def ensure_writable(folder: Path) -> None:
    """Make the folder and try to write into it, before any work goes into what it is to hold.

    Raises:
        SettingError: If that fails, with the system's reason.

    """
    probe = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise SettingError(f"results: cannot write into {folder}: {error.strerror}") from error


@dataclass(frozen=True)
class RunFolder:
    """The writing side of a run. As a context manager it records how the run ended."""

    path: Path

    @classmethod
    def create(
        cls,
        root: str | Path,
        experiment: str,
        agent: str,
        seed: int,
        *,
        config: Mapping[str, Any],
        command: str = "",
        keep_windows: bool = False,
        going_on: bool = False,
        **about: Any,
    ) -> Self:
        """Make the folder (emptied of an earlier run) and mark it running.

        Args:
            root: The results folder; made if missing.
            experiment: Names the folder that holds all agents compared.
            agent: Names the folder of the agent's seeds.
            seed: Of the run, from 0.
            config: Resolved settings, plain YAML values.
            command: The command line that reproduces the run.
            keep_windows: Whether finished windows of a walk-forward stay.
            going_on: Whether checkpoints and curves stay, to go on with.
            about: Further manifest entries: data, splits, cost, reward, notes.

        Raises:
            SettingError: If a name is not allowed or the folder cannot be made.
        """
        run = cls(run_path(root, experiment, agent, seed))
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run._clear(keep_windows, going_on)
        except OSError as error:
            raise SettingError(f"cannot write the run folder {run.path}: {error}") from error
        run._write("config.yaml", yaml.safe_dump(dict(config), sort_keys=False).encode())
        manifest = {
            "status": "running",
            "experiment": experiment,
            "agent": agent,
            "seed": seed,
            "command": command,
            "versions": software_versions(),
            "git_commit": git_commit(),
            "data": {},
            "splits": {},
            "seconds": {},
            "cost": "",
            "reward": "",
            "error": None,
        }
        run._write_manifest(manifest | about)
        return run

    def _clear(self, keep_windows: bool, going_on: bool) -> None:
        """Remove what an earlier run left, the manifest first: without it no numbers are used.

        The manifest of a run that was cut off says so, and what it was made from: it stays.
        """
        stay = {"manifest.json", "config.yaml"} if going_on or keep_windows else set()
        stay |= {"metrics.jsonl"} if going_on else set()
        for name in _OURS:
            if name not in stay:
                (self.path / name).unlink(missing_ok=True)
        for left in self.path.glob(".*.tmp"):  # of `write_atomic` in a process that was killed
            left.unlink()
        folders = [self.model]
        if not going_on:
            folders.append(self.path / "checkpoints")
            for events in self.path.glob("events.out.tfevents.*"):
                events.unlink()
        for folder in folders if keep_windows else [*folders, self.windows]:
            if folder.exists():
                shutil.rmtree(folder)

    @property
    def model(self) -> Path:
        """Where the agent saves itself."""
        return self.path / "model"

    @property
    def windows(self) -> Path:
        """Where a walk-forward keeps its refits."""
        return self.path / "windows"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest as it stands on disk."""
        found: dict[str, Any] = json.loads((self.path / "manifest.json").read_text("utf-8"))
        return found

    def _write_manifest(self, manifest: Mapping[str, Any]) -> None:
        self._write("manifest.json", (json.dumps(manifest, indent=2) + "\n").encode())

    def _write(self, name: str, data: bytes) -> None:
        """A whole file, or an error that says which."""
        with writing(self.path / name, len(data)):
            write_atomic(self.path / name, data)

    def update(self, **changes: Any) -> None:
        """Change manifest entries; dictionaries such as `seconds` are merged, not replaced."""
        manifest = self.manifest
        for key, new in changes.items():
            old = manifest.get(key)
            manifest[key] = old | new if isinstance(old, dict) and isinstance(new, dict) else new
        self._write_manifest(manifest)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line of metrics; a number that is not finite is stored as null."""
        row = {key: _finite(float(number)) for key, number in metrics.items()}
        line = json.dumps({"step": int(step)} | row, allow_nan=False) + "\n"
        with writing(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(line)

    def sync_metrics(self) -> dict[str, Any]:
        """Put the metrics on the disk; how long they are, and their digest."""
        with writing(self.metrics), self.metrics.open("ab") as file:
            os.fsync(file.fileno())
        data = self.metrics.read_bytes()
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def check_metrics(self, known: Mapping[str, Any]) -> None:
        """Refuse metrics that do not begin as `sync_metrics` knew them.

        Raises:
            DataError: Then; what was appended later does not matter.

        """
        data = self.metrics.read_bytes() if self.metrics.exists() else b""
        begun = data[: known["bytes"]]
        if hashlib.sha256(begun).hexdigest() != known["sha256"]:
            raise DataError(f"{self.metrics.name} does not begin as it did then")

    def cut_metrics(self, size: int) -> None:
        """Forget what was appended after the metrics had this size."""
        with writing(self.metrics), self.metrics.open("ab") as file:
            file.truncate(size)

    def metric_rows(self) -> list[dict[str, Any]]:
        """The metrics, a mapping a line."""
        return [json.loads(line) for line in self.metrics.read_text("utf-8").splitlines()]

    def write_backtest(self, frame: pd.DataFrame) -> None:
        """Store the back-test, index `date`.

        Raises:
            DataError: If a column of the contract is missing or holds NaN.
        """
        self._write_frame(check_backtest(frame, "backtest"), "backtest.parquet")

    def write_robustness(self, frame: pd.DataFrame) -> None:
        """Store returns of the test periods under harder rules, a column each, index `date`."""
        self._write_frame(frame, "robustness.parquet")

    def _write_frame(self, frame: pd.DataFrame, name: str) -> None:
        buffer = io.BytesIO()
        frame.rename_axis("date").to_parquet(buffer)
        self._write(name, buffer.getvalue())

    def finish(self) -> None:
        """Mark the run finished."""
        self.update(status="finished", error=None)

    def fail(self, error: str) -> None:
        """Mark the run failed, with the reason."""
        self.update(status="failed", error=error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
            return
        with suppress(SettingError):  # on a full disk, what went wrong first is what counts
            self.fail(_reason(error))


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped by the user"
    if isinstance(error, InputError):
        return str(error)
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
