"""Run trials one after the other or in processes; a trial that fails or dies costs only itself.

Every trial has a process of its own, forked from a server that imported the slow libraries once.
Numbers do not depend on the number of workers: a trial uses one thread and its own seeds.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from experiments.progress import Display
from experiments.trial import Trial, trial
from market.errors import InputError

PATIENCE = 10.0  # seconds that a stopped trial has to note down why
STEP = 0.005  # progress is told in steps of this size


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: its run folder, or why there are no numbers."""

    spec: Trial
    path: Path | None = None
    error: str | None = None
    users: bool = False  # the error is an input's, not ours
    trace: str = ""


def run_trials(trials: Sequence[Trial], *, workers: int, display: Display) -> list[Outcome]:
    """Run all trials, at most `workers` at a time.

    Returns:
        One outcome a trial, in their order; a failing trial does not stop the others.

    """
    if workers == 1 or len(trials) == 1:
        return [_run_here(spec, display) for spec in trials]
    return _Crew(trials, workers, display).work()


def _run_here(spec: Trial, display: Display) -> Outcome:
    display.started(spec.name)
    try:
        outcome = Outcome(spec, trial(spec, lambda done: display.advanced(spec.name, done)))
    except Exception as error:  # reported by name, and the others go on
        outcome = _failure(spec, error)
    display.ended(spec.name, outcome.error)
    return outcome


def _failure(spec: Trial, error: Exception) -> Outcome:
    users = isinstance(error, InputError)
    reason = " ".join(str(error if users else f"{type(error).__name__}: {error}").split())
    return Outcome(spec, None, reason.rstrip(": "), users, traceback.format_exc())


class _Crew:
    """Processes at work, each with a pipe on which it tells progress and its outcome."""

    def __init__(self, trials: Sequence[Trial], workers: int, display: Display) -> None:
        self.trials, self.workers, self.display = trials, workers, display
        self.waiting = list(reversed(range(len(trials))))
        self.running: dict[Connection, tuple[int, Any]] = {}
        self.outcomes: dict[int, Outcome] = {}
        can_fork = "forkserver" in multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if can_fork else "spawn")
        if can_fork:
            slow = ["experiments.trial", "torch.utils.tensorboard"]
            slow += [name for name in ("stable_baselines3", "skfolio") if name in sys.modules]
            self.context.set_forkserver_preload(slow)

    def work(self) -> list[Outcome]:
        try:
            while self.waiting or self.running:
                while self.waiting and len(self.running) < self.workers:
                    self._start(self.waiting.pop())
                for pipe in multiprocessing.connection.wait(list(self.running), timeout=0.5):
                    self._hear(pipe)  # type: ignore[arg-type]
                self.display.tick()
        finally:
            self._stop()
        return [self.outcomes[index] for index in range(len(self.trials))]

    def _start(self, index: int) -> None:
        spec = self.trials[index]
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_work, args=(theirs, spec), daemon=True)
        process.start()
        theirs.close()
        self.running[ours] = index, process
        self.display.started(spec.name)

    def _hear(self, pipe: Connection) -> None:
        index, process = self.running[pipe]
        spec = self.trials[index]
        try:
            said = pipe.recv()
        except EOFError:
            process.join()
            said = Outcome(spec, error=f"its process died: {_cause(process.exitcode)}")
        if not isinstance(said, Outcome):
            self.display.advanced(spec.name, said)
            return
        self.outcomes[index] = said
        del self.running[pipe]
        pipe.close()
        process.join()
        self.display.ended(spec.name, said.error)

    def _stop(self) -> None:
        """End what still runs; each notes in its run folder that it was interrupted."""
        for _, process in self.running.values():
            process.terminate()
        for _, process in self.running.values():
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"signal {signal.Signals(-exitcode).name}"
    return f"exit status {exitcode}"


def _work(pipe: Connection, spec: Trial) -> None:
    """In the process: run the trial, tell progress, send the outcome."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, _interrupt)
    logging.getLogger("market").setLevel(logging.ERROR)  # the parent has said it once
    told = 0.0

    def watch(done: float) -> None:
        nonlocal told
        if done >= told + STEP or done == 1.0:
            pipe.send(done)
            told = done

    try:
        outcome = Outcome(spec, trial(spec, watch))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # sent to the parent, which reports it
        outcome = _failure(spec, error)
    pipe.send(outcome)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
