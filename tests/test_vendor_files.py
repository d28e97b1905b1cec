"""Files as vendors write them: headers, two rows of names, periods; against numbers by hand."""

import gzip
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from market import DataError, Market, load_market
from market.quality import check


def load(folder: Path, text: str, name: str = "AAPL.csv", **options: Any) -> Market:
    (folder / name).write_text(text)
    return load_market("files", path=folder / name, **options)


SINGLE = {
    "alpha vantage": (
        "timestamp,open,high,low,close,adjusted_close,volume,dividend_amount,split_coefficient\n"
        "2020-01-03,10,12,9,11,5.5,100,0,1\n2020-01-02,9,11,8,10,5,90,0,1\n"
    ),
    "investing": (
        '"Date","Price","Open","High","Low","Vol.","Change %"\n'
        '"2020-01-03","5.5","5","6","4.5","100","2"\n"2020-01-02","5","4.5","5.5","4","90","1"\n'
    ),
    "nasdaq": (
        "Date,Close/Last,Volume,Open,High,Low\n"
        "01/13/2020,5.5,100,5,6,4.5\n01/02/2020,5,90,4.5,5.5,4\n"
    ),
    "stooq": (
        "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>\n"
        "AAPL,D,20200102,000000,4.5,5.5,4,5,90,0\nAAPL,D,20200103,000000,5,6,4.5,5.5,100,0\n"
    ),
}


@pytest.mark.parametrize("vendor", list(SINGLE))
def test_the_columns_of_a_vendor_are_known_and_the_others_said(tmp_path: Path, vendor: str) -> None:
    market = load(tmp_path, SINGLE[vendor])
    assert market.assets == ("AAPL", "cash")
    np.testing.assert_array_equal(market.prices[:, 0], [5, 5.5])
    for key, values in (
        ("opens", [4.5, 5]),
        ("highs", [5.5, 6]),
        ("lows", [4, 4.5]),
        ("volume", [90, 100]),
    ):
        np.testing.assert_allclose(getattr(market, key)[:, 0], values)
    (note,) = [note for note in market.notes if "is the date" in note]
    left = {
        "alpha vantage": "; left out: 'dividend_amount', 'split_coefficient'",
        "investing": "; left out: 'Change %'",
        "nasdaq": "",
        "stooq": "; left out: '<PER>', '<TIME>', '<OPENINT>'",
    }
    assert note.endswith(left[vendor] or "'Low' is low")
    assert ("'close' is the close as it was paid" in note) is (vendor == "alpha vantage")


def test_columns_of_a_long_table_that_are_not_read_are_said(tmp_path: Path) -> None:
    text = ",date,tic,close,macd,vix\n0,2020-01-02,A,1,0.1,20\n1,2020-01-02,B,3,0.1,20\n"
    market = load(tmp_path, text + "2,2020-01-03,A,2,0.1,20\n3,2020-01-03,B,4,0.1,20\n")
    said = "'date' is the date, 'tic' is the asset, 'close' is the price; left out: '', 'macd'"
    assert f"AAPL.csv: {said}, 'vix'" in market.notes
    with pytest.raises(DataError, match=r"column 'tic' names assets, and no column is named close"):
        load(tmp_path, "date,tic,px\n2020-01-02,A,1\n2020-01-03,A,2\n")


# ---- two rows of names


def stacked(order: list[str], names: bool = True) -> pd.DataFrame:
    """Closes and volumes of two assets, one of which lists late."""
    days = pd.bdate_range("2020-01-02", periods=3, name="Date" if names else None)
    columns = {
        ("Close", "AAPL"): [10.0, 11, 12],
        ("Close", "MSFT"): [np.nan, 20.0, 21],
        ("Volume", "AAPL"): [5.0, 6, 7],
        ("Volume", "MSFT"): [np.nan, 8.0, 9],
    }
    frame = pd.DataFrame(columns, days)
    frame.columns = frame.columns.set_names(["Price", "Ticker"] if names else [None, None])
    return pd.DataFrame(frame.swaplevel(axis=1).sort_index(axis=1)) if order[0] == "T" else frame


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("order", ["PT", "TP"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_fields_above_assets_and_assets_above_fields(
    tmp_path: Path, kind: str, order: str, names: bool
) -> None:
    path = tmp_path / f"prices.{kind}"
    frame = stacked([*order], names)
    frame.to_csv(path) if kind == "csv" else frame.to_parquet(path)
    market = load_market("files", path=path)
    assert market.assets == ("AAPL", "MSFT", "cash") and market.n_periods == 3
    np.testing.assert_array_equal(market.prices[:, 0], [10, 11, 12])
    np.testing.assert_array_equal(market.prices[:, 1], [np.nan, 20, 21])
    assert market.volume is not None
    np.testing.assert_array_equal(market.volume[:, 1], [np.nan, 8, 9])


def test_a_fault_under_two_rows_of_names_is_placed(tmp_path: Path) -> None:
    text = "Price,Close,Close\nTicker,AAPL,MSFT\nDate,,\n2020-01-02,10,x\n2020-01-03,11,20\n"
    with pytest.raises(DataError) as caught:
        load(tmp_path, text, "two.csv")
    assert str(caught.value) == (
        "two.csv: column 'Close', row 4 (2020-01-02, MSFT): 'x' is not a finite number"
    )


# ---- numbers and dates that are not what they seem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("date,A\n2020-01-02,$10.5\n2020-01-03,$11\n", "'$10.5' is not a finite number; write it"),
        ("date,A\n2020-01-02,1.5M\n2020-01-03,2\n", "'1.5M' is not a finite number; write it out"),
        ("date,A\n2020-01-02,3%\n2020-01-03,2%\n", "'3%' is not a finite number; write it out"),
        (
            "date,A\n1577836800000,10\n1577923200000,11\n",
            "; it looks like milliseconds since 1970",
        ),
        ("date,A\n43832,1\n43833,2\n", "; it looks like the number of a day in a spreadsheet"),
    ],
)
def test_signs_units_and_milliseconds_are_refused_with_advice(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("%Y-%m", {}),
        ("%b-%Y", {}),
        ("%b %Y", {}),
        ("%Y%m", {"date_format": "%Y%m"}),
        ("%m/%Y", {"date_format": "%m/%Y"}),
    ],
)
def test_a_month_without_a_day_is_known_at_its_end(
    tmp_path: Path, form: str, options: dict[str, str]
) -> None:
    months = pd.date_range("2019-11-15", periods=4, freq="MS")
    rows = "".join(f"{month.strftime(form)},{i + 1}\n" for i, month in enumerate(months))
    market = load(tmp_path, "date,A\n" + rows, **options)
    assert [f"{day:%Y-%m-%d}" for day in market.dates] == [
        *("2019-12-31", "2020-01-31", "2020-02-29", "2020-03-31")
    ]


