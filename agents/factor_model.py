"""Expected returns that factors explain: loadings times the factors' mean returns, nothing else.

What an asset earned beyond that in training is taken for luck. Factors are assets of the market,
such as factor funds, or principal components of the returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from agents.base import Monitor
from agents.ensembles_members import split
from agents.forecast_base import Forecaster, with_cash_at
from agents.forecast_data import n_risky
from agents.settings import require
from market import DataError, Market, SettingError

LEAST_ROWS = 20  # beside one for each factor
STILL = 1e-12  # deviation that rounding leaves


@dataclass(frozen=True, kw_only=True)
class FactorModelSettings:
    """Settings of `factor_model`."""

    components: int = 3  # principal components, at most as many as there are risky assets
    factors: str | None = None  # names of assets that are the factors instead: "QUAL, VLUE"

    def __post_init__(self) -> None:
        require(self, components="[1, inf)")


class FactorModel(Forecaster):
    """E[r] = cash + B E[f], with r = a + B f + e over training rows, f and r over cash.

    Principal components are those of the correlation matrix, as portfolios: f = r (V / sigma).

    Source: Ross, The arbitrage theory of capital asset pricing (1976); Connor & Korajczyk,
    Performance measurement with the arbitrage pricing theory (1986), on principal components.
    """

    Settings: ClassVar[type] = FactorModelSettings
    settings: FactorModelSettings
    lookback = 1

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self._premium = np.zeros(0)

    def fit(
        self, train: Market, valid: Market | None, *, seed: int = 0, monitor: Monitor | None = None
    ) -> Self:
        """Regress all assets on the factors, over the days on which all could be held.

        Raises:
            SettingError: If a factor is no risky asset of the market.
            DataError: If there are too few such days.

        """
        count = n_risky(train)
        rows = 1 + np.flatnonzero(train.tradable[1:, :count].all(axis=1))  # row 0 has no return
        excess = train.returns[rows, :count] - train.risk_free[rows, None]
        names = self._names(train)
        needed = LEAST_ROWS + (len(names) or min(self.settings.components, count))
        if len(excess) < needed:
            raise DataError(
                f"{train.name}: a factor model needs {needed} days on which all assets trade, "
                f"got {len(excess)}"
            )
        portfolios = self._portfolios(train, names, excess)
        factors = excess @ portfolios
        design = np.column_stack([np.ones(len(factors)), factors])
        loadings = np.linalg.lstsq(design, excess, rcond=None)[0][1:]  # (k, n)
        self.assets, self._premium = train.assets, factors.mean(axis=0) @ loadings
        self.error = np.sqrt(((excess - self._premium) ** 2).mean(axis=0))
        return self

    def predict(self, history: Market) -> np.ndarray:
        """Cash and what the loadings earn, (N,)."""
        self.check(history)
        rate = float(history.risk_free[-1])
        return with_cash_at(rate + self._premium, rate, history)

    def tensors(self) -> dict[str, Tensor]:
        """Premium of each asset and its error."""
        return {"premium": torch.from_numpy(self._premium), "error": torch.from_numpy(self.error)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take them back."""
        self._premium, self.error = tensors["premium"].numpy(), tensors["error"].numpy()

    def _names(self, market: Market) -> list[str]:
        """The assets that are factors; none for principal components."""
        if self.settings.factors is None:
            return []
        risky = market.assets[: n_risky(market)]
        names = split(self.settings.factors)
        unknown = sorted(set(names) - set(risky))
        if unknown or not names:
            raise SettingError(
                f"factor_model: factors must be risky assets of {market.name}, among {risky}, "
                f"got {', '.join(unknown) or 'none'}"
            )
        return names

    def _portfolios(self, market: Market, names: list[str], excess: np.ndarray) -> np.ndarray:
        """Weights of the factors, (n, k)."""
        count = excess.shape[1]
        if names:
            return np.eye(count)[:, [market.assets.index(name) for name in names]]
        sigma = excess.std(axis=0)
        sigma = np.where(sigma > STILL, sigma, 1.0)  # what never moves loads on nothing
        scaled = (excess - excess.mean(axis=0)) / sigma
        _, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
        return vectors[:, ::-1][:, : self.settings.components] / sigma[:, None]
