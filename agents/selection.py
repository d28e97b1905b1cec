"""What a learner is watched by: curves on validation, its best state, its patience, divergence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from agents.base import Monitor, Task
from agents.rollout import evaluation, roll
from market import Market

if TYPE_CHECKING:
    from agents.learner import Learner

State = dict[str, torch.Tensor]
_NOTHING = 1e-9  # a mean return below this is no return


class DivergedError(RuntimeError):
    """Training made a number that is not finite.

    Attributes:
        step: Decisions made when it was found.
        good_step: Those made at the last good state, which the agent was put back to.

    """

    def __init__(self, name: str, what: str, step: int, good_step: int) -> None:
        super().__init__(
            f"{name} diverged: {what} at step {step}; the agent is back at step "
            f"{good_step}; try a smaller learning_rate"
        )
        self.step, self.good_step = step, good_step


class Selection:
    """Evaluates on validation at even intervals and keeps the best trained state.

    Args:
        agent: Whose network is trained.
        valid: To evaluate on; None: nothing is evaluated and the last state is kept.
        task: Of the evaluation.
        monitor: Told of curves and progress.

    """

    def __init__(self, agent: Learner, valid: Market | None, task: Task, monitor: Monitor) -> None:
        self.agent, self.valid, self.task, self.monitor = agent, valid, task, monitor
        self.interval = max(1, agent.settings.steps // agent.settings.evaluations)
        self.stopped = False
        self._due, self._worse = 0, 0
        self._score = -math.inf
        self._kept_step = self._last_step = 0
        self._best: State | None = None
        self._good: tuple[int, State] | None = None

    def look(self, step: int) -> None:
        """Between updates: check that parameters are finite, and evaluate where it is time."""
        self.check(step)
        if step >= self._due:
            self._due = (step // self.interval + 1) * self.interval
            self._evaluate(step)
            self._good = (step, self._state())

    def check(self, step: int, loss: float | None = None) -> None:
        """Stop at once where the loss or a parameter is not finite.

        Raises:
            DivergedError: With the agent back in its last good state.

        """
        if loss is not None and not math.isfinite(loss):
            raise self.diverged(step, "the loss is not finite")
        spoilt = self._spoilt()
        if spoilt is not None:
            raise self.diverged(step, f"{spoilt} is not finite")

    def diverged(self, step: int, what: str) -> DivergedError:
        """The error, with the agent back in its last good state."""
        good_step, state = self._good or (0, None)
        if state is not None:
            self.agent.network.load_state_dict(state)
        self.agent.network.train(False)
        return DivergedError(type(self.agent).__name__, what, step, good_step)

    def progress(self, step: int) -> None:
        """Pass on how much is done."""
        self.monitor.progress(min(1.0, step / self.agent.settings.steps))

    def end(self, step: int) -> None:
        """The last look."""
        self.check(step)
        self._evaluate(step)
        self._last_step = step
        self.monitor.progress(1.0)

    def finish(self) -> None:
        """Put the best state in."""
        if self._best is not None:
            self.agent.network.load_state_dict(self._best)
            self.monitor.record(self._last_step, {"eval/kept_step": float(self._kept_step)})

    def _evaluate(self, step: int) -> None:
        if self.valid is None:
            return
        try:
            with self.agent.reading(self.valid):
                path = roll(self.agent, self.valid, self.task)
        except FloatingPointError as error:
            raise self.diverged(step, str(error)) from error
        values = evaluation(path, self.valid)
        self.monitor.record(step, {f"eval/{key}": value for key, value in values.items()})
        score = values[self.agent.settings.select_by]
        if math.isnan(score):  # a Sharpe ratio without risk
            excess = float((path.returns - path.risk_free).mean())
            score = 0.0 if abs(excess) < _NOTHING else math.copysign(math.inf, excess)
        self._worse += 1
        if step > 0 and score > self._score:  # what nobody trained is not kept
            self._score, self._best, self._worse = score, self._state(), 0
            self._kept_step = step
        patience = self.agent.settings.patience
        self.stopped = patience is not None and self._worse >= patience

    def _spoilt(self) -> str | None:
        """The name of a parameter that is not finite; sums are enough to find one."""
        for name, parameter in self.agent.network.named_parameters():
            if not math.isfinite(parameter.detach().sum()):
                return f"parameter {name}"
        return None

    def _state(self) -> State:
        state = self.agent.network.state_dict()
        return {key: value.detach().clone() for key, value in state.items()}
