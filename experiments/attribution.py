"""Where a back-test's return came from: asset by asset, by what was chosen and when, and costs.

Contributions are in money, as fractions of the value at the start, so that they add up over time
without a residual: with V the value before the period, w the target, r the assets' returns, c the
fraction paid and R the portfolio's return,

    V_T - 1 = sum_t V_t R_t          R = sum_i w_i r_i - c (1 + sum_i w_i r_i)

    w_i r_i = e_i r_i             equal:     holding every risky asset equally, whoever decides
            + (m_i - e_i) r_i     selection: m, the mean target of the whole span, is not equal
            + (w_i - m_i) r_i     timing:    the target of the day is not the mean one

Cash is an asset like any other, with e = 0. What trades at the next open holds the old weights
overnight: what that makes beside sum w r is `delay`, zero for trades at the close. The equal part
grows with the portfolio's own value, so it is not the return of an equal-weight portfolio.

Source: Brinson, Hood & Beebower, Determinants of portfolio performance (1986), for the parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from market import DataError
from market.market import CASH

PARTS = ("equal", "selection", "timing")
COSTS, DELAY, TOTAL = "costs", "delay", "total"
PREFIX = "return:"


@dataclass(frozen=True)
class Attribution:
    """Parts of a total return, as fractions of the value at the start.

    Attributes:
        assets: Index asset; columns `weight` (mean target), `equal`, `selection`, `timing` and
            `total`, their sum.
        costs: What trading took, at most 0.
        delay: What holding the old weights until the open made.

    """

    assets: pd.DataFrame
    costs: float
    delay: float

    @property
    def total(self) -> float:
        """The total return: the sum of everything."""
        return float(self.assets[TOTAL].sum()) + self.costs + self.delay

    def parts(self) -> dict[str, float]:
        """Equal, selection, timing, delay and costs, and their sum."""
        sums = {part: float(self.assets[part].sum()) for part in PARTS}
        return sums | {DELAY: self.delay, COSTS: self.costs, TOTAL: self.total}


def has_returns(frame: pd.DataFrame) -> bool:
    """Whether a back-test holds what its assets returned; those of early versions do not."""
    return any(str(name).startswith(PREFIX) for name in frame)


def attribute(frame: pd.DataFrame) -> Attribution:
    """Attribute the total return of a back-test.

    Args:
        frame: As `backtest.parquet` holds it, with columns `return:<asset>`.

    Raises:
        DataError: If it does not say what the assets returned.

    """
    names = [str(name) for name in frame if str(name).startswith("target:")]
    assets = [name.removeprefix("target:") for name in names]
    if missing := [asset for asset in assets if f"{PREFIX}{asset}" not in frame]:
        raise DataError(f"attribution: the back-test has no column {PREFIX}{missing[0]}")
    weights = frame[names].to_numpy(float)  # (n, N)
    returns = frame[[f"{PREFIX}{asset}" for asset in assets]].to_numpy(float)
    values = frame["value"].to_numpy(float)
    cost, earned = (frame[name].to_numpy(float) for name in ("cost", "portfolio_return"))
    before = np.concatenate([[1.0], values[:-1]])  # (n,)
    gross = 1.0 + np.vecdot(weights, returns)
    paid = cost >= 1.0
    whole = np.where(paid, gross, (1.0 + earned) / np.where(paid, 1.0, 1.0 - cost))
    mean = weights.mean(axis=0)
    money = before @ returns  # (N,) what one unit of weight would have made
    table = pd.DataFrame({"weight": mean}, index=pd.Index(assets, name="asset"))
    table["equal"] = _equal(assets) * money
    table["selection"] = (mean - _equal(assets)) * money
    table["timing"] = before @ (weights * returns) - mean * money
    table[TOTAL] = table[list(PARTS)].sum(axis=1)
    return Attribution(table, -float(before @ (cost * whole)), float(before @ (whole - gross)))


def average(attributions: Sequence[Attribution]) -> Attribution:
    """The mean over seeds, part by part: it adds up to the mean total return."""
    tables = [each.assets for each in attributions]
    mean = sum(tables[1:], tables[0]) / len(tables)
    costs = float(np.mean([each.costs for each in attributions]))
    return Attribution(mean, costs, float(np.mean([each.delay for each in attributions])))


def _equal(assets: Sequence[str]) -> np.ndarray:
    """Equal weights over the risky assets; over cash, where there is nothing else."""
    risky = np.array([asset != CASH for asset in assets], float)
    risky = risky if risky.any() else np.ones(len(assets))
    return risky / risky.sum()
