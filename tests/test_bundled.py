"""The bundled universes, against their packages' own loaders and hand-computed bonds and bills."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from market import DataError, Market, SettingError, load_market
from market.sources import SOURCES
from market.sources.bundled import UNIVERSES, macro_tables, multi_asset, stock_sectors
from market.sources.treasury import effective_annual, par_bond_index, treasury_yields


@pytest.fixture(scope="module")
def multi() -> Market:
    return load_market("multi_asset")


@pytest.mark.parametrize("name", list(UNIVERSES))
def test_a_universe_loads_complete_with_cash_last(name: str) -> None:
    market = load_market(name)
    assert market.assets[-1] == "cash"
    assert market.tradable.all()
    assert set(market.sectors) == set(market.assets)
    assert market.notes
    assert market.returns[:, -1] == pytest.approx(market.risk_free, abs=1e-15)
    assert np.abs(market.returns).max() < 0.6
    assert market.periods_per_year == 252


def test_multi_asset_holds_the_assets_and_span_it_names(multi: Market) -> None:
    raw = multi_asset()
    assert raw.assets == ("sp500", "nasdaq", "treasury_10y", "gold", "cash")
    assert (raw.dates[0], raw.dates[-1]) == (pd.Timestamp("1999-01-04"), pd.Timestamp("2018-12-31"))
    assert multi.dates[-1] == raw.dates[-1]
    assert any("London fix" in note for note in multi.notes)
    assert any("37 of 5031" in note for note in multi.notes)


def test_index_prices_are_the_packages_own() -> None:
    from arch.data import nasdaq, sp500

    raw = multi_asset()
    for column, table in enumerate((sp500.load(), nasdaq.load())):
        table = table.reindex(raw.dates)
        np.testing.assert_array_equal(raw.prices[:, column], table["Close"])
        assert raw.volume is not None and raw.highs is not None
        np.testing.assert_array_equal(raw.volume[:, column], table["Volume"])
        np.testing.assert_array_equal(raw.highs[:, column], table["High"])
    assert raw.volume is not None
    assert np.isnan(raw.volume[:, 2:]).all()


def test_stocks_and_factors_are_the_packages_own() -> None:
    from skfolio.datasets import load_factors_dataset, load_sp500_dataset

    for name, table in (("us_stocks", load_sp500_dataset()), ("factors", load_factors_dataset())):
        market = load_market(name)
        assert list(market.assets[:-1]) == list(table.columns)
        np.testing.assert_array_equal(market.prices[:, :-1], table.loc[market.dates])
    assert len(set(stock_sectors().values())) == 7


def test_par_bond_return_against_cash_flows_one_by_one() -> None:
    dates = pd.DatetimeIndex(["2010-01-04", "2010-01-05", "2010-01-08"])
    index = par_bond_index(pd.Series([0.04, 0.035, 0.042], index=dates), years=10.0)
    expected = [1.0]
    for coupon, now, days in ((0.04, 0.035, 1), (0.035, 0.042, 3)):
        passed = days / 365.25
        flows = [(half / 2, coupon / 2 + (half == 20)) for half in range(1, 21)]
        price = sum(cash / (1 + now / 2) ** (2 * (due - passed)) for due, cash in flows)
        expected.append(expected[-1] * price)
    assert index.to_numpy() == pytest.approx(expected, rel=1e-13)


def test_par_bond_at_an_unchanged_yield_earns_that_yield() -> None:
    dates = pd.date_range("2000-01-01", periods=1462, freq="D")
    index = par_bond_index(pd.Series(0.05, index=dates), years=10.0)
    assert index.iloc[-1] == pytest.approx(1.025**8, rel=3e-5)  # four years of 365.25 days


def test_treasury_earned_what_ten_year_notes_earned() -> None:
    index = par_bond_index(treasury_yields()["10y"], years=10.0)["2004-11-19":"2020-03-13"]
    returns = index.pct_change().dropna()
    assert 252 * returns.mean() == pytest.approx(0.051, abs=0.002)
    assert 252**0.5 * returns.std() == pytest.approx(0.075, abs=0.005)


def test_cash_earns_the_bill_known_the_day_before() -> None:
    raw = multi_asset()
    bills = treasury_yields()["3m"]
    row = raw.index("2007-07-09")  # a Monday
    before = raw.dates[row - 1]
    assert (raw.dates[row] - before).days == 3
    growth = ((1 + bills[before] / 2) ** 2) ** (3 / 365) - 1
    assert raw.returns[row, -1] == pytest.approx(growth, rel=1e-9)
    assert effective_annual(pd.Series([0.05])).iloc[0] == pytest.approx(0.050625)


def test_yields_are_never_from_the_future() -> None:
    raw = multi_asset()
    yields = treasury_yields()
    for date in ("2001-09-17", "2008-12-10", "2015-06-01"):
        known = yields.loc[:date, "3m"].dropna().iloc[-1]
        assert raw.context[raw.index(date), 0] == pytest.approx(known, rel=1e-6)


def test_macro_series_are_the_packages_own_by_release() -> None:
    from arch.data import core_cpi, default, vix, wti

    tables = macro_tables()
    for name, (module, column, unit) in {
        "vix": (vix, "vix", 1.0),
        "wti": (wti, "DCOILWTICO", 1.0),
        "aaa": (default, "AAA", 0.01),
        "baa": (default, "BAA", 0.01),
        "core_cpi": (core_cpi, "CPILFESL", 1.0),
    }.items():
        truth = pd.to_numeric(module.load()[column], errors="coerce").dropna()
        np.testing.assert_allclose(tables[name]["value"], truth * unit, rtol=1e-12)
        assert list(tables[name]["date"]) == list(truth.index)
        assert (tables[name]["published"] > tables[name]["date"]).all()
        assert tables[name]["published"].is_monotonic_increasing


def test_a_month_is_known_only_when_it_was_published() -> None:
    cpi = macro_tables()["core_cpi"].set_index("date")["published"]
    assert cpi["2013-09-01"] == pd.Timestamp("2013-10-30")  # late, after the shutdown
    assert cpi["2013-08-01"] >= pd.Timestamp("2013-09-17")  # the days of the official releases
    assert cpi["2008-01-01"] >= pd.Timestamp("2008-02-20")
    market = load_market(features=["macro('core_cpi')", "credit_spread", "macro('vix')"])
    assert market.dates[0] == pd.Timestamp("2014-01-06")  # VIX of the Friday before
    levels = pd.Series(market.context[:, 0], market.dates)
    changes = pd.DatetimeIndex(levels.index[levels.diff() != 0])[1:]
    assert len(changes) == 60 and ((changes.day >= 28) | (changes.day <= 4)).all()
    spread = pd.Series(market.context[:, 1], market.dates)
    assert spread["2018-11-07"] == pytest.approx(0.0507 - 0.0414, abs=1e-6)  # of October


def test_series_that_ended_long_before_a_universe_are_not_handed_on() -> None:
    assert macro_tables(pd.Timestamp("2022-12-28")) == {}
    assert set(macro_tables(pd.Timestamp("2018-12-31"))) == set(macro_tables())
    with pytest.raises(
        DataError, match="us_stocks: has neither a table nor a context column 'baa'"
    ):
        load_market("us_stocks", features=["credit_spread"])
    part = load_market(
        "factors", tables=macro_tables(), features=["credit_spread"], end="2018-06-29"
    )
    assert 0.005 < part.context.min() < part.context.max() < 0.02


def test_start_and_end_are_inclusive_and_features_keep_their_history(multi: Market) -> None:
    part = load_market("multi_asset", start="2005-01-01", end="2005-12-30")
    assert (part.dates[0], part.dates[-1]) == (
        pd.Timestamp("2005-01-03"),
        pd.Timestamp("2005-12-30"),
    )
    whole = multi["2005-01-01":"2005-12-30"]
    np.testing.assert_array_equal(part.features, whole.features)
    np.testing.assert_array_equal(part.returns, whole.returns)
    assert part.returns[0].any()


def test_assets_are_kept_in_the_order_asked_for_with_cash_last(multi: Market) -> None:
    part = load_market(assets=["cash", "gold", "sp500"])
    assert part.assets == ("gold", "sp500", "cash")
    np.testing.assert_array_equal(part.prices, multi.prices[:, [3, 0, 4]])
    np.testing.assert_array_equal(part.features, multi.features[:, [3, 0, 4]])
    assert part.sectors == {"gold": "commodity", "sp500": "equity", "cash": "cash"}
    assert not load_market(assets=["sp500"]).has_cash


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": "multi_aset"}, SettingError, ["multi_aset", "did you mean 'multi_asset'"]),
        ({"asets": ["gold"]}, SettingError, ["asets", "did you mean 'assets'"]),
        ({"path": "x.csv"}, SettingError, ["option", "path", "valid: assets"]),
        ({"assets": ["sp500", "gld"]}, SettingError, ["gld", "did you mean 'gold'", "nasdaq"]),
        ({"assets": "gold"}, SettingError, ["list of names", "'gold'"]),
        ({"assets": []}, SettingError, ["assets", "at least 1"]),
        ({"assets": ["gold", "gold"]}, DataError, ["'gold' appears twice"]),
        ({"start": "1980-01-01"}, DataError, ["1980-01-01", "outside the data", "2018-12-31"]),
        ({"end": "2030-01-01"}, DataError, ["2030-01-01", "outside the data"]),
        ({"start": "1999-03-01"}, DataError, ["rsi", "earliest start is 1999-07-23"]),
        ({"start": "2010-01-01", "end": "2009-01-01"}, SettingError, ["is after end"]),
        ({"start": "soon"}, SettingError, ["start", "'soon'", "not a date"]),
        ({"start": 2010}, SettingError, ["start", "2010", "not a date"]),
        ({"features": ["rsj"]}, SettingError, ["rsj", "did you mean 'rsi'"]),
    ],
)
def test_mistakes_are_one_line_that_names_them(
    arguments: dict[str, Any], error: type[ValueError], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        load_market(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_every_source_is_described() -> None:
    for loader in SOURCES.values():
        assert loader.__doc__
