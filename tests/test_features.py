"""Features: each against a plain loop over one asset's past, and none may know the future."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import mahalanobis

from market import DataError, Market, SettingError, load_market
from market.features import (
    DEFAULT_FEATURES,
    FEATURES,
    build_features,
    canonical,
    parse_feature,
    warmup_rows,
)

T = 220


def random_market(seed: int = 3, n_periods: int = T) -> Market:
    """Four assets, the third listed late, the fourth delisted early, and cash."""
    rng = np.random.default_rng(seed)
    steps = 0.015 * rng.standard_t(4, size=(n_periods, 4))
    closes = 50.0 * np.exp(np.cumsum(steps, axis=0))
    spread = np.abs(rng.normal(0, 0.01, size=(2, n_periods, 4)))
    lows, highs = closes * (1 - spread[0]), closes * (1 + spread[1])
    volume = rng.lognormal(10, 1, size=(n_periods, 4))
    for panel in (closes, lows, highs, volume):
        panel[:60, 2] = np.nan
        panel[n_periods - 20 :, 3] = np.nan
    with_cash = lambda panel: np.column_stack([panel, np.full(n_periods, np.nan)])  # noqa: E731
    yields = 0.03 + 0.001 * np.cumsum(rng.normal(size=(n_periods, 2)), axis=0)
    return Market.from_prices(
        pd.DataFrame(
            closes, pd.bdate_range("2015-01-01", periods=n_periods), [*"ABCD"], dtype=np.float64
        ),
        cash_rate=0.02,
        highs=with_cash(highs),
        lows=with_cash(lows),
        opens=with_cash(closes),
        volume=with_cash(volume),
        context=yields,
        context_names=("yield_3m", "yield_10y"),
        name="random",
    )


def rebuilt(market: Market, **changes: Any) -> Market:
    """The market with other panels; returns and features follow from the prices again."""
    changes = {"returns": None, "features": None, "feature_names": ()} | changes
    return dataclasses.replace(market, **changes)


def loop_return(prices: list[float], t: int, days: int) -> float:
    return prices[t] / prices[t - days] - 1


def loop_average_ratio(prices: list[float], t: int, window: int) -> float:
    return prices[t] / (sum(prices[t - window + 1 : t + 1]) / window) - 1


def loop_volatility(prices: list[float], t: int, window: int) -> float:
    returns = [prices[s] / prices[s - 1] - 1 for s in range(t - window + 1, t + 1)]
    mean = sum(returns) / window
    return (sum((x - mean) ** 2 for x in returns) / (window - 1)) ** 0.5


def loop_rsi(prices: list[float], t: int, window: int) -> float:
    changes = [prices[s] - prices[s - 1] for s in range(1, t + 1)]
    up = sum(max(x, 0) for x in changes[:window]) / window
    down = sum(max(-x, 0) for x in changes[:window]) / window
    for change in changes[window:]:
        up = (up * (window - 1) + max(change, 0)) / window
        down = (down * (window - 1) + max(-change, 0)) / window
    return 100 - 100 / (1 + up / down)


def loop_ema(values: list[float], span: int) -> list[float]:
    means = [values[0]]
    for value in values[1:]:
        means.append(value * 2 / (span + 1) + means[-1] * (1 - 2 / (span + 1)))
    return means


def loop_macd(prices: list[float], t: int, signal: int = 0) -> float:
    fast, slow = loop_ema(prices[: t + 1], 3), loop_ema(prices[: t + 1], 6)
    line = [a - b for a, b in zip(fast, slow, strict=True)]
    return (line[t] - (loop_ema(line, signal)[t] if signal else 0.0)) / prices[t]


def loop_bollinger(prices: list[float], t: int, window: int) -> float:
    past = prices[t - window + 1 : t + 1]
    mean = sum(past) / window
    return (prices[t] - mean) / (2 * (sum((x - mean) ** 2 for x in past) / window) ** 0.5)


def loop_drawdown(prices: list[float], t: int, window: int) -> float:
    return 1 - prices[t] / max(prices[t - window + 1 : t + 1])


@pytest.mark.parametrize(
    ("spec", "loop"),
    [
        ("macd(3, 6)", loop_macd),
        ("macd_histogram(3, 6, 4)", lambda p, t: loop_macd(p, t, 4)),
        ("bollinger(20)", lambda p, t: loop_bollinger(p, t, 20)),
        ("momentum(30, 10)", lambda p, t: p[t - 10] / p[t - 30] - 1),
        ("drawdown(40)", lambda p, t: loop_drawdown(p, t, 40)),
        ("return(5)", lambda p, t: loop_return(p, t, 5)),
        ("return(20)", lambda p, t: loop_return(p, t, 20)),
        ("moving_average_ratio(10)", lambda p, t: loop_average_ratio(p, t, 10)),
        ("volatility(20)", lambda p, t: loop_volatility(p, t, 20)),
        ("rsi(5)", lambda p, t: loop_rsi(p, t, 5)),
    ],
)
def test_a_feature_equals_its_loop(spec: str, loop: Callable) -> None:
    market = random_market()
    built = build_features(market, [spec])
    first = warmup_rows(built)[0]
    assert 0 < first < 80
    for column, listed in ((0, 0), (1, 0), (2, 60)):
        prices = market.prices[listed:, column].tolist()
        for t in (listed + first, 150, T - 1):
            expected = loop(prices, t - listed)
            assert built.features[t, column, 0] == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_ranges_and_volume_equal_their_loops() -> None:
    market = random_market(n_periods=320)
    built = build_features(market, ["parkinson_volatility(10)", "atr(4)", "volume_ratio(7)"])
    for column, listed in ((0, 0), (2, 60)):
        panels = (market.highs, market.lows, market.prices, market.volume)
        high, low, close, volume = (panel[listed:, column].tolist() for panel in panels)  # type: ignore[index]
        ranges = [
            max(high[s] - low[s], abs(high[s] - close[s - 1]), abs(low[s] - close[s - 1]))
            for s in range(1, len(close))
        ]
        for t in (140, 200):
            square = sum(math.log(high[s] / low[s]) ** 2 for s in range(t - 9, t + 1)) / 10
            mean = sum(ranges[:4]) / 4
            for value in ranges[4:t]:
                mean += (value - mean) / 4
            expected = [
                math.sqrt(square / 4 / math.log(2)),
                mean / close[t],
                volume[t] / (sum(volume[t - 6 : t + 1]) / 7) - 1,
            ]
            np.testing.assert_allclose(built.features[listed + t, column], expected, rtol=1e-5)
    assert (built.features[:, -1] == 0).all()  # cash has none of these


def test_correlation_against_numpy() -> None:
    market = random_market()
    built = build_features(market, ["correlation(30)", "correlation(30, 'B')"])
    assert built.names == ("correlation(30)", "correlation(30, B)")
    index = (market.returns[:, :2].sum(1) + np.nan_to_num(market.returns[:, 2:4]).sum(1)) / 4
    for t in (120, 190):
        rows = slice(t - 29, t + 1)
        for column in range(4):
            own = market.returns[rows, column]
            expected = [np.corrcoef(own, x[rows])[0, 1] for x in (index, market.returns[:, 1])]
            np.testing.assert_allclose(built.features[t, column], expected, rtol=1e-5)
    assert np.isnan(built.features[29, 0]).all() and np.isfinite(built.features[30, 0]).all()
    with pytest.raises(SettingError, match="'Z'; valid: A, B, C, D, cash"):
        build_features(market, ["correlation(30, 'Z')"])


def test_correlation_of_what_never_moves_is_zero() -> None:
    flat = Market.from_prices(
        pd.DataFrame({"A": 5.0, "B": np.arange(1.0, 41)}, pd.bdate_range("2020-01-01", periods=40))
    )
    found = build_features(flat, ["correlation(10)"]).features[11:, :, 0]
    np.testing.assert_allclose(found, np.broadcast_to([0.0, 1.0, 0.0], found.shape), atol=1e-6)


def test_turbulence_is_a_mahalanobis_distance_to_the_days_before() -> None:
    market = random_market(n_periods=150)
    scores = build_features(market, ["turbulence(40)"]).context[:, 0]
    assert np.isnan(scores[:41]).all() and np.isfinite(scores[41:]).all()
    for t, columns in ((50, [0, 1, 3]), (120, [0, 1, 2, 3]), (140, [0, 1, 2])):
        past, today = market.returns[t - 40 : t, columns], market.returns[t, columns]
        inverse = np.linalg.inv(np.cov(past.T))
        expected = mahalanobis(today, past.mean(0), inverse) ** 2 / len(columns)
        assert scores[t] == pytest.approx(expected, rel=1e-4)


def test_turbulence_averages_one_on_steady_returns() -> None:
    rng = np.random.default_rng(4)
    prices = np.exp(rng.normal(0, 0.01, size=(2000, 3)).cumsum(0))
    frame = pd.DataFrame(prices, pd.bdate_range("2000-01-01", periods=2000), [*"ABC"])
    scores = build_features(Market.from_prices(frame), ["turbulence"]).context[253:, 0]
    assert scores.mean() == pytest.approx(1.0, abs=0.08)


def test_return_over_one_period_is_the_markets_own_and_needs_no_warm_up() -> None:
    market = random_market()
    built = build_features(market, ["return"])
    assert warmup_rows(built) == (0, "")
    np.testing.assert_array_equal(built.features[:, :, 0], market.returns.astype(np.float32))


def test_wilder_strength_by_hand() -> None:
    prices = np.array([10.0, 11.0, 10.5, 11.5])  # up 1, down 0.5, up 1; window 2, seeded by two
    prices = np.concatenate([prices, np.full(40, 11.5)])
    market = Market.from_prices(
        pd.DataFrame({"A": prices}, index=pd.bdate_range("2020-01-01", periods=len(prices)))
    )
    from market.features.technical import wilder_mean

    up = wilder_mean(pd.DataFrame({"A": [np.nan, 1.0, 0.0, 1.0] + [0.0] * 20}), 2)[:, 0]
    assert up[-1] == pytest.approx(((1 / 2) + 1.0) / 2 / 2**20, rel=1e-12)
    strength = build_features(market, ["rsi(2)"]).features[-1, 0, 0]
    assert strength == pytest.approx(100 * 0.75 / (0.75 + 0.125), rel=1e-6)


def test_shared_features_are_context() -> None:
    market = random_market()
    built = build_features(market, ["term_spread", "return", "treasury_yield('10y')"])
    assert built.names == ("return",)
    assert built.context_names == ("term_spread", "treasury_yield(10y)")
    short, long = market.context.T.astype(np.float64)
    np.testing.assert_allclose(built.context, np.stack([long - short, long], 1), rtol=1e-6)


def test_cash_has_finite_features() -> None:
    built = build_features(random_market(), DEFAULT_FEATURES)
    first, _ = warmup_rows(built)
    cash = dict(zip(built.names, built.features[first:, -1].T, strict=True))
    assert all(np.isfinite(values).all() for values in cash.values())
    np.testing.assert_allclose(cash["rsi"], 100.0)
    assert (cash["volatility"] < 1e-4).all()
    flat = Market.from_prices(
        pd.DataFrame({"A": np.arange(1.0, 201)}, pd.bdate_range("2020-01-01", periods=200))
    )
    still = build_features(flat, DEFAULT_FEATURES[:-2])
    idle = still.features[warmup_rows(still)[0] :, -1]
    np.testing.assert_array_equal(idle, np.broadcast_to([0, 0, 0, 0, 0, 0, 50.0], idle.shape))


def test_assets_without_history_are_neutral() -> None:
    market = random_market()
    built = build_features(market, ["rsi(5)", "return(20)"])
    assert (built.features[:60, 2] == [50.0, 0.0]).all()
    assert (built.features[200:, 3] == [50.0, 0.0]).all()
    assert (built.features[60:80, 2, 1] == 0.0).all()
    assert (built.features[81:, 2, 1] != 0.0).all()


SPECS = [name for name in FEATURES] + ["return(5)", "volatility(60)", "rsi(3)", "turbulence(60)"]


def pieces(market: Market, spec: str, t: int) -> np.ndarray:
    built = build_features(market, [spec])
    return np.concatenate([built.features[: t + 1].ravel(), built.context[: t + 1].ravel()])


@pytest.mark.parametrize("spec", SPECS)
def test_no_feature_knows_the_future(spec: str) -> None:
    market = random_market(n_periods=420)
    rng = np.random.default_rng(0)
    for t in (150, 250, 380):
        whole = pieces(market, spec, t)
        np.testing.assert_array_equal(whole, pieces(market.upto(t), spec, t))
        later = np.arange(market.n_periods)[:, None] > t
        noise = rng.lognormal(0, 2, size=market.prices.shape)
        panels = {
            key: np.where(later, getattr(market, key) * noise, getattr(market, key))
            for key in ("prices", "highs", "lows", "opens", "volume")
        }
        poisoned = rebuilt(market, **panels, context=np.where(later, -1.0, market.context))
        np.testing.assert_array_equal(whole, pieces(poisoned, spec, t))


@pytest.mark.parametrize("spec", SPECS)
def test_no_feature_knows_the_price_level(spec: str) -> None:
    market = random_market(n_periods=420)
    scaled = {key: 7.0 * getattr(market, key) for key in ("prices", "highs", "lows", "opens")}
    dearer = rebuilt(market, **scaled)
    here, there = pieces(market, spec, 419), pieces(dearer, spec, 419)
    np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("spec", [s for s in SPECS if not FEATURES[parse_feature(s)[0]].shared])
def test_no_feature_knows_where_the_data_begin(spec: str) -> None:
    market = random_market(seed=8, n_periods=1200)
    for skipped in (100, 300):
        later = rebuilt(market[skipped:])
        built = build_features(later, [spec])
        first, _ = warmup_rows(built)
        same = build_features(market, [spec]).features[skipped:]
        rows = slice(max(first, 1), None)
        np.testing.assert_allclose(built.features[rows, 0], same[rows, 0], rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("name", list(FEATURES))
def test_every_feature_states_its_formula(name: str) -> None:
    feature = FEATURES[name]
    assert feature.formula and "Source" not in feature.formula
    assert all(type(default) in (int, str) for default in feature.parameters.values())


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("return", "return"),
        ("return(1)", "return"),
        (" return( 5 ) ", "return(5)"),
        ("return(days=5)", "return(5)"),
        ("term_spread('10y', '3m')", "term_spread"),
        ("term_spread(short='2y')", "term_spread(10y, 2y)"),
    ],
)
def test_equal_specifications_have_equal_names(spec: str, name: str) -> None:
    assert canonical(*parse_feature(spec)) == name


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("retrun(5)", ["retrun", "did you mean 'return'"]),
        ("return(5", ["return(5", "write it as"]),
        ("return(__import__('os'))", ["write it as"]),
        ("return(5, 6)", ["at most 1"]),
        ("return(0)", ["days", ">= 1", "0"]),
        ("return(True)", ["days", "whole number", "True"]),
        ("return(2.5)", ["days", "2.5"]),
        ("return(day=5)", ["day", "did you mean 'days'"]),
        ("volatility(1)", ["volatility", ">= 2", "1"]),
        ("momentum(20, 20)", ["skip must be < window", "20 >= 20"]),
        ("macd(26, 12)", ["fast must be < slow", "26 >= 12"]),
        ("term_spread(10)", ["long", "str", "10"]),
    ],
)
def test_a_bad_specification_is_named(spec: str, words: list[str]) -> None:
    with pytest.raises(SettingError) as caught:
        build_features(random_market(), [spec])
    for word in words:
        assert word in str(caught.value)


def test_what_a_market_lacks_is_named() -> None:
    bare = rebuilt(random_market(), context=None, context_names=())
    with pytest.raises(DataError, match="random: has no 'yield_10y'"):
        build_features(bare, ["term_spread"])
    with pytest.raises(
        DataError, match="random: feature 'atr' needs highs, which it does not have"
    ):
        build_features(dataclasses.replace(bare, highs=None), ["atr"])
    with pytest.raises(SettingError, match="list of specifications"):
        build_features(bare, "rsi")


def test_a_feature_that_breaks_off_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(market: Market) -> np.ndarray:
        values = market.returns.copy()
        values[100, 1] = np.nan
        return values

    monkeypatch.setitem(FEATURES, "torn", dataclasses.replace(FEATURES["return"], function=torn))
    with pytest.raises(DataError, match=r"'torn' of 'B' breaks off on 2015-05-21"):
        build_features(random_market(), ["torn"])


def test_the_same_feature_twice_is_refused() -> None:
    with pytest.raises(DataError, match="feature 'rsi' appears twice"):
        load_market(features=["rsi", "rsi(14)"])
