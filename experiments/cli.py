"""The `allocgym` command: help, errors and exit statuses around `experiments.commands`.

Input errors are one line on standard error and exit status 2; a failed trial exits with 1, Ctrl-C
with 130, SIGTERM with 143. Nothing slow is imported before it is known what is asked for, so that
help is quick.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

HELP = """usage: allocgym COMMAND ...

Learn asset allocation from market data, and find out whether it is better than holding everything.

commands:
  train           train and back-test one agent
  compare         train and back-test several agents; table and report
  walk-forward    refit agents through the years; one path of test windows, table and report
  cross-validate  judge agents on many paths through one history
  tune            search for good settings of an agent, on validation alone
  evaluate        back-test a saved agent on other data, other days or under other rules
  report          make an HTML report of runs
  monitor         hold new days against what a run was trained on; refit it on request
  explain         what drives a run's weights: inputs, importance, limits, reasons
  study           list and run the studies that come with the project
  data            list, show and check market data, audit features for leaks

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
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


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
    try:
        status = _answered(words)
        if sys.stdout is not None:  # as it is where the caller closed it
            sys.stdout.flush()  # here, where it can still be said that it cannot be written
    except KeyboardInterrupt:  # before a command could take care of it, as its libraries load
        if "--debug" in words:
            raise
        print("allocgym: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `allocgym data | head`
        _drop_output()
        return 1
    except OSError as error:  # a path that the user named, or where our output goes
        place = error.filename or ("standard output" if error.errno in UNWRITABLE else None)
        if place is None or "--debug" in words:
            raise
        from experiments.commands import say

        _drop_output()
        return say(f"{place}: {error.strerror}", 2)
    return status


def _drop_output() -> None:
    """Forget what could not be written, which Python would try again as it ends."""
    out = sys.__stdout__
    if out is not None and sys.stdout is out:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def _answered(words: list[str]) -> int:
    """The exit status of help, of the version or of a command."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        print(f"allocgym {_version()}")
        return 0
    try:
        folder = os.getcwd()
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, "the current folder") from error
    if folder not in sys.path:  # last, so that a user's module is found and hides none of ours
        sys.path.append(folder)
    return _guarded(words)


def _guarded(words: list[str]) -> int:
    """Run a command; what the user did wrong becomes one line."""
    from experiments.commands import COMMANDS, say
    from experiments.stopping import Stopped, catching
    from market.errors import InputError
    from market.names import unknown_name

    debug = "--debug" in words
    name, *rest = sorted(words, key=lambda word: word == "--debug")
    try:
        if name not in COMMANDS:
            raise unknown_name("command", name, COMMANDS)
        with catching():
            return COMMANDS[name](rest)
    except InputError as error:
        if debug:
            raise
        return say(str(error), 2)
    except KeyboardInterrupt as error:
        if debug:
            raise
        print(f"allocgym: {error or 'interrupted'}", file=sys.stderr)
        return error.status if isinstance(error, Stopped) else 130


def _version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("allocgym")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
