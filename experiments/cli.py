"""The `allocgym` command: one function a subcommand, each a call into the files beside this one.

Input errors are one line on standard error and exit status 2; a failed trial exits with 1, Ctrl-C
with 130. Slow libraries are imported by the commands that need them, so that help is quick.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.compare import Comparison
    from experiments.config import AgentConfig
    from experiments.options import Option
    from experiments.yaml_file import Document

HELP = """usage: allocgym COMMAND ...

Learn asset allocation from market data, and find out whether it is better than holding everything.

commands:
  train      train and back-test one agent
  compare    train and back-test several agents; table and report
  evaluate   back-test a saved agent on other data or other days
  report     make an HTML report of runs
  data       list the market data there are

options:
  -h, --help   show this, or the help of a command: allocgym train --help
  --version    show the version
  --debug      show the traceback of an error

examples:
  allocgym compare                                           the main job, on bundled data
  allocgym train --agent ppo --agent.learning_rate 1e-4 --seeds 3
  allocgym train --task.reward "log_return - 0.1 * turnover"
  tensorboard --logdir results
"""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

FLAGS = ("trust", "debug")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words after `allocgym`; those of the process when not given.

    Returns:
        The exit status.

    """
    words = list(sys.argv[1:] if argv is None else argv)
    for variable in THREADS:  # trials share the cores; must be set before numpy is imported
        os.environ.setdefault(variable, "1")
    if os.getcwd() not in sys.path:  # last, so that a user's module is found and hides none of ours
        sys.path.append(os.getcwd())
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        print(f"allocgym {_version()}")
        return 0
    return _guarded(words)


