"""Run trials one after the other, in processes or on a cluster; one that dies costs only itself.

In processes, every trial has one of its own, forked from a server that imported the slow libraries
once. Numbers do not depend on where or how many at a time: a trial uses one thread and its own
seeds.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from experiments.outcome import Outcome, attempt, teller
from experiments.progress import Display
from experiments.stopping import Stopped, catching
from experiments.trial import Trial
from market.quiet import errors_only

__all__ = ["Outcome", "capacity", "run_trials"]
PATIENCE = 20.0  # seconds that a stopped trial has to reach a checkpoint and note down why


def capacity(workers: int, cluster: str | None) -> int:
    """Trials at the same time; joins the cluster where one is named.

    Raises:
        SettingError: If it cannot be joined, or has fewer cores.

    """
    if cluster is None:
        return workers
    from experiments.cluster import connect

    return connect(cluster, workers)


def run_trials(
    trials: Sequence[Trial], *, workers: int, display: Display, cluster: str | None = None
) -> list[Outcome]:
    """Run all trials, at most `workers` at a time.

    Args:
        trials: What to run.
        workers: Trials at the same time, as `capacity` gave it.
        display: Told what starts, advances and ends.
        cluster: Address of the Ray cluster that `capacity` joined; None: in processes here.

    Returns:
        One outcome a trial, in their order; a failing trial does not stop the others.

    Raises:
        Stopped: If a signal ends it; how to go on is said.

    """
    try:
        return _run(trials, workers, display, cluster)
    except Stopped as stopped:
        if trials:
            stopped.advise(trials[0].command)
        raise


def _run(
    trials: Sequence[Trial], workers: int, display: Display, cluster: str | None
) -> list[Outcome]:
    if cluster is not None:
        from experiments.cluster import run_on_cluster

        return run_on_cluster(trials, workers, display)
    if workers == 1 or len(trials) == 1:
        return [_run_here(spec, display) for spec in trials]
    return _Crew(trials, workers, display).work()


def _run_here(spec: Trial, display: Display) -> Outcome:
    display.started(spec.name)
    with errors_only("market"):  # what is doubted of data was said as the plan was checked
        outcome = attempt(spec, lambda done: display.advanced(spec.name, done))
    display.ended(spec.name, outcome.error)
    return outcome


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
        """End what still runs; each keeps a checkpoint and notes that it was stopped.

        A second signal ends them at once.
        """
        processes = [process for _, process in self.running.values()]
        for process in processes:
            process.terminate()
        try:
            for process in processes:
                process.join(PATIENCE)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"signal {signal.Signals(-exitcode).name}"
    return f"exit status {exitcode}"


def _work(pipe: Connection, spec: Trial) -> None:
    """In the process: run the trial, tell progress, send the outcome."""
    with catching():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        _tell(pipe, spec)


def _tell(pipe: Connection, spec: Trial) -> None:
    try:
        with errors_only("market"):
            outcome = attempt(spec, teller(pipe.send))
    except KeyboardInterrupt:
        sys.exit(130)
    pipe.send(outcome)
