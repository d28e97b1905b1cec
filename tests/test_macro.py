"""Macro series and users' tables: by their release, restated, carried forward, never before."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from market import DataError, Market
from market.features import build_features, warmup_rows

DATES = pd.bdate_range("2019-01-01", "2020-12-31")


@pytest.fixture
def market() -> Market:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(np.exp(rng.normal(0, 0.01, (len(DATES), 3)).cumsum(0)), DATES, [*"ABC"])
    rates = np.cumsum(rng.normal(size=(len(DATES), 2)), axis=0)
    return Market.from_prices(frame, cash_rate=None, context=rates, context_names=("vix", "oil"))


def monthly(first: str = "2016-01-01", last: str = "2020-12-01", seed: int = 1) -> pd.DataFrame:
    """Dated by the first of the month, released in the middle of the next, revised a month on."""
    rng = np.random.default_rng(seed)
    dates = pd.date_range(first, last, freq="MS")
    released = (
        dates + pd.DateOffset(months=1) + pd.to_timedelta(rng.integers(9, 15, len(dates)), "D")
    )
    values = 100.0 * np.exp(np.cumsum(rng.normal(0.002, 0.003, len(dates))))
    first_print = pd.DataFrame({"date": dates, "published": released, "value": values})
    revised = first_print.assign(
        published=released + pd.Timedelta(days=30),
        value=values * rng.uniform(0.99, 1.01, len(dates)),
    )
    return pd.concat([first_print, revised[::2]], ignore_index=True)


def shared(market: Market, spec: str, **tables: pd.DataFrame) -> pd.Series:
    built = build_features(market, [spec], tables)
    assert built.names == ()
    return pd.Series(built.context[:, 0].astype(float), DATES)


def known(table: pd.DataFrame, day: pd.Timestamp) -> pd.Series:
    """The series as known on a day, by filtering."""
    seen = table[table["published"] <= day].sort_values("published")
    return seen.groupby("date")["value"].last()


def test_the_statistics_equal_slow_ones(market: Market) -> None:
    table = monthly()
    found = {
        spec: shared(market, spec, cpi=table.sample(frac=1.0, random_state=0))
        for spec in (
            "macro('cpi')",
            "macro_change('cpi', 3)",
            "macro_zscore('cpi', 24)",
            "inflation('cpi')",
        )
    }
    for day in DATES[::17]:
        x = known(table, day)
        year = x[x.index[-1] - pd.DateOffset(years=1)]
        past = x.iloc[-24:]
        expected = [
            x.iloc[-1],
            x.iloc[-1] - x.iloc[-4],
            (x.iloc[-1] - past.mean()) / past.std(),
            x.iloc[-1] / year - 1,
        ]
        np.testing.assert_allclose(
            [values[day] for values in found.values()], expected, rtol=1e-4, atol=1e-5
        )


def test_quarters_move_on_their_release_only(market: Market) -> None:
    table = pd.DataFrame(
        {
            "date": ["2018-09-30", "2018-12-31", "2019-03-31"],
            "gdp": [1.0, 2.0, 3.0],
            "published": ["2018-11-01", "2019-02-28", "2019-05-30"],
        }
    )
    found = shared(market, "macro('gdp')", gdp=table)
    steps = found[found.diff() != 0].to_dict()
    assert steps == {
        pd.Timestamp("2019-01-01"): 1.0,
        pd.Timestamp("2019-02-28"): 2.0,
        pd.Timestamp("2019-05-30"): 3.0,
    }


def test_a_lag_stands_in_for_the_release_and_nothing_else_does(market: Market) -> None:
    table = pd.DataFrame({"date": ["2018-12-01", "2019-01-01"], "value": [1.0, 2.0]})
    with pytest.raises(DataError, match=r"table 'cpi': row 0 \(2018-12-01\) does not say when"):
        shared(market, "macro('cpi')", cpi=table)
    found = shared(market, "macro('cpi', lag=45)", cpi=table)
    assert found.first_valid_index() == pd.Timestamp("2019-01-15")
    assert found[found == 2.0].index[0] == pd.Timestamp("2019-02-15")
    indexed = pd.DataFrame({"cpi": [1.0, 2.0]}, pd.DatetimeIndex(table["date"]))
    pd.testing.assert_series_equal(shared(market, "macro('cpi', lag=45)", cpi=indexed), found)
    built = build_features(market, ["macro('cpi', 45)"], {"cpi": table})
    assert warmup_rows(built) == (10, "macro(cpi, 45)")


def test_columns_of_the_market_are_daily_series(market: Market) -> None:
    vix = pd.Series(market.context[:, 0].astype(float), DATES)
    np.testing.assert_allclose(shared(market, "macro('vix')"), vix, rtol=1e-6)
    change = shared(market, "macro_change('vix', 5)")
    np.testing.assert_allclose(change, vix.diff(5), rtol=1e-4, atol=1e-5)
    past = vix.rolling(20)
    zscore = shared(market, "macro_zscore('vix', 20)")
    np.testing.assert_allclose(zscore, (vix - past.mean()) / past.std(), rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match="neither a table nor a context column 'gold'"):
        shared(market, "macro('gold')")


def test_the_credit_spread_is_low_less_high(market: Market) -> None:
    baa, aaa = monthly(seed=2), monthly(seed=3)
    found = shared(market, "credit_spread", baa=baa, aaa=aaa)
    for day in DATES[::50]:
        expected = known(baa, day).iloc[-1] - known(aaa, day).iloc[-1]
        assert found[day] == pytest.approx(expected, rel=1e-5)


def test_a_missing_month_keeps_the_last_inflation(market: Market) -> None:
    table = monthly()
    gap = table[table["date"] != "2018-06-01"]
    whole, found = (shared(market, "inflation('cpi')", cpi=x) for x in (table, gap))
    june = table[table["date"] == "2019-06-01"]["published"].min()
    july = table[table["date"] == "2019-07-01"]["published"].min()
    between = slice(june, july - pd.Timedelta(days=1))
    kept = found[between]
    assert (kept.diff().dropna() == 0.0).all() and np.isfinite(found).all()
    assert not np.allclose(kept, whole[between])
    np.testing.assert_allclose(found[:"2019-05-31"], whole[:"2019-05-31"])


def test_a_constant_series_has_no_score(market: Market) -> None:
    dates = pd.date_range("2015-01-01", periods=72, freq="MS")
    table = pd.DataFrame({"date": dates, "value": 3.3, "published": dates})
    assert (shared(market, "macro_zscore('flat', 12)", flat=table) == 0.0).all()


def test_any_table_of_assets_is_a_feature(market: Market) -> None:
    rng = np.random.default_rng(7)
    count = 300
    dates = rng.choice(pd.date_range("2018-11-01", "2020-12-31"), count, replace=False)
    table = pd.DataFrame(
        {
            "day": dates,
            "asset": rng.choice(["A", "B", "X"], count),
            "stars": rng.normal(size=count),
            "published": dates + pd.to_timedelta(rng.integers(0, 20, count), "D"),
        }
    )
    spec = "table('reviews', column='stars', date='day')"
    built = build_features(market, [spec], {"reviews": table})
    assert built.context_names == () and built.names == ("table(reviews, stars, None, day)",)
    for t in range(30, len(DATES), 41):
        seen = table[table["published"] <= DATES[t]]
        values = [
            seen[seen["asset"] == asset].sort_values("day")["stars"].iloc[-1] for asset in "AB"
        ]
        expected = [*values, np.median(values)]
        np.testing.assert_allclose(built.features[t, :, 0], expected, rtol=1e-5)


def test_any_table_without_assets_is_context(market: Market) -> None:
    table = pd.DataFrame({"date": ["2018-12-20", "2019-03-01"], "value": [4.0, 5.0]})
    found = shared(market, "table('claims', lag=7)", claims=table)
    assert found.iloc[0] == 4.0
    assert found[found == 5.0].index[0] == pd.Timestamp("2019-03-08")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("table('other', lag=1)", "needs the table 'other'; there is 'claims'"),
        ("table('claims', column='price', lag=1)", "needs a column 'price', got"),
        ("table('claims')", "does not say when it was published"),
    ],
)
def test_a_bad_use_of_a_table_is_named(market: Market, spec: str, words: str) -> None:
    table: dict[str, Any] = {"date": ["2018-12-20"], "value": [4.0]}
    with pytest.raises(DataError, match=words):
        build_features(market, [spec], {"claims": pd.DataFrame(table)})
