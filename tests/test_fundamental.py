"""Fundamentals: numbers by hand, a slow independent join, and nothing before its publication."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from market import SOURCES, DataError, Market, SettingError
from market.audit import audit, audit_function
from market.features import build_features
from market.sample_tables import sample_tables

DATES = pd.bdate_range("2019-01-01", "2021-12-31")


def market_of(assets: str = "AB", **fields: Any) -> Market:
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 0.01, (len(DATES), len(assets)))
    frame = pd.DataFrame(50 * np.exp(steps.cumsum(0)), DATES, [*assets])
    return Market.from_prices(frame, cash_rate=None, name="stocks", **fields)


def report(asset: str, end: str, published: str | None = None, **figures: float) -> dict[str, Any]:
    return {"asset": asset, "period_end": end, "published": published, **figures}


def quarters(asset: str, first: str, values: list[float], column: str) -> list[dict[str, Any]]:
    """One report a quarter, published 40 days after its end."""
    ends = pd.date_range(first, periods=len(values), freq="QE")
    return [
        {"asset": asset, "period_end": end, "published": end + pd.Timedelta(days=40), column: value}
        for end, value in zip(ends, values, strict=True)
    ]


def column(spec: str, table: list[dict[str, Any]], market: Market | None = None) -> pd.DataFrame:
    """One feature by date and asset."""
    market = market or market_of()
    built = build_features(market, [spec], {"fundamentals": pd.DataFrame(table)})
    return pd.DataFrame(built.features[:, :, 0].astype(float), DATES, market.assets)


def test_price_to_earnings_sums_four_quarters_from_the_day_they_are_known() -> None:
    market = market_of("A")
    table = quarters("A", "2018-09-30", [1.0, 2.0, 3.0, 4.0, 5.0], "earnings_per_share")
    found = column("price_to_earnings", table, market)["A"]
    price = pd.Series(market.prices[:, 0], DATES)
    fourth, fifth = pd.Timestamp("2019-08-09"), pd.Timestamp("2019-11-09")  # ends + 40 days
    assert found[: fourth - pd.Timedelta(days=1)].isna().all()
    assert found[fourth] == pytest.approx(price[fourth] / 10.0, rel=1e-6)
    before, after = pd.Timestamp("2019-11-08"), pd.Timestamp("2019-11-11")  # the 9th is a Saturday
    assert before < fifth < after
    assert found[before] == pytest.approx(price[before] / 10.0, rel=1e-6)
    assert found[after] == pytest.approx(price[after] / 14.0, rel=1e-6)
    assert found.iloc[-1] == pytest.approx(price.iloc[-1] / 14.0, rel=1e-6)


def test_without_a_publication_date_a_report_waits_for_its_lag() -> None:
    table = [
        report("A", "2019-03-31", "2019-05-02", book_value=10.0),
        report("A", "2019-06-30", None, book_value=20.0),
    ]
    price = market_of().prices[:, 0]
    for spec, day in (
        ("price_to_book", "2019-09-30"),  # 90 days after the end is Saturday the 28th
        ("price_to_book(45)", "2019-08-14"),
        ("price_to_book(lag=0)", "2019-07-01"),  # the 30th is a Sunday
    ):
        found = column(spec, table)["A"].to_numpy()
        t = DATES.searchsorted(pd.Timestamp(day))
        assert found[t - 1] == pytest.approx(price[t - 1] / 10.0, rel=1e-6)
        assert found[t] == pytest.approx(price[t] / 20.0, rel=1e-6)
        first = DATES.searchsorted(pd.Timestamp("2019-05-02"))
        assert np.isnan(found[first - 1]) and np.isfinite(found[first])


def test_a_restatement_counts_from_its_own_publication() -> None:
    table = [
        report("A", "2019-03-31", "2019-05-02", book_value=10.0),
        report("A", "2019-06-30", "2019-08-01", book_value=20.0),
        report("A", "2019-06-30", "2019-10-01", book_value=25.0),
        report("A", "2019-03-31", "2019-12-02", book_value=99.0),  # of a period that is past
    ]
    book = 1.0 / (column("price_to_book", table)["A"] / market_of().prices[:, 0])
    expected = {"2019-05-02": 10, "2019-07-31": 10, "2019-08-01": 20, "2019-09-30": 20}
    expected |= {"2019-10-01": 25, "2019-12-02": 25, "2021-12-31": 25}
    for day, value in expected.items():
        assert book[day] == pytest.approx(value, rel=1e-5), day


def test_a_restated_quarter_changes_the_years_sum_and_its_growth() -> None:
    table = quarters("A", "2018-03-31", [1.0] * 4 + [2.0] * 4, "eps")
    table.append(table[4] | {"published": pd.Timestamp("2020-06-01"), "eps": 0.0})
    table.append(table[0] | {"published": pd.Timestamp("2020-07-01"), "eps": 5.0})
    growth = column("earnings_growth", table)["A"]
    assert growth[:"2020-02-07"].isna().all()
    assert growth["2020-02-10"] == pytest.approx(8 / 4 - 1)  # published on Sunday the 9th
    assert growth["2020-05-29"] == pytest.approx(8 / 4 - 1)
    assert growth["2020-06-01"] == pytest.approx(6 / 4 - 1)
    assert growth["2020-07-01"] == pytest.approx(6 / 8 - 1)


def test_growth_from_a_loss_is_positive_when_the_loss_shrinks() -> None:
    yearly = [
        report("A", "2017-12-31", "2018-03-01", earnings=-2.0),
        report("A", "2018-12-31", "2019-03-01", earnings=-1.0),
        report("A", "2019-12-31", "2020-03-02", earnings=3.0),
    ]
    growth = column("earnings_growth(1)", yearly)["A"]
    assert growth["2019-03-01"] == pytest.approx(0.5)
    assert growth["2020-03-02"] == pytest.approx(4.0)


def test_yields_know_losses_and_ratios_do_not() -> None:
    table = quarters("A", "2018-03-31", [-1.0] * 8, "eps") + quarters(
        "B", "2018-03-31", [2.0] * 8, "eps"
    )
    market = market_of()
    earned = column("earnings_yield", table, market).iloc[-1]
    np.testing.assert_allclose(earned, np.array([-4.0, 8.0]) / market.prices[-1], rtol=1e-6)
    ratio = column("price_to_earnings", table, market).iloc[-1]
    np.testing.assert_allclose(ratio, market.prices[-1, 1] / 8.0, rtol=1e-6)  # A: the day's median


def test_dividends_of_a_year_to_the_price() -> None:
    table = quarters("A", "2018-03-31", [0.0, 0.0, 0.5, 0.5, 0.7], "dividends_per_share")
    found = column("dividend_yield", table)["A"]
    price = pd.Series(market_of().prices[:, 0], DATES)
    assert found["2019-05-09"] == pytest.approx(1.0 / price["2019-05-09"], rel=1e-6)
    assert found["2019-05-10"] == pytest.approx(1.7 / price["2019-05-10"], rel=1e-6)


def test_a_missing_quarter_leaves_the_year_unknown() -> None:
    table = quarters("A", "2018-03-31", [1.0] * 10, "eps")
    whole, gap = column("earnings_yield", table), column("earnings_yield", table[:5] + table[6:])
    assert (whole["A"] > 0).loc["2019-02-11":].all()
    missing = gap["A"].loc["2019-11-11":"2020-08-07"]
    assert (missing == 0.0).all()  # nothing else is known either
    assert gap["A"]["2020-08-10"] == pytest.approx(whole["A"]["2020-08-10"])
    assert gap["A"]["2019-05-10"] == pytest.approx(whole["A"]["2019-05-10"])


def slow_join(table: pd.DataFrame, asset: str, day: pd.Timestamp) -> float:
    """Sum of the last four quarters as known on a day, by filtering the table."""
    known = table[(table["asset"] == asset) & (table["published"] <= day)]
    last = known.sort_values("published").groupby("period_end")["eps"].last()
    return float(last.iloc[-4:].sum())


def test_the_join_equals_a_slow_one() -> None:
    rng = np.random.default_rng(3)
    ends = pd.date_range("2017-03-31", "2021-12-31", freq="QE")
    rows = []
    for asset in "AB":
        for end in ends:
            lags = np.sort(rng.choice(np.arange(10, 400), size=rng.integers(1, 4), replace=False))
            lags[0] = min(lags[0], 60)
            for lag in lags:
                stamp = end + pd.Timedelta(days=int(lag))
                rows.append((asset, end, stamp, rng.uniform(1, 2)))
    table = pd.DataFrame(rows, columns=["asset", "period_end", "published", "eps"])
    market = market_of()
    shuffled = table.sample(frac=1.0, random_state=1)
    built = build_features(market, ["earnings_yield"], {"fundamentals": shuffled})
    for t in range(0, len(DATES), 23):
        expected = [slow_join(table, asset, DATES[t]) for asset in "AB"] / market.prices[t]
        np.testing.assert_allclose(built.features[t, :, 0], expected, rtol=1e-5)


def test_assets_without_reports_get_the_days_median() -> None:
    rows = [report(a, "2018-12-31", "2019-02-01", book_value=b) for a, b in (("A", 5), ("B", 10))]
    market = market_of("ABCD")
    found = column("price_to_book", rows, market).iloc[100]
    ratios = market.prices[100, :2] / [5.0, 10.0]
    np.testing.assert_allclose(found[:2], ratios, rtol=1e-6)
    np.testing.assert_allclose(found[2:], ratios.mean(), rtol=1e-6)


def test_a_time_of_day_is_known_the_next_day() -> None:
    row = report("A", "2018-12-31", "2019-02-05 07:30", book_value=5.0)
    found = column("price_to_book", [row])["A"]
    assert np.isnan(found["2019-02-05"]) and np.isfinite(found["2019-02-06"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"published": "2018-06-30"},
            "row 0: published 2018-06-30, before its own date 2018-12-31",
        ),
        ({"period_end": "soon"}, "column 'period_end' must hold dates"),
        ({"period_end": 2018}, "column 'period_end' must hold dates, got numbers"),
        ({"period_end": None}, "column 'period_end', row 0: the date is missing"),
        ({"book_value": "much"}, "column 'book_value' must hold numbers"),
        ({"book_value": np.inf}, "column 'book_value', row 0: inf"),
        ({"asset": "Z"}, "none of its assets .* is in the market"),
        (
            {"published": pd.Timestamp("2019-02-01", tz="UTC")},
            "column 'published' carries the time zone UTC",
        ),
    ],
)
def test_a_bad_table_is_named(change: dict[str, Any], words: str) -> None:
    row = report("A", "2018-12-31", "2019-02-01", book_value=5.0)
    with pytest.raises(DataError, match=f"table 'fundamentals': {words}"):
        column("price_to_book", [row | change])


def test_a_report_twice_and_a_missing_column_are_named() -> None:
    row = report("A", "2018-12-31", "2019-02-01", book_value=5.0)
    with pytest.raises(DataError, match="2018-12-31 of 'A' appears twice"):
        column("price_to_book", [row, row])
    with pytest.raises(DataError, match="needs a column 'earnings_per_share' or 'eps'"):
        column("price_to_earnings", [row])
    with pytest.raises(DataError, match="needs the table 'fundamentals'; there is none"):
        build_features(market_of(), ["price_to_book"])
    with pytest.raises(SettingError, match="lag must be a whole number >= 0, got -1"):
        column("price_to_book(-1)", [row])


# ---- the price of the day, where later dividends rewrite the adjusted one


def dividend_file(folder: Path, later_dividend: float, name: str = "A.csv") -> Path:
    """One share at 50 throughout; the last day's dividend lowers all adjusted closes before it."""
    adjusted = np.full(len(DATES), 50.0)
    adjusted[:-1] *= 1.0 - later_dividend
    frame = pd.DataFrame({"date": DATES, "close": 50.0, "adj close": adjusted})
    frame.to_csv(folder / name, index=False)
    return folder / name


