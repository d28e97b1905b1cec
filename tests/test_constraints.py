"""Limits on weights: what they mean, when they are refused, and how a set applies them."""

import dataclasses
import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from envs.constraints import (
    CONSTRAINTS,
    Cardinality,
    CashFloor,
    ConstraintSet,
    GroupCap,
    MaxWeight,
    MinWeight,
    StopLoss,
    TurnoverCap,
    VolatilityTarget,
)
from market import ActionError, DataError, Market, SettingError

NAMES = ("gold", "silver", "oil", "gas", "tech", "banks")
SECTORS = dict(
    zip(NAMES, ("metals", "metals", "energy", "energy", "stocks", "stocks"), strict=True)
)


def six(cash_rate: float | None = 0.0, periods: int = 100, **fields) -> Market:
    """Six risky assets in three sectors, and cash."""
    rng = np.random.default_rng(3)
    prices = 100.0 * np.cumprod(1.0 + rng.normal(0.0, 0.01, (periods, 6)), axis=0)
    dates = pd.bdate_range("2020-01-01", periods=periods)
    frame = pd.DataFrame(prices, index=dates, columns=list(NAMES))
    return Market.from_prices(frame, cash_rate=cash_rate, sectors=SECTORS, **fields)


def project(market: Market, *constraints, weights, held=None, tradable=None) -> np.ndarray:
    return ConstraintSet.build(constraints, market).project(
        np.array(weights, float), held, tradable
    )


def test_max_weight_is_for_every_asset_but_cash() -> None:
    weights = project(six(), MaxWeight(0.3), weights=[0.1, 0, 0, 0, 0, 0, 0.9])
    np.testing.assert_array_equal(weights, [0.1, 0, 0, 0, 0, 0, 0.9])
    weights = project(six(), MaxWeight(0.3), weights=[0.9, 0, 0, 0, 0, 0, 0.1])
    np.testing.assert_allclose(weights, [0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2], atol=1e-15)


def test_limits_of_named_assets() -> None:
    asked = [0.5, 0.5, 0, 0, 0, 0, 0]
    for limit in (MaxWeight({"gold": 0.2, "cash": 0.0}), MaxWeight(0.2, ("gold",))):
        weights = project(six(), limit, MaxWeight({"cash": 0.0}), weights=asked)
        np.testing.assert_allclose(weights, [0.2, 0.56, 0.06, 0.06, 0.06, 0.06, 0], atol=1e-15)
    weights = project(six(), MinWeight({"oil": 0.2, "gas": 0.1}), weights=asked)
    np.testing.assert_allclose(weights, [0.35, 0.35, 0.2, 0.1, 0, 0, 0], atol=1e-15)


def test_groups() -> None:
    asked = [0.5, 0.3, 0.1, 0.1, 0, 0, 0]
    weights = project(six(), GroupCap("metals", 0.4), weights=asked)
    np.testing.assert_allclose(weights[:2], [0.3, 0.1], atol=1e-15)
    np.testing.assert_allclose(weights[2:], [0.18, 0.18, 0.08, 0.08, 0.08], atol=1e-15)
    own = GroupCap("real", 0.6, floor=0.5, assets=("gold", "oil", "gas"))
    weights = project(six(), own, weights=[0.1, 0.5, 0.1, 0.1, 0.1, 0.1, 0])
    assert weights[[0, 2, 3]].sum() == pytest.approx(0.5, abs=1e-15)
    weights = project(six(), GroupCap("*", 0.25), weights=[0.4, 0, 0.3, 0, 0.3, 0, 0])
    np.testing.assert_allclose(weights.reshape(-1)[:6].reshape(3, 2).sum(axis=1), 0.25, atol=1e-14)


