"""The simulated farm against answers that can be worked out by hand."""

import pytest

from benchmarks.scale_out import Farm, simulate, table

ALIKE = Farm(workers=10, duration=100.0, spread=0.0, start=20.0, desk=0.0)


def test_equal_trials_take_as_many_turns_as_there_are_trials_for_each_worker():
    played = simulate(ALIKE, 40)
    assert played.hours == pytest.approx((20.0 + 4 * 100.0) / 3600.0)
    assert played.efficiency == pytest.approx(400.0 / 420.0)
    assert simulate(ALIKE, 41).hours == pytest.approx((20.0 + 5 * 100.0) / 3600.0)


def test_a_slow_desk_is_the_bottleneck_it_must_be():
    desk = Farm(workers=1000, duration=1.0, spread=0.0, start=0.0, desk=0.5)
    assert simulate(desk, 200).hours == pytest.approx((200 * 0.5 + 1.0) / 3600.0)


def test_one_straggler_holds_no_more_than_the_trials_it_took():
    slow = Farm(workers=1, duration=10.0, spread=0.0, start=0.0, desk=0.0, slow=1.0, slowness=3.0)
    assert simulate(slow, 4).hours == pytest.approx(4 * 30.0 / 3600.0)


def test_lost_trials_are_done_again_and_none_is_forgotten():
    farm = Farm(workers=20, duration=60.0, spread=0.3, start=5.0, losses=5.0)
    lossy, sound = simulate(farm, 400), simulate(Farm(workers=20, duration=60.0, start=5.0), 400)
    assert 10 < lossy.redone < 80  # about 400 x 5 / 60 losses, and again of those
    assert lossy.hours > sound.hours
    assert lossy.efficiency < 1.0
    assert simulate(farm, 400) == lossy  # by its seed alone


def test_the_table_has_a_row_a_case():
    rows = table(30.0, 1.0, trials=500)
    assert len(rows) == 9
    assert all(row.count("|") == 5 for row in rows)