def test_a_year_without_a_month_is_known_at_its_end(tmp_path: Path) -> None:
    market = load(tmp_path, "date,A\n2018,1\n2019,2\n", date_format="%Y")
    assert [f"{day:%Y-%m-%d}" for day in market.dates] == ["2018-12-31", "2019-12-31"]


def test_names_that_differ_in_capitals_only_are_doubted(tmp_path: Path) -> None:
    rows = "date,aapl,AAPL,CASH\n2020-01-02,1,2,3\n2020-01-03,1.1,2.1,3.1\n"
    market = load(tmp_path, rows)
    words = "differ in capitals only: taken for two assets"
    assert [note for note in market.notes if "capitals" in note] == [
        f"'AAPL' and 'aapl' {words}",
        f"'CASH' and 'cash' {words}",
    ]


@pytest.mark.parametrize(("freq", "said"), [("MS", "first days of months"), ("W-MON", "Mondays")])
def test_labels_that_look_like_starts_of_periods_are_doubted(
    tmp_path: Path, freq: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    for part, doubted in ((freq, True), ("ME" if freq == "MS" else "W-FRI", False)):
        days = pd.date_range("2015-01-01", periods=30, freq=part)
        steps = np.random.default_rng(0).normal(0, 0.02, 30)
        pd.DataFrame({"A": 9 * np.exp(steps.cumsum())}, days).to_csv(tmp_path / "p.csv")
        quality = check(tmp_path / "p.csv")
        texts = [issue.text for issue in quality.of_level("look") if issue.kind == "labels"]
        assert [text.startswith(f"the dates are all {said}:") for text in texts] == [True] * doubted
        assert quality.market is not None and not any("weekend" in i.kind for i in quality.issues)
        assert any("dates are all" in note for note in quality.market.notes) is doubted


def test_several_rows_a_day_become_days(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "time,A,B\n" + "".join(
        f"2020-01-{day:02d} {hour}:00,{day + hour / 10},{day}\n"
        for day in (6, 7, 8)
        for hour in (10, 12, 16)
    )
    with caplog.at_level(logging.WARNING):
        market = load(tmp_path, text)
    assert market.n_periods == 3 and market.periods_per_year > 250
    np.testing.assert_allclose(market.prices[:, 0], [7.6, 8.6, 9.6])
    np.testing.assert_allclose(market.returns[1:, 0], [8.6 / 7.6 - 1, 9.6 / 8.6 - 1])
    assert "daily periods of 9 rows, labelled by their end" in market.notes
    assert "AAPL.csv: several rows a day made into days" in caplog.messages
    rows = pd.date_range("2020-01-01", periods=24 * 70, freq="h")
    pd.DataFrame({"A": np.arange(1.0, 1681)}, rows).to_csv(tmp_path / "crypto.csv")
    weekly = load_market("files", path=tmp_path / "crypto.csv", frequency="weekly")
    assert (weekly.dates.normalize().day_of_week == 6).all()  # Sundays
    np.testing.assert_array_equal(weekly.prices[:2, 0], [5 * 24, 12 * 24])


def test_compressed_text_is_read_and_other_kinds_of_files_are_named(tmp_path: Path) -> None:
    text = b"date,close\n2020-01-02,10\n2020-01-03,11\n"
    for name in ("AAA.csv.gz", "BRK.B.csv.gz"):
        (tmp_path / name).write_bytes(gzip.compress(text))
    market = load_market("files", path=tmp_path)
    assert market.assets == ("AAA", "BRK.B", "cash")
    np.testing.assert_array_equal(market.prices[:, 1], [10, 11])
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(text)[:30])
    with pytest.raises(DataError, match=r"torn.csv.gz: is no readable .gz file"):
        load_market("files", path=tmp_path / "torn.csv.gz")
    (tmp_path / "book.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"book.xlsx: .xlsx files are not read; save it as CSV"):
        load_market("files", path=tmp_path / "book.xlsx")
    with pytest.raises(DataError, match=r"none.xlsx: no such file"):
        load_market("files", path=tmp_path / "none.xlsx")