def test_cash_floor() -> None:
    weights = project(six(), CashFloor(0.3), weights=[0.4, 0.6, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(weights, [0.25, 0.45, 0, 0, 0, 0, 0.3], atol=1e-15)


@pytest.mark.parametrize(
    ("limits", "same"),
    [
        ((GroupCap("all", 0.8, assets=NAMES),), (CashFloor(0.2),)),
        (
            (GroupCap("one", 0.3, 0.1, ("oil",)),),
            (MaxWeight({"oil": 0.3}), MinWeight({"oil": 0.1})),
        ),
        (
            (GroupCap("rest", 0.5, 0.2, ("cash", "tech", "banks")),),
            (GroupCap("reals", 0.8, 0.5, NAMES[:4]),),
        ),
        ((GroupCap("energy", 0.5), GroupCap("energy", 0.9)), (GroupCap("energy", 0.5),)),
    ],
)
def test_groups_that_say_the_same_do_the_same(limits, same) -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(0.2, 0.4, (40, 7))
    one, other = (ConstraintSet.build(given, six()).project(scores) for given in (limits, same))
    np.testing.assert_allclose(one, other, atol=1e-13)


def test_turnover_counts_risky_trades_from_what_is_held() -> None:
    held = np.array([0.5, 0, 0, 0, 0, 0, 0.5])
    cap = ConstraintSet.build([TurnoverCap(0.1)], six())
    weights = cap.project(np.array([0.5, 0.5, 0, 0, 0, 0, 0]), held)
    np.testing.assert_allclose(weights, [0.5, 0.2, 0, 0, 0, 0, 0.3], atol=1e-15)
    free = cap.project(np.array([0.5, 0.5, 0, 0, 0, 0, 0]))
    np.testing.assert_array_equal(free, [0.5, 0.5, 0, 0, 0, 0, 0])


def test_any_leading_shape_and_one_bit_pattern() -> None:
    rng = np.random.default_rng(2)
    limits = ConstraintSet.build([MaxWeight(0.3), GroupCap("*", 0.4), TurnoverCap(0.2)], six())
    scores, held = rng.normal(size=(3, 4, 7)), rng.dirichlet(np.ones(7), (3, 4))
    weights = limits.project(scores, held)
    for i, j in np.ndindex(3, 4):
        np.testing.assert_array_equal(weights[i, j], limits.project(scores[i, j], held[i, j]))


def test_what_cannot_be_traded_gets_nothing() -> None:
    tradable = np.array([True, False, True, True, True, True, True])
    asked = np.array([[0.2, 0.5, 0, 0, 0, 0, 0.3], [1, 0, 0, 0, 0, 0, 0]], float)
    weights = project(six(), MaxWeight(0.6), MinWeight(0.05), weights=asked, tradable=tradable)
    assert (weights[:, 1] == 0.0).all() and (weights[:, [0, 2, 3, 4, 5]] >= 0.05).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)


def test_caps_are_raised_by_one_factor_where_the_rest_cannot_hold_everything() -> None:
    """Without cash, three assets under a cap of 0.2 each hold a third; 0.4 and 0.2 hold 2 to 1."""
    market = six(cash_rate=None)
    three = np.array([True, True, True, False, False, False])
    weights = project(market, MaxWeight(0.2), weights=[0.9, 0.1, 0, 0, 0, 0], tradable=three)
    np.testing.assert_allclose(weights, [1 / 3, 1 / 3, 1 / 3, 0, 0, 0], atol=1e-7)
    caps = MaxWeight(dict(zip(NAMES, (0.4, 0.2, 0.2, 0.2, 0.2, 0.2), strict=True)))
    two = np.array([True, True, False, False, False, False])
    weights = project(market, caps, weights=[0.5, 0.5, 0, 0, 0, 0], tradable=two)
    np.testing.assert_allclose(weights, [2 / 3, 1 / 3, 0, 0, 0, 0], atol=1e-7)
    with pytest.raises(DataError, match="no asset can be held"):
        project(market, MaxWeight(0.2), weights=np.eye(6)[0], tradable=np.zeros(6, bool))


@pytest.mark.parametrize("has_cash", [True, False])
def test_cardinality_is_the_nearest_of_all_choices(has_cash: bool) -> None:
    """Against every choice of three assets, where all have the same cap."""
    market = six(0.0 if has_cash else None)
    scores = np.random.default_rng(4).normal(0.2, 0.4, (200, market.n_assets))
    weights = project(market, Cardinality(3), MaxWeight(0.5), weights=scores)
    assert ((weights[:, :6] > 0).sum(axis=1) <= 3).all()
    distances = []
    for kept in itertools.combinations(range(6), 3):
        only = MaxWeight({NAMES[i]: 0.5 * (i in kept) for i in range(6)})
        chosen = project(market, only, weights=scores)
        distances.append(np.linalg.norm(chosen - scores, axis=1))
    nearest = np.linalg.norm(weights - scores, axis=1)
    np.testing.assert_allclose(nearest, np.min(distances, axis=0), atol=1e-12)


def test_cardinality_keeps_assets_with_floors() -> None:
    weights = project(
        six(), Cardinality(2), MinWeight({"oil": 0.1}), weights=[0.3, 0.3, 0, 0, 0.4, 0, 0]
    )
    np.testing.assert_allclose(weights, [0, 0, 0.2, 0, 0.6, 0, 0.2], atol=1e-15)


def test_cardinality_leaves_room_for_group_floors_and_passes_by_what_cannot_be_traded() -> None:
    limits = Cardinality(2), GroupCap("metals", 1.0, 0.2), GroupCap("energy", 1.0, 0.1)
    asked = [0.1, 0.2, 0, 0.1, 0.3, 0.3, 0]
    weights = project(six(), *limits, weights=asked)
    assert np.flatnonzero(weights[:6]).tolist() == [1, 3]
    tradable = np.array([True, False, False, False, True, True, True])
    weights = project(six(), *limits, weights=asked, tradable=tradable)
    np.testing.assert_allclose(weights, [0.3, 0, 0, 0, 0.5, 0, 0.2], atol=1e-15)


def test_violation_by_hand_in_numpy_and_torch() -> None:
    limits = ConstraintSet.build(
        [MaxWeight(0.3), MinWeight({"gas": 0.1}), GroupCap("metals", 0.5), TurnoverCap(0.2)], six()
    )
    weights = np.array([[0.4, 0.3, 0.1, 0, 0, 0, 0.2], [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4]])
    held = np.tile(np.eye(7)[6], (2, 1))
    expected = [0.1 + 0.1 + 0.2 + 0.2, 0.1]  # cap, floor, group, turnover 0.4; turnover 0.3
    np.testing.assert_allclose(limits.violation(weights, held), expected, atol=1e-15)
    np.testing.assert_allclose(limits.violation(weights), [0.4, 0.0], atol=1e-15)
    inputs = torch.tensor(weights, requires_grad=True)
    total = limits.violation(inputs, torch.tensor(held))
    np.testing.assert_allclose(total.detach().numpy(), expected, atol=1e-15)
    total.sum().backward()
    assert inputs.grad is not None and inputs.grad[0, 0] == 2.5  # cap, group and half of turnover


def test_violation_of_projected_weights_is_nothing() -> None:
    rng = np.random.default_rng(5)
    limits = ConstraintSet.build(
        [Cardinality(4), MaxWeight(0.3), GroupCap("*", 0.4, 0.05), CashFloor(0.02)], six()
    )
    scores = rng.normal(size=(50, 7))
    assert (limits.violation(scores) > 0.1).all()
    assert limits.violation(limits.project(scores)).max() <= 1e-12


def test_an_empty_set_is_falsy_and_changes_nothing() -> None:
    limits = ConstraintSet.build((), six())
    assert not limits and limits.initial((3,)) == {} and limits.names == ()
    assert ConstraintSet.build([MaxWeight(0.5)], six())
    weights = np.full((2, 7), 1 / 7)
    target, memory, binding, unmet = limits.apply(weights, weights, 5, {}, np.zeros(2), np.ones(2))
    assert target is not None and memory == {} and binding == {} and not unmet.any()
    np.testing.assert_array_equal(target, weights)
    np.testing.assert_allclose(limits.project(np.array([2.0, 0, 0, 0, 0, 0, 0])), np.eye(7)[0])


def applied(limits: ConstraintSet, target, held, t=50):
    shape = np.shape(target)[:-1]
    given = np.array(target, float), np.array(held, float)
    return limits.apply(*given, t, limits.initial(shape), np.zeros(shape), np.ones(shape))


def test_apply_tells_which_limit_was_at_work() -> None:
    limits = ConstraintSet.build([MaxWeight(0.4), GroupCap("metals", 0.7), TurnoverCap(0.3)], six())
    cash, half = np.eye(7)[6], np.array([0.3, 0.3, 0, 0, 0, 0, 0.4])
    targets = [
        [0.5, 0, 0, 0, 0, 0, 0.5],
        [0.4, 0.4, 0.2, 0, 0, 0, 0],
        half,
        [0, 0, 0.1, 0, 0, 0, 0.9],
    ]
    _, _, binding, unmet = applied(limits, targets, [cash, half, half, half])
    assert binding["max_weight"].tolist() == [True, False, False, False]
    assert binding["group_cap:metals"].tolist() == [False, True, False, False]
    assert binding["turnover_cap"].tolist() == [False, False, False, True]
    assert not unmet.any()
    assert limits.names == ("max_weight", "group_cap:metals", "turnover_cap")


def test_a_limit_that_just_touches_is_not_at_work() -> None:
    limits = ConstraintSet.build([MaxWeight(0.4)], six())
    target, _, binding, _ = applied(limits, [0.4, 0, 0, 0, 0, 0, 0.6], np.eye(7)[6])
    np.testing.assert_array_equal(target, [0.4, 0, 0, 0, 0, 0, 0.6])
    assert binding["max_weight"].shape == () and not binding["max_weight"]


def test_limits_on_weights_win_over_turnover_and_the_date_counts_as_unmet() -> None:
    limits = ConstraintSet.build([MinWeight(0.1), TurnoverCap(0.2)], six())
    target, _, _, unmet = applied(limits, [0, 0, 0, 0, 0, 0, 1], np.eye(7)[6])
    np.testing.assert_allclose(target, [0.1] * 6 + [0.4], atol=1e-12)  # a turnover of 0.3
    assert unmet
    target, _, _, unmet = applied(limits, [0, 0, 0, 0, 0, 0, 1], target)
    np.testing.assert_allclose(target, [0.1] * 6 + [0.4], atol=1e-12)
    assert not unmet


def test_a_floor_on_what_cannot_be_traded_is_unmet() -> None:
    market = six()
    tradable = market.tradable.copy()
    tradable[50, 1] = False
    held = np.full(7, 1 / 7)
    limits = ConstraintSet.build([MinWeight(0.1)], dataclasses.replace(market, tradable=tradable))
    target, _, _, unmet = applied(limits, held, held)
    assert target[1] == 0.0 and unmet
    assert not applied(limits, held, held, t=51)[3]


def test_apply_is_the_same_alone_and_in_a_batch() -> None:
    """With every kind of state, bit for bit, over a path."""
    market = six(periods=90)
    limits = ConstraintSet.build(
        [
            MaxWeight(0.35),
            GroupCap("*", 0.5),
            TurnoverCap(0.15),
            VolatilityTarget(0.08, window=20),
            StopLoss(0.02, reentry=3),
        ],
        market,
    )
    rng = np.random.default_rng(6)
    n_rows = 12
    batch = limits.initial((n_rows,))
    single = [limits.initial(()) for _ in range(n_rows)]
    held, times = rng.dirichlet(np.ones(7), n_rows), rng.integers(25, 60, n_rows)
    value, seen = np.ones(n_rows), set()
    for _ in range(25):
        asked = rng.dirichlet(np.ones(7), n_rows)
        down = np.zeros(n_rows)
        target, batch, binding, unmet = limits.apply(asked, held, times, batch, down, value)
        for i in range(n_rows):
            mine, single[i], bound, missed = limits.apply(
                asked[i], held[i], int(times[i]), single[i], 0.0, value[i]
            )
            np.testing.assert_array_equal(mine, target[i])
            assert missed == unmet[i]
            assert {key: bool(flag) for key, flag in bound.items()} == {
                key: bool(flag[i]) for key, flag in binding.items()
            }
        seen |= {key for key, flag in binding.items() if flag.any()}
        value, held = value * (1.0 + rng.normal(0, 0.01, n_rows)), target
        times = times + 1
    assert seen >= {"max_weight", "turnover_cap", "volatility_target", "stop_loss"}


def test_a_scalar_row_number_means_the_same_row_for_all() -> None:
    limits = ConstraintSet.build([VolatilityTarget(0.05, window=20)], six())
    asked = np.random.default_rng(7).dirichlet(np.ones(7), 5)
    one = applied(limits, asked, asked, t=60)[0]
    each = applied(limits, asked, asked, t=np.full(5, 60))[0]
    np.testing.assert_array_equal(one, each)


def test_the_order_is_limits_then_overlays() -> None:
    """A risk limit wins over a floor, and the floor is then unmet."""
    limits = ConstraintSet.build([MinWeight(0.15), VolatilityTarget(0.01, window=20)], six())
    held = np.append(np.full(6, 0.15), 0.1)
    target, _, binding, unmet = applied(limits, held, held)
    assert binding["volatility_target"] and unmet and target[6] > 0.5


def test_nothing_given_is_changed() -> None:
    limits = ConstraintSet.build([MaxWeight(0.3), StopLoss(0.1), VolatilityTarget(0.02)], six())
    memory = limits.initial((3,))
    rng = np.random.default_rng(8)
    asked, held = rng.dirichlet(np.ones(7), (2, 3))
    for array in (asked, held, *memory.values()):
        array.flags.writeable = False
    target, following, _, _ = limits.apply(asked, held, 60, memory, np.zeros(3), np.ones(3))
    assert target.shape == (3, 7) and (following["stop_loss.peak"] == 1.0).all()
    assert (memory["stop_loss.peak"] == 0.0).all()


def test_a_set_survives_pickling() -> None:
    limits = ConstraintSet.build([MaxWeight(0.3), TurnoverCap(0.1), VolatilityTarget(0.05)], six())
    again = pickle.loads(pickle.dumps(limits))  # noqa: S301  # our own bytes
    asked = np.random.default_rng(9).dirichlet(np.ones(7), 4)
    held = np.full((4, 7), 1 / 7)
    np.testing.assert_array_equal(applied(limits, asked, held)[0], applied(again, asked, held)[0])


def test_names_are_told_apart() -> None:
    market = six()
    limits = ConstraintSet.build(
        [MaxWeight(0.5), MaxWeight(0.4), MaxWeight({"gold": 0.1}), StopLoss(0.1), StopLoss(0.2)],
        market,
    )
    assert limits.names == (
        "max_weight",
        "max_weight:2",
        "max_weight:gold",
        "stop_loss",
        "stop_loss:2",
    )
    assert set(limits.initial((2,))) == {
        f"{name}.{key}"
        for name in ("stop_loss", "stop_loss:2")
        for key in ("peak", "days_out", "trough")
    }
    assert all(cls.__name__ for cls in CONSTRAINTS.values()) and len(CONSTRAINTS) == 10


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ([MinWeight(0.3)], "MinWeight 0.3 on 6 assets needs 1.8 > 1"),
        (
            [MinWeight(0.1), CashFloor(0.5)],
            "MinWeight 0.1 on 6 assets and CashFloor 0.5 on cash need 1.1 > 1",
        ),
        (
            [MaxWeight(0.9), MinWeight({"gold": 0.5}), MaxWeight({"gold": 0.2})],
            "MinWeight 0.5 on gold and MaxWeight 0.2 on gold collide on gold: 0.5 > 0.2",
        ),
        (
            [GroupCap("metals", 1.0, 0.5), MaxWeight(0.2)],
            "GroupCap metals 1 with floor 0.5 and MaxWeight 0.2 on 6 assets collide: "
            "the group's assets reach 0.4 < 0.5",
        ),
        (
            [GroupCap("metals", 0.2), MinWeight(0.15)],
            "GroupCap metals 0.2 and MinWeight 0.15 on 6 assets collide: "
            "the group's assets need 0.3 > 0.2",
        ),
        ([Cardinality(1), MinWeight(0.01)], "cannot be met together"),
    ],
)
def test_limits_that_collide_are_refused_with_the_arithmetic(constraints, message) -> None:
    with pytest.raises(SettingError) as refused:
        ConstraintSet.build(constraints, six())
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ([MaxWeight(0.1)], "MaxWeight 0.1 on 6 assets reaches 0.6 < 1 and there is no cash"),
        (
            [MaxWeight(0.4), Cardinality(2), GroupCap("metals", 0.9)],
            "MaxWeight 0.4 on 6 assets and Cardinality 2 reach 0.8 < 1 and there is no cash",
        ),
        ([GroupCap("*", 0.3)], "reaches 0.9 < 1 and there is no cash"),
    ],
)
def test_without_cash_caps_must_leave_room_for_everything(constraints, message) -> None:
    with pytest.raises(SettingError) as refused:
        ConstraintSet.build(constraints, six(cash_rate=None))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (lambda: MaxWeight({"golf": 0.1}), "did you mean 'gold'"),
        (lambda: MinWeight(0.1, ("golf",)), "did you mean 'gold'"),
        (lambda: GroupCap("metal", 0.1), "did you mean 'metals'"),
        (lambda: GroupCap("own", 0.1, assets=("golf",)), "did you mean 'gold'"),
        (lambda: MaxWeight(1.5), "MaxWeight: limit must be in [0, 1], got 1.5"),
        (lambda: MinWeight({"gold": -0.1}), "MinWeight: limit of gold must be in [0, 1], got -0.1"),
        (lambda: GroupCap("metals", 0.1, 0.2), "floor 0.2 must not exceed cap 0.1"),
        (lambda: TurnoverCap(float("nan")), "TurnoverCap: limit must be in [0, 1], got nan"),
        (lambda: CashFloor(2), "CashFloor: limit must be in [0, 1], got 2"),
        (lambda: Cardinality(0), "Cardinality: count must be a whole number >= 1, got 0"),
        (lambda: "max_weight", "constraint 'max_weight' must be one of"),
    ],
)
def test_mistakes_are_named(constraint, message) -> None:
    with pytest.raises(SettingError) as refused:
        ConstraintSet.build([constraint()], six())
    assert message in str(refused.value)


def test_cash_limits_need_cash() -> None:
    with pytest.raises(SettingError, match=r"CashFloor 0.1 needs cash, and prices has none"):
        ConstraintSet.build([CashFloor(0.1)], six(cash_rate=None))


def test_scores_must_be_finite_and_of_the_right_shape() -> None:
    limits = ConstraintSet.build([MaxWeight(0.5)], six())
    for bad in (np.nan, np.inf):
        with pytest.raises(ActionError, match="must be finite"):
            limits.project(np.array([bad, 0, 0, 0, 0, 0, 0]))
    with pytest.raises(ActionError, match=r"last dimension of 7, got \(2, 6\)"):
        limits.project(np.zeros((2, 6)))
