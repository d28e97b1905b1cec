"""Features: each against a plain loop over one asset's past, and none may know the future."""

import dataclasses
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import mahalanobis

from market import DataError, InputError, Market, SettingError, load_market
from market.features import (
    DEFAULT_FEATURES,
    FEATURES,
    LookAheadError,
    build_features,
    expand_features,
    listing,
    parse_feature,
    read_feature_set,
    warmup_rows,
)
from market.features.talib_path import TALIB

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


def random_tables(market: Market, seed: int = 5) -> dict[str, pd.DataFrame]:
    """A table of each kind that features read, from three years before the market on."""
    rng = np.random.default_rng(seed)
    first, last = market.dates[0] - pd.DateOffset(years=3), market.dates[-1]
    quarters, months = (pd.date_range(first, last, freq=freq) for freq in ("QE", "MS"))
    reports = pd.MultiIndex.from_product([[*"ABD"], quarters]).to_frame(False)
    reports.columns = pd.Index(["asset", "period_end"])
    reports["published"] = reports["period_end"] + days_of(rng.integers(20, 70, len(reports)))
    for column in ("earnings_per_share", "book_value_per_share", "dividends_per_share"):
        reports[column] = rng.uniform(0.5, 2.0, len(reports))
    restated = reports[::3].assign(published=reports["published"] + pd.Timedelta(days=50))
    restated["earnings_per_share"] *= 3.0
    tables = {"fundamentals": pd.concat([reports, restated], ignore_index=True)}
    for name in ("cpi", "baa", "aaa"):
        values = 100.0 + np.cumsum(rng.normal(size=len(months)))
        released = months + days_of(rng.integers(30, 50, len(months)))
        tables[name] = pd.DataFrame({"date": months, "value": values, "published": released})
    count = 3 * market.n_periods
    stamps = rng.choice(market.dates, count) + pd.to_timedelta(
        rng.uniform(0.1, 24, count), unit="h"
    )
    scores = {"asset": rng.choice([*"ABC"], count), "score": rng.uniform(-1, 1, count)}
    tables["news"] = pd.DataFrame({"timestamp": stamps, **scores})
    tables["signal"] = reports[["asset", "published"]].assign(
        date=reports["period_end"], value=rng.normal(size=len(reports))
    )
    return tables


def days_of(counts: np.ndarray) -> pd.TimedeltaIndex:
    return pd.to_timedelta(counts, unit="D")


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


NAMED = {
    "macro": "macro('cpi')",
    "macro_change": "macro_change('cpi', 3)",
    "macro_zscore": "macro_zscore('cpi', 12)",
    "table": "table('signal')",
}
MORE = [
    "return(5)",
    "volatility(60)",
    "rsi(3)",
    "turbulence(60)",
    "turbulence(6)",
    "macro_change('yield_3m')",
    "sentiment(5)",
]
SPECS = [NAMED.get(name, name) for name in FEATURES] + MORE
Tables = dict[str, pd.DataFrame]


def until(tables: Tables, stamp: pd.Timestamp, rng: np.random.Generator | None = None) -> Tables:
    """The tables without what came after the close of a day, or with other numbers in its place."""
    kept = {}
    for name, table in tables.items():
        column, close = ("timestamp", "16h") if name == "news" else ("published", "0h")
        later = (table[column] > stamp + pd.Timedelta(close)).to_numpy()
        if rng is None:
            kept[name] = table[~later]
            continue
        kept[name] = table.copy()
        for key in table.columns[[kind.kind == "f" for kind in table.dtypes]]:
            noise = rng.uniform(-1, 1, len(table))
            kept[name][key] = np.where(later, noise, table[key])
    return kept


def pieces(market: Market, spec: str, t: int, tables: Tables) -> np.ndarray:
    built = build_features(market, [spec], tables)
    return np.concatenate([built.features[: t + 1].ravel(), built.context[: t + 1].ravel()])


