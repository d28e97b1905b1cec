"""What the commands of studies have in common: their options, their runs, how they end."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NoReturn

from experiments.commands import say
from experiments.compare import Comparison
from experiments.report import write_report
from experiments.run_dir import Run, find_runs
from experiments.studies.pages import made_at, made_by, write_section
from experiments.summary import summarise
from market.errors import InputError, SettingError


class StudyParser(argparse.ArgumentParser):
    """Options of a study; what is wrong with them is one line, as everywhere."""

    def __init__(self, study: str, doc: str | None) -> None:
        super().__init__(prog=f"allocgym study {study}", description=(doc or "").split("\n")[0])

    def error(self, message: str) -> NoReturn:
        """Refuse."""
        raise SettingError(f"{self.prog}: {message}; see --help")


def parser(study: str, doc: str | None, *, seeds: int = 5) -> StudyParser:
    """Options of a study whose runs are kept."""
    made = StudyParser(study, doc)
    made.add_argument("--seeds", type=int, default=seeds, help="of whatever depends on chance")
    made.add_argument("--results", default="results", help="folder of all experiments")
    made.add_argument("--stored", action="store_true", help="run nothing; use what is there")
    made.add_argument("--write", action="store_true", help="renew the tables in --results")
    made.add_argument(
        "--resamples", type=int, help="of the bootstrap; as many as needed if not given"
    )
    return made


def tell_failed(done: Comparison) -> int:
    """Name the runs that failed; returns how many."""
    for outcome in done.failed:
        print(f"{done.folder.name}: {outcome.spec.name}: {outcome.error}", flush=True)
    return len(done.failed)


def stored(folder: str | Path, agents: Collection[str]) -> list[Run]:
    """Runs in an experiment's folder, of these agents alone; none where there is no folder."""
    found = find_runs([folder]) if Path(folder).is_dir() else []
    return [run for run in found if run.agent in agents]


def again(given: argparse.Namespace) -> list[str]:
    """The options that make the kept tables again: of what was stored, or with so many seeds."""
    return [*(["--stored"] if given.stored else ["--seeds", str(given.seeds)]), "--write"]


def conclude(
    study: str,
    given: argparse.Namespace,
    runs: Sequence[Run],
    lines: Sequence[str],
    more: Sequence[str] = (),
) -> None:
    """Print a study's tables, write the report of its runs, and with --write keep the tables.

    `more` are options, beside the usual ones, of the command that makes the tables again.
    """
    folder = Path(given.results)
    print("\n".join(lines))
    frame = summarise(runs, n_resamples=given.resamples)
    print(f"Report: {write_report(runs, folder / study / 'report.html', frame=frame)}")
    if given.write:
        about = f"{made_by(study, [*more, *again(given)])}\n{made_at(runs)}"
        write_section(folder / "README.md", study, "\n".join([about, "", *lines]))


def exit_with(main: Callable[[Sequence[str] | None], int]) -> None:
    """End the process as a study ends; what the user did wrong becomes one line."""
    try:
        status = main(None)
    except InputError as error:
        status = say(str(error), 2)
    raise SystemExit(status)
