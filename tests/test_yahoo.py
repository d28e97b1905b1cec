"""Yahoo prices against a fake of yfinance, and against yfinance itself fed by a local server."""

import datetime
import http.server
import json
import logging
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.cli import main
from market import DataError, Market, SettingError, load_market
from market.sources import retry
from market.sources.download_cache import DownloadCache, cache_folder
from market.sources.retry import TryAgainError, with_retries
from market.sources.revisions import rewritten

COLUMNS = ["Open", "High", "Low", "Close", "Adj Close", "Volume"]
DATES = pd.bdate_range("2020-01-01", periods=40, name="Date")


def history(seed: int, rows: int = 40) -> pd.DataFrame:
    """What the vendor knows of one ticker."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(rng.normal(0, 0.01, len(DATES)).cumsum())
    table = np.column_stack([close * 0.99, close * 1.02, close * 0.98, close, close * 0.9])
    frame = pd.DataFrame(table, DATES, COLUMNS[:5])
    frame["Volume"] = rng.integers(1000, 9000, len(DATES)).astype(float)
    return frame[:rows]


class FakeYahoo:
    """A stand-in for the module yfinance: answers, failures, and the count of questions."""

    def __init__(self) -> None:
        self.exceptions = SimpleNamespace(YFException=RuntimeError)
        self.known: dict[str, pd.DataFrame] = {}
        self.reasons: dict[str, str] = {}
        self.failures: list[Exception] = []
        self.asked: list[list[str]] = []
        self.order = ["Ticker", "Price"]

    def download(self, tickers: list[str], **options: Any) -> pd.DataFrame:
        assert options["auto_adjust"] is False and options["period"] == "max"
        self.asked.append(tickers)
        if self.failures:
            raise self.failures.pop(0)
        logger = logging.getLogger("yfinance")
        for ticker in [name for name in tickers if name not in self.known]:
            logger.error("['%s']: %s", ticker, self.reasons.get(ticker, "possibly delisted"))
        empty = pd.DataFrame(index=DATES[:0], columns=COLUMNS, dtype=float)
        frames = {name: self.known.get(name, empty) for name in tickers}
        answer = pd.concat(frames, axis=1, names=["Ticker", "Price"])
        if self.order == ["Price"]:
            return pd.DataFrame(answer[tickers[0]])
        return pd.DataFrame(answer.reorder_levels(self.order, axis=1))


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> FakeYahoo:
    fake = FakeYahoo()
    fake.known = {name: history(seed) for seed, name in enumerate(("AAA", "BBB", "CCC"))}
    monkeypatch.setitem(sys.modules, "yfinance", fake)
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.0)
    return fake


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def call(*tickers: str, **options: Any) -> Market:
        return load_market("yahoo", tickers=list(tickers), cache=tmp_path, **options)

    return call


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- what a download becomes


@pytest.mark.parametrize("order", [["Ticker", "Price"], ["Price", "Ticker"]])
def test_prices_are_adjusted_and_panels_follow(
    vendor: FakeYahoo, load: Any, order: list[str]
) -> None:
    vendor.order = order
    market = load("AAA", "BBB")
    assert market.assets == ("AAA", "BBB", "cash")
    truth = vendor.known["BBB"]
    np.testing.assert_allclose(market.prices[:, 1], truth["Adj Close"])
    np.testing.assert_allclose(market.highs[:, 1], truth["High"] * 0.9)
    np.testing.assert_array_equal(market.volume[:, 1], truth["Volume"])
    assert market.notes[0].startswith("2 tickers from Yahoo Finance, downloaded 20")
    assert market.closes is not None and market["2020-01-08":].closes is not None
    np.testing.assert_array_equal(market.closes[:, 1], truth["Close"])
    raw = load("AAA", "BBB", adjusted=False)
    assert raw.closes is None
    np.testing.assert_allclose(raw.prices[:, 1], truth["Close"])
    np.testing.assert_allclose(raw.opens[:, 1], truth["Open"])


def test_one_ticker_with_plain_columns_and_a_late_one(vendor: FakeYahoo, load: Any) -> None:
    vendor.order = ["Price"]
    assert load("AAA").n_periods == 40
    vendor.order = ["Price", "Ticker"]
    vendor.known["BBB"] = history(1).iloc[15:]
    late = load("AAA", "BBB")
    assert not late.tradable[:15, 1].any() and late.tradable[15:, 1].all()


def test_dates_with_a_zone_and_the_day_that_is_not_over(vendor: FakeYahoo, load: Any) -> None:
    today = pd.Timestamp(datetime.datetime.now(datetime.UTC).date())
    frame = history(0)
    frame.index = pd.DatetimeIndex([*DATES[:-1], today]).tz_localize("America/New_York")
    vendor.known["AAA"] = frame
    market = load("AAA")
    assert market.n_periods == 39 and market.dates.tz is None
    assert market.dates[0] == DATES[0]


def test_a_second_call_reads_the_copy(vendor: FakeYahoo, load: Any, tmp_path: Path) -> None:
    first = load("AAA", "BBB")
    vendor.known.clear()
    again = load("BBB", "AAA")
    assert len(vendor.asked) == 1
    np.testing.assert_array_equal(again.prices[:, 1], first.prices[:, 0])
    entry = json.loads((tmp_path / "yahoo" / "AAA.json").read_text())
    assert entry["rows"] == 40 and entry["first"] == "2020-01-01" and entry["last"] == "2020-02-25"
    assert datetime.datetime.fromisoformat(entry["downloaded"]).tzinfo is not None
    assert len(entry["sha256"]) == 64 and (tmp_path / "yahoo" / entry["file"]).is_file()


def test_only_what_is_missing_is_asked_for(vendor: FakeYahoo, load: Any) -> None:
    load("AAA")
    load("AAA", "CCC")
    assert vendor.asked == [["AAA"], ["CCC"]]


# ---- what goes wrong


def test_an_empty_answer_names_the_ticker(vendor: FakeYahoo, load: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load("ZZZ", tries=1)
    assert "1 of 1 could not be downloaded: ZZZ (possibly delisted)" in str(caught.value)
    assert files(tmp_path) == {}


def test_one_of_twenty_missing_is_named_and_nothing_is_stored(
    vendor: FakeYahoo, load: Any, tmp_path: Path
) -> None:
    names = [f"T{i}" for i in range(20)]
    vendor.known = {name: history(i) for i, name in enumerate(names) if name != "T13"}
    with pytest.raises(DataError) as caught:
        load(*names)
    message = str(caught.value)
    assert "1 of 20 could not be downloaded: T13 (possibly delisted); nothing was stored" in message
    assert "\n" not in message and files(tmp_path) == {}
    vendor.known["T13"] = history(13)
    assert load(*names).n_assets == 21


def test_offline_is_an_error_without_a_copy(vendor: FakeYahoo, load: Any) -> None:
    vendor.failures = [ConnectionError("Could not connect to server")] * 3
    with pytest.raises(DataError, match=r"AAA \(Could not connect to server\); nothing was stored"):
        load("AAA", tries=3)
    assert len(vendor.asked) == 3


def test_a_busy_server_is_asked_again_later(
    vendor: FakeYahoo, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(retry, "FIRST_WAIT", 2.0)
    monkeypatch.setattr(retry.time, "sleep", waits.append)
    vendor.failures = [RuntimeError("Too Many Requests. Rate limited."), TimeoutError("timed out")]
    assert load("AAA").n_periods == 40
    assert waits == [2.0, 4.0]
    vendor.reasons["ZZZ"] = "possibly delisted; no price data found"
    with pytest.raises(DataError):
        load("ZZZ")
    assert waits == [2.0, 4.0]  # what will not come is not asked for again


def test_a_limit_that_lasts_is_named(vendor: FakeYahoo, load: Any) -> None:
    vendor.reasons["ZZZ"] = "YFRateLimitError('Too Many Requests. Rate limited.')"
    with pytest.raises(DataError, match=r"ZZZ \(YFRateLimitError\(Too Many Requests"):
        load("AAA", "ZZZ", tries=2)
    assert vendor.asked == [["AAA", "ZZZ"], ["ZZZ"]]


def test_without_the_package_the_extra_is_named(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yfinance", None)
    with pytest.raises(
        SettingError, match=r'yfinance is not installed; pip install "allocgym\[data\]"'
    ):
        load("AAA")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tickers": "SPY"}, "must be a list of at least 1 name, such as [SPY, TLT], got 'SPY'"),
        ({"tickers": []}, "tickers: must be a list"),
        ({"tickers": ["A", "A"]}, "'A' appears twice"),
        ({"tickers": ["../../x"]}, "'../../x' is no name for an asset"),
        ({"tickers": [7]}, "'7' is no name"),
        ({"tickers": ["AAA"], "tries": 0}, "tries: must be a whole number >= 1, got 0"),
        ({"tickers": ["AAA"], "max_gap": -1}, "max_gap"),
        ({}, "needs the option 'tickers'"),
    ],
)
def test_a_bad_option_is_named(
    vendor: FakeYahoo, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises((SettingError, DataError)) as caught:
        load_market("yahoo", cache=tmp_path, **options)
    assert words in str(caught.value)


@pytest.mark.parametrize("spoil", ["columns", "twice", "prices"])
def test_an_answer_that_is_no_price_table_is_refused(
    vendor: FakeYahoo, load: Any, spoil: str
) -> None:
    frame = history(0)
    if spoil == "columns":
        frame = frame.drop(columns="Adj Close")
    if spoil == "twice":
        frame.index = pd.DatetimeIndex([*DATES[:-1], DATES[3]])
    if spoil == "prices":
        frame.iloc[5, 4] = -1.0
    vendor.known["AAA"] = frame
    words = {
        "columns": "AAA: no column Adj Close",
        "twice": "AAA: date 2020-01-06 appears twice",
        "prices": r"'AAA', row 5 \(2020-01-08\): price -1.0 must be finite and > 0",
    }
    vendor.order = ["Price"] if spoil == "twice" else vendor.order
    with pytest.raises(DataError, match=words[spoil]):
        load("AAA")


# ---- refresh: rows are added, history is not rewritten in silence


def test_new_rows_are_added_without_a_word(vendor: FakeYahoo, load: Any) -> None:
    vendor.known["AAA"] = history(0, rows=30)
    assert load("AAA").n_periods == 30
    vendor.known["AAA"] = history(0)
    market = load("AAA", refresh=True)
    assert market.n_periods == 40 and len(market.notes) == 1


def test_rewritten_history_is_shown_with_dates_and_columns_and_the_old_copy_kept(
    vendor: FakeYahoo, load: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load("AAA", "BBB")
    changed = history(0)
    changed["Close"] *= np.where(changed.index == pd.Timestamp("2020-01-09"), 1.05, 1.0)
    vendor.known["AAA"] = changed.drop(pd.Timestamp("2020-01-14"))
    with caplog.at_level(logging.WARNING):
        market = load("AAA", "BBB", refresh=True)
    gone, differs = [note for note in market.notes if "history rewritten" in note]
    assert "yahoo AAA: 1 rows are gone: 2020-01-14" in gone
    assert "yahoo AAA: Close differs on 1 dates: 2020-01-09" in differs
    assert gone in caplog.messages and differs in caplog.messages
    entry = json.loads((tmp_path / "yahoo" / "AAA.json").read_text())
    assert len(entry["rewritten"]) == 2 and len(entry["previous"]) == 1
    assert (tmp_path / "yahoo" / entry["previous"][0]).is_file()
    assert "previous" not in json.loads((tmp_path / "yahoo" / "BBB.json").read_text())
    assert len(list((tmp_path / "yahoo").glob("BBB-*.parquet"))) == 1


def test_a_dividend_changes_the_scale_and_is_not_called_rewritten(
    vendor: FakeYahoo, load: Any
) -> None:
    before = load("AAA")
    vendor.known["AAA"] = history(0).assign(**{"Adj Close": history(0)["Adj Close"] * 0.99})
    market = load("AAA", refresh=True)
    (note,) = market.notes[1:]
    assert "Adj Close of all 40 earlier rows multiplied by 0.99" in note
    np.testing.assert_allclose(market.returns, before.returns, atol=1e-12)


@pytest.mark.parametrize("fault", ["offline", "missing", "partial"])
def test_a_refresh_that_fails_leaves_the_copies_and_says_so(
    vendor: FakeYahoo, load: Any, tmp_path: Path, fault: str
) -> None:
    before, stored = load("AAA", "BBB"), files(tmp_path)
    if fault == "offline":
        vendor.failures = [ConnectionError("Could not connect")] * 2
    if fault == "missing":
        del vendor.known["BBB"]
    if fault == "partial":
        vendor.known["BBB"] = history(1).iloc[25:]
    market = load("AAA", "BBB", refresh=True, tries=2)
    assert files(tmp_path) == stored
    np.testing.assert_array_equal(market.prices, before.prices)
    (note,) = [note for note in market.notes if "could not be downloaded" in note]
    words = {
        "offline": "AAA (Could not connect)",
        "missing": "BBB (possibly delisted)",
        "partial": "BBB (the answer spans 2020-02-05 .. 2020-02-25 only, the stored copy",
    }
    assert words[fault] in note and "are used" in note


# ---- the cache


def test_a_changed_file_is_refused_until_it_is_downloaded_again(
    vendor: FakeYahoo, load: Any, tmp_path: Path
) -> None:
    load("AAA")
    (data,) = (tmp_path / "yahoo").glob("*.parquet")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(
        DataError, match=r"AAA-.*parquet: file changed since it was downloaded on 20"
    ):
        load("AAA")
    assert load("AAA", refresh=True).n_periods == 40
    data.unlink()
    with pytest.raises(DataError, match="the file it names is gone"):
        load("AAA")
    (tmp_path / "yahoo" / "AAA.json").write_text("{")
    with pytest.raises(DataError, match=r"AAA.json: is damaged"):
        load("AAA")
    assert load("AAA", refresh=True).n_periods == 40


def test_a_disk_that_is_full_in_mid_write_is_named_and_leaves_the_old_copy(tmp_path: Path) -> None:
    """The data do not fit below the limit of the size of files; then they fit again."""
    resource = pytest.importorskip("resource")
    store = DownloadCache("yahoo", tmp_path)
    store.write("^GSPC", history(0), {})
    stored = files(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: .*/yahoo/.*GSPC.*parquet"):
            store.write("^GSPC", history(1), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stored == files(tmp_path)
    copy = store.read("^GSPC")
    assert copy is not None
    pd.testing.assert_frame_equal(copy.frame, history(0), check_freq=False)
    store.write("^GSPC", history(1), {})
    pd.testing.assert_frame_equal(store.read("^GSPC").frame, history(1), check_freq=False)  # type: ignore[union-attr]


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ALLOCGYM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    for platform, place in (("linux", tmp_path), ("win32", tmp_path / "local")):
        monkeypatch.setattr("market.sources.download_cache.sys.platform", platform)
        assert cache_folder() == place / "allocgym"
    monkeypatch.setattr("market.sources.download_cache.sys.platform", "darwin")
    assert cache_folder().parts[-3:] == ("Library", "Caches", "allocgym")
    monkeypatch.setenv("ALLOCGYM_CACHE", str(tmp_path / "mine"))
    assert DownloadCache("fred").place == tmp_path / "mine" / "fred"


def test_names_of_tickers_are_safe_names_of_files(tmp_path: Path) -> None:
    store = DownloadCache("yahoo", tmp_path)
    for key in ("^GSPC", "BRK-B", "EURUSD=X", "a/b", "S&P 500"):
        store.write(key, history(0), {})
        assert store.read(key) is not None
    assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path / "yahoo"}


def test_rewritten_compares_by_date_and_forgives_rounding() -> None:
    old = history(0)
    assert rewritten("x", old, old * (1 + 1e-6)) == ([], [])
    late = old.drop(DATES[10])
    (line,) = rewritten("x", late, old)[0]
    assert line == "x: 1 rows were put in: 2020-01-15"
    shifted = old.assign(Volume=np.nan)
    (line,) = rewritten("x", old, shifted)[0]
    assert line.startswith("x: Volume differs on 40 dates: 2020-01-01, 2020-01-02, 2020-01-03, ..")


def test_retries_stop_at_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry.time, "sleep", lambda _: None)
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise TryAgainError("busy")

    with pytest.raises(TryAgainError):
        with_retries(fail, 3, "test")
    assert len(calls) == 3


# ---- yfinance itself, fed by a server on this machine


class Chart(http.server.BaseHTTPRequestHandler):
    """Yahoo's chart answers for SPY; an error for any other ticker."""

    def do_GET(self) -> None:
        known = "/chart/SPY" in self.path
        stamps = [int(date.timestamp()) + 14 * 3600 + 1800 for date in DATES]
        frame = history(0)
        quote = {name.lower(): frame[name].tolist() for name in COLUMNS if name != "Adj Close"}
        session = {
            "timezone": "EST",
            "start": stamps[-1],
            "end": stamps[-1] + 1,
            "gmtoffset": -18000,
        }
        result = {
            "meta": {
                "exchangeTimezoneName": "America/New_York",
                "currency": "USD",
                "instrumentType": "ETF",
                "validRanges": ["max"],
                "symbol": "SPY",
                "priceHint": 2,
                "regularMarketTime": stamps[-1],
                "regularMarketPrice": frame["Close"].iloc[-1],
                "currentTradingPeriod": dict.fromkeys(("pre", "regular", "post"), session),
                "dataGranularity": "1d",
            },
            "timestamp": stamps,
            "indicators": {
                "quote": [quote],
                "adjclose": [{"adjclose": frame["Adj Close"].tolist()}],
            },
        }
        missing = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
        chart = {"result": [result] if known else None, "error": None if known else missing}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"chart": chart}).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    library = pytest.importorskip("yfinance")
    from yfinance.data import YfData

    host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chart)
    threading.Thread(target=host.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{host.server_port}"

    def get(_: Any, url: str, params: Any = None, timeout: float = 30) -> Any:
        with urllib.request.urlopen(base + "/" + url.split("/", 3)[3], timeout=5) as answer:  # noqa: S310
            text = answer.read().decode()
        answered = {"text": text, "status_code": 200, "raise_for_status": lambda: None}
        return SimpleNamespace(json=lambda: json.loads(text), **answered)

    monkeypatch.setattr(YfData, "get", get)
    monkeypatch.setattr(YfData, "cache_get", get)
    library.set_tz_cache_location(str(tmp_path / "zones"))
    yield
    host.shutdown()
    host.server_close()


def test_what_yfinance_makes_of_an_answer_is_understood(server: None, load: Any) -> None:
    market = load("SPY")
    truth = history(0)
    np.testing.assert_allclose(market.prices[:, 0], truth["Adj Close"])
    np.testing.assert_allclose(market.lows[:, 0], truth["Low"] * 0.9)
    assert market.dates.equals(pd.DatetimeIndex(DATES, name=None))


def test_what_yfinance_says_of_an_unknown_ticker_is_passed_on(server: None, load: Any) -> None:
    with pytest.raises(DataError) as caught:
        load("SPY", "NOPE", tries=2)
    assert "1 of 2 could not be downloaded: NOPE (" in str(caught.value)
    assert "no timezone found" in str(caught.value) or "delisted" in str(caught.value)


# ---- allocgym data download


def test_download_stores_all_and_says_what(
    vendor: FakeYahoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "download", "yahoo", "AAA", "BBB", "--cache", str(tmp_path)]
    assert main(words) == 0
    out = capsys.readouterr().out
    entry = json.loads((tmp_path / "yahoo" / "BBB.json").read_text())
    row = next(line for line in out.splitlines() if line.startswith("BBB"))
    facts = [
        "BBB",
        "2020-01-01",
        "2020-02-25",
        "40",
        entry["downloaded"][:10],
        entry["sha256"][:12],
    ]
    assert row.split() == facts
    use = f'--data yahoo --data.options.tickers "[AAA, BBB]" --data.options.cache {tmp_path}'
    assert use in out and str(tmp_path / "yahoo") in out
    assert main(words) == 0 and len(vendor.asked) == 1  # the copies are there
    vendor.known["AAA"] = history(0).assign(Volume=1.0)
    assert main([*words, "--refresh", "true"]) == 0
    assert "history rewritten by the vendor: yahoo AAA: Volume differs" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["yahoo", "AAA", "ZZZ"], "1 of 2 could not be downloaded: ZZZ (possibly delisted)"),
        (["yahoo"], "data download yahoo: name at least 1 ticker, such as SPY"),
        (["yaho", "AAA"], "did you mean 'yahoo'?"),
        (["yahoo", "AAA", "--refesh", "true"], "did you mean 'refresh'?"),
        (["yahoo", "AAA", "--lags.AAA", "1"], "--lags is of fred"),
        (["yahoo", "../x"], "'../x' is no name for an asset"),
    ],
)
def test_a_download_that_cannot_be_is_one_line(
    vendor: FakeYahoo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    text: str,
) -> None:
    assert main(["data", "download", *words, "--cache", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert text in line and files(tmp_path) == {}


def test_a_refresh_by_hand_that_fails_is_an_error_and_keeps_the_copies(
    vendor: FakeYahoo, load: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load("AAA", "BBB")
    before = files(tmp_path)
    del vendor.known["BBB"]
    words = ["data", "download", "yahoo", "AAA", "BBB", "--refresh", "true"]
    assert main([*words, "--cache", str(tmp_path)]) == 2
    assert "BBB (possibly delisted); the copies of 20" in capsys.readouterr().err
    assert files(tmp_path) == before
