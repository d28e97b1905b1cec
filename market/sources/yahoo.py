"""Daily prices from Yahoo Finance, through yfinance, kept in the cache.

A ticker's whole history is downloaded once and read from the cache from then on, so that a study
can be run again on the same numbers; `refresh=True` downloads anew and says what the vendor changed
of what it had given before. All tickers of a call are stored, or none.
"""

from __future__ import annotations

import datetime
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError
from market.market import Market
from market.sources.assemble import Assembly
from market.sources.download_cache import DownloadCache, Stored
from market.sources.downloads import Answers, Reasons, obtain
from market.sources.extras import import_extra
from market.sources.fred import FredOptions, with_fred
from market.sources.panels import Panels, Place, combine
from market.sources.raw import RawData
from market.sources.side_tables import read_sectors
from market.validation import check_asset_name

_FIELDS = {
    "Close": "close",
    "Adj Close": "adjusted",
    "Open": "opens",
    "High": "highs",
    "Low": "lows",
    "Volume": "volume",
}
_PRICES = ("Open", "High", "Low", "Close", "Adj Close")
_PASSING = re.compile(
    r"too many requests|rate.?limit|connect|timed? ?out|resolve|curl|"
    r"currently down|\b(429|5\d\d)\b",
    re.IGNORECASE,
)
_MARKS = re.compile(r"[\[\]'\"$]")


def yahoo(
    tickers: Sequence[str],
    *,
    adjusted: bool = True,
    refresh: bool = False,
    cache: str | Path | None = None,
    tries: int = 4,
    cash_rate: float | None = 0.0,
    max_gap: int = 5,
    allow_jumps: bool = False,
    calendar: str | None = None,
    sectors: Mapping[str, str] | str | Path | None = None,
    fred: FredOptions | Sequence[str] = (),
) -> RawData:
    """Daily prices of tickers from Yahoo Finance (needs `pip install "allocgym[data]"`).

    Args:
        tickers: Such as ["SPY", "TLT", "^VIX"].
        adjusted: Whether prices are adjusted for dividends, so that returns are total returns; the
            closes before that, adjusted for splits only, are `Market.closes`.
        refresh: Whether to download again what the cache holds. Without a connection the copies in
            the cache are used, with a note.
        cache: Folder of downloads; $ALLOCGYM_CACHE or the platform's place when not given.
        tries: How often to ask in all, waiting 2, 4, 8, .. seconds in between.
        cash_rate: As of "files".
        max_gap: As of "files".
        allow_jumps: As of "files".
        calendar: As of "files".
        sectors: As of "files".
        fred: Series of FRED beside the prices: their names, or the options of "fred" as a mapping
            with `context`.

    Raises:
        SettingError: If yfinance is not installed, or an option is out of range.
        DataError: Naming each ticker that could not be had, and why.

    """
    found, notes = yahoo_copies(tickers, refresh=refresh, cache=cache, tries=tries)
    names = list(found)
    dates = sorted({copy.downloaded for copy in found.values()})
    span = " .. ".join(dict.fromkeys([dates[0], dates[-1]]))
    facts = [f"{len(names)} tickers from Yahoo Finance, downloaded {span}", *notes]
    groups, unknown = read_sectors(sectors, names)
    assembly = Assembly(
        cash_rate=cash_rate,
        max_gap=max_gap,
        allow_jumps=allow_jumps,
        calendar=calendar,
        sectors=groups,
    )
    market = market_of_tickers(
        {name: found[name].frame for name in names}, assembly, adjusted, [*facts, *unknown]
    )
    return with_fred(market, fred, refresh, cache, tries)


def yahoo_copies(
    tickers: Sequence[str],
    *,
    refresh: bool = False,
    cache: str | Path | None = None,
    tries: int = 4,
    strict: bool = False,
) -> tuple[dict[str, Stored], list[str]]:
    """The whole history of each ticker, and notes about what the vendor changed or failed to give.

    Args:
        tickers: As of `yahoo`, as for `refresh`, `cache` and `tries`.
        refresh: Whether to ask for what is stored too.
        cache: Folder of downloads.
        tries: How often to ask.
        strict: Whether to raise where a refresh fails, instead of handing out the copies there are.

    """
    names = _checked(tickers)
    found, notes = obtain(
        DownloadCache("yahoo", cache),
        names,
        _ask,
        refresh=refresh,
        tries=tries,
        scaled=(*_PRICES, "Volume"),
        strict=strict,
    )
    return {name: found[name] for name in names}, notes


def market_of_tickers(
    frames: Mapping[str, pd.DataFrame],
    assembly: Assembly,
    adjusted: bool = True,
    facts: Sequence[str] = (),
) -> Market:
    """The market of what was downloaded, each ticker on its own dates.

    Args:
        frames: By ticker; what `ticker_frame` gives.
        assembly: How they come together.
        adjusted: As of `yahoo`.
        facts: Notes that give no cause for a warning.

    """
    panels = combine("yahoo", [_panels(name, frame, adjusted) for name, frame in frames.items()])
    panels = panels._replace(notes=list(facts), facts=frozenset(facts))
    return assembly.market("yahoo", panels)


