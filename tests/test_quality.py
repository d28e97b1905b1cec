"""Data quality: every fault that is put in is found, and good data have none to fix."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.quality_page import asset_rows, headline, render_quality_page, write_quality_page
from market import DataError, Market
from market.quality import Quality, check, check_market, longest_run, outlying
from tests.test_report import HOSTILE, check_harmless

DAYS = pd.bdate_range("2018-01-01", periods=400)


def prices(seed: int = 0) -> Any:
    steps = np.random.default_rng(seed).normal(0, 0.01, (400, 3))
    return pd.DataFrame(100 * np.exp(steps.cumsum(0)), DAYS, ["AAA", "BBB", "CCC"])


def found(frame: Any, **fields: Any) -> Quality:
    return check_market(Market.from_prices(frame, cash_rate=None, name="data", **fields))


def kinds(quality: Quality) -> set[tuple[str, str]]:
    return {(issue.level, issue.kind) for issue in quality.issues}


def split(frame: Any) -> None:
    frame.loc[DAYS[200] :, "AAA"] /= 2


def tick(frame: Any) -> None:
    frame.iloc[50, 2] *= 1.6


def twin(frame: Any) -> None:
    frame["DDD"] = 3 * frame["BBB"]


def near_twin(frame: Any) -> None:
    noise = np.random.default_rng(1).normal(0, 1e-4, 400)
    frame["DDD"] = frame["BBB"] * (1 + noise)


def standstill(frame: Any) -> None:
    frame.iloc[100:106, 1] = frame.iloc[100, 1]


def frozen(frame: Any) -> None:
    frame["BBB"] = 7.0


def crash(frame: Any) -> None:
    frame.iloc[300:, 0] *= 0.8


def late(frame: Any) -> None:
    frame.iloc[:50, 0] = np.nan


def gone(frame: Any) -> None:
    frame.iloc[350:, 0] = np.nan


FAULTS: dict[Callable[[pd.DataFrame], None], tuple[tuple[str, str], str]] = {
    split: (("fix", "split"), "'AAA', 2018-10-08: price is 0.4942 times the one before"),
    tick: (("fix", "tick"), "'CCC', 2018-03-12: price is 1.586 times its neighbours"),
    twin: (("fix", "duplicate"), "'BBB' and 'DDD' have the same returns on all 399 rows"),
    near_twin: (("look", "correlation"), "'BBB' and 'DDD' correlate by 0.999"),
    standstill: (("look", "stale"), "'BBB': the same price on 6 rows in a row"),
    frozen: (("look", "constant"), "'BBB' never moves"),
    crash: (("look", "outlier"), "'AAA': 1 return beyond 12 robust"),
    late: (("note", "listing"), "'AAA' is listed from 2018-03-12"),
    gone: (("note", "delisting"), "'AAA' is delisted after 2019-05-03"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_and_placed(fault: Callable[[pd.DataFrame], None]) -> None:
    frame = prices()
    fault(frame)
    kind, words = FAULTS[fault]
    quality = found(frame)
    assert kind in kinds(quality)
    texts = [issue.text for issue in quality.issues if (issue.level, issue.kind) == kind]
    assert any(words in text for text in texts), texts
    assert quality.must_fix == (kind[0] == "fix")


@pytest.mark.parametrize("seed", range(5))
def test_good_data_have_nothing_to_say(seed: int) -> None:
    assert found(prices(seed)).issues == ()


def test_a_large_true_move_is_no_split() -> None:
    frame = prices()
    frame.loc[DAYS[200] :, "AAA"] *= 0.37
    quality = found(frame)
    assert ("look", "jump") in kinds(quality)
    assert not quality.must_fix
    market = Market.from_prices(frame, cash_rate=None)
    assert ("note", "jump") in kinds(check_market(market, allow_jumps=True))


def test_weekends_and_pauses() -> None:
    frame = prices()
    odd = frame.rename(index={DAYS[9]: pd.Timestamp("2018-01-13")})
    assert ("look", "weekend") in kinds(found(odd))
    daily = frame.set_axis(pd.date_range("2018-01-01", periods=400))
    assert ("note", "weekend") in kinds(found(daily))
    later = DAYS.where(DAYS[200] > DAYS, DAYS + pd.Timedelta(days=60))
    assert ("look", "pause") in kinds(found(frame.set_axis(later)))


def test_volume_and_ranges() -> None:
    frame = prices()
    volume = np.full((400, 3), 5.0)
    volume[10:20, 1] = 0.0
    volume[30:33, 1] = np.nan
    volume[:, 2] = np.nan
    high, low = frame.to_numpy() * 1.01, frame.to_numpy() * 0.99
    high[7, 0] = 0.5 * low[7, 0]
    quality = found(frame, volume=volume, highs=high, lows=low)
    assert [entry.no_volume for entry in quality.assets] == [0, 13, None]
    text = "'AAA': 1 closes outside the day's low and high, 2018-01-10"
    assert ("fix", "range", text) in quality.issues
    assert ("look", "volume", "'BBB': no volume on 13 traded rows") in quality.issues


def test_gaps_of_a_file_are_counted(tmp_path: Path) -> None:
    frame = prices()
    frame.iloc[300:320, 2] = np.nan
    frame.to_csv(tmp_path / "p.csv", index_label="date")
    quality = check(tmp_path / "p.csv", max_gap=4)
    assert quality.assets[2].suspended == 16
    assert quality.assets[2].rows == 384
    assert ("look", "gap") in kinds(quality)
    assert any("4 missing prices carried forward" in issue.text for issue in quality.issues)
    assert not quality.must_fix


def test_figures_by_hand() -> None:
    assert longest_run(np.array([1.0, 1, 2, 2, 2, 3])) == 3
    assert longest_run(np.array([1.0])) == 1
    assert longest_run(np.full(9, 4.0)) == 9
    calm = np.tile([0.01, -0.01], 50)
    assert not outlying(calm).any()
    calm[7] = 1.4826 * 0.01 * 12 + 0.02
    assert np.flatnonzero(outlying(calm)).tolist() == [7]


@pytest.mark.parametrize("name", ["multi_asset", "us_stocks", "factors"])
def test_bundled_universes_need_no_fix(name: str) -> None:
    quality = check(name)
    assert not quality.must_fix
    assert quality.market is not None
    assert len(quality.assets) == quality.market.n_assets - 1


# ---- files that are refused


def test_a_refused_file_shows_every_column_at_fault(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("date,AAA,BBB,CCC\n2020-01-01,1,2,3\n2020-01-02,x,0,3\n2020-01-03,1,1,3\n")
    quality = check(path)
    assert quality.must_fix and quality.market is None
    texts = [issue.text for issue in quality.issues]
    assert texts[0] == "bad.csv: column 'AAA', row 3 (2020-01-02): 'x' is not a finite number"
    assert "column 'BBB', row 3 (2020-01-02): 0 must be > 0" in texts[1]
    assert len(texts) == 2
    assert headline(quality) == "Refused: the data cannot be used as they are."


@pytest.mark.parametrize("content", ["", "date,A\n", "a,b\n1\n", "date,A\n2020-01-01,1\n,\n"])
def test_whatever_is_refused_is_a_finding(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    quality = check(path)
    assert quality.must_fix
    assert quality.issues[0].kind == "refused"


def test_a_missing_file_is_a_finding_too(tmp_path: Path) -> None:
    assert "no such file" in check(tmp_path / "none.csv").issues[0].text


def test_a_universe_does_not_hide_its_errors() -> None:
    with pytest.raises(DataError):
        check("files", path="nowhere.csv")


# ---- the page


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.bad: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            outside = key in ("src", "href") and not (value or "").startswith("#")
            if key.startswith("on") or outside:
                self.bad.append(f"{tag} {key}={value}")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    frame = prices()
    for fault in (split, standstill, late):
        fault(frame)
    quality = found(frame)
    page = write_quality_page(quality, tmp_path / "deep" / "q.html").read_text()
    reader = _Reader()
    reader.feed(page)
    assert not reader.bad
    assert not {"script", "link", "iframe", "object", "img"} & set(reader.tags)
    for issue in quality.issues:
        assert issue.text in reader.text
    for cell in {cell for row in asset_rows(quality) for cell in row}:
        assert cell in reader.text
    assert reader.tags.count("svg") == 2 + 3
    assert "prefers-color-scheme: dark" in page
    assert page == render_quality_page(quality)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_are_text(hostile: str) -> None:
    frame = prices()
    frame.columns = [hostile, f"{hostile} 2", "$x^2$"]
    frame.iloc[200:, 0] /= 2
    names, numbers = tuple(frame.columns), frame.to_numpy()
    market = Market(dates=frame.index, assets=names, prices=numbers, name=hostile)
    page = render_quality_page(check_market(market))
    assert check_harmless(page).text.count(hostile) >= 2
    reader = _Reader()
    reader.feed(page)
    assert not reader.bad
    assert not {"script", "img", "iframe", "math"} & set(reader.tags)


def test_a_file_with_holes_is_refused_and_looked_at(tmp_path: Path) -> None:
    frame = prices()
    frame.iloc[40:42, 0] = np.nan
    frame.iloc[200:, 1] /= 2
    frame.to_csv(tmp_path / "holes.csv", index_label="date")
    found = check(tmp_path / "holes.csv")
    assert found.must_fix and found.market is not None
    kinds = [issue.kind for issue in found.of_level("fix")]
    assert kinds[0] == "refused" and "split" in kinds
    assert any("2 missing prices carried forward" in issue.text for issue in found.issues)
    carried = check(tmp_path / "holes.csv", max_gap=5, allow_jumps=True)
    assert not carried.must_fix


def test_a_refused_file_has_a_page(tmp_path: Path) -> None:
    page = render_quality_page(check(tmp_path / "none<b>.csv"))
    assert "Refused" in page and "<b>" not in page
