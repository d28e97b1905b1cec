"""Time zones, decimal signs, sectors and order of files: each against an answer worked by hand."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.config import DataConfig
from experiments.data_commands import data
from experiments.options import options_of
from experiments.settings import resolve
from experiments.yaml_file import Document, parse_value
from market import DataError, Market, SettingError, load_market
from market.quality import check
from market.sources.side_tables import by_asset, read_side_table

DAYS = pd.bdate_range("2016-02-29", "2016-07-08", name="date")


def put(folder: Path, text: str, name: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def load(folder: Path, **options: Any) -> Market:
    rising = np.arange(len(DAYS)) + 10.0
    pd.DataFrame({"AAA": rising, "BBB": 5.0 + rising}, DAYS).to_csv(folder / "prices.csv")
    return load_market("files", path=folder / "prices.csv", **options)


def days_of_news(folder: Path, stamps: list[str], spec: str = "news_count", **options: Any) -> str:
    """The days on which news of these times count, as text."""
    rows = "".join(f"{stamp},AAA,1\n" for stamp in stamps)
    news = put(folder, f"timestamp,asset,score\n{rows}", "news.csv")
    market = load(folder, news=news, features=[spec], **options)
    return " ".join(f"{day:%m-%d}" for day in market.dates[market.features[:, 0, 0] > 0])


@pytest.mark.parametrize(
    ("stamps", "days"),
    [
        (["2016-03-02T15:30:00-08:00"], "03-03"),  # 18:30 in New York
        (["2016-03-02T12:30:00-08:00"], "03-02"),  # 15:30
        (["2016-03-02T13:00:00-08:00"], "03-02"),  # the close itself
        (["2016-03-03T05:30:00+09:00"], "03-02"),  # 15:30 of the day before
        (["2016-03-02T15:30:00-05:00", "2016-07-05T16:30:00-04:00"], "03-02 07-06"),
        (["2016-03-02T19:00:00-05:00", "2016-07-05T20:00:00-04:00"], "03-03 07-06"),  # 0:00 UTC
        (["2016-03-02T21:00:00-08:00"], "03-03"),  # midnight in New York, not a bare date
        (["2016-03-02T00:00:00-05:00", "2016-07-05T00:00:00-04:00"], "03-03 07-06"),  # bare dates
        (["2016-03-02T15:30:00-08:00", "2016-07-05T09:00:00Z"], "03-03 07-05"),
        (["2016-03-02T15:30:00Z"], "03-02"),
        (["2016-03-02 15:30"], "03-02"),  # of the cut-off's zone
    ],
)
def test_offsets_of_news_are_instants(tmp_path: Path, stamps: list[str], days: str) -> None:
    assert days_of_news(tmp_path, stamps) == days
    assert days_of_news(tmp_path, stamps, timezone="America/New_York") == days


def test_the_cut_off_has_its_own_zone(tmp_path: Path) -> None:
    spec = "news_count(1, '15:00', 'Asia/Tokyo')"
    assert days_of_news(tmp_path, ["2016-03-02T00:30:00-05:00"], spec) == "03-02"  # 14:30 there
    assert days_of_news(tmp_path, ["2016-03-02T01:30:00-05:00"], spec) == "03-03"  # 15:30


def test_news_with_and_without_a_zone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        days_of_news(tmp_path, ["2016-03-02T15:30:00+00:00", "2016-07-05T10:00:00"])
    assert str(caught.value) == (
        "news.csv: column 'timestamp': row 3 (2016-07-05T10:00:00) has no time zone, row 2 "
        "(2016-03-02T15:30:00+00:00) has one; give all of them a zone, or none"
    )


def test_parquet_news_keep_their_instants(tmp_path: Path) -> None:
    times = pd.to_datetime(["2016-03-02 15:30", "2016-07-05 12:30"])
    frame = pd.DataFrame({"timestamp": times.tz_localize("America/Los_Angeles"), "asset": "AAA"})
    frame.assign(score=1.0).to_parquet(tmp_path / "news.parquet")
    market = load(tmp_path, news=tmp_path / "news.parquet", features=["news_count"])
    counted = market.dates[market.features[:, 0, 0] > 0]
    assert list(counted.strftime("%m-%d")) == ["03-03", "07-05"]  # 18:30 and 15:30 in New York


def folder_of(path: Path, **zones: str | None) -> Path:
    """One file an asset, with dates at midnight of these zones; Parquet where the zone is named."""
    folder = path / "each"
    folder.mkdir()
    for name, zone in zones.items():
        frame = pd.DataFrame({"close": np.arange(len(DAYS)) + 10.0}, DAYS)
        if zone and "/" in zone:
            frame.tz_localize(zone).rename_axis("date").to_parquet(folder / f"{name}.parquet")
        else:
            frame.index = DAYS.strftime("%Y-%m-%dT00:00:00" + (zone or "")).rename("date")
            frame.to_csv(folder / f"{name}.csv")
    return folder


@pytest.mark.parametrize(
    ("zones", "words"),
    [
        (
            {"AAA": "+00:00", "BBB": "-05:00"},
            "each: files are in different time zones: AAA.csv, row 2 (2016-02-29T00:00:00+00:00), "
            "in +00:00 and BBB.csv, row 2 (2016-02-29T00:00:00-05:00), in -05:00; set timezone",
        ),
        ({"AAA": "+00:00", "BBB": None}, "BBB.csv, row 2 (2016-02-29T00:00:00), in no zone"),
        (
            {"AAA": "America/New_York", "BBB": "Asia/Tokyo"},
            "AAA.parquet, row 1 (2016-02-29 00:00:00-05:00), in America/New_York and BBB.parquet, "
            "row 1 (2016-02-29 00:00:00+09:00), in Asia/Tokyo",
        ),
    ],
)
def test_files_of_different_zones_are_refused(
    tmp_path: Path, zones: dict[str, str | None], words: str
) -> None:
    folder = folder_of(tmp_path, **zones)
    with pytest.raises(DataError) as caught:
        load_market("files", path=folder)
    assert words in str(caught.value)


def test_files_of_different_zones_are_read_in_the_one_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, AAA="-05:00", BBB=None)
    market = load_market("files", path=folder, timezone="Etc/GMT+5")
    assert market.dates.equals(DAYS.as_unit(market.dates.unit))
    same = folder_of(tmp_path / "each", AAA="+00:00", BBB="Z")
    assert load_market("files", path=same).n_periods == len(DAYS)


def test_side_files_have_the_decimal_and_delimiter_of_the_prices(tmp_path: Path) -> None:
    prices = put(tmp_path, "date;AAA;BBB\n2016-03-01;10,5;4,5\n2016-03-02;21;9\n", "prices.csv")
    side = "asset;period_end;published;book_value\nAAA;2015-12-31;2016-02-01;10,5\n"
    options: dict[str, Any] = {"path": prices, "decimal": ",", "features": ["price_to_book"]}
    for delimiter in (None, ";"):
        market = load_market(
            "files", fundamentals=put(tmp_path, side, "f.csv"), delimiter=delimiter, **options
        )
        np.testing.assert_allclose(market.features[:, 0, 0], [1.0, 2.0])
    table = put(tmp_path, "date;value\n2016-02-01;2,5\n", "mine.csv")
    read = {**options, "features": ["macro('mine', 0)"]}
    assert load_market("files", tables={"mine": table}, **read).context[-1, 0] == 2.5
    with pytest.raises(DataError, match=r"row 2 .*'1.234,5' is not a .*write thousands without"):
        broken = put(tmp_path, side.replace("10,5", "1.234,5"), "f.csv")
        load_market("files", fundamentals=broken, **options)


@pytest.mark.parametrize("cell", ["10,5", "$10.5", "12%", "1 200"])
def test_what_is_meant_as_a_number_is_not_left_out(tmp_path: Path, cell: str) -> None:
    side = put(tmp_path, f'asset,date,eps,place\nAAA,2015-12-31,"{cell}",New York 10\n', "f.csv")
    with pytest.raises(DataError) as caught:
        read_side_table("mine", side)
    assert str(caught.value).startswith("f.csv: column 'eps', row 2 (2015-12-31, AAA): ")
    assert repr(cell) in str(caught.value)


def test_one_row_beside_the_prices_is_enough(tmp_path: Path) -> None:
    assert days_of_news(tmp_path, ["2016-03-02 09:00"]) == "03-02"
    with pytest.raises(DataError, match=r"news.csv: 0 rows .*needs at least 1 row and 1 column"):
        days_of_news(tmp_path, [])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("AAA,Tech\nBBB,Oil\nAAA,Oil\n", "sec.csv: rows 2 and 4: asset 'AAA' appears twice"),
        (
            "aaa,Tech\nZZZ,Oil\n",
            "sec.csv: none of its assets (aaa, ZZZ) is among those with prices (AAA, BBB); "
            "'aaa': did you mean 'AAA'?",
        ),
    ],
)
def test_a_bad_file_of_sectors_is_named(tmp_path: Path, rows: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, sectors=put(tmp_path, "asset,sector\n" + rows, "sec.csv"))
    assert str(caught.value) == words


def test_an_unsorted_long_file_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head, a, b = "date,asset,close\n", "2020-01-01,A,1\n2020-01-03,A,3\n", "2020-01-01,B,5\n"
    late, other = "2020-01-02,A,2\n", "2020-01-02,B,6\n2020-01-03,B,7\n"
    with caplog.at_level(logging.WARNING):
        market = load_market("files", path=put(tmp_path, head + a + b + late + other, "long.csv"))
    np.testing.assert_array_equal(market.prices[:, 0], [1, 2, 3])
    words = (
        "long.csv: dates do not rise (row 5, 2020-01-02, is before the row of 'A' above); sorted"
    )
    assert caplog.messages.count(words) == 1 and words in market.notes
    grouped = head + "2020-01-01,A,1\n2020-01-02,A,2\n2020-01-01,B,5\n2020-01-02,B,6\n"
    market = load_market("files", path=put(tmp_path, grouped, "long.csv"))
    assert not any("do not rise" in note for note in market.notes)


@pytest.mark.parametrize(
    "words",
    [
        ["--data.options.tables.mine", "mine.csv"],
        ["--data.options.tables", "{mine: mine.csv}"],
    ],
)
def test_a_table_is_named_on_the_command_line(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    load(tmp_path)
    put(tmp_path, "date,asset,value\n2016-01-01,AAA,1\n2016-05-01,BBB,2\n", "mine.csv")
    tokens = ["audit", "--data", "files", "--data.options.path", "prices.csv", *words]
    assert data([*tokens, "--features", "table('mine', lag=30)"]) == 0
    assert "No leak found" in capsys.readouterr().out


def test_one_entry_more_joins_those_of_the_file() -> None:
    options = [*options_of(DataConfig, "data.", "")]
    document = Document({"data": {"options": {"path": "p.csv", "tables": {"one": "1.csv"}}}})
    pairs = [("data.options.tables.two", "2.csv"), ("data.options.delisting_return.BRK.B", "-0.3")]
    assert resolve(document, pairs, options)["data.options"] == {
        "path": "p.csv",
        "tables": {"one": "1.csv", "two": "2.csv"},
        "delisting_return": {"BRK.B": -0.3},
    }
    with pytest.raises(SettingError, match=r"--data.options.path.x: data.options.path is 'p.csv'"):
        resolve(document, [("data.options.path.x", "1")], options)


def test_a_forgotten_space_after_a_colon_is_said() -> None:
    assert parse_value("{mine: ../x.csv}") == {"mine": "../x.csv"}
    with pytest.raises(SettingError, match=r"'mine:../x' is a .* a space after .*{mine: ../x}"):
        parse_value("{mine:../x}")


# ---- assets that a table does not know


KNOWN = "knows 1 of 2 assets; the others (BBB) "
SIDES = {
    "fundamentals": (
        "asset,period_end,published,eps\n{},2015-12-31,2016-02-01,1\n{},2015-12-31,2016-02-01,2\n"
    ),
    "news": "timestamp,asset,score\n2016-03-01,{},0.5\n2016-03-02,{},0.5\n",
    "mine": "date,asset,value\n2016-03-01,{},0.5\n2016-03-02,{},0.5\n",
}


def load_beside(folder: Path, name: str, *assets: str) -> Market:
    lines = SIDES[name].splitlines(keepends=True)[: 1 + len(assets)]
    side = put(folder, "".join(lines).format(*assets), "side.csv")
    return load(folder, **({"tables": {name: side}} if name == "mine" else {name: side}))


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("fundamentals", "take the day's median"),
        ("news", "score 0, as days without a text do"),
        ("mine", "take the day's median"),
    ],
)
def test_an_asset_that_a_table_does_not_know_is_said_with_the_near_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, effect: str
) -> None:
    with caplog.at_level(logging.WARNING):
        market = load_beside(tmp_path, name, "AAA", "BBBB")
    words = f"table '{name}': {KNOWN}{effect}; names that have no prices: BBBB"
    words += "; 'BBBB': did you mean 'BBB'?"
    assert words in market.notes and caplog.messages.count(words) == 1
    caplog.clear()
    assert f"table '{name}': {KNOWN}{effect}" in load_beside(tmp_path, name, "AAA").notes
    said = any("knows" in message for message in caplog.messages)
    assert said is (name != "news")  # some assets are never written about
    caplog.clear()
    both = load_beside(tmp_path, name, "AAA", "BBB")
    assert not any("knows" in note for note in (*both.notes, *caplog.messages))


@pytest.mark.parametrize("name", list(SIDES))
def test_a_table_that_knows_no_asset_is_refused_with_near_names(tmp_path: Path, name: str) -> None:
    words = (
        f"table '{name}': none of its assets (aaa, BBB US Equity) is among those with prices "
        "(AAA, BBB); 'aaa': did you mean 'AAA'?; 'BBB US Equity': did you mean 'BBB'?"
    )
    with pytest.raises(DataError) as caught:
        load_beside(tmp_path, name, "aaa", "BBB US Equity")
    assert str(caught.value) == words


def test_an_asset_without_a_sector_is_said(tmp_path: Path) -> None:
    market = load(tmp_path, sectors=put(tmp_path, "asset,sector\nAAA,Tech\nZZZ,Oil\n", "sec.csv"))
    assert market.sectors == {"AAA": "Tech"}
    words = "belong to no group, and no cap on one binds them; names that have no prices: ZZZ"
    assert f"sec.csv: {KNOWN}{words}" in market.notes


def test_only_the_chosen_assets_need_be_known(tmp_path: Path) -> None:
    side = put(tmp_path, SIDES["mine"].format("AAA", "ZZZ"), "side.csv")
    market = load(tmp_path, tables={"mine": side}, assets=["AAA", "cash"])
    assert not any("knows" in note for note in market.notes)
    with pytest.raises(DataError, match=r"none of its assets \(AAA, ZZZ\) is among .* \(BBB\)"):
        load(tmp_path, tables={"mine": side}, assets=["BBB", "cash"])


@pytest.mark.parametrize(
    ("name", "effect"),
    [("news", "days after count as without a text"), ("mine", "its last figures stand on")],
)
def test_a_table_that_ends_long_before_the_prices_is_said(
    tmp_path: Path, name: str, effect: str
) -> None:
    market = load_beside(tmp_path, name, "AAA", "BBB")
    words = f"table '{name}' ends on 2016-03-02, 128 days before the prices: {effect}"
    assert words in market.notes
    early = put(tmp_path, "date,value\n2016-04-01,1\n2016-06-01,2\n", "side.csv")
    assert not any("ends on" in note for note in load(tmp_path, tables={"mine": early}).notes)


# ---- tables as vendors and users write them


def test_a_table_with_one_column_an_asset_is_read_as_such(tmp_path: Path) -> None:
    wide = put(tmp_path, "date,AAA,BBB\n2016-03-01,1,2\n2016-04-01,3,4\n", "esg.csv")
    market = load(tmp_path, tables={"esg": wide}, features=["table('esg', lag=1)"])
    first = market.features[:, :2, 0]
    assert market.dates[0] == pd.Timestamp("2016-03-02")
    np.testing.assert_array_equal(first[0], [1, 2])
    np.testing.assert_array_equal(first[market.index("2016-04-04")], [3, 4])
    np.testing.assert_array_equal(first[market.index("2016-04-01")], [1, 2])
    misspelt = put(tmp_path, "date,AAA,BBX,AAB\n2016-06-01,1,2,3\n", "esg.csv")
    frame, _ = read_side_table("esg", misspelt)
    assert by_asset(frame, ["AAA", "BBB"]) is frame  # most columns are no assets: figures for all


def test_the_only_figure_of_a_table_is_its_value(tmp_path: Path) -> None:
    rows = "observation_date,CPIAUCSL\n2016-01-01,100\n2016-02-01,.\n2016-03-01,110\n"
    cpi = put(tmp_path, rows, "cpi.csv")
    market = load(tmp_path, tables={"cpi": cpi}, features=["macro('cpi', lag=45)"])
    column = market.context[:, 0]
    assert column[market.index("2016-04-14")] == 100 and column[market.index("2016-04-15")] == 110
    named = load(tmp_path, tables={"cpi": cpi}, features=["table('cpi', 'CPIAUCSL', lag=45)"])
    np.testing.assert_array_equal(named.context, market.context)


def test_the_names_of_vendors_are_known_in_side_tables(tmp_path: Path) -> None:
    rows = "symbol,fiscalDateEnding,reportedDate,reportedEPS\nAAA,2015-12-31,2016-03-01,2\n"
    side = put(tmp_path, rows, "earnings.csv")
    market = load(tmp_path, fundamentals=side, features=["earnings_yield(1)"])
    assert market.dates[0] == pd.Timestamp("2016-03-01")
    np.testing.assert_allclose(market.features[0, 0, 0], 2.0 / 11.0, rtol=1e-6)
    rows = "time,ticker,title,sentiment\n2016-03-01 10:00,AAA,profit loss,0.75\n"
    news = put(tmp_path, rows, "news.csv")
    market = load(tmp_path, news=news, features=["sentiment"])
    assert market.features[0, 0, 0] == 0.75
    assert any("sentiment as score" in note for note in market.notes)
    words = put(tmp_path, rows.replace("0.75", "good"), "news.csv")
    assert read_side_table("news", words)[1].endswith("left out, not numbers: sentiment")


def test_returns_in_place_of_prices_are_recognised(tmp_path: Path) -> None:
    path = put(tmp_path, "date,A\n2020-01-02,0.01\n2020-01-03,-0.02\n2020-01-06,-0.01\n", "r.csv")
    with pytest.raises(
        DataError, match=r"row 3 .*: -0.02 must be > 0; .*; these look like returns"
    ):
        load_market("files", path=path)
    (issue,) = check(path).of_level("fix")
    assert "these look like returns" in issue.text