def _ask(tickers: list[str]) -> tuple[Answers, Reasons, bool]:
    """The whole history of each ticker up to yesterday, or why there is none."""
    library: Any = import_extra("yfinance")
    said = _Listener()
    logger = logging.getLogger("yfinance")
    propagate, logger.propagate = logger.propagate, False  # what it says stands in our error
    logger.addHandler(said)
    failure = ""
    answer = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own, about pandas
            answer = library.download(
                list(tickers),
                period="max",
                interval="1d",
                auto_adjust=False,
                actions=False,
                group_by="ticker",
                progress=False,
                threads=False,
            )
    except (OSError, library.exceptions.YFException) as error:
        failure = str(error).splitlines()[0] if str(error) else type(error).__name__
    finally:
        logger.removeHandler(said)
        logger.propagate = propagate
    found, failed = {}, {}
    for ticker in tickers:
        frame = ticker_frame(answer, ticker, alone=len(tickers) == 1)
        if frame is not None:
            found[ticker] = frame
        else:
            failed[ticker] = failure or said.about(ticker) or "the answer is empty"
    return found, failed, any(_PASSING.search(reason) for reason in failed.values())


class _Listener(logging.Handler):
    """What yfinance says in its log: the only place where it tells why a ticker failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self.lines += record.getMessage().splitlines()

    def about(self, ticker: str) -> str:
        """The first line that names the ticker, without the name."""
        named = re.compile(rf"['$]{re.escape(ticker)}\b['\]:, ]*", re.IGNORECASE)
        line = next((line for line in self.lines if named.search(line)), "")
        text = re.sub(r"^.*?reason: ", "", line) if "reason: " in line else named.sub("", line)
        return _MARKS.sub("", text).split(" See http")[0].strip(" :.")


def ticker_frame(answer: pd.DataFrame | None, ticker: str, alone: bool) -> pd.DataFrame | None:
    """The columns of one ticker, whichever way round the answer has them; None where it has none.

    Raises:
        DataError: If the columns or dates are not those of prices.

    """
    if answer is None or answer.empty:
        return None
    frame = answer
    if isinstance(answer.columns, pd.MultiIndex):
        levels = [set(answer.columns.get_level_values(level)) for level in (0, 1)]
        own = next((1 - level for level in (0, 1) if "Close" in levels[level]), None)
        if own is None:
            raise DataError(f"yahoo: no column Close in the answer, got {list(answer.columns[:3])}")
        names = answer.columns.get_level_values(own).astype(str)
        if ticker.upper() not in set(names.str.upper()):
            return None
        frame = answer.loc[:, names.str.upper() == ticker.upper()].droplevel(own, axis=1)
    elif not alone:
        raise DataError(f"yahoo: the answer does not say which ticker {list(answer.columns)} are")
    lacking = [field for field in _FIELDS if field not in frame.columns]
    if lacking:
        raise DataError(f"yahoo: {ticker}: no column {', '.join(lacking)} in the answer")
    frame = frame[list(_FIELDS)].astype(float)
    frame = frame[np.isfinite(frame["Close"])]
    index = pd.DatetimeIndex(frame.index)
    frame.index = (index if index.tz is None else index.tz_localize(None)).normalize()
    frame.index.name, frame.columns.name = "date", None
    today = pd.Timestamp(datetime.datetime.now(datetime.UTC).date())
    frame = frame[frame.index < today].sort_index()
    if frame.index.has_duplicates:
        twice = frame.index[frame.index.duplicated()][0]
        raise DataError(f"yahoo: {ticker}: date {twice:%Y-%m-%d} appears twice in the answer")
    return None if frame.empty else frame


def _panels(ticker: str, frame: pd.DataFrame, adjusted: bool) -> Panels:
    """One ticker, (T, 1); open, high and low on the scale of the price."""
    fields = {name: frame[column].to_numpy()[:, None] for column, name in _FIELDS.items()}
    total = fields.pop("adjusted")
    if adjusted:
        factor = total / fields["close"]
        fields |= {key: fields[key] * factor for key in ("opens", "highs", "lows")}
        fields |= {"close": total, "closes": fields["close"]}
    lines = np.zeros((len(frame), 1), int)
    return Panels(pd.DatetimeIndex(frame.index), [ticker], fields, lines, [Place("yahoo")], [])


def _checked(tickers: Sequence[str]) -> list[str]:
    if isinstance(tickers, str) or not tickers:
        raise SettingError(
            f"tickers: must be a list of at least 1 name, such as [SPY, TLT], got {tickers!r}"
        )
    for ticker in tickers:
        check_asset_name("tickers", ticker)
    twice = [ticker for ticker in tickers if list(tickers).count(ticker) > 1]
    if twice:
        raise SettingError(f"tickers: '{twice[0]}' appears twice")
    return list(tickers)
