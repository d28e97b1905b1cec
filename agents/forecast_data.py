"""What forecasters learn from: rows of decisions, scaled inputs, targets, and who may see which.

    train |...............................| valid ..................|
    decisions to learn from  t, t + k <= last row of train
    decisions to stop by                  t >= last row of train, t + k <= last row of valid

Without a validation market the last fifth of the training rows takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from agents.forecast_targets import Target, Translation, target_of
from market import DataError, Market
from market.features.scaling import Scaler


@dataclass(frozen=True)
class Problem:
    """Rows of both markets one after the other, for n risky assets.

    Attributes:
        panel: Scaled features and context, (T, n, F) float32.
        target: Standardised by training rows, (T, n) float32; 0 where not known.
        known: Whether the target is, (T, n).
        train_rows, valid_rows: Decisions to learn from, and those to stop and to judge by.
        translation: From outputs to targets and returns.
        ahead: Returns a period over the horizon, (T, n) float64; nan where not known.

    """

    panel: Tensor
    target: Tensor
    known: Tensor
    train_rows: Tensor
    valid_rows: Tensor
    translation: Translation
    ahead: np.ndarray

    @classmethod
    def of(
        cls,
        train: Market,
        valid: Market | None,
        scaler: Scaler,
        target: Target,
        horizon: int,
        lookback: int,
        hold_out: bool = True,
    ) -> Self:
        """Join, scale, cut.

        Without `valid` and without `hold_out`, for models that need nothing to stop or choose by,
        all training rows are learned from, and the error is what is left on them.

        Raises:
            DataError: If assets differ, or too few rows are left to learn from or to judge by.

        """
        parts, n_train = joined(train, valid)
        alone = valid is None and not hold_out
        n_train = train.n_periods if alone else n_train
        returns = np.concatenate([part.returns for part in parts])[:, : n_risky(train)]
        tradable = np.concatenate([part.tradable for part in parts])[:, : n_risky(train)]
        first = lookback - 1
        train_rows = np.arange(first, n_train - horizon)
        valid_rows = np.arange(first if alone else max(first, n_train - 1), len(returns) - horizon)
        if len(train_rows) < 2 or len(valid_rows) < 1:
            raise DataError(
                f"{train.name}: lookback {lookback} and horizon {horizon} need more than {n_train} "
                f"rows to learn from and {len(returns) - n_train} to stop by"
            )
        targets = target_of(returns, tradable, target, horizon)
        ahead = target_of(returns, tradable, "return", horizon)
        next_day = target_of(returns, tradable)
        past = slice(0, n_train - horizon)
        translation = Translation.fit(targets[past], ahead[past], next_day[past], target, horizon)
        known = np.isfinite(targets)
        standard = (np.where(known, targets, 0.0) - translation.center) / translation.scale
        return cls(
            torch.cat([window_panel(scaler.transform(part)) for part in parts]),
            torch.from_numpy(np.where(known, standard, 0.0).astype(np.float32)),
            torch.from_numpy(known),
            _with_known(train_rows, known),
            torch.from_numpy(valid_rows),
            translation,
            ahead / horizon,
        )

    def error(self, made: np.ndarray) -> np.ndarray:
        """Root mean square of returns a period about forecasts (V, n) on validation rows, (n,)."""
        off = (self.ahead[self.valid_rows.numpy()] - made) ** 2
        known = np.isfinite(off)
        total, count = np.where(known, off, 0.0).sum(axis=0), known.sum(axis=0)
        mean = np.divide(total, count, out=np.zeros(len(count)), where=count > 0)
        return np.sqrt(np.where(count > 0, mean, self.translation.usual**2))


def joined(train: Market, valid: Market | None) -> tuple[list[Market], int]:
    """Markets to read one after the other, and how many rows, from the first, are for training.

    Rows of `valid` that repeat training dates (history kept in front of it) are left out.
    """
    if valid is None:
        return [train], train.n_periods - (train.n_periods - 1) // 5
    if valid.assets != train.assets:
        raise DataError(f"{valid.name}: assets {valid.assets} differ from {train.assets}")
    later = int(valid.dates.searchsorted(train.dates[-1], side="right"))
    if later == valid.n_periods:
        raise DataError(f"{valid.name}: no validation row is later than {train.dates[-1]:%Y-%m-%d}")
    return [train, valid[later:]], train.n_periods


def n_risky(market: Market) -> int:
    """Number of assets but cash."""
    return market.n_assets - market.has_cash


def window_panel(market: Market) -> Tensor:
    """Features of risky assets with the context behind them, (T, n, F + G) float32."""
    features = market.features[:, : n_risky(market)]
    shape = (*features.shape[:2], market.context.shape[1])
    context = np.broadcast_to(market.context[:, None, :], shape)
    return torch.from_numpy(np.concatenate([features, context], axis=2))


def _with_known(rows: np.ndarray, known: np.ndarray) -> Tensor:
    """Those of the rows that some asset has a target at."""
    return torch.from_numpy(rows[known[rows].any(axis=1)])
