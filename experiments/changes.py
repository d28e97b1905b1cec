"""Change points in performance: the days from which an agent earns something else than before.

ruptures cuts the returns, scaled by their own past volatility, into stretches of constant mean
by binary segmentation. A cut must explain more squared error than the best single
cut does on all but a few per cent of the same returns with their blocks shuffled: that is the
penalty, so returns without a change are left in one piece.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError

LEAST = 20  # periods of a stretch
BLOCK = 10  # periods shuffled together
N_SHUFFLES = 999
WINDOW = 60  # periods that volatility is taken from


class ChangePoints(NamedTuple):
    """Where performance changed.

    Attributes:
        rows: First row of each stretch but the first.
        best: First row after the best single cut, significant or not.
        p_value: Of the best single cut, were there no change.

    """

    rows: tuple[int, ...]
    best: int
    p_value: float


def scaled(returns: np.ndarray) -> np.ndarray:
    """Returns over their volatility of the 60 periods before, (T,), so that calm days count too."""
    series = pd.Series(returns)
    past = series.rolling(WINDOW, min_periods=LEAST).std().shift(1).bfill()
    spread = past.where(past > 1e-12, max(float(series.std()), 1e-12))
    return (series / spread).to_numpy()


def cut_gains(series: np.ndarray) -> np.ndarray:
    """Squared error that a cut after row k - 1 explains, for LEAST <= k <= T - LEAST.

    gain_k = T / (k (T - k)) * (S_k - k / T S_T)^2, S the cumulated sums; (..., T) -> (..., cuts)
    """
    total = series.shape[-1]
    k = np.arange(LEAST, total - LEAST + 1)
    sums = np.cumsum(series, axis=-1)
    lead = sums[..., k - 1] - k / total * sums[..., -1:]
    gains: np.ndarray = lead**2 * total / (k * (total - k))
    return gains


def change_points(
    returns: np.ndarray, rng: np.random.Generator, level: float = 0.05
) -> ChangePoints:
    """Cut returns, scaled by `scaled`, into stretches of constant mean.

    Args:
        returns: Shape (T,), T >= 40.
        rng: Of the shuffles.
        level: Probability of a cut where nothing changes.

    Raises:
        DataError: If there are too few returns.
        SettingError: If ruptures is not installed.

    """
    if len(returns) < 2 * LEAST:
        raise DataError(f"change points: needs {2 * LEAST} returns, got {len(returns)}")
    try:
        from ruptures import Binseg
    except ImportError:
        raise SettingError("change points need ruptures: pip install 'allocgym[monitor]'") from None
    series = scaled(returns)
    gains = cut_gains(series)
    shuffled = np.array([cut_gains(_shuffled(series, rng)).max() for _ in range(N_SHUFFLES)])
    p_value = (1.0 + (shuffled >= gains.max()).sum()) / (1.0 + N_SHUFFLES)
    penalty = float(np.quantile(shuffled, 1.0 - level))
    ends = Binseg(model="l2", min_size=LEAST, jump=1).fit(series[:, None]).predict(pen=penalty)
    return ChangePoints(tuple(ends[:-1]), LEAST + int(gains.argmax()), float(p_value))


def _shuffled(series: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blocks of the series, cut from a random row on, in random order."""
    turned = np.roll(series, int(rng.integers(len(series))))
    blocks = np.array_split(turned, max(2, len(series) // BLOCK))
    return np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