@pytest.mark.parametrize("spec", SPECS)
def test_no_feature_knows_the_future(spec: str) -> None:
    market = random_market(n_periods=420)
    tables = random_tables(market)
    rng = np.random.default_rng(0)
    for t in (150, 250, 380):
        stamp = market.dates[t]
        whole = pieces(market, spec, t, tables)
        cut = pieces(market.upto(t), spec, t, until(tables, stamp))
        np.testing.assert_array_equal(whole, cut)
        later = np.arange(market.n_periods)[:, None] > t
        noise = rng.lognormal(0, 2, size=market.prices.shape)
        panels = {
            key: np.where(later, getattr(market, key) * noise, getattr(market, key))
            for key in ("prices", "highs", "lows", "opens", "volume")
        }
        poisoned = rebuilt(market, **panels, context=np.where(later, -1.0, market.context))
        poison = until(tables, stamp, rng)
        np.testing.assert_array_equal(whole, pieces(poisoned, spec, t, poison))


@pytest.mark.parametrize("spec", SPECS)
def test_no_feature_knows_the_price_level(spec: str) -> None:
    market = random_market(n_periods=420)
    scaled = {key: 7.0 * getattr(market, key) for key in ("prices", "highs", "lows", "opens")}
    dearer = rebuilt(market, **scaled)
    tables = random_tables(market)
    here, there = (pieces(m, spec, 419, tables) for m in (market, dearer))
    power = parse_feature(spec).feature.price_power
    np.testing.assert_allclose(here * 7.0**power, there, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("spec", [s for s in SPECS if not parse_feature(s).feature.shared])
def test_no_feature_knows_where_the_data_begin(spec: str) -> None:
    market = random_market(seed=8, n_periods=1200)
    tables = random_tables(market)
    for skipped in (100, 300):
        later = rebuilt(market[skipped:])
        built = build_features(later, [spec], tables)
        first, _ = warmup_rows(built)
        same = build_features(market, [spec], tables).features[skipped:]
        rows = slice(max(first, 6), None)  # news of five days look back without a warm-up
        np.testing.assert_allclose(built.features[rows, 0], same[rows, 0], rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("name", list(FEATURES))
def test_every_feature_states_its_formula(name: str) -> None:
    feature = FEATURES[name]
    assert feature.formula and "Source" not in feature.formula
    for key, default in feature.parameters.items():
        assert type(default) in (int, str) or (key, default) == ("lag", None)
    row = next(row for row in listing() if row["name"] == name)
    assert row["formula"] == feature.formula and row["about"].endswith(".")
    assert row["scope"] in ("asset", "shared", "by table")
    assert all(f"{key}={value!r}" in row["parameters"] for key, value in feature.parameters.items())
    assert all(panel in row["needs"] for panel in feature.needs)


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
    assert parse_feature(spec).text == name


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
        ("macro('cpi', -1)", ["lag must be a whole number >= 0", "-1"]),
        ("macro('cpi', '60')", ["lag must be a whole number >= 0", "'60'"]),
        ("macro_zscore('yield_3m', 1)", ["window must be >= 2", "1"]),
        ("table", ["'table': name the table"]),
        ("sentiment(zone='Mars')", ["zone", "'Mars'"]),
        ("nowhere.py:f", ["there is no file nowhere.py"]),
        ("os:system", ["os is part of Python, no feature"]),
        ("no_such_module:f", ["raised ModuleNotFoundError"]),
        ("market.names:nothing", ["market.names has no 'nothing'"]),
    ],
)
def test_a_bad_specification_is_named(spec: str, words: list[str]) -> None:
    with pytest.raises(SettingError) as caught:
        build_features(random_market(), [spec], {"news": random_tables(random_market())["news"]})
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


def test_a_shared_feature_that_breaks_off_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(market: Market) -> np.ndarray:
        return np.where(np.arange(market.n_periods) == 100, np.nan, 1.0)

    entry = dataclasses.replace(FEATURES["turbulence"], function=torn)
    monkeypatch.setitem(FEATURES, "torn", entry)
    with pytest.raises(DataError, match="'torn' breaks off on 2015-05-21"):
        build_features(random_market(), ["torn"])


