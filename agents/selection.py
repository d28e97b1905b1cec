"""What a learner is watched by: curves on validation, its best state, its patience, divergence.

One `Selection` serves every training loop. The loop calls `follow` at first, `look` between
updates, `check` with each loss, `end` after the last update and `finish` when all is done.

A checkpoint is taken, and gone on from, at the end of `look`: there a loop is wholly described by
its `snapshot`, the selection's own state and the generators that libraries share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from agents.base import Monitor
from agents.generators import generator_states, set_generator_states
from agents.rollout import Rollout, evaluation
from market import Market, SettingError

State = dict[str, Tensor]
Evaluate = Callable[[], dict[str, float]]
LARGEST = 1e3  # size of a parameter of which no network that learns comes near
_OWN = ("_due", "_worse", "_score", "_kept_step", "_best", "_good")  # of a selection's state
_NOTHING = 1e-9  # a mean return below this is no return


class DivergedError(SettingError):
    """Training made a number that is not finite, or parameters far beyond all use.

    Attributes:
        step: Where training stood when it was found, as its curves count.
        good_step: Where it stood at the last good state, which the agent was put back to.

    """

    def __init__(self, message: str, step: int, good_step: int) -> None:
        super().__init__(message)
        self.step, self.good_step = step, good_step


class Loop(Protocol):
    """A training loop that can be gone on with from between two updates."""

    def snapshot(self) -> dict[str, Any]:
        """All that its future depends on but for the generators that libraries share."""

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Become what `snapshot` told of, in a loop built from the same settings and data."""


class Selection:
    """Evaluates on validation at even intervals and keeps the best trained state.

    Args:
        name: What errors call the agent.
        network: The network under training, asked for whenever it is needed.
        settings: With steps, evaluations, patience, select_by and learning_rate.
        evaluate: Figures of the network on validation, `select_by` among them; None: nothing is
            evaluated and the last state is kept.
        monitor: Told of curves and progress.

    """

    def __init__(
        self,
        name: str,
        network: Callable[[], nn.Module],
        settings: Any,
        evaluate: Evaluate | None,
        monitor: Monitor,
    ) -> None:
        self.name, self.network, self.settings = name, network, settings
        self.evaluate, self.monitor = evaluate, monitor
        self.interval = max(1, settings.steps // settings.evaluations)
        self.stopped = False
        self._due, self._worse = 0, 0
        self._score = -math.inf
        self._kept_step = self._last_step = 0
        self._best: State | None = None
        self._good: tuple[int, State] | None = None
        self._loop: Loop | None = None
        self._generators: dict[str, Any] | None = None  # to be put back at the end of `look`

    def follow(self, loop: Loop) -> None:
        """Watch this loop, which goes on from where it was stopped if the monitor kept that.

        Raises:
            SettingError: If what was kept does not fit the loop.

        """
        self._loop, kept = loop, self.monitor.resume()
        if kept is None:
            return
        try:
            loop.restore(kept["loop"])
            vars(self).update(kept["selection"])
        except (RuntimeError, ValueError, LookupError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SettingError(f"{self.name}: the checkpoint does not fit: {reason}") from error
        self._generators = kept["generators"]

    def _snapshot(self) -> dict[str, Any]:
        assert self._loop is not None
        own = {key: getattr(self, key) for key in _OWN}
        generators = generator_states()
        return {"loop": self._loop.snapshot(), "selection": own, "generators": generators}

    def look(self, step: int, trained: bool | None = None) -> None:
        """Between updates: check that parameters are finite, and evaluate where it is time.

        Args:
            step: Where training stands.
            trained: Whether there was an update yet; None: as soon as there was a step.

        """
        self.check(step)
        if step >= self._due:
            self._due = (step // self.interval + 1) * self.interval
            self._evaluate(step, step > 0 if trained is None else trained)
            self.mark(step)
        if self._generators is not None:
            set_generator_states(self._generators)
            self._generators = None
        elif self._loop is not None and not self.stopped:
            self.monitor.checkpoint(self._snapshot)

    def mark(self, step: int) -> None:
        """Remember this state as a good one, to come back to."""
        self._good = (step, self._state())

    def check(self, step: int, value: Any = 0.0, what: str = "the loss") -> None:
        """Stop at once where a value, such as the loss, is not finite or a parameter is spoilt.

        Raises:
            DivergedError: With the agent back in its last good state.

        """
        if not math.isfinite(value):
            raise self.diverged(step, f"{what} is not finite")
        spoilt = self._spoilt()
        if spoilt is not None:
            raise self.diverged(step, spoilt)

    def diverged(self, step: int, what: str) -> DivergedError:
        """The error, with the agent back in its last good state."""
        good_step, state = self._good or (0, None)
        if state is not None:
            self.network().load_state_dict(state)
        self.network().train(False)
        return DivergedError(
            f"{self.name} diverged: {what} at step {step}; the agent is back at step {good_step}; "
            f"lower learning_rate ({self.settings.learning_rate:g})",
            step,
            good_step,
        )

    def progress(self, step: int) -> None:
        """Pass on how much is done."""
        self.monitor.progress(min(1.0, step / self.settings.steps))

    def end(self, step: int, trained: bool = True) -> None:
        """The last look."""
        self.check(step)
        self._evaluate(step, trained)
        self._last_step = step
        self.monitor.progress(1.0)

    def finish(self) -> None:
        """Put the best state in."""
        if self._best is not None:
            self.network().load_state_dict(self._best)
            self.monitor.record(self._last_step, {"eval/kept_step": float(self._kept_step)})

    def _evaluate(self, step: int, trained: bool) -> None:
        if self.evaluate is None:
            return
        try:
            values = self.evaluate()
        except FloatingPointError as error:
            raise self.diverged(step, str(error)) from error
        self.monitor.record(step, {f"eval/{key}": value for key, value in values.items()})
        if not trained:  # what nobody trained is not kept
            return
        self._worse += 1
        score = _score(values, self.settings.select_by)
        if score > self._score:
            self._score, self._best, self._worse = score, self._state(), 0
            self._kept_step = step
        patience = self.settings.patience
        self.stopped = patience is not None and self._worse >= patience

    def _spoilt(self) -> str | None:
        """What is wrong with the parameters; found by one number, then looked for."""
        named = {name: part.detach() for name, part in self.network().named_parameters()}
        if get_total_norm(named.values(), math.inf) <= LARGEST:
            return None
        worst = {name: float(part.abs().max()) for name, part in named.items()}
        name, size = next((name, size) for name, size in worst.items() if not size <= LARGEST)
        grown = f"has grown to {size:.4g}" if math.isfinite(size) else "is not finite"
        return f"parameter {name} {grown}"

    def _state(self) -> State:
        state = self.network().state_dict()
        return {key: value.detach().clone() for key, value in state.items()}


def figures(path: Rollout, market: Market) -> dict[str, float]:
    """What curves show of a path, and its mean return over cash, which judges one without risk."""
    excess = float((path.returns - path.risk_free).mean())
    return evaluation(path, market) | {"excess": excess}


def _score(values: dict[str, float], name: str) -> float:
    """The figure that selects; a Sharpe ratio without risk is judged by its excess return."""
    score = values[name]
    if math.isnan(score):
        excess = values["excess"]
        return 0.0 if abs(excess) < _NOTHING else math.copysign(math.inf, excess)
    return score