RATIOS = {"price_to_earnings": 5.0, "earnings_yield": 0.2, "price_to_book": 2.5}


@pytest.mark.parametrize("spec", [*RATIOS, "dividend_yield"])
def test_a_later_dividend_moves_no_earlier_ratio(tmp_path: Path, spec: str) -> None:
    ends = [f"2018-{end}" for end in ("03-31", "06-30", "09-30", "12-31")]
    figures = {"earnings_per_share": 2.5, "book_value": 20.0, "dividends": 0.5}
    table = pd.DataFrame([report("A", end, end, **figures) for end in ends])
    found = []
    for dividend in (0.0, 0.2):
        path = dividend_file(tmp_path, dividend)
        market, _ = SOURCES["files"](path=path)  # type: ignore[misc]
        assert market.prices[0, 0] == pytest.approx(50.0 * (1.0 - dividend))
        assert market.closes is not None and (market.closes[:, 0] == 50.0).all()
        found.append(build_features(market, [spec], {"fundamentals": table}).features[:, 0, 0])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], RATIOS.get(spec, 0.04), rtol=1e-6)


def test_a_ratio_to_an_adjusted_price_is_caught_where_the_price_paid_is_known() -> None:
    rng = np.random.default_rng(1)
    steps = rng.normal(0, 0.01, (len(DATES), 3))
    paid = 50 * np.exp(steps.cumsum(0))
    later = np.exp(-0.0001 * np.arange(len(DATES))[::-1])[:, None]
    market = Market.from_prices(
        pd.DataFrame(paid * later, DATES, [*"ABC"]), cash_rate=None, closes=paid
    )
    tables = sample_tables(market)

    def old_way(world: Any) -> np.ndarray:
        by_paid = build_features(world[0], ["price_to_earnings"], world[1]).features[:, :, 0]
        return by_paid * world[0].prices / world[0].closes

    verdict = {f.test: f.verdict for f in audit_function(old_way, (market, tables), dates=5)}
    assert verdict["scale"] == "FAIL"
    for spec in (*RATIOS, "dividend_yield"):
        report = audit(market, [spec], tables=tables, joins=False, dates=5)
        assert report.passed, report.leaks
        assert {f.verdict for f in report.findings if f.test == "scale"} == {"pass"}