def _guarded(words: list[str]) -> int:
    """Run a command; what the user did wrong becomes one line."""
    from market.errors import InputError

    debug = "--debug" in words
    try:
        name, *rest = sorted(words, key=lambda word: word == "--debug")
        return _command(name)(rest)
    except InputError as error:
        if debug:
            raise
        return _say(str(error), 2)
    except KeyboardInterrupt:
        if debug:
            raise
        return _say("interrupted", 130)
    except BrokenPipeError:  # the reader of our output has gone, as in `allocgym data | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _say(message: str, status: int) -> int:
    print(f"allocgym: error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _command(name: str) -> Callable[[list[str]], int]:
    from market.names import unknown_name

    if name not in COMMANDS:
        raise unknown_name("command", name, COMMANDS)
    return COMMANDS[name]


def train(argv: list[str]) -> int:
    """Train one agent with one or more seeds, and back-test it on days it has never seen.

    A settings file says only what differs from the defaults; options win over it. The run folder
    keeps all settings as config.yaml, which trains the same again.
    """
    from experiments import config as blocks
    from experiments.options import agent_options, build, options_of, read_tokens, resolve

    line = read_tokens(argv, flags=FLAGS)
    document = _settings_file(line.words)
    if "trust" not in line.flags:
        _refuse_foreign_code(document, line.pairs)
    options = list(options_of(blocks.ExperimentConfig))
    name = _agent_name(document, line.pairs)
    from experiments.plan import agent_class

    options += agent_options(agent_class(name), name)
    if "help" in line.flags:
        return _help("train", options, train)
    values = resolve(document, line.pairs, options)
    values["agent"] = _agent_config(values)
    config = build(blocks.ExperimentConfig, values)
    from experiments.compare import run_experiments

    done = run_experiments([config], config.n_workers, _command_line("train", argv))
    from experiments.tables import print_runs

    finished = [run for run in done.runs if run.finished]
    if finished:
        print_runs(finished)
        for run in finished:
            print(f"Run: {run.path}")
        print(f"Curves: tensorboard --logdir {done.folder}")
    return _status(done, line.flags)


def compare(argv: list[str]) -> int:
    """Train and back-test several agents on the same days under the same costs.

    Prints a table with intervals and writes report.html into results/<experiment>. Settings of one
    agent: --agents "{name: ppo, learning_rate: 1e-4}, equal_weight".
    """
    from experiments import config as blocks
    from experiments.options import build, options_of, read_tokens, resolve

    line = read_tokens(argv, flags=FLAGS)
    options = list(options_of(blocks.CompareConfig))
    if "help" in line.flags:
        return _help("compare", options, compare)
    document = _settings_file(line.words)
    if "trust" not in line.flags:
        _refuse_foreign_code(document, line.pairs)
    config = build(blocks.CompareConfig, resolve(document, line.pairs, options))
    from experiments.compare import compare as run

    done = run(config, _command_line("compare", argv))
    from experiments.report import write_report
    from experiments.summary import summarise
    from experiments.verdict import print_table

    print_table(summarise(done.runs))
    path = write_report(done.runs, done.folder / "report.html")
    print(f"\nReport: {path}")
    print(f"Curves: tensorboard --logdir {done.folder}")
    return _status(done, line.flags)


def evaluate(argv: list[str]) -> int:
    """Back-test saved agents on other data or other days: allocgym evaluate RUN [--key value].

    Without options the test days are played again. Nothing is written unless --output says where.
    """
    from experiments.config import DataConfig
    from experiments.options import Option, options_of, read_tokens, resolve
    from experiments.yaml_file import Document

    line = read_tokens(argv, flags=FLAGS)
    group = "Which days, and where to."
    options = [
        Option("start", str | None, None, "Date of the first decision.", group),
        Option("output", str | None, None, "File for the path, .parquet or .csv.", group),
        *options_of(DataConfig, "data.", "Data that differ from the run's own."),
    ]
    if "help" in line.flags or not line.words:
        return _help("evaluate", options, evaluate)
    values = resolve(Document(), line.pairs, options)
    from pathlib import Path

    from experiments.evaluate import evaluate as play
    from experiments.evaluate import write_frame
    from experiments.run_dir import find_runs
    from experiments.tables import print_paths
    from market.errors import SettingError

    changes = {k.removeprefix("data."): v for k, v in values.items() if k.startswith("data.")}
    runs = find_runs(line.words)
    output = values.get("output")
    if output and len(runs) > 1:
        raise SettingError(f"--output takes one run, got {len(runs)}")
    made = []
    for run in runs:
        config = _run_config(run.path, "trust" in line.flags)
        made.append(play(run, config, changes, values.get("start")))
    print_paths(made)
    if output:
        write_frame(made[0].backtest.frame(), Path(output))
        print(f"Path: {output}")
    return 0


def report(argv: list[str]) -> int:
    """Make one self-contained HTML page of runs: allocgym report RUN ... [--output FILE].

    RUN is a run folder, or any folder with runs in it, such as results/compare.
    """
    from experiments.options import Option, read_tokens, resolve
    from experiments.yaml_file import Document

    line = read_tokens(argv, flags=FLAGS)
    text = "Where to; report.html in the folder given, or in the current one, when not given."
    options = [Option("output", str | None, None, text, "The page.")]
    if "help" in line.flags or not line.words:
        return _help("report", options, report)
    values = resolve(Document(), line.pairs, options)
    from pathlib import Path

    from experiments.report import write_report
    from experiments.run_dir import find_runs
    from market.errors import SettingError

    folder = Path(line.words[0]) if len(line.words) == 1 else Path()
    path = Path(values.get("output") or folder / "report.html")
    runs = find_runs(line.words)
    try:
        print(f"Report: {write_report(runs, path)}")
    except OSError as error:
        raise SettingError(f"--output: cannot write {path}: {error.strerror}") from error
    return 0


def data(argv: list[str]) -> int:
    """List the market data there are: allocgym data [show NAME]."""
    from experiments.options import read_tokens
    from experiments.tables import print_market, print_sources
    from market.errors import SettingError

    line = read_tokens(argv, flags=FLAGS)
    if "help" in line.flags:
        print("usage: allocgym data [show NAME]\n\nList bundled market data and other sources,")
        print("or show one universe: span, assets, features and caveats.")
    elif not line.words:
        print_sources()
    elif line.words[0] == "show" and len(line.words) == 2:
        print_market(line.words[1])
    else:
        raise SettingError(f"data: expected nothing or `show NAME`, got {' '.join(argv)!r}")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "compare": compare,
    "evaluate": evaluate,
    "report": report,
    "data": data,
}
EXAMPLES = {
    "train": """examples:
  allocgym train --agent sac --seeds 3
  allocgym train my.yaml --agent.learning_rate 1e-4 --experiment slow
  allocgym train --task.reward my_rewards.py:Sortino --task.cost 0.002
  allocgym train --data files --data.options.path prices.csv --split.train_end 2018-12-31 \\
                 --split.valid_end 2020-12-31
  allocgym train --agent dqn --help               the settings of an agent
  allocgym train results/train/ppo/seed_000/config.yaml     the same again""",
    "compare": """examples:
  allocgym compare
  allocgym compare --agents ppo,equal_weight --seeds 5 --data us_stocks
  allocgym compare --agents "ppo, {name: ppo, label: ppo_careful, learning_rate: 1e-4}"
  allocgym compare --task.constraints "max_weight(0.4)" --workers 1""",
    "evaluate": """examples:
  allocgym evaluate results/compare/ppo/seed_000
  allocgym evaluate results/compare/ppo --start 2017-01-03 --data.end 2017-12-29
  allocgym evaluate results/compare/ppo/seed_000 --data.options.path new.csv --output path.csv""",
    "report": """examples:
  allocgym report results/compare
  allocgym report results/train/ppo results/train/sac --output both.html""",
}


