"""Price files: all layouts give one market, and bad input is one line that names its place."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from market import DataError, InputError, Market, SettingError, load_market
from market.sources.memory import container_memory, memory
from market.sources.side_tables import read_side_table
from tests.conftest import address_space

WIDE = """date,AAA,BBB
2020-01-01,10,20
2020-01-02,11,19
2020-01-03,12.5,19.5
2020-01-06,12,21
"""


def put(folder: Path, text: str | bytes, name: str = "prices.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def load(folder: Path, text: str | bytes, **options: Any) -> Market:
    return load_market("files", path=put(folder, text), **options)


def table(n_periods: int = 60, n_assets: int = 3, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.01, size=(n_periods, n_assets))
    index = pd.bdate_range("2019-01-01", periods=n_periods, name="date")
    return pd.DataFrame(100 * np.exp(steps.cumsum(0)), index, ["AAA", "BBB", "CCC"][:n_assets])


# ---- what a good file becomes


def test_constant_weights_earn_exactly_the_product_of_the_periods(tmp_path: Path) -> None:
    frame = table(250)
    frame.to_csv(tmp_path / "prices.csv")
    market = load_market("files", path=tmp_path / "prices.csv", cash_rate=None)
    assert market.n_periods == 250
    np.testing.assert_array_equal(market.prices, frame.to_numpy())
    weights = np.array([0.5, 0.3, 0.2])
    value = 1.0
    for today, tomorrow in zip(frame.to_numpy()[:-1], frame.to_numpy()[1:], strict=True):
        value *= float(weights @ (tomorrow / today))
    assert np.prod(1.0 + market.returns[1:] @ weights) == pytest.approx(value, rel=1e-13)
    assert (market.returns[0] == 0).all()
    assert market.feature_names == ("return",)
    np.testing.assert_array_equal(market.features[:, :, 0], market.returns.astype(np.float32))


def test_all_layouts_and_both_formats_agree(tmp_path: Path) -> None:
    frame = table()
    frame.to_csv(tmp_path / "wide.csv")
    frame.to_csv(tmp_path / "semicolon.csv", sep=";", decimal=",")
    frame.to_parquet(tmp_path / "wide.parquet")
    long = frame.reset_index().melt("date", var_name="ticker", value_name="close")
    long.sample(frac=1, random_state=1).to_csv(tmp_path / "long.csv", index=False)
    long.to_parquet(tmp_path / "long.parquet")
    wide = load_market("files", path=tmp_path / "wide.csv")
    assert wide.assets == ("AAA", "BBB", "CCC", "cash")
    for name in ("semicolon.csv", "wide.parquet", "long.csv", "long.parquet"):
        decimal = "," if name == "semicolon.csv" else "."
        other = load_market("files", path=tmp_path / name, decimal=decimal)
        order = [other.assets.index(asset) for asset in wide.assets]
        np.testing.assert_array_equal(other.prices[:, order], wide.prices)
        assert other.dates.equals(wide.dates)
        assert other.notes[0] == f"{name}: read as a {name[:4].replace('semi', 'wide')} table"


def test_a_single_asset_file_has_its_panels_adjusted(tmp_path: Path) -> None:
    text = (
        "Date,Open,High,Low,Close,Adj Close,Volume\n"
        "2020-01-01,9,11,8,10,5,100\n2020-01-02,10,12,9,11,5.5,\n"
    )
    market = load_market("files", path=put(tmp_path, text, "SPY.csv"))
    assert market.assets == ("SPY", "cash")
    np.testing.assert_array_equal(market.prices[:, 0], [5.0, 5.5])
    assert market.opens is not None and market.highs is not None and market.volume is not None
    np.testing.assert_array_equal(market.closes, [[10, np.nan], [11, np.nan]])
    np.testing.assert_allclose(market.opens[:, 0], [4.5, 5.0])
    np.testing.assert_allclose(market.highs[:, 0], [5.5, 6.0])
    np.testing.assert_array_equal(market.volume, [[100, np.nan], [np.nan, np.nan]])


def test_closes_as_paid_go_along_with_gaps_other_files_and_chosen_assets(tmp_path: Path) -> None:
    put(
        tmp_path,
        "date,close,adj close\n2020-01-01,10,5\n2020-01-03,12,6\n2020-01-06,13,7\n",
        "A.csv",
    )
    put(tmp_path, "date,close\n2020-01-01,3\n2020-01-02,4\n2020-01-03,4\n2020-01-06,5\n", "B.csv")
    market = load_market("files", path=tmp_path, max_gap=2)
    np.testing.assert_array_equal(market.prices[:, 0], [5, 5, 6, 7])
    np.testing.assert_array_equal(market.closes[:, 0], [10, 10, 12, 13])  # type: ignore[index]
    np.testing.assert_array_equal(market.closes[:, 1], [3, 4, 4, 5])  # type: ignore[index]
    chosen = load_market("files", path=tmp_path, max_gap=2, assets=["B", "A"])
    np.testing.assert_array_equal(chosen.closes[:, 1], [10, 10, 12, 13])  # type: ignore[index]


def test_a_long_file_keeps_volume_and_late_listings(tmp_path: Path) -> None:
    text = (
        "date,asset,close,volume\n2020-01-01,AAA,10,5\n2020-01-02,AAA,11,6\n2020-01-02,BBB,3,7\n"
        "2020-01-03,AAA,12,0\n2020-01-03,BBB,4,8\n"
    )
    market = load(tmp_path, text, sectors={"AAA": "x", "BBB": "y"})
    assert market.assets == ("AAA", "BBB", "cash")
    assert not market.tradable[0, 1]
    assert market.tradable[1:].all()
    np.testing.assert_array_equal(market.volume[:, 1], [np.nan, 7, 8])  # type: ignore[index]
    assert market.sectors == {"AAA": "x", "BBB": "y"}


def test_features_on_a_file_cost_only_their_warm_up(tmp_path: Path) -> None:
    table(60).to_csv(tmp_path / "prices.csv")
    market = load_market("files", path=tmp_path / "prices.csv", features=["return", "return(20)"])
    assert market.n_periods == 40
    assert market.returns[0].any()
    with pytest.raises(
        DataError,
        match=r"feature 'rsi' needs 141 rows, 140 up to its first value and 1 to earn on, got 60",
    ):
        load_market("files", path=tmp_path / "prices.csv", features=["rsi"])


def test_cash_earns_its_rate_by_the_calendar(tmp_path: Path) -> None:
    market = load(tmp_path, WIDE, cash_rate=0.05)
    days = np.array([1, 1, 3])
    np.testing.assert_allclose(market.returns[1:, -1], 1.05 ** (days / 365) - 1, rtol=1e-12)


def test_a_cash_column_of_the_file_moves_to_the_end(tmp_path: Path) -> None:
    text = WIDE.replace("AAA", "cash")
    assert load(tmp_path, text, cash_rate=None).assets == ("BBB", "cash")
    with pytest.raises(DataError, match="column 'cash' clashes"):
        load(tmp_path, text)


def test_sectors_from_a_file(tmp_path: Path) -> None:
    path = put(tmp_path, "asset,sector\nAAA,energy\nBBB,utilities\n", "sectors.csv")
    assert load(tmp_path, WIDE, sectors=path).sectors == {"AAA": "energy", "BBB": "utilities"}
    other = put(tmp_path, "Symbol,GICS Sector\nAAA,energy\nBBB,utilities\n", "sectors.csv")
    assert load(tmp_path, WIDE, sectors=other).sectors == {"AAA": "energy", "BBB": "utilities"}
    bad = put(tmp_path, "asset,colour\nAAA,energy\nBBB,utilities\n", "sectors.csv")
    with pytest.raises(DataError, match=r"sectors.csv: needs the columns asset and sector"):
        load(tmp_path, WIDE, sectors=bad)


# ---- text that is fine in spite of its looks


@pytest.mark.parametrize(
    "content",
    [
        WIDE.replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + WIDE.encode(),
        WIDE.encode("utf-16"),
        WIDE.rstrip("\n"),
        WIDE + "\n\n",
        "\n" + WIDE,
        WIDE.replace(",", ";"),
        WIDE.replace(",", "\t"),
        WIDE.replace(",", " , "),
        WIDE.replace("-", "/"),
        WIDE.replace("2020-01-0", "2020010"),
        "\n".join(line.replace(",", " 16:00:00,", line[0] == "2") for line in WIDE.splitlines()),
        WIDE.replace("date", "Unnamed"),
        WIDE.replace("date", ""),
    ],
)
def test_harmless_forms_read_the_same(tmp_path: Path, content: str | bytes) -> None:
    market = load(tmp_path, content)
    np.testing.assert_array_equal(market.prices[:, 0], [10, 11, 12.5, 12])
    assert [f"{date:%Y-%m-%d}" for date in market.dates][-1] == "2020-01-06"


@pytest.mark.parametrize(
    "name", ["NA", "NULL", "TRUE", "nan", "None", "1", "BRK.B", "^GSPC", "S&P 500"]
)
def test_awkward_tickers_are_names(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, WIDE.replace("AAA", name)).assets[0] == name
    long = f"date,ticker,close\n2020-01-01,{name},1\n2020-01-02,{name},1.1\n"
    assert load(tmp_path, long).assets[0] == name


def test_dates_with_one_zone_are_local_dates_and_several_need_a_name(tmp_path: Path) -> None:
    summer = WIDE.replace("2020-01-06", "2020-07-06 00:00:00-04:00")
    for day in ("01", "02", "03"):
        summer = summer.replace(f"2020-01-{day}", f"2020-01-{day} 00:00:00-05:00")
    with pytest.raises(DataError, match=r"rows 2 and 5 are in different time zones.*set timezone"):
        load(tmp_path, summer)
    market = load(tmp_path, summer, timezone="America/New_York")
    assert str(market.dates[-1]) == "2020-07-06 00:00:00"
    winter = load(tmp_path, summer.replace("2020-07-06 00:00:00-04", "2020-02-06 00:00:00-05"))
    assert str(winter.dates[0]) == "2020-01-01 00:00:00"
    for text in (summer, WIDE):
        with pytest.raises(SettingError, match="unknown time zone 'Mars'"):
            load(tmp_path, text, timezone="Mars")


def test_a_parquet_file_of_one_zone_holds_its_local_dates(tmp_path: Path) -> None:
    days = pd.bdate_range("2020-01-01", periods=200)
    frame = pd.DataFrame({"A": np.linspace(1, 2, 200), "B": 2.0}, days.tz_localize("Europe/Paris"))
    frame.rename_axis("date").to_parquet(tmp_path / "paris.parquet")
    market = load_market("files", path=tmp_path / "paris.parquet")
    assert market.dates.equals(days.as_unit(market.dates.unit))
    utc = frame.tz_convert("UTC").rename_axis("date")
    utc.to_parquet(tmp_path / "utc.parquet")
    local = load_market("files", path=tmp_path / "utc.parquet", timezone="Europe/Paris")
    assert local.dates.equals(market.dates.as_unit(local.dates.unit))


def test_day_and_month_are_told_apart_or_asked_for(tmp_path: Path) -> None:
    text = "date,A\n01/02/2020,1\n02/02/2020,1.1\n03/02/2020,1.2\n"
    with pytest.raises(DataError) as caught:
        load(tmp_path, text)
    assert "row 2: '01/02/2020' reads as 2020-02-01 (%d/%m/%Y) or 2020-01-02" in str(caught.value)
    assert str(load(tmp_path, text, date_format="%d/%m/%Y").dates[-1].date()) == "2020-02-03"
    clear = load(tmp_path, text + "13/02/2020,1.2\n")
    assert str(clear.dates[-1].date()) == "2020-02-13"


def test_columns_called_like_bars_are_assets_where_it_is_said(tmp_path: Path) -> None:
    market = load(tmp_path, WIDE.replace("BBB", "Volume"), layout="wide")
    assert "Volume" in market.assets


def test_an_asset_without_a_price_on_the_calendar_chosen_is_named(tmp_path: Path) -> None:
    text = "date,A,B\n2020-01-01,1,\n2020-01-02,1.1,\n2020-01-03,1.1,\n2020-01-04,,5\n"
    with pytest.raises(DataError, match=r"'B' has no price on any of the 3 dates 2020-01-01 .. 2"):
        load(tmp_path, text, calendar="A")


def test_a_last_line_without_an_end_is_said(tmp_path: Path) -> None:
    assert any("no line break at its end" in note for note in load(tmp_path, WIDE.rstrip()).notes)
    assert not any("no line break" in note for note in load(tmp_path, WIDE).notes)


# ---- repairs: carried out, said, and causal


def test_unsorted_dates_are_sorted_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = WIDE.splitlines()
    with caplog.at_level(logging.WARNING):
        market = load(tmp_path, "\n".join([lines[0], *lines[:1:-1], lines[1]]) + "\n")
    np.testing.assert_array_equal(market.prices[:, 0], [10, 11, 12.5, 12])
    assert sum("dates do not rise" in message for message in caplog.messages) == 1
    assert any("row 3, 2020-01-03" in note for note in market.notes)


def gappy(tmp_path: Path, missing: slice, max_gap: int = 5, rows: int = 30) -> Market:
    frame = table(rows)
    frame.iloc[missing, 1] = np.nan
    frame.to_csv(tmp_path / "prices.csv")
    return load_market("files", path=tmp_path / "prices.csv", max_gap=max_gap)


def test_a_short_gap_is_carried_forward_and_counted(tmp_path: Path) -> None:
    market = gappy(tmp_path, slice(10, 13))
    assert market.tradable.all()
    assert (market.prices[10:13, 1] == market.prices[9, 1]).all()
    assert (market.returns[10:13, 1] == 0).all()
    assert "'BBB': 3 missing prices carried forward, first on 2019-01-15" in market.notes


def test_a_long_gap_suspends_the_asset(tmp_path: Path) -> None:
    market = gappy(tmp_path, slice(10, 20), max_gap=2)
    assert market.tradable[:12, 1].all() and market.tradable[20:, 1].all()
    assert not market.tradable[12:20, 1].any()
    assert any("not tradable on 8 dates without price, 2019-01-17" in n for n in market.notes)


def test_a_late_listing_is_never_filled_backwards(tmp_path: Path) -> None:
    market = gappy(tmp_path, slice(0, 10))
    assert np.isnan(market.prices[:10, 1]).all()
    assert not market.tradable[:10, 1].any()
    assert (market.returns[:11, 1] == 0).all()
    assert "'BBB' is listed from 2019-01-15" in market.notes


@pytest.mark.parametrize("max_gap", [None, 0, 2, 5])
def test_an_asset_without_prices_to_the_end_is_delisted(
    tmp_path: Path, max_gap: int | None
) -> None:
    """On the next row, or when the gap is longer than gaps may be: not before that is known."""
    frame = table(30)
    frame.iloc[20:, 1] = np.nan
    frame.to_csv(tmp_path / "prices.csv")
    market = load_market(
        "files", path=tmp_path / "prices.csv", max_gap=max_gap, delisting_return=-0.3
    )
    left = 20 + (max_gap or 0)
    assert market.tradable[:left, 1].all()
    assert not market.tradable[left:, 1].any()
    assert np.isnan(market.prices[left:, 1]).all()
    assert market.returns[left, 1] == -0.3
    assert not np.delete(market.returns[20:, 1], left - 20).any()
    assert any(note.startswith("'BBB' is delisted after") for note in market.notes)


def test_what_is_tradable_does_not_depend_on_what_comes_later(tmp_path: Path) -> None:
    whole = gappy(tmp_path, slice(10, 20), max_gap=3)
    for rows in range(11, 24):
        cut = gappy(tmp_path, slice(10, 20), max_gap=3, rows=rows)
        np.testing.assert_array_equal(cut.tradable, whole.tradable[:rows])
        held = cut.tradable
        np.testing.assert_array_equal(cut.prices[held], whole.prices[:rows][held])


def test_doubts_are_said_but_do_not_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = table(40)
    frame.iloc[20:, 0] /= 2
    frame["CCC"] = 7.0
    frame.index = pd.DatetimeIndex(
        [
            date + pd.Timedelta(days=60 * (date >= pd.Timestamp("2019-02-15")))
            for date in frame.index
        ],
        name="date",
    )
    frame.to_csv(tmp_path / "prices.csv")
    with caplog.at_level(logging.WARNING):
        market = load_market("files", path=tmp_path / "prices.csv")
    split, flat, pause = market.notes[1:]
    assert caplog.messages == [split, flat, pause]
    assert split.startswith("prices.csv: column 'AAA', row 22 (2019-01-29): price is 0.4978 times")
    assert flat.startswith("'CCC' never moves")
    assert pause == "no dates between 2019-02-14 and 2019-04-16: one return spans them"
    quiet = load_market("files", path=tmp_path / "prices.csv", allow_jumps=True)
    assert quiet.notes[1:] == (flat, pause)
    assert np.isfinite(market.features).all()


def test_dates_without_any_price_are_left_out(tmp_path: Path) -> None:
    market = load(tmp_path, WIDE.replace("2020-01-03,12.5,19.5", "2020-01-03,,"))
    assert market.n_periods == 3
    assert "1 dates without any price left out, first 2020-01-03" in market.notes


def test_a_file_that_ends_in_mid_line_passes_if_its_last_jump_is_true(tmp_path: Path) -> None:
    market = load(tmp_path, WIDE + "2020-01-07,12.3,2", allow_jumps=True)
    assert market.prices[-1, 1] == 2
    assert "prices.csv: row 6, the last, has no line break at its end" in market.notes


def test_a_last_number_that_looks_cut_off_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One torn among its decimals moves too little to be a jump."""
    text = table(40).round(6).to_csv()
    for cut, warned in ((4, True), (1, False)):
        caplog.clear()
        market = load(tmp_path, text[:-cut])
        told = any("fewer decimals than all above it" in note for note in market.notes)
        assert told == warned == ("is the file whole?" in caplog.text)


