"""An ensemble that goes by the regime: each regime is left to the member that did best in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from agents.base import Agent
from agents.ensembles import EnsembleAgent, MembersSettings
from agents.ensembles_members import Member, Pool
from agents.regimes import HiddenMarkov, Regimes, VolatilityState, regime_series, regimes_from
from agents.settings import Space, require
from market import Market, SettingError

LEAST_DAYS = 20.0  # of validation in a regime, below which the whole of it decides


@dataclass(frozen=True, kw_only=True)
class RegimeSwitchSettings(MembersSettings):
    """Settings of `regime_switch`."""

    regime: Literal["hmm", "volatility"] = "hmm"  # a hidden Markov model, or the latest volatility
    states: int = 2  # regimes, from calm to turbulent
    window: int = 252  # rows the filter runs over
    volatility_window: int = 21  # returns of the latest volatility
    asset: str | None = None  # whose returns tell the regime; None: the mean of all risky ones
    assign: Literal["validation", "order"] = "validation"  # "order": members from calm to turbulent

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, states="[2, 10]", window="[2, inf)", volatility_window="[2, inf)")
        if self.volatility_window > self.window:
            raise SettingError(
                f"volatility_window must be at most window {self.window}, "
                f"got {self.volatility_window}"
            )


class RegimeSwitch(EnsembleAgent):
    """Shares are the probabilities of the regimes whose member each is.

    The probability of a regime is filtered from the last `window` rows up to the decision; the
    model of regimes is fitted on training rows alone. A regime goes to the member with the best
    Sharpe ratio on validation, days weighted by the regime's probability at their decisions; where
    validation hardly saw it, to the best of all validation. With `assign=order` the first member
    has the calmest regime, the last the most turbulent.

    Source: Hamilton, A new approach to the economic analysis of nonstationary time series and the
    business cycle (1989); Ang & Bekaert, How regimes affect asset allocation (2004).
    """

    Settings: ClassVar[type] = RegimeSwitchSettings
    space: ClassVar[Space] = {"states": "2..3", "window": [126, 252, 504]}
    settings: RegimeSwitchSettings

    def __init__(self, members: str | Sequence[str | Agent] | None = None, **settings: Any) -> None:
        super().__init__(members, **settings)
        self.regimes: Regimes | None = None
        count, states = len(self.members), self.settings.states
        if self.settings.assign == "order" and count != states:
            raise SettingError(
                f"assign=order needs a member for each of {states} states, got {count}"
            )
        self.owners = list(range(states)) if count == states else [0] * states

    def rows_of_shares(self, rows: int) -> int:
        """The filter's rows, as far as they are more."""
        return max(rows, self.settings.window + 1)

    def learn(self, pool: Pool) -> None:
        """Regimes from training, their members from validation."""
        series = regime_series(pool.train, self.settings.asset)[1:]
        states = self.settings.states
        self.regimes = (
            HiddenMarkov.fit(series, states, pool.seed)
            if self.settings.regime == "hmm"
            else VolatilityState.fit(series, states, self.settings.volatility_window)
        )
        if self.settings.assign == "validation":
            self.owners = self._owners(pool)

    def probabilities(self, history: Market) -> np.ndarray:
        """p(regime | history), (K,)."""
        if self.regimes is None:
            raise SettingError("RegimeSwitch: call fit before act")
        recent = history[max(0, history.n_periods - self.settings.window) :]
        return self.regimes.filtered(regime_series(recent, self.settings.asset))[-1]

    def shares(self, history: Market) -> np.ndarray:
        """Each regime's probability goes to its member."""
        shares = np.zeros(len(self.members))
        np.add.at(shares, self.owners, self.probabilities(history))
        return shares

    def state(self) -> dict[str, Any]:
        """With the regimes and whose they are."""
        assert self.regimes is not None, "fit first"
        return super().state() | {"regimes": self.regimes.plain(), "owners": self.owners}

    def restore(self, state: dict[str, Any]) -> None:
        """With the regimes and whose they are."""
        super().restore(state)
        self.regimes, self.owners = regimes_from(state["regimes"]), list(state["owners"])

    def _owners(self, pool: Pool) -> list[int]:
        """The best member of each regime."""
        scores = np.array([self._scores(member, pool) for member in self.members])  # (M, K)
        return [int(best) for best in scores.argmax(axis=0)]

    def _scores(self, member: Member, pool: Pool) -> np.ndarray:
        """Sharpe ratio of a member in each regime, (K,)."""
        path, market = pool.path(member), pool.valid
        assert market is not None
        rows = [market.index(day) - pool.task.decision_lag for day in path.dates[:-1]]
        known = np.array([self.probabilities(market.upto(row)) for row in rows])  # (n, K)
        known[:, known.sum(axis=0) < LEAST_DAYS] = 1.0
        excess = path.returns - path.risk_free
        mean = known.T @ excess / known.sum(axis=0)
        spread = np.sqrt((known * (excess[:, None] - mean) ** 2).sum(axis=0) / known.sum(axis=0))
        return np.where(spread > 1e-12, mean / np.where(spread > 1e-12, spread, 1.0), 0.0)
