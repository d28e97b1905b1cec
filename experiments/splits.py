"""Cutting time: which rows an agent learns from, is chosen on and is judged on.

A sample is a decision at the close of row t: it sees rows (t - lookback, t] and is judged by rows
(t, t + horizon]. No row may be in the label of a training sample and of a test sample:

    train samples ...... t     t + horizon <= a         a ..... test samples ..... b
    labels               ......| a      <- test labels -> a + 1 ......... b + horizon |

so horizon - 1 samples before a test are purged; as many after it, and there as many more (the
embargo) as reach back into its labels with what they see. Where all training lies before the test,
a market that ends with row a is that rule already: it holds no later label.

skfolio finds the indices, over samples; the rows of market returns follow from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from market.errors import DataError, SettingError


class Gaps(NamedTuple):
    """Samples left out of training: on both sides of a test, and after it as well."""

    purge: int
    embargo: int


def gaps(lookback: int, horizon: int = 1, decision_lag: int = 0, memory: int = 0) -> Gaps:
    """Purge and embargo, in samples.

    Args:
        lookback: Rows a decision sees.
        horizon: Rows its label covers.
        decision_lag: Rows by which what it sees is older.
        memory: Rows before its own that a feature is computed from.

    Raises:
        SettingError: If a number is out of range.

    Source: Lopez de Prado, Advances in financial machine learning (2018), ch. 7.
    """
    for name, value, least in (
        ("lookback", lookback, 1),
        ("horizon", horizon, 1),
        ("decision_lag", decision_lag, 0),
        ("memory", memory, 0),
    ):
        if value < least:
            raise SettingError(f"`{name}` must be at least {least}, got {value!r}")
    return Gaps(horizon - 1, lookback + decision_lag + memory)


@dataclass(frozen=True)
class Window:
    """Rows of returns of one refit: from, to, with the end excluded."""

    train: tuple[int, int]
    valid: tuple[int, int]
    test: tuple[int, int]


def walk_forward(
    n_rows: int,
    first_test: int,
    refit_every: int,
    *,
    n_valid: int,
    n_train: int | None = None,
    horizon: int = 1,
) -> list[Window]:
    """Windows that tile the rows from `first_test` on: learn, choose, be judged, move on.

    Args:
        n_rows: Rows of the market, T.
        first_test: First row whose return is judged.
        refit_every: Rows of a test window; the last one may be shorter.
        n_valid: Rows before each test window on which states are chosen.
        n_train: Rows before those to learn from (rolling); None: all there are (expanding).
        horizon: Rows a label covers.

    Raises:
        DataError: If the first window lacks rows, or none is left to test.

    """
    from skfolio.model_selection import WalkForward

    before = first_test - 1 - n_valid if n_train is None else n_train
    first_row = first_test - 1 - n_valid - before
    if before < 2 or first_row < 0 or first_test >= n_rows:
        raise DataError(
            f"walk-forward: {n_rows} days with the first test day on row {first_test} do not hold "
            f"{'2 or more' if n_train is None else n_train} of training, {n_valid} of validation "
            "and a test"
        )
    purge = gaps(1, horizon).purge
    # a sample is a decision; the label of the last in training ends where the first test decides
    samples = np.arange(first_row, n_rows - 1)
    size = first_test - 1 - first_row - purge
    if size < 1:
        raise DataError(f"walk-forward: a horizon of {horizon} leaves nothing to train on")
    cutter = WalkForward(
        test_size=refit_every,
        train_size=size,
        expand_train=n_train is None,
        reduce_test=True,
        purged_size=purge,
    )
    windows = []
    for train, test in cutter.split(samples):
        start, decision, last = samples[train[0]], samples[test[0]], samples[test[-1]]
        cut = int(decision) + 1 - n_valid
        windows.append(
            Window((int(start), cut), (cut, int(decision) + 1), (int(decision) + 1, int(last) + 2))
        )
    return windows


class Fold(NamedTuple):
    """One split of combinatorial cross-validation, in samples.

    Attributes:
        train: Samples to learn from, purged and under embargo, in stretches.
        tests: Samples of each test fold.
        paths: For each test fold, the path it is part of.

    """

    train: list[np.ndarray]
    tests: list[np.ndarray]
    paths: list[int]


def combinatorial(
    n_rows: int, spaces: Gaps, *, n_folds: int = 6, n_test: int = 2
) -> Iterator[Fold]:
    """Combinatorial purged cross-validation over the samples of a market with `n_rows` rows.

    All rows but the last are samples, whatever the horizon, so that agents with different ones are
    judged on the same days; labels that would reach beyond the data are cut off there.

    Every choice of `n_test` of `n_folds` folds is a test once; each fold's tests, one from each
    choice it is in, make `n_test / n_folds * (n_folds choose n_test)` paths through all of time.

    Raises:
        DataError: If folds are too short for purge and embargo.

    Source: Lopez de Prado, Advances in financial machine learning (2018), ch. 12; skfolio's.
    """
    from skfolio.model_selection import CombinatorialPurgedCV

    n_samples = n_rows - 1
    if sum(spaces) >= n_samples // n_folds - 1:
        raise DataError(
            f"cross-validation: {n_folds} folds of {n_samples // n_folds} days are too short for "
            f"a purge of {spaces.purge} and an embargo of {spaces.embargo}; fewer folds, or agents "
            "that look back less far, make room"
        )
    cutter = CombinatorialPurgedCV(
        n_folds=n_folds, n_test_folds=n_test, purged_size=spaces.purge, embargo_size=spaces.embargo
    )
    paths = cutter.get_path_ids()
    for number, (train, tests) in enumerate(cutter.split(np.zeros((n_samples, 1)))):
        yield Fold(stretches(train), list(tests), [int(path) for path in paths[number]])


def stretches(rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Runs of consecutive numbers."""
    rows = np.asarray(rows)
    return np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []
