"""Reading runs back from disk, sound or not.

Damage makes a run failed, never invisible: a comparison that quietly drops the runs that went
wrong compares the lucky ones.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import pandas as pd
import yaml

from market.errors import DataError, SettingError

SEED_FOLDER = re.compile(r"seed_(\d+)")
BACKTEST_COLUMNS = ("value", "portfolio_return", "cost", "turnover", "risk_free")

T = TypeVar("T")


def check_backtest(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """The frame, if it is a back-test as the run folder holds it.

    Raises:
        DataError: If a column is missing or holds NaN, the index is not rising, or no row is there.
    """
    if missing := [name for name in BACKTEST_COLUMNS if name not in frame]:
        raise DataError(f"{source}: columns {', '.join(missing)} are missing")
    if not any(str(name).startswith("target:") for name in frame):
        raise DataError(f"{source}: at least one column `target:<asset>` is needed")
    if frame.empty:
        raise DataError(f"{source}: no rows")
    dates = frame.index
    if not (
        isinstance(dates, pd.DatetimeIndex) and dates.is_unique and dates.is_monotonic_increasing
    ):
        raise DataError(f"{source}: the index must be rising dates")
    if bad := [str(name) for name in frame if not frame[name].notna().all()]:
        raise DataError(f"{source}: column {bad[0]} holds NaN")
    return frame


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run as found on disk.

    Attributes:
        path: Its folder.
        status: "finished" (complete and readable), "failed", "running" (still, or cut off) or
            "missing" (a run folder without a manifest).
        error: Why it is not finished, else empty.
        notes: What was odd but harmless, such as a torn last line of metrics.
        config: Resolved settings.
        manifest: As written; may be empty.
        metrics: One row a logged step, column `step` and the metrics' names; may be empty.
        backtest: One row a test period, index `date`; empty unless finished.
        robustness: Returns of the same periods under harder rules, a column each; may be empty.
    """

    path: Path
    experiment: str
    agent: str
    seed: int
    status: str = "finished"
    error: str = ""
    notes: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    backtest: pd.DataFrame = field(default_factory=pd.DataFrame)
    robustness: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def finished(self) -> bool:
        """Whether its numbers can be used."""
        return self.status == "finished"

    @property
    def assets(self) -> tuple[str, ...]:
        """Assets of the back-test, in order."""
        names = (str(name) for name in self.backtest)
        return tuple(name.removeprefix("target:") for name in names if name.startswith("target:"))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read one run folder; what is missing or cannot be read is named in `error`."""
        path = Path(path)
        manifest, problem = _attempt(_read_manifest, path / "manifest.json")
        manifest = manifest or {}
        status = str(manifest.get("status")) if manifest else "missing"
        problems = [problem, str(manifest.get("error") or "")]
        if status == "running":
            problems.append("did not finish: still running, or cut off")
        config, metrics, backtest, harder = None, None, None, None
        if manifest:
            config, problem = _attempt(_read_config, path / "config.yaml")
            problems.append(problem)
            metrics, problem = _attempt(_read_metrics, path / "metrics.jsonl")
            problems.append(problem)
        if status == "finished":
            backtest, problem = _attempt(_read_backtest, path / "backtest.parquet")
            problems.append(problem)
            harder, problem = _attempt(_read_robustness, path / "robustness.parquet")
            problems.append(problem)
        error = "; ".join(filter(None, problems))
        if status not in ("running", "missing"):
            status = "failed" if error or status != "finished" else "finished"
        return cls(
            path=path,
            experiment=str(manifest.get("experiment", path.parent.parent.name)),
            agent=str(manifest.get("agent", path.parent.name)),
            seed=_seed_of(path, manifest),
            status=status,
            error=error,
            notes=metrics[1] if metrics else (),
            config=config or {},
            manifest=manifest,
            metrics=metrics[0] if metrics else pd.DataFrame(),
            backtest=backtest if backtest is not None and not error else pd.DataFrame(),
            robustness=harder if harder is not None and not error else pd.DataFrame(),
        )


def _attempt(reader: Callable[[Path], T], path: Path) -> tuple[T | None, str]:
    """What `reader` makes of the file, or None and the reason."""
    try:
        return reader(path), ""
    except FileNotFoundError:
        return None, f"{path.name} is missing"
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: JSON, UTF-8, Arrow, ours
        return None, f"{path.name} is unreadable: {str(error).splitlines()[0]}"


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = _mapping(json.loads(path.read_text("utf-8")))
    for key in ("data", "splits", "seconds", "versions"):
        if not isinstance(manifest.setdefault(key, {}), dict):
            raise DataError(f"`{key}` must be a mapping, got {manifest[key]!r:.80}")
    return manifest


def _read_config(path: Path) -> dict[str, Any]:
    return _mapping(yaml.safe_load(path.read_text("utf-8")) or {})


def _mapping(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise DataError(f"expected a mapping, got {type(found).__name__}")
    return found


def _read_metrics(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """All whole lines and what was odd; agents that do not learn have no such file."""
    if not path.exists():
        return pd.DataFrame(), ()
    lines = path.read_text("utf-8").split("\n")
    torn = lines.pop()  # a whole file ends in a newline, so nothing is left after it
    frame = pd.DataFrame([_mapping(json.loads(line)) for line in lines])
    if len(frame) and "step" not in frame:
        raise DataError("no line has a `step`")
    return frame, (f"{path.name}: a torn last line was left out",) if torn else ()


def _read_backtest(path: Path) -> pd.DataFrame:
    return check_backtest(pd.read_parquet(path), path.name)


def _read_robustness(path: Path) -> pd.DataFrame:
    """Empty where there is none, as in runs of an older version."""
    return pd.read_parquet(path) if path.exists() else pd.DataFrame()


def _seed_of(path: Path, manifest: dict[str, Any]) -> int:
    seed = manifest.get("seed")
    if isinstance(seed, int):
        return seed
    match = SEED_FOLDER.fullmatch(path.name)
    return int(match[1]) if match else 0


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Every run at or below the paths, each once, sorted by folder.

    Args:
        paths: Run folders, or folders of them: an agent's, an experiment's, the results folder.

    Raises:
        SettingError: If a path does not exist or holds no run.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise SettingError(f"run path must be an existing folder, got {path}")
        folders = [path] if _is_run(path) else [p for p in path.rglob("seed_*") if _is_run(p)]
        if not folders:
            raise SettingError(
                f"no runs in {path}: a run is a folder seed_<n> with a manifest.json"
            )
        found |= {folder.resolve(): folder for folder in folders}
    return [Run.read(found[key]) for key in sorted(found)]


def _is_run(path: Path) -> bool:
    named = SEED_FOLDER.fullmatch(path.name) is not None
    return path.is_dir() and (named or (path / "manifest.json").is_file())
