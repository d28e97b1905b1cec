"""What each subcommand does: read its settings, call the files beside this one, print.

Slow libraries are imported by the commands that need them.
"""

from __future__ import annotations

import importlib
import inspect
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.config import CompareConfig, DataConfig, ExperimentConfig, TaskConfig
from experiments.examples import EXAMPLES, GOING_ON
from experiments.options import Option, agent_options, options_of, show_help, unset
from experiments.settings import (
    agent_config,
    agent_name,
    build,
    changed,
    read_tokens,
    refuse_foreign_code,
    resolve,
    settings_file,
    together,
)
from experiments.storage import writing
from experiments.walk_config import WalkForwardConfig, WindowedConfig, last_window
from experiments.yaml_file import Document, read_yaml
from market.errors import SettingError
from market.names import unknown_name

if TYPE_CHECKING:
    from experiments.outcome import Outcome

REFERENCE = CompareConfig.reference
FLAGS = ("trust", "debug", "overwrite")
RUN_FLAGS = (*FLAGS, "allow_changes")
SWITCHES = (
    "--trust runs code that a settings file names (a reward or agent of your own).\n"
    "--overwrite makes finished runs anew; else they are kept, or the command refused."
)


def train(argv: list[str]) -> int:
    """Train one agent with one or more seeds, and back-test it on days it has never seen.

    A settings file says only what differs from the defaults; options win over it. The run folder
    keeps all settings as config.yaml, which trains the same again.

    Training that was stopped or crashed goes on from its last checkpoint when the same command is
    given again, or by --resume RUN, and ends with the very results it would have had.
    """
    line = read_tokens(argv, flags=RUN_FLAGS)
    resumed = [value for key, value in line.pairs if key == "resume"]
    if resumed:
        line.pairs = [pair for pair in line.pairs if pair[0] != "resume"]
        from experiments.resume_command import resume

        return resume(line, resumed[-1], command_line("train", argv))
    document = settings_file(line.words)
    if "trust" not in line.flags:
        refuse_foreign_code(document, line.pairs)
    if "help" in line.flags:
        return _help("train", _options(document, line.pairs), train)
    config = experiment_of(document, line.pairs)
    return run_training([config], config.n_workers, command_line("train", argv), line.flags)


def experiment_of(document: Document, pairs: Sequence[tuple[str, str]]) -> ExperimentConfig:
    """What a file and the command line describe, the agent's own settings included."""
    from experiments.agent_choice import make_agent

    values = resolve(document, pairs, _options(document, pairs))
    agent = values["agent"] = agent_config(values)
    config: ExperimentConfig
    config, _ = together(lambda: build(ExperimentConfig, values), lambda: make_agent(agent))
    return config


def _options(document: Document, pairs: Sequence[tuple[str, str]]) -> list[Option]:
    """Of an experiment, the settings of its agent among them."""
    from experiments.agent_choice import agent_class

    name = agent_name(document, pairs)
    return [*options_of(ExperimentConfig), *agent_options(agent_class(name), name)]


def run_training(
    experiments: Sequence[ExperimentConfig | WindowedConfig],
    workers: int,
    command: str,
    flags: set[str],
) -> int:
    """Train, or keep what is there, and print what came of it; the exit status."""
    from experiments.compare import run_experiments
    from experiments.resume import existing_of

    done = run_experiments(
        experiments,
        workers,
        command,
        existing=existing_of(flags),
        cluster=experiments[0].cluster,
    )
    from experiments.forecast_notes import forecast_rows, print_forecasts
    from experiments.tables import print_runs

    finished = [run for run in done.runs if run.finished]
    if finished:
        print_runs(finished)
        print_forecasts(forecast_rows(finished))
        for run in finished:
            print(f"Run: {run.path}")
        print(f"Curves: tensorboard --logdir {done.folder}")
    return failed_status(done.outcomes, flags)


def compare(argv: list[str]) -> int:
    """Train and back-test several agents on the same days under the same costs.

    Prints a table with intervals and writes report.html into results/<experiment>. Settings of one
    agent: --agents "{name: ppo, learning_rate: 1e-4}, equal_weight".
    """
    return _compare("compare", CompareConfig, compare, argv)


