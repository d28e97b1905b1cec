"""Splits by brute force over labels: what training knows and what a test judges never meet."""

import numpy as np
import pytest

from experiments.splits import combinatorial, gaps, stretches, walk_forward
from market.errors import DataError, SettingError


def label(sample, horizon):
    return set(range(sample + 1, sample + horizon + 1))


def seen(sample, lookback, lag, memory):
    return set(range(sample - lookback - lag - memory + 1, sample - lag + 1))


@pytest.mark.parametrize(("rolling", "horizon"), [(None, 1), (None, 5), (30, 1), (30, 5)])
def test_walk_forward_windows_tile_the_test_days_and_look_back_only(rolling, horizon):
    windows = walk_forward(203, 120, 25, n_valid=20, n_train=rolling, horizon=horizon)
    tests = [row for window in windows for row in range(*window.test)]
    assert tests == list(range(120, 203))
    assert [window.test[1] - window.test[0] for window in windows] == [25, 25, 25, 8]
    for window in windows:
        assert window.train[1] == window.valid[0] and window.valid[1] == window.test[0]
        assert window.valid[1] - window.valid[0] == 20
        # C11: whatever a market that ends here can hold as a label ends before the first test row
        labels = [max(label(t, horizon)) for t in range(window.valid[1] - horizon)]
        assert max(labels) < window.test[0]
        assert window.train[0] == (0 if rolling is None else window.valid[0] - rolling - 1)


def test_walk_forward_is_skfolios():
    from skfolio.model_selection import WalkForward

    cut = WalkForward(test_size=25, train_size=100, reduce_test=True, expand_train=True)
    theirs = [(train[-1], test[0], test[-1]) for train, test in cut.split(np.zeros((202, 1)))]
    ours = walk_forward(203, 101, 25, n_valid=20)
    assert [(w.test[0] - 2, w.test[0] - 1, w.test[1] - 2) for w in ours] == theirs


@pytest.mark.parametrize("given", [(100, 100, 10, 20), (100, 15, 10, 20), (100, 22, 10, 20)])
def test_windows_that_do_not_fit_are_refused(given):
    rows, first, every, n_valid = given
    with pytest.raises(DataError, match="walk-forward"):
        walk_forward(rows, first, every, n_valid=n_valid)
    with pytest.raises(DataError, match="walk-forward"):
        walk_forward(100, 60, 10, n_valid=20, n_train=50)


@pytest.mark.parametrize(
    ("lookback", "horizon", "lag", "memory"), [(1, 1, 0, 0), (5, 1, 0, 0), (5, 4, 1, 3)]
)
def test_purge_and_embargo_keep_labels_and_windows_apart_and_no_sample_more(
    lookback, horizon, lag, memory
):
    spaces = gaps(lookback, horizon, lag, memory)
    for fold in combinatorial(300, spaces, n_folds=6, n_test=2):
        tested = np.concatenate(fold.tests)
        judged = set().union(*(label(t, horizon) for t in tested))
        kept = {int(t) for part in fold.train for t in part}
        for t in kept:
            assert not label(t, horizon) & judged
            if t > tested.min():  # after a test it must not see what was judged either
                assert not seen(t, lookback, lag, memory) & judged
        for t in set(range(299)) - kept - set(tested.tolist()):
            after = t > tested.min() and seen(t, lookback, lag, memory) & judged
            assert label(t, horizon) & judged or after, t


def test_every_fold_is_judged_on_every_path_once():
    folds = list(combinatorial(301, gaps(3), n_folds=6, n_test=2))
    assert len(folds) == 15  # 6 choose 2
    paths: dict[int, list[int]] = {}
    for fold in folds:
        for rows, path in zip(fold.tests, fold.paths, strict=True):
            paths.setdefault(path, []).extend(rows.tolist())
    assert sorted(paths) == [0, 1, 2, 3, 4]  # 2 / 6 * 15
    assert all(sorted(rows) == list(range(300)) for rows in paths.values())


def test_what_is_out_of_range_is_refused():
    with pytest.raises(SettingError, match="`horizon` must be at least 1, got 0"):
        gaps(5, 0)
    with pytest.raises(DataError, match="too short"):
        list(combinatorial(100, gaps(30)))


def test_stretches():
    assert [part.tolist() for part in stretches([1, 2, 5, 6, 7, 9])] == [[1, 2], [5, 6, 7], [9]]
    assert stretches([]) == []