# ---- bad input: file, column, row and value in one line


FAULTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is empty"),
    "blank": ("\n \n", "is empty"),
    "commas": (",,\n,,\n", "0 rows and 0 columns"),
    "header only": ("date,AAA,BBB\n", "0 rows and 2 columns"),
    "one row": ("date,AAA\n2020-01-01,1\n", "1 rows and 1 columns"),
    "no assets": ("date\n2020-01-01\n2020-01-02\n", "0 columns beside the dates"),
    "no header": ("2020-01-01,1\n2020-01-02,2\n2020-01-03,2\n", "row 1 must name the columns"),
    "torn line": (WIDE + "2020-01-07,1", "row 6: 2 fields, the header has 3; the last line is not"),
    "torn after a comma": (
        WIDE + "2020-01-07,12.3,",
        "row 6: column 'BBB' is empty and the last line is not ended: the file looks cut off",
    ),
    "torn number": (WIDE + "2020-01-07,12.3,2", "row 6 (2020-01-07): price is 0.09524 times"),
    "a field more everywhere": (
        WIDE.replace("\n", ",5\n").replace("BBB,5", "BBB"),
        "row 2: 4 fields",
    ),
    "a field more": (WIDE.replace("12.5", "12,5"), "row 4: 4 fields, the header has 3"),
    "a field fewer": (WIDE.replace("11,19", "11"), "row 3: 2 fields, the header has 3"),
    "twice a column": (
        WIDE.replace("BBB", "AAA"),
        "column 'AAA' appears twice, at positions 2 and",
    ),
    "twice a date, equal": (
        WIDE + "2020-01-02,11,19\n",
        "rows 3 and 6: date 2020-01-02 appears twice, with the same values",
    ),
    "twice a date, different": (
        WIDE.replace("01-03", "01-02"),
        "rows 3 and 4: date 2020-01-02 appears twice, with different values",
    ),
    "text": (
        WIDE.replace("12.5", "abc"),
        "column 'AAA', row 4 (2020-01-03): 'abc' is not a finite",
    ),
    "thousands": (WIDE.replace("12.5", '"1,234.5"'), "'1,234.5' is not a finite number; is ','"),
    "decimal comma": (WIDE.replace("12.5", '"1,5"'), "'1,5' is not a finite number; is ','"),
    "underscore": (WIDE.replace("12.5", "1_000"), "row 4 (2020-01-03): '1_000' is not"),
    "infinite": (WIDE.replace("12.5", "inf"), "column 'AAA', row 4 (2020-01-03): 'inf' is not"),
    "too large": (WIDE.replace("12.5", "1e400"), "column 'AAA', row 4 (2020-01-03): '1e400' is"),
    "zero": (WIDE.replace("19.5", "0"), "column 'BBB', row 4 (2020-01-03): 0 must be > 0"),
    "negative": (WIDE.replace("19.5", "-3.2"), "'BBB', row 4 (2020-01-03): -3.2 must be > 0"),
    "all missing": (
        "date,AAA,BBB\n2020-01-01,1,\n2020-01-02,1.1,\n",
        "'BBB' has no price at all",
    ),
    "one price": (
        "date,AAA,BBB\n2020-01-01,1,2\n2020-01-02,,\n",
        "1 dates with a price; needs at least 2",
    ),
    "path name": (
        WIDE.replace("BBB", "../../x"),
        "row 1, column 3: '../../x' is no name for an asset",
    ),
    "script name": (WIDE.replace("BBB", "<script>"), "'<script>' is no name for an asset"),
    "formula name": (WIDE.replace("BBB", "=cmd()"), "'=cmd()' is no name for an asset"),
    "long name": (WIDE.replace("BBB", "B" * 300), "is no name for an asset"),
    "no name": (WIDE.replace("BBB", ""), "row 1, column 3: '' is no name for an asset"),
    "naive and aware": (
        WIDE.replace("01-02,", "01-02 00:00:00+00:00,"),
        "rows 2 and 3 are in different time zones",
    ),
    "not a date": (
        WIDE.replace("2020-01-03", "someday"),
        "row 4: 'someday' is not a date like 2019",
    ),
    "no such day": (WIDE.replace("2020-01-03", "2020-02-30"), "row 4: '2020-02-30' is not a date"),
    "no date": (WIDE.replace("2020-01-03", ""), "row 4: '' is not a date"),
    "serial dates": ("date,A\n43831,1\n43832,2\n", "row 2: '43831' is not a date; set date_format"),
    "year 2": (WIDE.replace("2020-01-03", "0002-01-03"), "row 4: '0002-01-03' is in the year 2"),
    "NUL": (WIDE.replace("12.5", "12\0"), "row 4: holds a NUL byte"),
    "latin-1": (WIDE.replace("BBB", "Bé").encode("latin-1"), "row 1: byte 0xe9 is not UTF-8 text"),
    "bars without a close": (
        WIDE.replace("AAA,BBB", "open,high"),
        "column 'open' is no asset; a table of one asset needs a column close",
    ),
    "a volume among prices": (
        WIDE.replace("BBB", "Volume"),
        "column 'Volume' is no asset; a table of one asset needs a column close",
    ),
    "open quote": (
        WIDE.replace("12.5", '"12.5'),
        "row 4: a quotation mark is opened and never closed",
    ),
    "one asset alone": ("date,A\n2020-01-01,1\n2020-01-02,1.1\n", "1 asset and no cash leaves"),
    "long twice": (
        "date,asset,close\n2020-01-01,A,1\n2020-01-02,A,1.1\n2020-01-01,A,1\n",
        "rows 2 and 4: date 2020-01-01 of 'A' appears twice, with the same values",
    ),
    "long negative volume": (
        "date,asset,close,volume\n2020-01-01,A,1,5\n2020-01-02,A,1.1,-5\n",
        "column 'volume', row 3 (2020-01-02, A): -5 must be >= 0",
    ),
    "long no name": (
        "date,asset,close\n2020-01-01,A,1\n2020-01-02,,1.1\n",
        "row 3: '' is no name for an asset",
    ),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_bad_file_is_one_line_that_names_the_place(tmp_path: Path, fault: str) -> None:
    content, words = FAULTS[fault]
    cash_rate = None if fault == "one asset alone" else 0.0
    with pytest.raises(DataError) as caught:
        load(tmp_path, content, cash_rate=cash_rate)
    assert str(caught.value).startswith("prices.csv: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spoil", ["truncate", "text", "object"])