@pytest.mark.parametrize("window", [12, 40])
def test_turbulence_of_more_assets_than_days_is_a_distance_too(window: int) -> None:
    rng = np.random.default_rng(0)
    returns = rng.normal(0, 0.01, (150, 30)) * np.geomspace(1, 5, 30)
    returns += 0.01 * rng.normal(size=(150, 1))
    prices = 10.0 * np.cumprod(1.0 + returns, axis=0)
    prices[:70, 4] = np.nan
    frame = pd.DataFrame(prices, pd.bdate_range("2000-01-01", periods=150))
    market = Market.from_prices(frame)
    scores = build_features(market, [f"turbulence({window})"]).context[:, 0]
    assert np.isnan(scores[: window + 1]).all() and np.isfinite(scores[window + 1 :]).all()
    assert 0.5 < np.nanmean(scores) < 2.0
    for t, columns in ((60, [i for i in range(30) if i != 4]), (149, list(range(30)))):
        past, today = market.returns[t - window : t, columns], market.returns[t, columns]
        sample, n = np.cov(past.T), len(columns)
        shrink = 1 - window / (2 * n)
        level = np.trace(sample) / n * np.eye(n)
        inverse = np.linalg.inv((1 - shrink) * sample + (shrink + 1e-6) * level)
        expected = mahalanobis(today, past.mean(0), inverse) ** 2 / n
        assert scores[t] == pytest.approx(expected, rel=1e-5)


def test_talib_gives_the_same_numbers() -> None:
    pytest.importorskip("talib")
    market = random_market(n_periods=700)
    prices = market.prices.copy()
    prices[:, 1] = 20.0  # never moves
    prices[100:, 0] = prices[100, 0]  # stands still from some day on
    still = rebuilt(market, prices=prices, highs=prices, lows=prices)
    assert market.highs is not None
    highs = np.where(np.arange(700)[:, None] == 99, np.nan, market.highs)
    gappy = rebuilt(market, highs=highs)
    extra = ["moving_average_ratio(1)", "rsi(3)", "macd(1, 5)", "macd_histogram(5, 9, 1)", "atr(2)"]
    for world in (market, still, gappy):
        specs = [*TALIB, *extra]
        pandas, talib = (build_features(world, specs, engine=e) for e in ("pandas", "talib"))
        assert pandas.names == talib.names
        np.testing.assert_allclose(pandas.features, talib.features, rtol=1e-6, atol=1e-6)
    with pytest.raises(SettingError, match="did you mean 'talib'"):
        build_features(market, ["rsi"], engine="ta-lib")
    with pytest.raises(SettingError, match="fast must be < slow"):
        build_features(market, ["macd(26, 12)"], engine="talib")


def test_a_missing_talib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "talib", None)
    with pytest.raises(SettingError, match=r"pip install allocgym\[talib\]"):
        build_features(random_market(), ["rsi"], engine="talib")


