"""A small learner whose every step can be gone on from, for tests of what is around training."""

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents.base import Agent, Monitor


@dataclass(frozen=True, kw_only=True)
class StepperSettings:
    steps: int = 12
    lookback: int = 5
    pause: float = 0.0  # seconds a step, but for the first
    weight: int = 1  # numbers in the state
    curves: int = 0  # recorded beside the first
    hunger: int = 0  # bytes asked for in the sixth step
    hungry: str = "numpy"  # who asks for them, this or torch
    judged: float | None = None  # how good it says it is, a step


class Stepper(Agent):
    """Walks at random over the simplex."""

    Settings = StepperSettings
    learns = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.lookback = self.settings.lookback
        self.weights: Any = None

    def fit(self, train, valid=None, *, task=None, seed=0, monitor=None):
        rng, monitor = np.random.default_rng(seed), monitor or Monitor()
        self.weights, step = np.full(train.n_assets, 1.0 / train.n_assets), 0
        ballast = np.zeros(self.settings.weight)
        kept = monitor.resume()
        if kept is not None:
            self.weights, step = kept["weights"], kept["step"]
            rng.bit_generator.state = kept["rng"]

        def state() -> dict[str, Any]:
            mine = {"weights": self.weights, "step": step, "ballast": ballast}
            return mine | {"rng": rng.bit_generator.state}

        while step < self.settings.steps:
            monitor.checkpoint(state)
            step += 1
            if step == 6:
                self._eat()
            self.weights = 0.5 * self.weights + 0.5 * rng.dirichlet(np.ones(train.n_assets))
            time.sleep(self.settings.pause if step > 1 else 0.0)
            more = {f"train/other_{i}": float(step) for i in range(self.settings.curves)}
            shown = {"train/first": self.weights[0], "time/now": time.time()} | more
            if self.settings.judged is not None:
                shown["eval/sharpe"] = self.settings.judged * step
            monitor.record(step, shown)
            monitor.progress(step / self.settings.steps)
        return self

    def _eat(self):
        if self.settings.hungry == "torch":
            torch.zeros(self.settings.hunger, dtype=torch.uint8)
        else:
            np.zeros(self.settings.hunger, np.uint8)

    def act(self, history, weights):
        return self.weights

    def save(self, folder):
        super().save(folder)
        (folder / "weights.json").write_text(json.dumps(list(self.weights)))

    @classmethod
    def load(cls, folder):
        agent = super().load(folder)
        agent.weights = np.array(json.loads((folder / "weights.json").read_text()))
        return agent