def walk_forward(argv: list[str]) -> int:
    """Refit agents through the years and judge each refit on the days after it.

    The test windows make one path a seed that pays its costs at every seam; table and report are
    those of compare. Windows that are complete are not computed again.
    """
    return _compare("walk-forward", WalkForwardConfig, walk_forward, argv)


def _compare(
    name: str,
    kind: type[CompareConfig | WalkForwardConfig],
    command: Callable[[list[str]], int],
    argv: list[str],
) -> int:
    line = read_tokens(argv, flags=RUN_FLAGS)
    options = list(options_of(kind))
    if "help" in line.flags:
        return _help(name, options, command)
    document = settings_file(line.words)
    if "trust" not in line.flags:
        refuse_foreign_code(document, line.pairs)
    config = build(kind, resolve(document, line.pairs, options))
    from experiments.compare import compare as run
    from experiments.resume import existing_of

    done = run(config, command_line(name, argv), existing=existing_of(line.flags))
    from experiments.forecast_notes import forecast_rows, print_forecasts
    from experiments.report import write_report
    from experiments.summary import summarise
    from experiments.verdict import print_table

    frame = summarise(done.runs, reference=config.reference)
    print_table(frame)
    print_forecasts(forecast_rows(done.runs))
    path = done.folder / "report.html"
    with writing(path):
        write_report(done.runs, path, frame=frame)
    print(f"\nReport: {path}")
    print(f"Curves: tensorboard --logdir {done.folder}")
    return failed_status(done.outcomes, line.flags)


def evaluate(argv: list[str]) -> int:
    """Back-test saved agents on other data or other days: allocgym evaluate RUN [--key value].

    Without options the test days are played again under the run's own rules. Nothing is written
    unless --output says where.
    """
    line = read_tokens(argv, flags=FLAGS)
    group = "Which days, and where to."
    options = [
        Option("start", str | None, None, "Date of the first decision.", group),
        Option("output", str | None, None, "File for the path, .parquet or .csv.", group),
        *unset(options_of(DataConfig, "data.", "Data, where they differ from the run's own.")),
        *unset(options_of(TaskConfig, "task.", "Rules, where they differ from the run's own.")),
    ]
    if "help" in line.flags:
        return _help("evaluate", options, evaluate)
    _need_run("evaluate", line.words)
    values = resolve(Document(), line.pairs, options)
    from experiments.attribution import attribute
    from experiments.attribution_view import print_attributions
    from experiments.evaluate import evaluate as play
    from experiments.evaluate import other_rules, write_frame
    from experiments.run_dir import find_runs
    from experiments.tables import print_paths

    changes = {k.removeprefix("data."): v for k, v in values.items() if k.startswith("data.")}
    rules = {k.removeprefix("task."): v for k, v in values.items() if k.startswith("task.")}
    runs = find_runs(line.words)
    output = values.get("output")
    if output and len(runs) > 1:
        raise SettingError(f"--output takes one run, got {len(runs)}")
    if output and not output.endswith((".parquet", ".csv")):
        raise SettingError(f"--output must end in .parquet or .csv, got {output}")
    made = []
    for run in runs:
        config = run_config(run.path, "trust" in line.flags)
        ruled = replace(config, task=changed(config.task, rules))
        one = play(run, ruled, changes, values.get("start"))
        made.append(replace(one, notes=[*other_rules(config.task, ruled.task), *one.notes]))
    print_paths(made)
    print_attributions(
        {f"{one.run.agent} seed {one.run.seed}": attribute(one.backtest.frame()) for one in made}
    )
    if output:
        write_frame(made[0].backtest.frame(), Path(output))
        print(f"Path: {output}")
    return 0