OWN = """
import numpy as np

def spread(market, window=3, scale=1.0):
    past = np.cumsum(market.returns, axis=0)
    return scale * (past - np.vstack([np.full((window, past.shape[1]), np.nan), past[:-window]]))

def breadth(market):
    return (market.returns > 0).mean(axis=1)

def news(market, tables):
    return np.full(market.n_periods, float(len(tables["news"])))

def peeks(market):
    return np.vstack([market.returns[1:], market.returns[:1]])

def wrong(market):
    return np.zeros(3)

def fails(market):
    raise KeyError("no such thing")

def endless(market):
    return np.full(market.n_periods, np.inf)

def demanding(market, window):
    return market.returns

constant = 5
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def test_a_users_function_is_a_feature(own: str) -> None:
    market = random_market()
    news = {"news": random_tables(market)["news"]}
    specs = [f"{own}:spread(5, scale=2.0)", "return", f"{own}:breadth", f"{own}:news"]
    built = build_features(market, specs, news)
    assert built.names == (f"{own}:spread(5, 2.0)", "return")
    assert built.context_names == (f"{own}:breadth", f"{own}:news")
    assert warmup_rows(built) == (5, built.names[0])
    total = 2.0 * market.returns[96:101, 0].sum()
    assert built.features[100, 0, 0] == pytest.approx(total, rel=1e-5)
    assert (built.features[:60, 2, 0] == 0.0).all()
    np.testing.assert_allclose(built.context[:, 0], (market.returns > 0).mean(1), rtol=1e-6)
    assert (built.context[:, 1] == len(news["news"])).all()


def test_a_users_module_is_a_feature(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(own).parent
    (folder / "own_features_module.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(folder))
    built = build_features(random_market(), ["own_features_module:breadth"])
    assert built.context_names == ("own_features_module:breadth",)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("peeks", "knows the future"),
        ("wrong", r"must return shape \(220, 5\) or \(220,\), got \(3,\)"),
        ("fails", "raised KeyError: 'no such thing'"),
        ("endless", "is infinite on 2015-01-01"),
        ("demanding", "must be a function of a market, whose other arguments have defaults"),
        ("constant", "must be a function of a market"),
        ("spread(1, 2, 3)", "takes at most 2 parameters"),
        ("spread(windw=1)", "did you mean 'window'"),
        ("missing", "has no 'missing'"),
    ],
)
def test_a_users_mistake_is_named(own: str, name: str, words: str) -> None:
    kind = LookAheadError if name == "peeks" else InputError
    with pytest.raises(kind, match=words):
        build_features(random_market(), [f"{own}:{name}"])


def test_a_feature_set_is_a_short_yaml_list(tmp_path: Path) -> None:
    file = tmp_path / "set.yaml"
    file.write_text("- return(5)\n- table('signal', lag=3)\n- rsi  # of Wilder\n")
    assert read_feature_set(file) == ["return(5)", "table('signal', lag=3)", "rsi"]
    for text, words in (
        ("return: 5", "must hold a list"),
        ("- [", "is not YAML"),
        ("- 5", "must hold a list"),
        ("- retrun", "did you mean 'return'"),
        ("- set.yaml", "unknown feature 'set.yaml'"),
        ("- !!python/object/apply:os.system ['echo']", "is not YAML"),
    ):
        file.write_text(text)
        with pytest.raises(SettingError, match=words):
            read_feature_set(file)
    with pytest.raises(SettingError, match=r"nothing.yaml cannot be read"):
        read_feature_set(tmp_path / "nothing.yaml")


def test_a_feature_set_stands_for_what_it_lists(tmp_path: Path) -> None:
    file = tmp_path / "set.yaml"
    file.write_text("- return(5)\n- rsi\n")
    assert expand_features(["volatility", str(file)]) == ["volatility", "return(5)", "rsi"]
    market = load_market("factors", features=str(file))
    assert market.feature_names == ("return(5)", "rsi")
    with pytest.raises(SettingError, match="must be a list of specifications, got 'rsi'"):
        expand_features("rsi")


# ---- too little history


def short_file(tmp_path: Path, rows: int) -> Path:
    file = tmp_path / "short.csv"
    prices = 100.0 * np.exp(np.random.default_rng(3).normal(0.0, 0.01, (rows, 2)).cumsum(axis=0))
    dates = pd.bdate_range("2020-01-01", periods=rows)
    pd.DataFrame(prices, dates, [*"AB"]).to_csv(file, index_label="date")
    return file


@pytest.mark.parametrize(
    ("spec", "needed"),
    [("momentum", 254), ("volatility(70)", 72), ("rsi(10)", 10 + 1 + 88 + 1), ("turbulence", 255)],
)
def test_too_little_history_says_how_many_rows_are_needed(
    tmp_path: Path, spec: str, needed: int
) -> None:
    for rows in (60, needed - 1):
        path = short_file(tmp_path, rows)
        words = rf"feature '{re.escape(spec)}' needs {needed} rows, {needed - 1} up to its first"
        words += rf" value and 1 to earn on, got {rows} \(2020-01-01 .. .*; bring {needed - rows} "
        with pytest.raises(DataError, match=words):
            load_market("files", path=path, features=["return", spec])
    enough = load_market("files", path=short_file(tmp_path, needed), features=["return", spec])
    assert enough.n_periods == 2


def test_a_table_that_begins_too_late_is_named(tmp_path: Path) -> None:
    table = pd.DataFrame({"date": ["2030-01-01"], "published": ["2030-02-01"], "value": [1.0]})
    with pytest.raises(DataError, match="feature 'macro\\(gdp\\)' has no value on any of the 60 "):
        load_market(
            "files",
            path=short_file(tmp_path, 60),
            features=["macro('gdp')"],
            tables={"gdp": table},
        )
