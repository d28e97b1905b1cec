"""Upper lines: what the best fixed choice would have earned, known only afterwards."""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from agents.base import Agent, Monitor, Task
from agents.online import OnlineSettings
from agents.schedule import start_weights
from agents.simplex import best_constant_mix
from market import Market, SettingError


class HindsightAgent(Agent):
    """An upper line: the best fixed mix over the rows of `fit`, which are those it is judged on.

    Never ranked. The first of these rows is the first decision, as in a back-test from its date. A
    subclass says what is best.
    """

    Settings: ClassVar[type] = OnlineSettings
    hindsight: ClassVar[bool] = True
    learns: ClassVar[bool] = False
    settings: OnlineSettings

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.weights: dict[str, float] = {}

    @abstractmethod
    def best(self, relatives: np.ndarray) -> np.ndarray:
        """The best mix (k,) for price relatives (T, k)."""

    def fit(
        self,
        train: Market,
        valid: Market | None = None,
        *,
        task: Task | None = None,
        seed: int = 0,
        monitor: Monitor | None = None,
    ) -> Self:
        """Find the best mix for `train`, before costs."""
        count = train.n_assets - (train.has_cash and not self.settings.include_cash)
        mix = self.best(1.0 + train.returns[1:, :count])
        self.weights = dict(zip(train.assets, mix.tolist(), strict=False))
        return self

    def act(self, history: Market, weights: np.ndarray) -> np.ndarray:
        """That mix, of the assets that can be held."""
        if not self.weights:
            raise SettingError(f"{type(self).__name__}: call fit before act")
        mix = np.array([self.weights.get(asset, 0.0) for asset in history.assets])
        mix = np.where(history.tradable[-1], mix, 0.0)
        total = mix.sum()
        return mix / total if total > 0.0 else start_weights(history)

    def save(self, folder: Path) -> None:
        """Settings and weights as JSON."""
        super().save(folder)
        (folder / "weights.json").write_text(json.dumps(self.weights, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The agent with its weights."""
        agent = super().load(folder)
        agent.weights = json.loads((folder / "weights.json").read_text())
        return agent


class BestConstantMix(HindsightAgent):
    """BCRP, the best constant rebalanced portfolio in hindsight."""

    def best(self, relatives: np.ndarray) -> np.ndarray:
        """The mix of the largest final wealth, rebalanced daily."""
        return best_constant_mix(relatives)


class BestSingleAsset(HindsightAgent):
    """The asset that grew most in hindsight."""

    def best(self, relatives: np.ndarray) -> np.ndarray:
        """All in that asset."""
        growth = np.log(relatives).sum(axis=0)
        return np.eye(len(growth))[int(growth.argmax())]
