"""Scalers: numbers by hand, nothing learnt from outside the training rows, exact storage."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from market import DataError, Market, SettingError
from market.features.scaling import Scaler


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


@pytest.mark.parametrize("method", ["standard", "robust"])
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
    assert (again.transform(test_2).features == -10.0).all()


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


def test_storage_is_exact(random_market: Market) -> None:
    scaler = Scaler.fit(random_market, clip=3.0)
    assert Scaler.from_json(scaler.to_json()) == scaler


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
    with pytest.raises(SettingError, match="method must be 'standard' or 'robust', got 'minmax'"):
        Scaler.fit(random_market, method="minmax")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="clip must be > 0, got 0"):
        Scaler.fit(random_market, clip=0)
