"""`allocgym monitor`: checks, what they say in words, and the refit beside the old agent."""

from __future__ import annotations

import inspect
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config import DataConfig, ExperimentConfig
from experiments.options import Option, options_of, show_help, unset
from experiments.settings import build, read_tokens, resolve
from experiments.yaml_file import Document
from market.errors import SettingError

if TYPE_CHECKING:
    from experiments.monitor import Report
    from experiments.retrain import SideBySide
    from experiments.runs import Run

FLAGS = ("json", "replace", "trust", "debug")
EXAMPLES = """exit status:
  0  nothing has changed that these checks can see
  1  something asks for attention: an alarm, a refit that failed, or one that --replace did not
     put into service because it is worse on the days that neither has seen
  2  a setting or the data are wrong; nothing was checked

examples:
  allocgym monitor results/train/ppo/seed_000
  allocgym monitor results/train/ppo/seed_000 --data.options.path new.csv --last 252 --json
  allocgym monitor results/train/ppo/seed_000 --retrain 2017-06-30
  allocgym monitor results/train/ppo/seed_000 --retrain 2017-06-30 --replace"""


def monitor(argv: list[str]) -> int:
    """Hold new days against the days a run was trained on: allocgym monitor RUN [--key value].

    Checks the distribution of features, change points in performance, market regimes, volatility,
    turnover and cost. Nothing is written unless --output or --retrain say so. With --json the
    report is printed as JSON alone. --retrain DATE fits the same settings again on days up to that
    date and shows old and new on the days after it, which neither has seen; only with --replace
    does the new one take the old one's place, unless it is worse there by more than luck explains,
    and the old one is kept.
    """
    from experiments.monitor import MonitorSettings

    line = read_tokens(argv, flags=FLAGS)
    options = [
        *options_of(MonitorSettings, "", "The checks."),
        Option("output", str | None, None, "File for the report, .json.", "The checks."),
        Option("retrain", str | None, None, "Last day a refit may know.", "A refit."),
        *unset(options_of(DataConfig, "data.", "Data, where they differ from the run's own.")),
    ]
    if "help" in line.flags or not line.words:
        usage = "RUN [--json] [--replace] [--key value ...]"
        show_help("allocgym monitor", usage, inspect.getdoc(monitor) or "", options, EXAMPLES)
        return 0
    values = resolve(Document(), line.pairs, options)
    changes = {k.removeprefix("data."): v for k, v in values.items() if k.startswith("data.")}
    cut, output = values.get("retrain"), values.get("output")
    if output:
        _writable(output)
    if "replace" in line.flags and cut is None:
        raise SettingError("--replace needs --retrain DATE: nothing else makes a new agent")
    run, config = one_run(line.words, "trust" in line.flags)
    if cut is not None:
        from experiments.retrain import place_for, plan_refit

        fresh = plan_refit(run, config, changes, cut)  # what is wrong shows before any work
        if "replace" in line.flags:
            place_for(run, fresh.experiment)
    report = _check(run, config, changes, build(MonitorSettings, values))
    found, quiet = report.plain(), "json" in line.flags
    if not quiet:
        _show(found)
    if cut is not None:
        command = shlex.join(["allocgym", "monitor", *argv])
        refit, new = _refit(run, config, changes, cut, command, "replace" in line.flags)
        calls = "error" in refit or "kept_back" in refit
        found |= {"refit": _served(refit, run, new, quiet)}
        found["status"] = max(report.status, int(calls))
    if quiet:
        print(as_json(found))
    if output:
        _write(found, Path(output))
    return int(found["status"])


def one_run(words: list[str], trusted: bool) -> tuple[Run, ExperimentConfig]:
    """The one run that the words name, and its settings."""
    from experiments.commands import run_config
    from experiments.run_dir import find_runs

    runs = find_runs(words)
    if len(runs) > 1:
        raise SettingError(f"expected one run, got {len(runs)}; name its folder, {runs[0].path}")
    return runs[0], run_config(runs[0].path, trusted)


def _check(run: Run, config: ExperimentConfig, changes: Mapping[str, Any], settings: Any) -> Report:
    from experiments.monitor import monitor as check

    return check(run, config, changes, settings)


def _refit(
    run: Run,
    config: ExperimentConfig,
    changes: Mapping[str, Any],
    cut: str,
    command: str,
    replace: bool,
) -> tuple[dict[str, Any], Run | None]:
    """What came of the refit, and its run if it is to replace the old one; nothing does so here."""
    from experiments.retrain import retrain

    both = retrain(run, config, changes, cut, command)
    if both.done.failed:
        return {"cut": cut, "error": both.done.failed[0].error, "replaced": False}, None
    new = both.done.runs[0]
    found = _side_by_side(both) | {"cut": cut, "replaced": False, "run": str(new.path)}
    if replace and both.is_worse:
        found["kept_back"] = True
    return found, new if replace and not both.is_worse else None


def _served(refit: dict[str, Any], run: Run, new: Run | None, quiet: bool) -> dict[str, Any]:
    """Show old and new, then let the new one replace the old one, if there is one that is to."""
    from experiments.monitor_view import print_refit, print_replaced
    from experiments.retrain import replace_run

    if not quiet:
        print_refit(refit)
    if new is not None:
        refit |= {"replaced": True, "kept": str(replace_run(run, new)), "run": str(run.path)}
    if not quiet:
        print_replaced(refit)
    return refit


def _side_by_side(both: SideBySide) -> dict[str, Any]:
    assert both.old is not None and both.new is not None and both.difference is not None
    dates = both.new.backtest.dates
    return {
        "days": [f"{dates[1]:%Y-%m-%d}", f"{dates[-1]:%Y-%m-%d}", len(dates) - 1],
        "old": both.old.backtest.metrics(),
        "new": both.new.backtest.metrics(),
        "sharpe_difference": both.difference._asdict(),
        "verdict": both.verdict,
    }


def _show(found: dict[str, Any]) -> None:
    from experiments.monitor_view import print_report

    print_report(found)


def as_json(found: Any) -> str:
    """Text of numbers, names and lists; what is not finite is null."""
    return json.dumps(_finite(found), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    """Numbers that JSON has no word for as null."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if isinstance(value, float):
        return float(value) if abs(value) < float("inf") else None
    return value


def _writable(output: str) -> None:
    """Refuse a place for the report that cannot be written, before any work."""
    if not output.endswith(".json"):
        raise SettingError(f"--output must end in .json, got {output}")
    path, reason = Path(output), None
    if not path.parent.is_dir():
        reason = f"{path.parent} is not a folder"
    elif path.is_dir():
        reason = "it is a folder"
    elif not os.access(path.parent, os.W_OK):
        reason = "permission denied"
    if reason:
        raise SettingError(f"--output: cannot write {path}: {reason}")


def _write(found: dict[str, Any], path: Path) -> None:
    from experiments.run_dir import write_atomic

    try:
        write_atomic(path, as_json(found) + "\n")
    except OSError as error:
        raise SettingError(f"--output: cannot write {path}: {error.strerror}") from error
