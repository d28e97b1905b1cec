"""What is running, how much is done, how long it still takes: one display over all trials.

On a terminal a live display; elsewhere one plain line for each trial that starts or ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from experiments.pace import Pace


class Display:
    """Plain lines; `Live` draws on a terminal.

    Args:
        trials: (agent, name) of every trial.
        workers: How many run at the same time.
        console: Where to; standard error when not given, so that standard output stays clean.
        clock: Seconds from any fixed moment.

    """

    def __init__(
        self,
        trials: Sequence[tuple[str, str]],
        workers: int = 1,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.pace = Pace({name: agent for agent, name in trials}, workers, clock)

    def started(self, name: str) -> None:
        """A trial starts."""
        self.pace.start(name)
        self._line(f"{self._count()} {name}: started")

    def advanced(self, name: str, fraction: float) -> None:
        """A trial tells how far it is."""
        self.pace.advance(name, fraction)

    def ended(self, name: str, error: str | None = None) -> None:
        """A trial ends, well or with an error."""
        seconds = self.pace.end(name)
        took = f"finished in {duration(seconds)}"
        left = self.pace.left()
        rest = f", about {duration(left)} left" if left else ""
        self._line(f"{self._count()} {name}: {f'FAILED: {error}' if error else took}{rest}")

    def say(self, text: str) -> None:
        """A line among the others."""
        self._line(text)

    def tick(self) -> None:
        """Time passes; a live display draws itself anew."""

    def _count(self) -> str:
        width = len(str(self.pace.total))
        return f"[{self.pace.done:{width}}/{self.pace.total}]"

    def _line(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class Live(Display):
    """A bar for all trials with the time left, and one for each that runs."""

    def __enter__(self) -> Self:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        self._bars = Progress(*columns, console=self.console, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._all = self._bars.add_task("all trials", total=1.0, note="")
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def started(self, name: str) -> None:
        """A bar appears."""
        self.pace.start(name)
        self._tasks[name] = self._bars.add_task(f"  {name}", total=1.0, note="")
        self.tick()

    def advanced(self, name: str, fraction: float) -> None:
        """Its bar grows."""
        super().advanced(name, fraction)
        self._bars.update(self._tasks[name], completed=fraction)
        self.tick()

    def ended(self, name: str, error: str | None = None) -> None:
        """Its bar gives way to a line above."""
        self._bars.remove_task(self._tasks.pop(name))
        seconds = self.pace.end(name)
        took = f"finished in {duration(seconds)}"
        self._line(f"{self._count()} {name}: {f'FAILED: {error}' if error else took}")
        self.tick()

    def tick(self) -> None:
        """Share of the work done, and the time left."""
        left, note = self.pace.left(), f"{self.pace.done} of {self.pace.total}"
        if left is not None:
            note += f", about {duration(left)} left"
        self._bars.update(self._all, completed=self.pace.share(), note=note)


def display(trials: Sequence[tuple[str, str]], workers: int) -> Display:
    """The display that suits where standard error goes."""
    console = Console(stderr=True, highlight=False)
    return (Live if console.is_terminal else Display)(trials, workers, console)


def duration(seconds: float) -> str:
    """45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