def _help(name: str, options: Sequence[Option], command: Callable[..., Any]) -> int:
    """A command's help: what it does, its options in groups, examples."""
    import inspect

    from agents import AGENTS
    from experiments.options import show_help

    text = inspect.getdoc(command) or ""
    if name in ("train", "compare"):
        text += f"\n\nagents: {', '.join(AGENTS)}"
        text += "\n--trust runs code that a settings file names (a reward or agent of your own)."
    usage = {"evaluate": "RUN ... [--key value ...]", "report": "RUN ... [--output FILE]"}
    arguments = usage.get(name, "[FILE.yaml] [--key value ...]")
    show_help(f"allocgym {name}", arguments, text, options, EXAMPLES[name])
    return 0


def _settings_file(words: Sequence[str]) -> Document:
    from experiments.yaml_file import Document, read_yaml
    from market.errors import SettingError

    if len(words) > 1:
        raise SettingError(f"expected at most one settings file, got {' '.join(words)}")
    return read_yaml(words[0]) if words else Document()


def _agent_name(document: Document, pairs: Sequence[tuple[str, str]]) -> str:
    """The agent asked for, so that its settings can be read."""
    named = [value for key, value in pairs if key in ("agent", "agent.name")]
    block = document.values.get("agent")
    given = block.get("name") if isinstance(block, dict) else block
    from experiments.config import AgentConfig

    return named[-1] if named else given if isinstance(given, str) else AgentConfig().name


def _agent_config(values: dict[str, Any]) -> AgentConfig:
    """Take the agent's block out of the values."""
    from experiments.config import AgentConfig

    keys = [key for key in values if key.startswith("agent.")]
    own = {key.removeprefix("agent."): values.pop(key) for key in keys}
    return AgentConfig.of({"name": AgentConfig().name, **own})


def _refuse_foreign_code(document: Document, pairs: Sequence[tuple[str, str]]) -> None:
    """A settings file may come from anyone: what it names is run only if the user says so."""
    from market.errors import SettingError

    given = {key for key, _ in pairs}
    task, agent = document.values.get("task"), document.values.get("agent")
    named = {
        "task.reward": task.get("reward") if isinstance(task, dict) else None,
        "agent": agent.get("name") if isinstance(agent, dict) else agent,
    }
    for item in document.values.get("agents") or ():
        name = item.get("name") if isinstance(item, dict) else item
        if ":" in str(name):
            named["agents"] = name
    for key, reference in named.items():
        if ":" in str(reference) and not given & {key, f"{key}.name"}:
            raise SettingError(
                f"{key}: {reference!r} in {document.name} is code; add --trust to run it"
            )


def _run_config(folder: Any, trusted: bool) -> Any:
    """The settings a run was made with."""
    from experiments.config import ExperimentConfig
    from experiments.options import agent_options, build, options_of, resolve
    from experiments.plan import agent_class
    from experiments.yaml_file import read_yaml

    document = read_yaml(folder / "config.yaml")
    if not trusted:
        _refuse_foreign_code(document, [("task.reward", "not used in a back-test")])
    name = _agent_name(document, ())
    options = [*options_of(ExperimentConfig), *agent_options(agent_class(name), name)]
    values = resolve(document, (), options)
    values["agent"] = _agent_config(values)
    return build(ExperimentConfig, values)


def _status(done: Comparison, flags: set[str]) -> int:
    """Name what failed once more, at the end; 2 where inputs are to blame, 1 where we are."""
    failed = done.failed
    if not failed:
        return 0
    if "debug" in flags:
        for outcome in failed:
            print(outcome.trace, file=sys.stderr)
    names = ", ".join(outcome.spec.name for outcome in failed)
    several = f"{len(failed)} of {len(done.outcomes)} trials failed: {names}"
    one = f"{failed[0].spec.name}: {failed[0].error}"
    return _say(one if len(failed) == 1 else several, 2 if all(x.users for x in failed) else 1)


def _command_line(name: str, argv: Sequence[str]) -> str:
    return shlex.join(["allocgym", name, *argv])


def _version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("allocgym")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
