"""Where a run's training reports to: `metrics.jsonl`, TensorBoard, and whoever watches progress.

`metrics.jsonl` is the truth and holds no wall clock, so that equal runs write equal bytes;
TensorBoard is a view of it, with the settings and the final figures in its HPARAMS tab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from agents.base import Agent, Monitor
from experiments.run_dir import RunFolder

Watcher = Callable[[float], None]
FINAL = ("return", "volatility", "sharpe", "drawdown", "turnover", "cost", "final_value")
TEST_FIGURES = [f"test/{name}" for name in FINAL]


class RunMonitor(Monitor):
    """Writes one run's curves; a context manager, because TensorBoard's file must be closed.

    Args:
        run: The folder.
        watch: Told the fraction of the work that is done.

    """

    def __init__(self, run: RunFolder, watch: Watcher | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.run, self.folder, self.watch = run, run.path, watch
        self.last_step = 0
        self._writer = SummaryWriter(str(run.path))

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """One line and as many points; `time/..` goes to TensorBoard alone."""
        self.last_step = max(self.last_step, int(step))
        lasting = {key: value for key, value in values.items() if not key.startswith("time/")}
        if lasting:
            self.run.log(step, lasting)
        for key, value in values.items():
            self._writer.add_scalar(key, float(value), int(step))

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
            assert self._writer.file_writer is not None
            self._writer.file_writer.add_summary(summary)

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
        self._writer.close()


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested settings as numbers, truth values and text: what TensorBoard can show."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        elif isinstance(value, (bool, int, float, str)):
            yield f"{prefix}{key}", value
        elif value is not None and value != []:
            yield f"{prefix}{key}", ", ".join(map(str, value))