def report(argv: list[str]) -> int:
    """Make one self-contained HTML page of runs: allocgym report RUN ... [--output FILE].

    RUN is a run folder, or any folder with runs in it, such as results/compare.
    """
    line = read_tokens(argv, flags=FLAGS)
    text = "Where to; report.html in the folder given, or in the current one, when not given."
    versus = "Agent that all others are measured against."
    options = [
        Option("output", str | None, None, text, "The page."),
        Option("reference", str, REFERENCE, versus, "The page."),
    ]
    if "help" in line.flags:
        return _help("report", options, report)
    _need_run("report", line.words)
    values = resolve(Document(), line.pairs, options)
    from experiments.report import write_report
    from experiments.run_dir import find_runs
    from experiments.summary import summarise

    folder = Path(line.words[0]) if len(line.words) == 1 else Path()
    path = Path(values.get("output") or folder / "report.html")
    runs, reference = find_runs(line.words), values.get("reference", REFERENCE)
    if reference != REFERENCE and reference not in {run.agent for run in runs}:
        raise unknown_name("reference", reference, sorted({run.agent for run in runs}))
    frame = summarise(runs, reference=reference)
    try:
        written = write_report(runs, path, frame=frame)
    except OSError as error:
        raise SettingError(f"--output: cannot write {path}: {error.strerror}") from error
    print(f"Report: {written}")
    return 0


def _elsewhere(place: str) -> Callable[[list[str]], int]:
    """A command of its own file, imported when it is asked for."""

    def run(argv: list[str]) -> int:
        module, _, name = place.partition(":")
        status: int = getattr(importlib.import_module(module), name)(argv)
        return status

    return run


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "compare": compare,
    "walk-forward": walk_forward,
    "cross-validate": _elsewhere("experiments.cross_commands:cross_validate"),
    "tune": _elsewhere("experiments.tune_commands:tune"),
    "evaluate": evaluate,
    "report": report,
    "data": _elsewhere("experiments.data_commands:data"),
    "monitor": _elsewhere("experiments.monitor_commands:monitor"),
    "explain": _elsewhere("experiments.explain_commands:explain"),
    "study": _elsewhere("experiments.study_commands:study"),
}


def say(message: str, status: int) -> int:
    """Print one line of error; returns the exit status it was given."""
    print(f"allocgym: error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _help(name: str, options: Sequence[Option], command: Callable[[list[str]], int]) -> int:
    """A command's help: what it does, its options in groups, examples."""
    from agents import AGENTS

    text = inspect.getdoc(command) or ""
    if name in ("train", "compare", "walk-forward"):
        text += f"\n\nagents: {', '.join(AGENTS)}"
        text += f"\n{SWITCHES}\n{GOING_ON}"
    if name == "train":
        text += "\n--resume RUN goes on with the run in this folder, with its own settings."
    usage = {"evaluate": "RUN ... [--key value ...]", "report": "RUN ... [--output FILE]"}
    arguments = usage.get(name, "[FILE.yaml] [--key value ...]")
    show_help(f"allocgym {name}", arguments, text, options, EXAMPLES[name])
    return 0


def _need_run(name: str, words: Sequence[str]) -> None:
    if not words:
        raise SettingError(
            f"{name} needs a RUN: a run folder, or any folder with runs in it, such as "
            f"results/compare; see allocgym {name} --help"
        )


def run_config(folder: Path, trusted: bool) -> ExperimentConfig:
    """The settings a run was made with."""
    document = read_yaml(folder / "config.yaml")
    if "walk" in document.values:  # what is saved is the agent of the last window
        document = Document(last_window(document.values, folder), name=document.name)
    if not trusted:
        refuse_foreign_code(document, [("task.reward", "not used in a back-test")])
    return experiment_of(document, ())


def failed_status(outcomes: Sequence[Outcome], flags: set[str]) -> int:
    """Name what failed once more, at the end; 2 where inputs are to blame, 1 where we are."""
    failed = [outcome for outcome in outcomes if outcome.error]
    if not failed:
        return 0
    if "debug" in flags:
        for outcome in failed:
            print(outcome.trace, file=sys.stderr)
    names = ", ".join(outcome.spec.name for outcome in failed)
    several = f"{len(failed)} of {len(outcomes)} trials failed: {names}"
    one = f"{failed[0].spec.name}: {failed[0].error}"
    return say(one if len(failed) == 1 else several, 2 if all(x.users for x in failed) else 1)


def command_line(name: str, argv: Sequence[str]) -> str:
    """The command as it was typed, for the manifest."""
    return shlex.join(["allocgym", name, *argv])