def test_a_bad_parquet_file_is_named(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "prices.parquet"
    frame = table()
    if spoil == "object":
        frame["BBB"] = frame["BBB"].astype(object)
        frame.iloc[4, 1] = None
        frame["BBB"] = frame["BBB"].map(lambda value: "x" if value is None else str(value))
    frame.to_parquet(path)
    if spoil == "truncate":
        path.write_bytes(path.read_bytes()[:-100])
    if spoil == "text":
        path.write_text(WIDE)
    words = "column 'BBB', row 5 (2019-01-07): 'x'" if spoil == "object" else "not a readable"
    with pytest.raises(DataError) as caught:
        load_market("files", path=path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_parquet_numbers_keep_their_rules(tmp_path: Path) -> None:
    frame = table()
    frame.iloc[7, 2] = np.inf
    frame.to_parquet(tmp_path / "prices.parquet")
    with pytest.raises(DataError, match=r"column 'CCC', row 8 .*'inf' is not a finite number"):
        load_market("files", path=tmp_path / "prices.parquet")


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    put(tmp_path, WIDE)
    with pytest.raises(DataError, match=r"price.csv: no such file; did you mean 'prices.csv'\?"):
        load_market("files", path=tmp_path / "price.csv")
    with pytest.raises(DataError, match=r"nowhere/x.csv: no such file$"):
        load_market("files", path=tmp_path / "nowhere" / "x.csv")


def test_what_may_not_be_read_says_why() -> None:
    """A file, one in a folder that is shut, that folder, and one whose files may only be listed."""
    with tempfile.TemporaryDirectory() as name:  # where others may enter, unlike in pytest's own
        home = Path(name)
        home.chmod(0o755)
        for folder in ("shut", "listed"):
            (home / folder).mkdir()
            put(home / folder, WIDE)
        put(home, WIDE).chmod(0)
        (home / "shut").chmod(0)
        (home / "listed").chmod(0o444)
        with as_nobody():
            for path in ("prices.csv", "shut/prices.csv", "shut", "listed"):
                with pytest.raises(DataError, match=rf"{path}\S*: cannot be read: Permission den"):
                    load_market("files", path=home / path)
        with pytest.raises(DataError, match=r"xx\.csv: cannot be read: File name too long$"):
            load_market("files", path=home / ("x" * 300 + ".csv"))


@contextmanager
def as_nobody() -> Iterator[None]:
    """Within, without the rights of root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "log"}, "unknown layout 'log'; did you mean 'long'?"),
        ({"layout": "long"}, "layout 'long' needs a column named asset or ticker"),
        ({"layout": "single"}, "needs a column named close or adj close"),
        ({"max_gap": -1}, "max_gap: must be a whole number >= 0, got -1"),
        ({"max_gap": True}, "max_gap: must be a whole number >= 0, got True"),
        ({"decimal": ";"}, "decimal: must be '.' or ',', got ';'"),
        ({"cash_rate": -1.5}, "cash_rate"),
        ({"cash_rate": float("nan")}, "cash_rate"),
        ({"date_format": "%d/%m/%Y"}, "row 2: '2020-01-01' is not a date of the form %d/%m/%Y"),
        ({"date_format": "%q"}, "date_format: '%q': 'q' is a bad directive"),
        ({"date_format": 5}, "date_format: must be a text such as %d/%m/%Y, got 5"),
        ({"allow_jumps": "maybe"}, "allow_jumps: must be true or false, got 'maybe'"),
        ({"calendar": "outer", "start": "01/02/2020"}, "start: '01/02/2020' is not a date; write"),
        ({"sectors": {"ZZZ": "energy"}}, "sectors name unknown assets ['ZZZ']"),
        (
            {"sectors": {"AAB": "energy", "BBB": "energy"}},
            "sectors name unknown assets ['AAB']; did you mean 'AAA'?",
        ),
        ({"delimiter": ";;"}, "delimiter"),
        ({"sha256": 0}, "sha256: must be 64 digits and letters a to f, got 0"),
        ({"cash_rate": 5}, "cash_rate: is a fraction a year, such as 0.03 for 3 %, got 5"),
        ({"max_gaps": 3}, "max_gaps"),
    ],
)
def test_a_bad_option_is_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, WIDE, **options)
    assert words in str(caught.value)


def test_a_path_is_needed() -> None:
    with pytest.raises(SettingError, match="path"):
        load_market("files")


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    scraps = [
        b",",
        b"\n",
        b'"',
        b"\0",
        b"-",
        b"e",
        b"9",
        b"inf",
        b";",
        b"\xff",
        b"Z",
        b":",
        b"date",
    ]
    outcomes = {True: 0, False: 0}
    for _ in range(400):
        content = bytearray(WIDE.encode())
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(content)))
            content[at : at + int(rng.integers(3))] = scraps[rng.integers(len(scraps))]
        try:
            market = load(tmp_path, bytes(content))
            assert np.isfinite(market.features).all()
            outcomes[True] += 1
        except InputError as error:
            assert "\n" not in str(error)
            outcomes[False] += 1
    assert min(outcomes.values()) > 10


# ---- a folder with one file an asset, and tables beside the prices


OHLC = "Date,Open,High,Low,Close,Adj Close,Volume\n"


def put_folder(folder: Path) -> Path:
    put(folder, OHLC + "2020-01-01,9,11,8,10,5,100\n2020-01-02,10,12,9,11,5.5,90\n", "AAA.csv")
    put(folder, "date,close\n2020-01-02,20\n2020-01-03,22\n", "BRK.B.csv")
    return folder


def test_a_folder_is_one_asset_a_file(tmp_path: Path) -> None:
    market = load_market("files", path=put_folder(tmp_path), max_gap=0)
    assert market.assets == ("AAA", "BRK.B", "cash") and market.n_periods == 3
    np.testing.assert_array_equal(market.prices[:, 0], [5, 5.5, np.nan])
    np.testing.assert_array_equal(market.prices[:, 1], [np.nan, 20, 22])
    assert market.volume is not None and market.highs is not None
    np.testing.assert_array_equal(market.volume[:, 0], [100, 90, np.nan])
    np.testing.assert_allclose(market.highs[:2, 0], [5.5, 6.0])
    assert market.notes[0] == f"{tmp_path.name}: 2 files read as one asset each"
    assert "AAA.csv and 1 more: read as a single table" in market.notes


def test_a_folder_may_hold_side_files_and_others(tmp_path: Path) -> None:
    put_folder(tmp_path)
    put(tmp_path, "asset,sector\nAAA,energy\nBRK.B,money\n", "sectors.csv")
    put(tmp_path, FUNDAMENTALS, "fundamentals.csv")
    put(tmp_path, "read me", "notes.md")
    market = load_market("files", path=tmp_path, features=["price_to_book"])
    assert market.sectors == {"AAA": "energy", "BRK.B": "money"}
    assert market.feature_names == ("price_to_book",)
    said = market.notes[0]
    assert "fundamentals.csv, sectors.csv taken as side files; left alone: notes.md" in said


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "AAA.txt",
            "date,close\n2020-01-01,1\n2020-01-02,2\n",
            "asset 'AAA' stands in AAA.csv and in",
        ),
        ("wide.csv", WIDE, "wide.csv: looks like a wide table, but each file of a folder is one"),
        ("CCC.csv", "date,close\n2020-01-01,-1\n2020-01-02,2\n", "CCC.csv: column 'close', row 2"),
        ("=x.csv", "date,close\n2020-01-01,1\n2020-01-02,2\n", "'=x' is no name for an asset"),
    ],
)
def test_a_bad_file_in_a_folder_is_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    put_folder(tmp_path)
    put(tmp_path, text, name)
    with pytest.raises(DataError) as caught:
        load_market("files", path=tmp_path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_prices_says_what_it_holds(tmp_path: Path) -> None:
    put(tmp_path, "x", "readme.md")
    with pytest.raises(DataError, match=r"holds no price file \(.csv, .*\), but readme.md"):
        load_market("files", path=tmp_path)
    with pytest.raises(SettingError, match="sha256: is the digest of a file"):
        load_market("files", path=tmp_path, sha256="0" * 64)


FUNDAMENTALS = """Ticker,Report_Date,Filing_Date,EPS,Book Value,Currency
AAA,2019-09-30,2019-11-05,0.5,4,USD
AAA,2019-12-31,,0.6,,USD
BBB,2019-09-30,2019-11-06,-0.1,8,USD
"""


def test_fundamentals_are_read_and_said(tmp_path: Path) -> None:
    side = put(tmp_path, FUNDAMENTALS, "figures.csv")
    frame, note = read_side_table("fundamentals", side)
    assert list(frame.columns) == ["period_end", "published", "asset", "eps", "book_value"]
    assert frame["published"].isna().tolist() == [False, True, False]
    assert frame["period_end"][1] == pd.Timestamp("2019-12-31")
    np.testing.assert_array_equal(frame["book_value"], [4, np.nan, 8])
    assert note == (
        "figures.csv: read as the table 'fundamentals': Report_Date as period_end, Filing_Date as "
        "published, Ticker as asset; values eps, book_value; left out, not numbers: Currency"
    )
    market = load(tmp_path, WIDE, fundamentals=side, features=["price_to_book"])
    np.testing.assert_allclose(market.features[:, 0, 0], np.array([10, 11, 12.5, 12]) / 4)
    assert note in market.notes


def test_news_keep_their_zone_and_score(tmp_path: Path) -> None:
    text = (
        "time,symbol,headline,source,score\n2020-01-02T15:00:00Z,AAA,up,wire,0.5\n"
        "2020-01-02T23:00:00+01:00,BBB,down,wire,-0.5\n"
    )
    side = put(tmp_path, text, "news.csv")
    frame, note = read_side_table("news", side)
    assert frame["timestamp"].tolist() == [
        pd.Timestamp("2020-01-02 15:00", tz="UTC"),
        pd.Timestamp("2020-01-02 22:00", tz="UTC"),
    ]
    assert frame["text"].tolist() == ["up", "down"]
    assert "left out, not numbers: source" in note
    market = load(tmp_path, WIDE, news=side, features=["sentiment"])
    np.testing.assert_allclose(market.features[:, 0, 0], [0.5, 0, 0])  # 10 in New York
    words = "1 rows left out, before 2020-01-02: 'sentiment' is not known sooner"
    assert words in market.notes
    np.testing.assert_allclose(market.features[:, 1, 0], [0, -0.5, 0])  # after the close


def test_any_table_comes_beside_any_source(tmp_path: Path) -> None:
    side = put(tmp_path, "date,published,value\n2004-12-31,2005-01-10,7\n2005-01-31,2005-02-10,8\n")
    market = load_market(tables={"mine": side}, features=["macro('mine')"], end="2005-12-30")
    shown = pd.Series(market.context[:, 0], market.dates)
    assert (shown["2005-02-09"], shown["2005-02-10"]) == (7, 8)
    assert any("read as the table 'mine'" in note for note in market.notes)
    frame = pd.DataFrame({"date": pd.to_datetime(["2004-01-05"]), "value": [1.0]})
    market = load_market(tables={"mine": frame}, features=["macro('mine', 1)"], end="2005-12-30")
    assert market.dates[0] == pd.Timestamp("2004-01-06")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("fundamentals", "asset,eps\nA,1\nB,2\n", "needs a column named period_end"),
        (
            "news",
            "timestamp,asset\n2020-01-01,A\n2020-01-02,B\n",
            "needs a column named text or score",
        ),
        (
            "mine",
            "date,value\n2020-01-01,1\n2020-01-02,x\n",
            "row 3 (2020-01-02): 'x' is not a finite",
        ),
        ("mine", "date,value\n2020-01-01,1\n,2\n", "column 'date', row 3: the date is missing"),
        ("mine", "date,value\n2020-01-01,1\nsoon,2\n2020-01-03,3\n", "row 3: 'soon' is not a date"),
        ("news", "time,text\n2020-01-01T10:00Z,a\nsoon,b\n", "row 3: 'soon' is not a time"),
    ],
)
def test_a_bad_side_table_is_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        read_side_table(name, put(tmp_path, text, "side.csv"))
    assert str(caught.value).startswith("side.csv: ") and words in str(caught.value)


def test_side_tables_about_nothing_or_of_no_form_are_refused(tmp_path: Path) -> None:
    side = put(tmp_path, FUNDAMENTALS.replace("AAA", "X").replace("BBB", "Y"), "figures.csv")
    with pytest.raises(
        DataError, match=r"none of its assets \(X, Y\) is among those with prices \(AAA"
    ):
        load(tmp_path, WIDE, fundamentals=side)
    with pytest.raises(SettingError, match="tables: 'mine' must be a data frame or a path, got 7"):
        load_market(tables={"mine": 7})  # type: ignore[dict-item]


# ---- changed files, the future, and what no memory holds


@pytest.mark.parametrize("name", ["prices.csv", "prices.parquet"])
def test_a_registered_file_may_not_change(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    table().to_csv(path) if name.endswith("csv") else table().to_parquet(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_market("files", path=path, sha256=digest.upper()).n_periods == 60
    (tmp_path / f"{name}.sha256").write_text(f"{digest}  {name}\n")
    assert load_market("files", path=path).n_periods == 60
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for given in (None, digest):
        with pytest.raises(DataError, match=rf"{name}: file changed since it was registered: its"):
            load_market("files", path=path, sha256=given)


def test_a_date_in_the_future_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 5: '2190-01-06' is in the future; is date_format"):
        load(tmp_path, WIDE.replace("2020-01-06", "2190-01-06"))


def one_price_an_asset(folder: Path, count: int) -> Path:
    """A long file of so many dates and assets: few numbers that would be large panels."""
    days = pd.date_range("1750-01-01", periods=count).strftime("%Y-%m-%d")
    lines = [f"{day},A{i},1\n" for i, day in enumerate(days)]
    return put(folder, "date,asset,close\n" + "".join(lines))


@pytest.mark.skipif(memory() > 600e9, reason="this machine has the memory")
def test_more_than_memory_holds_is_refused_by_an_estimate(tmp_path: Path) -> None:
    path = one_price_an_asset(tmp_path, 100_000)
    with pytest.raises(DataError, match=r"prices.csv: 100000 dates x 100000 assets need about 640"):
        load_market("files", path=path)


def test_what_this_process_may_have_counts_as_memory(tmp_path: Path) -> None:
    path = one_price_an_asset(tmp_path, 20_000)
    words = r"20000 assets need about 26 GB, there are (12|\d) GB"
    with address_space(12 * 10**9), pytest.raises(DataError, match=words):
        load_market("files", path=path)


@pytest.mark.parametrize(
    ("name", "text", "least"),
    [
        ("memory.max", "2000000000", 2e9),
        ("memory.max", "max", np.inf),
        ("memory/memory.limit_in_bytes", "3000000000", 3e9),
        ("other", "", np.inf),
    ],
)
def test_what_a_container_may_have_is_read(
    tmp_path: Path, name: str, text: str, least: float
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    put(tmp_path, text + "\n", name)
    assert container_memory(tmp_path) == least


def test_calendars_that_differ_are_a_choice(tmp_path: Path) -> None:
    days = pd.date_range("2020-01-01", periods=60)
    frame = pd.DataFrame({"BTC": np.linspace(100, 130, 60), "SPY": np.linspace(300, 320, 60)}, days)
    frame.loc[days.day_of_week >= 5, "SPY"] = np.nan
    frame.rename_axis("date").to_csv(tmp_path / "prices.csv")
    with pytest.raises(DataError, match=r"'BTC' trades at weekends.*set calendar to inner"):
        load_market("files", path=tmp_path / "prices.csv")
    weekdays = int((days.day_of_week < 5).sum())
    for calendar, rows in (("inner", weekdays), ("SPY", weekdays), ("outer", 60)):
        market = load_market("files", path=tmp_path / "prices.csv", calendar=calendar)
        assert market.n_periods == rows
        assert market.tradable.all()


def test_a_hole_is_refused_unless_carrying_is_asked_for(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("date,AAA,BBB\n2020-01-01,1,5\n2020-01-02,,5.1\n2020-01-03,1.1,5.2\n")
    with pytest.raises(DataError, match=r"column 'AAA', row 3 \(2020-01-02\).*max_gap"):
        load_market("files", path=path)
    market = load_market("files", path=path, max_gap=5)
    np.testing.assert_allclose(market.prices[:, 0], [1, 1, 1.1])
