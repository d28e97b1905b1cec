"""Where a run's training reports to: `metrics.jsonl`, TensorBoard, and whoever watches progress.

`metrics.jsonl` is the truth and holds no wall clock, so that equal runs write equal bytes;
TensorBoard is a view of it, with the settings and the final figures in its HPARAMS tab.

Both only grow. A checkpoint knows how long they were; to go on from it, they are cut back to that.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from agents.base import Agent, Monitor
from experiments.checkpoints import Checkpoints
from experiments.event_file import EventFile
from experiments.run_dir import RunFolder
from experiments.stopping import asked, reached, waiting
from market.errors import SettingError

Watcher = Callable[[float], None]
EVERY = 10.0  # seconds between checkpoints
SHARE = 0.01  # of the time, that checkpoints may take at most
_log = logging.getLogger(__name__)
FINAL = ("return", "volatility", "sharpe", "drawdown", "turnover", "cost", "final_value")
TEST_FIGURES = [f"test/{name}" for name in FINAL]


class RunMonitor(Monitor):
    """Writes one run's curves; a context manager, because TensorBoard's file must be closed.

    Args:
        run: The folder.
        watch: Told the fraction of the work that is done.
        every: Seconds between checkpoints; fewer are taken where they would cost more than one
            hundredth of the time. 0: one at every chance; infinity: none.

    Attributes:
        earlier: Seconds of training before the checkpoint that was gone on from.

    """

    def __init__(
        self, run: RunFolder, watch: Watcher | None = None, *, every: float = EVERY
    ) -> None:
        self.run, self.folder, self.watch = run, run.path, watch
        self.last_step, self.earlier = 0, 0.0
        self._events = EventFile(run.path)
        self._checkpoints = Checkpoints(run.path)
        self._every, self._begun = every, time.monotonic()
        self._due = self._begun + every

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """One line and as many points; `time/..` goes to TensorBoard alone."""
        self.last_step = max(self.last_step, int(step))
        lasting = {key: value for key, value in values.items() if not key.startswith("time/")}
        if lasting:
            self.run.log(step, lasting)
        for key, value in values.items():
            self._events.scalar(key, float(value), int(step))

    def resume(self) -> Any:
        """From the newest sound checkpoint; curves are cut back to where they stood then."""
        found = self._checkpoints.newest(lambda about: self.run.check_metrics(about["metrics"]))
        if found is None:
            return None
        for why in found.damaged:
            _log.warning("%s; going on from the one before", why)
        about = found.about
        self.run.cut_metrics(about["metrics"]["bytes"])
        if not self._events.cut(about["events"]):
            _log.warning("%s is not whole: made anew from metrics.jsonl", self._events.path)
            self._remake_events()
        self.last_step, self.earlier = about["last_step"], about["seconds"]
        return found.state

    def checkpoint(self, state: Callable[[], Any]) -> None:
        """Keep one where it is time, or where a signal waits for it, which then ends the run."""
        if self._every == math.inf:
            return
        waiting()
        started = time.monotonic()
        if not asked() and started < self._due:
            return
        about = {
            "metrics": self.run.sync_metrics(),
            "events": self._events.sync(),
            "last_step": self.last_step,
            "seconds": self.earlier + started - self._begun,
        }
        self._checkpoints.save(state(), about)
        reached()
        ended = time.monotonic()
        pause = max(self._every, (ended - started) / SHARE) if self._every else 0.0
        self._due = ended + pause

    def done(self) -> None:
        """Training is over and its result stored: checkpoints are of no more use."""
        self._checkpoints.clear()

    def _remake_events(self) -> None:
        self._events.cut(0)
        self._events.close()
        self._events = EventFile(self.run.path)
        for row in self.run.metric_rows():
            step = row.pop("step")
            for key, value in row.items():
                self._events.scalar(key, float("nan") if value is None else value, step)

    def progress(self, done: float) -> None:
        """Passed on, kept within [0, 1]."""
        if self.watch is not None:
            self.watch(min(1.0, max(0.0, float(done))))

    def trained(self, name: str, settings: Mapping[str, Any]) -> Agent | None:
        """From a finished run of this experiment."""
        from experiments.sharing import trained_alike

        return trained_alike(self.run, name, settings)

    def settings(
        self,
        config: Mapping[str, Any],
        figures: Sequence[str] = TEST_FIGURES,
    ) -> None:
        """Show the settings in the HPARAMS tab, dotted, beside the figures to come."""
        from torch.utils.tensorboard.summary import hparams

        shown = {key: value for key, value in _dotted(config) if key != "results"}
        for summary in hparams(shown, dict.fromkeys(figures, 0.0)):
            self._events.summary(summary)

    def result(self, metrics: Mapping[str, float]) -> None:
        """The figures of the test span, once, at the last step of training."""
        self.record(self.last_step, {f"test/{key}": value for key, value in metrics.items()})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._events.close()
        except SettingError:
            if error is None:  # else what went wrong first is what counts
                raise


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested settings as numbers, truth values and text: what TensorBoard can show."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        elif isinstance(value, (bool, int, float, str)):
            yield f"{prefix}{key}", value
        elif value is not None and value != []:
            yield f"{prefix}{key}", ", ".join(map(str, value))
