"""Tables of studies as Markdown, and where they are kept: results/README.md, a section a study."""

from __future__ import annotations

import datetime
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.provenance import git_commit, software_versions
from experiments.run_dir import Run, write_atomic

SHOWN = ("python", "numpy", "torch", "stable-baselines3", "skfolio")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> list[str]:
    """Lines of a Markdown table; all columns but the first `words` stand to the right."""
    sides = ["---"] * words + ["--:"] * (len(headings) - words)
    return [_line(headings), "|" + "|".join(sides) + "|", *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def signed(value: float) -> str:
    """Two decimals and a sign; n/a where there is no number."""
    return f"{value:+.2f}" if math.isfinite(value) else "n/a"


def spread(value: float, low: float, high: float, form: str = "{:+.2f}") -> str:
    """A number with its interval; n/a where there is none."""
    if not math.isfinite(value):
        return "n/a"
    if not (math.isfinite(low) and math.isfinite(high)):
        return form.format(value)
    return f"{form.format(value)} ({form.format(low)} to {form.format(high)})"


def made_by(study: str, argv: Sequence[str]) -> str:
    """When, by which command and with which versions: the first lines of a section."""
    versions = software_versions()
    shown = ", ".join(f"{name} {versions[name]}" for name in SHOWN)
    commit = (git_commit() or "unknown")[:12]
    return (
        f"Made on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} by\n"
        f"`{command(study, argv)}`\nwith {shown}, commit {commit}."
    )


def made_at(runs: Iterable[Run]) -> str:
    """Of which commits finished runs are, each with their number; the commonest first."""
    commits = Counter(
        str(run.manifest.get("git_commit") or "unknown")[:12] for run in runs if run.finished
    )
    told = [f"{commit} ({number})" for commit, number in commits.most_common()]
    return f"Runs were made at commit{'s' if len(told) > 1 else ''} {', '.join(told)}."


def command(study: str, argv: Sequence[str]) -> str:
    """What makes the section again."""
    return shlex.join(["python", "-m", f"experiments.studies.{study}", *argv])


def write_section(page: Path, name: str, text: str) -> None:
    """Replace what stands between a study's marks; a page without them gets them at its end."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before = page.read_text("utf-8") if page.exists() else "# Results\n"
    head, found, rest = before.partition(begin)
    tail = rest.partition(end)[2] if found else "\n"
    head = head if found else f"{head.rstrip()}\n\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(page, f"{head}{begin}\n{text.strip()}\n{end}{tail}")
