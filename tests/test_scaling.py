"""Scalers: numbers by hand, nothing learnt from outside the training rows, exact storage."""

import dataclasses
import json
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from market import DataError, Market, SettingError
from market.features.scaling import Method, Scaler

METHODS: tuple[Method, ...] = get_args(Method)


def market_of(features: np.ndarray, context: np.ndarray | None = None, **fields: Any) -> Market:
    """Assets A, B, .. and cash with the features given, (T, N, F)."""
    n_periods, n_assets, n_features = features.shape
    index = pd.bdate_range("2020-01-01", periods=n_periods)
    frame = pd.DataFrame(1.0, index, [*"ABCDEFG"][: n_assets - 1])
    names = tuple(f"f{i}" for i in range(n_features))
    if context is not None:
        fields |= {
            "context": context,
            "context_names": tuple(f"c{i}" for i in range(len(context.T))),
        }
    return Market.from_prices(frame, features=features, feature_names=names, **fields)


@pytest.fixture
def random_market() -> Market:
    rng = np.random.default_rng(1)
    return market_of(
        rng.normal([5.0, -3.0], [2.0, 0.1], size=(300, 4, 2)), rng.normal(7, 3, size=(300, 1))
    )


def test_standard_scaling_pools_risky_assets_and_leaves_cash_out() -> None:
    features = np.array([[1.0, 3.0, 100.0], [5.0, 7.0, 100.0]])[:, :, None]  # mean 4, std sqrt(5)
    scaler = Scaler.fit(market_of(features, context=np.array([[2.0], [6.0]])))
    assert scaler.center == (4.0,)
    assert scaler.scale == pytest.approx((5**0.5,))
    assert (scaler.context_center, scaler.context_scale) == ((4.0,), (2.0,))
    scaled = scaler.transform(market_of(features, context=np.array([[2.0], [6.0]])))
    expected = (np.array([[1.0, 3.0], [5.0, 7.0]]) - 4) / 5**0.5
    np.testing.assert_allclose(scaled.features[:, :2, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(scaled.features[:, 2, 0], 10.0)  # clipped
    np.testing.assert_allclose(scaled.context[:, 0], [-1.0, 1.0])


def test_robust_scaling_ignores_an_outlier(random_market: Market) -> None:
    features = random_market.features.copy()
    features[7, 1] = 1e6
    spoilt = dataclasses.replace(random_market, features=features)
    clean, robust = (Scaler.fit(m, method="robust") for m in (random_market, spoilt))
    assert robust.scale == pytest.approx(clean.scale, rel=0.02)
    assert clean.scale == pytest.approx((2.0, 0.1), rel=0.1)
    assert clean.center == pytest.approx((5.0, -3.0), rel=0.05)
    assert Scaler.fit(spoilt).scale[0] > 1000


def test_train_is_centred_with_unit_scale(random_market: Market) -> None:
    scaled = Scaler.fit(random_market).transform(random_market)
    risky = scaled.features[:, :-1].astype(np.float64)
    np.testing.assert_allclose(risky.mean(axis=(0, 1)), 0.0, atol=1e-5)
    np.testing.assert_allclose(risky.std(axis=(0, 1)), 1.0, rtol=1e-5)
    assert scaled.features.dtype == np.float32
    np.testing.assert_array_equal(scaled.prices, random_market.prices)


@pytest.mark.parametrize("method", ["standard", "robust", "rank", "normal"])
def test_the_fit_never_sees_later_rows(random_market: Market, method: Any) -> None:
    train, _valid, _test = random_market.split(random_market.dates[150], random_market.dates[200])
    poison = random_market.features.copy(), random_market.context.copy()
    for panel in poison:
        panel[151:] = -1e3
    poisoned = dataclasses.replace(random_market, features=poison[0], context=poison[1])
    train_2, _, test_2 = poisoned.split(random_market.dates[150], random_market.dates[200])
    fitted, again = Scaler.fit(train, method), Scaler.fit(train_2, method)
    assert fitted == again
    np.testing.assert_array_equal(
        fitted.transform(random_market)[:151].features, again.transform(poisoned)[:151].features
    )
    assert Scaler.fit(random_market, method) != fitted
    least = {"rank": -1.0, "normal": stats.norm.ppf(0.001)}.get(method, -10.0)
    np.testing.assert_allclose(again.transform(test_2).features, least, rtol=1e-6)


def test_unlisted_cells_do_not_count(random_market: Market) -> None:
    prices = random_market.prices.copy()
    prices[:100, 0] = np.nan
    features = random_market.features.copy()
    features[:100, 0] = 1e4
    changes: dict[str, Any] = {"prices": prices, "returns": None, "tradable": None}
    late = dataclasses.replace(random_market, features=features, **changes)
    assert Scaler.fit(late).center == pytest.approx((5.0, -3.0), rel=0.05)


def test_a_constant_feature_stays_zero() -> None:
    features = np.full((50, 3, 2), 0.1)
    features[:, :, 1] = np.random.default_rng(0).normal(size=(50, 3))
    market = market_of(features, context=np.full((50, 1), 3.3))
    scaler = Scaler.fit(market)
    scaled = scaler.transform(market)
    assert scaler.scale[0] == 0.0
    assert (scaled.features[:, :, 0] == 0.0).all()
    assert (scaled.context == 0.0).all()
    moved = dataclasses.replace(market, features=features + 5.0)
    assert (scaler.transform(moved).features[:, :, 0] == 0.0).all()


def test_a_scaler_carries_over_to_another_number_of_assets(random_market: Market) -> None:
    scaler = Scaler.fit(random_market)
    rng = np.random.default_rng(2)
    wider = market_of(rng.normal(5, 2, size=(30, 7, 2)), rng.normal(size=(30, 1)))
    assert scaler.transform(wider).features.shape == (30, 7, 2)


@pytest.mark.parametrize("method", METHODS)
def test_storage_is_exact(random_market: Market, method: Method) -> None:
    scaler = Scaler.fit(random_market, method, clip=3.0, window=77)
    again = Scaler.from_json(scaler.to_json())
    assert again == scaler
    one, two = (x.transform(random_market) for x in (scaler, again))
    np.testing.assert_array_equal(one.features, two.features)
    np.testing.assert_array_equal(one.context, two.context)


def test_a_scaler_stored_before_there_were_ranks_still_loads(random_market: Market) -> None:
    scaler = Scaler.fit(random_market)
    stored = json.loads(scaler.to_json())
    for key in ("quantiles", "context_quantiles", "window"):
        del stored[key]
    assert Scaler.from_json(json.dumps(stored)) == scaler


def test_ranks_are_the_empirical_distribution_of_train(random_market: Market) -> None:
    scaled = Scaler.fit(random_market, "rank").transform(random_market)
    train = random_market.features[:, :3, 0].ravel()
    share = (stats.rankdata(train) - 0.5) / len(train)
    np.testing.assert_allclose(scaled.features[:, :3, 0].ravel(), 2 * share - 1, atol=0.006)
    late = random_market.with_values(random_market.features + 100.0, random_market.context - 100.0)
    beyond = Scaler.fit(random_market, "rank").transform(late)
    assert (beyond.features == 1.0).all() and (beyond.context == -1.0).all()


def test_ties_get_the_middle_of_their_ranks() -> None:
    values = np.repeat([0.0, 1.0, 3.0], [600, 300, 100])  # shares 0 .. 0.6, 0.6 .. 0.9, 0.9 .. 1
    market = market_of(np.column_stack([values, values])[:, :, None])
    scaled = Scaler.fit(market, "rank").transform(market).features[:, 0, 0]
    for value, middle in ((0.0, 0.3), (1.0, 0.75), (3.0, 0.95)):
        np.testing.assert_allclose(scaled[values == value], 2 * middle - 1, atol=0.005)


def test_normal_scores_are_normal_whatever_comes_in(random_market: Market) -> None:
    skewed = np.exp(random_market.features[:, :, :1])
    market = dataclasses.replace(random_market, features=skewed, feature_names=("f",))
    scaled = Scaler.fit(market, "normal").transform(market).features[:, :3, 0].ravel()
    order = stats.norm.ppf((stats.rankdata(skewed[:, :3].ravel()) - 0.5) / scaled.size)
    middle = np.abs(order) < 2.5
    np.testing.assert_allclose(scaled[middle], order[middle], atol=0.06)
    assert np.abs(scaled).max() == pytest.approx(stats.norm.ppf(1 - 0.001), abs=1e-3)


def test_a_rolling_score_is_an_assets_own_past(random_market: Market) -> None:
    scaler = Scaler.fit(random_market[:10], "rolling", window=30)
    assert scaler.lookback == 29 and Scaler.fit(random_market).lookback == 0
    scaled = scaler.transform(random_market)
    for t in (1, 20, 200):
        past = random_market.features[max(0, t - 29) : t + 1].astype(np.float64)
        expected = (past[-1] - past.mean(axis=0)) / past.std(axis=0, ddof=1)
        np.testing.assert_allclose(scaled.features[t], expected, rtol=1e-4, atol=1e-5)
        shared = random_market.context[max(0, t - 29) : t + 1, 0].astype(np.float64)
        expected = (shared[-1] - shared.mean()) / shared.std(ddof=1)
        assert scaled.context[t, 0] == pytest.approx(expected, rel=1e-4)
    assert (scaled.features[0] == 0.0).all()
    part = scaler.transform(random_market[100 - scaler.lookback :])
    np.testing.assert_allclose(part.features[29:], scaled.features[100:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_no_method_sees_later_rows_or_lets_a_constant_explode(
    random_market: Market, method: Method
) -> None:
    features = random_market.features.copy()
    features[:, :, 1] = 0.1
    market = dataclasses.replace(random_market, features=features)
    scaler = Scaler.fit(market[:150], method)
    whole, part = scaler.transform(market), scaler.transform(market.upto(200))
    np.testing.assert_array_equal(whole.features[:201], part.features)
    np.testing.assert_array_equal(whole.context[:201], part.context)
    assert (whole.features[:, :, 1] == 0.0).all()
    assert np.ptp(whole.features[:, 0, 0]) > 1.0


def test_an_unknown_method_in_a_file_is_refused(random_market: Market) -> None:
    text = Scaler.fit(random_market).to_json().replace("standard", "magic")
    with pytest.raises(DataError, match="not what to_json writes: method 'magic'"):
        Scaler.from_json(text)


@pytest.mark.parametrize("text", ["{", "[]", '{"mean": 1}', '"x"'])
def test_a_damaged_file_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="scaler: not what to_json writes"):
        Scaler.from_json(text)


def test_other_features_are_refused(random_market: Market) -> None:
    scaler = Scaler.fit(random_market)
    renamed = dataclasses.replace(random_market, feature_names=("f1", "f0"))
    with pytest.raises(DataError, match=r"fitted on \('f0', 'f1'\), got \('f1', 'f0'\)"):
        scaler.transform(renamed)


def test_bad_settings_are_named(random_market: Market) -> None:
    with pytest.raises(
        SettingError, match=r"method must be 'standard' or 'robust' .*, got 'minmax'"
    ):
        Scaler.fit(random_market, method="minmax")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="window must be a whole number >= 2, got 1"):
        Scaler.fit(random_market, "rolling", window=1)
    with pytest.raises(SettingError, match="clip must be > 0, got 0"):
        Scaler.fit(random_market, clip=0)
