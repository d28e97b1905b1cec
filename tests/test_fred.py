"""FRED through fredapi, fed by a server on this machine: releases, revisions, lags and the key."""

import http.server
import logging
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import quoteattr

import numpy as np
import pandas as pd
import pytest

from experiments.cli import main
from market import DataError, Market, SettingError, load_market
from market.sources import retry
from market.sources.fred import fred_tables

fredapi = pytest.importorskip("fredapi")

KEY = "0123456789abcdef0123456789abcdef"
DAYS = pd.bdate_range("2014-01-01", "2014-12-31")
GDP = [  # date, released, value: the first figure of 2013 Q4 is revised twice
    ("2013-07-01", "2013-11-07", "16857.6"),
    ("2013-10-01", "2014-01-30", "17102.5"),
    ("2013-10-01", "2014-02-28", "17080.7"),
    ("2013-10-01", "2014-03-27", "17089.6"),
    ("2014-01-01", "2014-04-30", "17149.6"),
    ("2014-04-01", "2014-07-30", "17294.7"),
]


@dataclass
class Fred:
    """What the server knows, how it fails, and what it was asked."""

    releases: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    latest: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)  # "cut" or "reset" in mid-answer
    asked: list[dict[str, list[str]]] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, str]:
        query = parse_qs(urlsplit(path).query)
        self.asked.append(query)
        if self.failures:
            return self.failures.pop(0)
        if query["api_key"] != [KEY]:
            message = f"Bad Request. The value for variable api_key, {query['api_key'][0]}, is bad."
            return 400, f"<error code='400' message={quoteattr(message)}/>"
        series = query["series_id"][0]
        if "realtime_start" in query and series in self.releases:
            rows = [
                f"<observation realtime_start='{released}' realtime_end='9999-12-31' "
                f"date='{date}' value='{value}'/>"
                for date, released, value in self.releases[series]
            ]
        elif series in self.latest:
            rows = [
                f"<observation realtime_start='2015-01-01' date='{date}' value='{value}'/>"
                for date, value in self.latest[series]
            ]
        else:
            return 400, "<error code='400' message='Bad Request. The series does not exist.'/>"
        return 200, f"<observations>{''.join(rows)}</observations>"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fred]:
    fake = Fred()
    rng = np.random.default_rng(0)
    price = 100 * np.exp(rng.normal(0, 0.01, len(DAYS)).cumsum())
    fake.latest["SP500"] = [
        (f"{day:%Y-%m-%d}", f"{x:.4f}") for day, x in zip(DAYS, price, strict=True)
    ]
    fake.latest["SP500"][5] = (fake.latest["SP500"][5][0], ".")
    fake.latest["DGS10"] = [(f"{day:%Y-%m-%d}", f"{2 + i / 100:.2f}") for i, day in enumerate(DAYS)]
    fake.releases["GDP"] = list(GDP)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = fake.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            lost = fake.losses.pop(0) if fake.losses else None
            self.wfile.write(text.encode()[: len(text) // 2 if lost else None])
            if lost == "reset":
                linger = struct.pack("ii", 1, 0)  # closing answers with a reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

        def log_message(self, *_: Any) -> None:
            pass

    host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=lambda: host.serve_forever(poll_interval=0.01), daemon=True).start()
    monkeypatch.setattr(fredapi.Fred, "root_url", f"http://127.0.0.1:{host.server_port}/fred")
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.0)
    monkeypatch.setenv("FRED_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield fake
    host.shutdown()
    host.server_close()


def load(folder: Path, **options: Any) -> Market:
    return load_market("fred", **{"prices": ["SP500"], "cache": folder, **options})


# ---- by release


def test_a_quarterly_figure_stands_on_no_day_before_its_release(
    server: Fred, tmp_path: Path
) -> None:
    market = load(tmp_path, context=["GDP"])
    assert market.assets == ("SP500", "cash") and market.context_names == ("GDP",)
    shown = pd.Series(market.context[:, 0], market.dates)
    for date, value in {
        "2014-01-01": 16857.6,
        "2014-01-29": 16857.6,
        "2014-01-30": 17102.5,
        "2014-02-27": 17102.5,
        "2014-02-28": 17080.7,
        "2014-03-27": 17089.6,
        "2014-04-29": 17089.6,
        "2014-04-30": 17149.6,
        "2014-12-31": 17294.7,
    }.items():
        assert shown[date] == pytest.approx(value, rel=1e-6), date
    assert "FRED GDP: vintage 2014-07-30, downloaded 20" in " ".join(market.notes)


def test_a_later_release_changes_nothing_before_it(server: Fred, tmp_path: Path) -> None:
    before = load(tmp_path / "a", context=["GDP"])
    server.releases["GDP"] += [
        ("2014-01-01", "2014-07-31", "1.0"),
        ("2014-07-01", "2014-10-30", "9"),
    ]
    after = load(tmp_path / "b", context=["GDP"])
    row = before.index("2014-10-29")
    np.testing.assert_array_equal(before.context[: row + 1], after.context[: row + 1])
    assert after.context[row + 1, 0] == 9


def test_days_before_the_first_release_are_left_out(server: Fred, tmp_path: Path) -> None:
    server.releases["GDP"] = GDP[4:]
    market = load(tmp_path, context=["GDP"])
    assert market.dates[0] == pd.Timestamp("2014-04-30")
    assert any("dates before the first release of all of GDP left out" in x for x in market.notes)
    server.releases["GDP"] = [("2014-01-01", "2015-04-30", "1")]
    with pytest.raises(DataError, match="GDP was first released when the prices end"):
        load(tmp_path / "late", context=["GDP"])


def test_series_that_are_not_revised_have_a_lag(server: Fred, tmp_path: Path) -> None:
    market = load(tmp_path, context=["DGS10"], lags={"DGS10": 1})
    yields = pd.Series(market.context[:, 0], market.dates)
    assert yields["2014-01-10"] == pytest.approx(2.06)  # that of Thursday
    assert yields["2014-01-13"] == pytest.approx(2.07)  # Monday knows Friday's
    assert market.dates[0] == pd.Timestamp("2014-01-02")
    now = load(tmp_path, context=["DGS10"], lags={"DGS10": 0})
    assert pd.Series(now.context[:, 0], now.dates)["2014-01-10"] == pytest.approx(2.07)


def test_a_dot_is_no_number(server: Fred, tmp_path: Path) -> None:
    tables, _ = fred_tables(["SP500"], {"SP500": 0}, cache=tmp_path)
    assert tables["SP500"]["value"].isna().sum() == 1
    market = load(tmp_path)
    assert market.n_periods == len(DAYS) - 1 and DAYS[5] not in market.dates
    server.releases["GDP"] = [*GDP, ("2014-07-01", "2014-10-30", ".")]
    assert load(tmp_path, context=["GDP"]).context[-1, 0] == pytest.approx(17294.7)


def test_series_are_tables_for_features_too(server: Fred, tmp_path: Path) -> None:
    server.releases["GDP"] = [("2013-04-01", "2013-08-01", "16000"), *GDP]
    market = load(tmp_path, context=["GDP"], features=["return", "macro_change('GDP')"])
    assert market.context_names == ("macro_change(GDP)",)
    assert market.context[market.index("2014-01-29"), 0] == pytest.approx(857.6, rel=1e-5)
    assert market.context[market.index("2014-01-30"), 0] == pytest.approx(
        17102.5 - 16857.6, rel=1e-4
    )


# ---- the cache


def test_a_second_call_needs_neither_server_nor_key(
    server: Fred, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(tmp_path, context=["GDP"])
    asked = len(server.asked)
    monkeypatch.delenv("FRED_API_KEY")
    again = load(tmp_path, context=["GDP"])
    assert len(server.asked) == asked
    assert again.fingerprint() == first.fingerprint()
    with pytest.raises(SettingError, match=r"needs a key; set \$FRED_API_KEY"):
        load(tmp_path, context=["GDP"], refresh=True)


def test_releases_are_added_and_rewritten_ones_shown(server: Fred, tmp_path: Path) -> None:
    load(tmp_path, context=["GDP"])
    server.releases["GDP"] = [*GDP, ("2014-07-01", "2014-10-30", "17535.4")]
    quiet = load(tmp_path, context=["GDP"], refresh=True)
    assert not any("rewritten" in note for note in quiet.notes)
    assert quiet.context[-1, 0] == pytest.approx(17535.4)
    server.releases["GDP"][2] = ("2013-10-01", "2014-02-28", "17999.9")
    server.latest["SP500"][7] = (server.latest["SP500"][7][0], "5.0")
    loud = load(tmp_path, context=["GDP"], refresh=True)
    told = [note for note in loud.notes if "rewritten by the vendor" in note]
    assert any("GDP: value differs on 1 dates: 2014-02-28 of 2013-10-01" in note for note in told)
    assert any("SP500_latest: value differs on 1 dates: 2014-01-10" in note for note in told)


def test_a_server_out_of_reach_leaves_the_copies(server: Fred, tmp_path: Path) -> None:
    before = load(tmp_path, context=["GDP"])
    stored = {path.name: path.read_bytes() for path in (tmp_path / "fred").iterdir()}
    server.failures = [(500, "<error code='500' message='Internal Server Error'/>")] * 8
    market = load(tmp_path, context=["GDP"], refresh=True, tries=2)
    assert any("could not be downloaded: GDP (Internal Server Error)" in x for x in market.notes)
    assert stored == {path.name: path.read_bytes() for path in (tmp_path / "fred").iterdir()}
    np.testing.assert_array_equal(market.prices, before.prices)


# ---- what goes wrong


@pytest.mark.parametrize("lost", ["cut", "reset"])
def test_a_network_lost_in_mid_answer_stores_nothing_and_leaves_the_copies(
    server: Fred, tmp_path: Path, lost: str
) -> None:
    server.losses = [lost] * 2
    with pytest.raises(DataError, match=r"SP500_latest \(.+\).*nothing was stored"):
        load(tmp_path, tries=2)
    assert len(server.asked) == 2 and not list(tmp_path.rglob("*.*"))
    server.losses = [lost]
    before = load(tmp_path, tries=2)  # the second answer is whole
    stored = {path.name: path.read_bytes() for path in (tmp_path / "fred").iterdir()}
    server.losses = [lost] * 2
    market = load(tmp_path, refresh=True, tries=2)
    assert any("could not be downloaded: SP500_latest" in note for note in market.notes)
    assert stored == {path.name: path.read_bytes() for path in (tmp_path / "fred").iterdir()}
    np.testing.assert_array_equal(market.prices, before.prices)


def test_a_limit_of_requests_is_waited_for(server: Fred, tmp_path: Path) -> None:
    busy = (429, "<error code='429' message='Too Many Requests. Exceeded Rate Limit'/>")
    server.failures = [busy, busy]
    assert load(tmp_path).n_periods == len(DAYS) - 1
    assert len(server.asked) == 3
    server.failures = [busy] * 9
    with pytest.raises(DataError, match=r"SP500_latest \(Too Many Requests.*nothing was stored"):
        load(tmp_path / "other", tries=3)


def test_one_series_that_does_not_exist_is_named_and_nothing_stored(
    server: Fred, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, context=["GDP", "NOSUCH"])
    assert "1 of 3 could not be downloaded: NOSUCH (Bad Request. The series does" in str(
        caught.value
    )
    assert not list(tmp_path.rglob("*.parquet"))
    server.releases["GDP"] = []
    with pytest.raises(DataError, match=r"GDP \(the answer is empty\)"):
        load(tmp_path, context=["GDP"])


@pytest.mark.parametrize("text", ["<html><body>down for maintenance", "", "not xml at all"])
def test_an_answer_that_is_no_answer(server: Fred, tmp_path: Path, text: str) -> None:
    server.failures = [(200, text)] * 5
    with pytest.raises(DataError, match=r"SP500_latest \(no answer: "):
        load(tmp_path, tries=2)
    assert len(server.asked) == 2


def test_too_many_vintages_say_what_to_set(server: Fred, tmp_path: Path) -> None:
    message = "Bad Request. This exceeds the maximum number of vintage dates allowed (2000)."
    server.failures = [(400, f"<error code='400' message='{message}'/>")] * 9
    with pytest.raises(DataError, match=r"Set lags, such as lags=\{'DGS10': 1\}"):
        fred_tables(["DGS10"], cache=tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prices": "SP500"}, "prices: must be a list of at least 1 series, got 'SP500'"),
        ({"prices": []}, "prices: must be a list"),
        ({"prices": ["../x"]}, "'../x' is no name of a series"),
        ({"context": ["gdp&file_type=x"]}, "is no name of a series"),
        ({"lags": {"DGS2": 1}}, "lags names 'DGS2', which is not among"),
        (
            {"context": ["DGS10"], "lags": {"DGS10": -1}},
            "lag of 'DGS10' must be a whole",
        ),
    ],
)
def test_a_bad_option_is_named(
    server: Fred, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingError) as caught:
        load(tmp_path, **options)
    assert words in str(caught.value)


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fredapi", None)
    with pytest.raises(
        SettingError, match=r'fredapi is not installed; pip install "allocgym\[data\]"'
    ):
        load(tmp_path)


# ---- the key


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_key_is_written_nowhere(
    server: Fred,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    by: str,
) -> None:
    options: dict[str, Any] = {"context": ["GDP"]}
    if by == "option":
        monkeypatch.delenv("FRED_API_KEY")
        options["api_key"] = KEY
    with caplog.at_level(logging.DEBUG):
        market = load(tmp_path, **options)
        server.failures = [(500, "<error code='500' message='Internal Server Error'/>")] * 9
        fallen_back = load(tmp_path, **options, refresh=True, tries=2)
    assert all(query["api_key"] == [KEY] for query in server.asked)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert len(written) > 1000 and KEY.encode() not in written
    assert KEY not in caplog.text
    assert KEY not in repr((market.notes, fallen_back.notes))


def test_the_key_is_taken_out_of_errors(
    server: Fred, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(DataError) as caught:
        load(tmp_path, api_key="wrong/key")
    assert "variable api_key, ***, is bad" in str(caught.value)
    assert "wrong/key" not in str(caught.value) + caplog.text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_prices_of_another_source_with_series_beside(
    server: Fred, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        class exceptions:
            YFException = RuntimeError

        @staticmethod
        def download(tickers: list[str], **_: Any) -> pd.DataFrame:
            fields = ["Open", "High", "Low", "Close", "Adj Close", "Volume"]
            frame = pd.DataFrame(np.linspace(50, 60, len(DAYS))[:, None].repeat(6, 1), DAYS, fields)
            return pd.concat(dict.fromkeys(tickers, frame), axis=1)

    monkeypatch.setitem(sys.modules, "yfinance", Library)
    market = load_market("yahoo", tickers=["SPY"], fred=["GDP"], cache=tmp_path)
    assert market.context_names == ("GDP",)
    assert market.context[market.index("2014-02-28"), 0] == pytest.approx(17080.7)
    options = {"context": ["GDP", "DGS10"], "lags": {"DGS10": 1}}
    both = load_market(
        "yahoo", tickers=["SPY"], fred=options, cache=tmp_path, features=["macro('GDP')"]
    )
    assert both.context_names == ("macro(GDP)",)
    with pytest.raises(SettingError, match="did you mean 'lags'"):
        load_market("yahoo", tickers=["SPY"], fred={"lag": {}}, cache=tmp_path)


# ---- allocgym data download


def test_download_stores_releases_and_latest_figures(
    server: Fred, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "download", "fred", "GDP", "DGS10", "--lags.DGS10", "1"]
    assert main([*words, "--cache", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    rows = [line.split()[:4] for line in out.splitlines() if line.startswith(("GDP", "DGS10"))]
    assert rows == [
        ["GDP", "2013-11-07", "2014-07-30", "6"],
        ["DGS10", "2014-01-01", "2014-12-31", str(len(DAYS))],
    ]
    assert KEY not in out
    stored = {path.name for path in (tmp_path / "fred").glob("*.json")}
    assert stored == {"GDP.json", "DGS10_latest.json"}
    count = len(server.asked)
    fred_tables(["GDP", "DGS10"], {"DGS10": 1}, cache=tmp_path)
    assert len(server.asked) == count


def test_a_download_that_fails_is_one_line_without_the_key(
    server: Fred, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "download", "fred", "GDP", "NONE", "--cache", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "fred: 1 of 2 could not be downloaded: NONE (" in line and "nothing was stored" in line
    assert KEY not in line and not list(tmp_path.rglob("*.json"))
