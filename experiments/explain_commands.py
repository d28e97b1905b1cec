"""`allocgym explain`: what drives a run's weights, printed and kept for the report."""

from __future__ import annotations

import inspect
import math
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.config import DataConfig
from experiments.explanations import FILE
from experiments.monitor_commands import as_json, one_run
from experiments.options import options_of, show_help, unset
from experiments.settings import build, read_tokens, resolve
from experiments.yaml_file import Document
from market.errors import SettingError

FLAGS = ("json", "trust", "debug")
SHOWN = 6
EXAMPLES = """examples:
  allocgym explain results/train/ppo/seed_000
  allocgym explain results/train/ppo/seed_000 --date 2018-02-05 --asset sp500
  allocgym explain results/train/ppo/seed_000 --json --repeats 20
  allocgym report results/train/ppo/seed_000          shows the pictures"""


def explain(argv: list[str]) -> int:
    """Say what drives a run's weights: allocgym explain RUN [--date DAY] [--asset NAME].

    Integrated gradients over features, assets and lags for agents with a network, with the error
    of their sum; permutation importance by group of inputs; when which limit was binding; and one
    weight on one day as a sentence. What is found is kept in the run folder, and the report of the
    run shows it.
    """
    from experiments.explain import ExplainSettings
    from experiments.explain import explain as find

    line = read_tokens(argv, flags=FLAGS)
    options = [
        *options_of(ExplainSettings, "", "What is asked."),
        *unset(options_of(DataConfig, "data.", "Data, where they differ from the run's own.")),
    ]
    if "help" in line.flags or not line.words:
        usage = "RUN [--json] [--key value ...]"
        show_help("allocgym explain", usage, inspect.getdoc(explain) or "", options, EXAMPLES)
        return 0
    values = resolve(Document(), line.pairs, options)
    changes = {k.removeprefix("data."): v for k, v in values.items() if k.startswith("data.")}
    run, config = one_run(line.words, "trust" in line.flags)
    found = find(run, config, changes, build(ExplainSettings, values), _progress)
    path = run.path / FILE
    _keep(found, path)
    if "json" in line.flags:
        print(as_json(found))
    else:
        print_explanation(found)
        print(f"Kept: {path}; pictures: allocgym report {run.path}")
    return 0


def _progress(done: float) -> None:
    if sys.stderr.isatty():
        end = "\n" if done >= 1.0 else ""
        print(f"\rshuffling inputs {done:.0%}", end=end, file=sys.stderr, flush=True)


def _keep(found: dict[str, Any], path: Path) -> None:
    from experiments.run_dir import write_atomic

    try:
        write_atomic(path, as_json(found) + "\n")
    except OSError as error:
        raise SettingError(f"explain: cannot write {path}: {error.strerror}") from error


def print_explanation(found: dict[str, Any]) -> None:
    """The sentence, then inputs, groups and limits."""
    console = Console(width=100, highlight=False)
    start, end, count = found["days"]
    console.print(
        Text(f"{found['agent']} seed {found['seed']}, {count} decisions {start} .. {end}\n")
    )
    if "why" in found:
        _print_network(console, found["why"], found["gradients"])
    if "note" in found:
        console.print(Text(f"Note: {found['note']}.\n"))
    _print_importance(console, found["importance"])
    for limit in found["limits"]:
        longest = sorted(limit["spells"], key=lambda spell: -spell[2])[:3]
        words = ", ".join(f"{a} .. {b} ({days} days)" for a, b, days in longest)
        often = f"{limit['name']} bound on {limit['share']:.1%} of days"
        console.print(Text(f"{often}; longest: {words}" if words else often))
    if not found["limits"]:
        console.print("No limits were set.")


def _print_network(console: Console, why: dict[str, Any], averages: dict[str, Any]) -> None:
    console.print(Text(why["sentence"]))
    console.print(
        Text(
            f"Completeness: attributions miss the change by {why['completeness_error']:+.1e}, "
            f"{why['relative_error']:.2%} of it ({why['points']} points)"
            f"{'' if why['complete'] else ', too much to trust its parts'}; on "
            f"{averages['days']} sampled days median {averages['relative_error']:.2%}, at most "
            f"{averages['worst_error']:.2%}.\n"
        )
    )
    ordered = sorted(averages["features"].items(), key=lambda item: -item[1])
    total = sum(averages["features"].values()) or 1.0
    words = ", ".join(f"{name} {part / total:.0%}" for name, part in ordered[:SHOWN])
    console.print(Text(f"Share of the size of all gradients: {words}.\n"))


def _known(number: float, form: str) -> str:
    return format(number, form) if math.isfinite(number) else "n/a"


def _print_importance(console: Console, groups: list[dict[str, Any]]) -> None:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("shuffled in time")
    for heading in ("Sharpe lost", "+/-", "reward lost a period", "weights moved"):
        table.add_column(heading, justify="right")
    for group in groups:
        table.add_row(
            Text(group["group"]),
            _known(group["sharpe"], "+.3f"),
            _known(group["sharpe_error"], ".3f"),
            f"{group['reward']:+.2e}",
            f"{group['moved']:.1%}",
        )
    console.print(table)
    console.print("+/- is the standard error over shuffles, not over the luck of these days.\n")
