"""A small learner for tests of what is around agents: quick, seeded, and faulty on request."""

import json
import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.base import Agent, Monitor, Task
from agents.rollout import path_metrics, roll


@dataclass(frozen=True, kw_only=True)
class TinySettings:
    steps: int = 4
    lookback: int = 5
    fault: str = ""  # "raise", "nan" or "die"
    hold: str = ""  # a file beside the agents' folders to wait for


class Tiny(Agent):
    """Holds the best of a few random portfolios on validation."""

    Settings = TinySettings

    def __init__(self, **settings):
        super().__init__(**settings)
        self.lookback = self.settings.lookback
        self.weights: Any = None
        self.seen: dict[str, Any] = {}

    def fit(self, train, valid=None, *, task=None, seed=0, monitor=None):
        rng, monitor = np.random.default_rng(seed), monitor or Monitor()
        for name, market in (("train", train), ("valid", valid)):
            self.seen[name] = [f"{market.dates[0]:%Y-%m-%d}", f"{market.dates[-1]:%Y-%m-%d}"]
        best = -np.inf
        for step in range(1, self.settings.steps + 1):
            candidate = rng.dirichlet(np.ones(train.n_assets))
            self.weights, kept = candidate, self.weights
            path = roll(self, valid, task or Task())
            score = path_metrics(path, valid.periods_per_year)["sharpe"]
            self.seen["first_return"] = f"{path.dates[1]:%Y-%m-%d}"
            monitor.record(step, {"eval/sharpe": score, "time/speed": time.perf_counter()})
            monitor.progress(step / self.settings.steps)
            if score <= best:
                self.weights = kept
            best = max(best, score)
        self._misbehave()
        if self.settings.hold and monitor.folder:
            while not (monitor.folder.parents[1] / self.settings.hold).exists():
                time.sleep(0.05)
        return self

    def _misbehave(self):
        if self.settings.fault == "raise":
            raise RuntimeError("the network\nfell over")
        if self.settings.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.settings.fault == "nan":
            self.weights = np.full_like(self.weights, np.nan)

    def act(self, history, weights):
        assert history.n_periods >= self.lookback
        return self.weights

    def save(self, folder):
        super().save(folder)
        state = {"weights": list(self.weights), "seen": self.seen}
        (folder / "state.json").write_text(json.dumps(state))

    @classmethod
    def load(cls, folder):
        agent = super().load(folder)
        agent.weights = np.array(json.loads((folder / "state.json").read_text())["weights"])
        return agent


class Unsaved(Agent):
    """A rule of three lines, as a user might write it: no settings, no save."""

    def __init__(self):
        pass

    def act(self, history, weights):
        return np.eye(history.n_assets)[-1]


@dataclass(frozen=True, kw_only=True)
class LadderSettings:
    level: float = 0.0


class Ladder(Agent):
    """Says ten times that it is as good as its level, and holds cash and a little more."""

    Settings = LadderSettings
    learns = True

    def fit(self, train, valid=None, *, task=None, seed=0, monitor=None):
        for step in range(10):
            (monitor or Monitor()).record(step, {"eval/sharpe": self.settings.level})
        return self

    def act(self, history, weights):
        return np.eye(history.n_assets)[0] * 0.5 + np.eye(history.n_assets)[-1] * 0.5


class Guess(Agent):
    """Holds a portfolio drawn by its seed and the days it was fitted on."""

    learns = True

    def fit(self, train, valid=None, *, task=None, seed=0, monitor=None):
        rng = np.random.default_rng([seed, train.n_periods, int(train.dates[0].day_of_year)])
        self.weights = rng.dirichlet(np.ones(train.n_assets))
        return self

    def act(self, history, weights):
        return self.weights
