"""How much of a set of trials is done and how long the rest takes, from what was seen so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean

EARLY = 0.02  # below this fraction done, nothing can be said yet
RULE = ""  # stands for any agent that does not learn: taken to be brief until one was seen


class Pace:
    """Durations of trials: known, extrapolated, or taken from their like.

    Args:
        agents: Trial -> agent, all trials; RULE for agents that do not learn.
        workers: Trials at the same time.
        clock: Seconds from any fixed moment.

    """

    def __init__(self, agents: Mapping[str, str], workers: int, clock: Callable[[], float]) -> None:
        self.agents, self.workers, self.clock = agents, workers, clock
        self.started: dict[str, float] = {}
        self.fraction: dict[str, float] = {}
        self.took: dict[str, float] = {}

    @property
    def total(self) -> int:
        """Number of trials."""
        return len(self.agents)

    @property
    def done(self) -> int:
        """Number of trials that ended."""
        return len(self.took)

    def start(self, name: str) -> None:
        """A trial starts."""
        self.started[name], self.fraction[name] = self.clock(), 0.0

    def advance(self, name: str, fraction: float) -> None:
        """A trial is that far."""
        self.fraction[name] = fraction

    def end(self, name: str) -> float:
        """A trial ended; the seconds it took."""
        self.took[name] = self.clock() - self.started[name]
        return self.took[name]

    def left(self) -> float | None:
        """Seconds until all is done, None while nothing can be said.

        What runs is extrapolated from its fraction; what waits takes what others of its agent take,
        or the mean of all learners that are known. The work left is shared by the workers, and ends
        no sooner than the longest trial that runs.
        """
        known = {name: self._duration(name) for name in self.started}
        lasts = {name: seconds for name, seconds in known.items() if seconds is not None}
        rest = [name for name in self.agents if name not in self.took]
        if rest and not lasts:
            return None
        work = {name: self._remaining(name, lasts) for name in rest}
        running = [seconds for name, seconds in work.items() if name in self.started]
        return max([sum(work.values()) / self.workers, *running])

    def share(self) -> float:
        """Fraction of the work done, in [0, 1]: by time where it can be told, else by trials."""
        left = self.left()
        if left is None or not self.started:
            return self.done / max(1, self.total)
        passed = self.clock() - min(self.started.values())
        return passed / (passed + left) if passed + left > 0 else 0.0

    def _duration(self, name: str) -> float | None:
        if name in self.took:
            return self.took[name]
        fraction = self.fraction[name]
        return (self.clock() - self.started[name]) / fraction if fraction >= EARLY else None

    def _remaining(self, name: str, lasts: Mapping[str, float]) -> float:
        agent = self.agents[name]
        like = [s for other, s in lasts.items() if self.agents[other] == agent]
        if not like and agent == RULE:
            like = [0.0]
        learners = [s for other, s in lasts.items() if self.agents[other] != RULE]
        whole = lasts.get(name) or fmean(like or learners or lasts.values())
        passed = self.clock() - self.started[name] if name in self.started else 0.0
        return max(0.0, whole - passed)
