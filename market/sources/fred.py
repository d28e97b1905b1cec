"""Series of FRED, the data base of the Federal Reserve Bank of St. Louis, through fredapi.

Each figure is joined by the date on which it was released: a revision counts from its own release
on, and a quarterly figure stands on no day before it came out. FRED keeps the release dates of most
series (its "vintages"); for daily market series, which have too many of them and are not revised,
`lags` says how many days after its date a figure is known.

The key comes from the option `api_key` or from $FRED_API_KEY, which is better, since options are
stored with results. It is never written, logged or shown.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from xml.etree.ElementTree import ParseError  # what fredapi raises, not a parser

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError
from market.features.releases import latest, nanoseconds, read_releases
from market.market import Market
from market.names import unknown_name
from market.sources.assemble import Assembly
from market.sources.download_cache import DownloadCache, Stored
from market.sources.downloads import Answers, Reasons, obtain
from market.sources.extras import import_extra
from market.sources.panels import Panels, Place, combine
from market.sources.raw import RawData

KEY_VARIABLE = "FRED_API_KEY"
TIMEOUT = 30.0
_SERIES = re.compile(r"[A-Z0-9_]{1,40}")
_PASSING = re.compile(r"too many requests|internal server error|try again", re.IGNORECASE)

FredOptions = Mapping[str, Any]


def fred(
    prices: Sequence[str],
    *,
    context: Sequence[str] = (),
    lags: Mapping[str, int] | None = None,
    api_key: str | None = None,
    refresh: bool = False,
    cache: str | Path | None = None,
    tries: int = 4,
    cash_rate: float | None = 0.0,
    max_gap: int = 5,
    allow_jumps: bool = False,
    calendar: str | None = None,
) -> RawData:
    """A market of series of FRED (needs `pip install "allocgym[data]"` and a key).

    Args:
        prices: Series that are prices of assets, such as ["SP500", "NASDAQCOM"]: at their own date.
        context: Series that all assets share, such as ["CPIAUCSL", "DGS10"]: by release.
        lags: Series -> days from a figure's date to its release, in place of FRED's release dates.
        api_key: The key; $FRED_API_KEY when not given.
        refresh: As of "yahoo".
        cache: As of "yahoo".
        tries: As of "yahoo".
        cash_rate: As of "files".
        max_gap: As of "files".
        allow_jumps: As of "files".
        calendar: As of "files".

    Raises:
        SettingError: If fredapi is not installed, there is no key, or an option is out of range.
        DataError: Naming each series that could not be had, and why.

    """
    wanted = [*prices, *context]
    if isinstance(prices, str) or isinstance(context, str) or not prices:
        raise SettingError(f"prices: must be a list of at least 1 series, got {prices!r}")
    given = {**(lags or {}), **dict.fromkeys(prices, 0)}
    tables, facts = fred_tables(wanted, given, api_key, refresh, cache, tries)
    assembly = Assembly(
        cash_rate=cash_rate, max_gap=max_gap, allow_jumps=allow_jumps, calendar=calendar
    )
    priced, shared = ({key: tables[key] for key in part} for part in (prices, context))
    return market_of_series(priced, shared, assembly, facts)


def market_of_series(
    prices: Mapping[str, pd.DataFrame],
    context: Mapping[str, pd.DataFrame],
    assembly: Assembly,
    facts: Sequence[str] = (),
) -> RawData:
    """The market of series that are prices, by date, and of others beside them, by release.

    Args:
        prices: Tables of date, published and value.
        context: The same.
        assembly: How the prices come together.
        facts: Notes that give no cause for a warning.

    """
    panels = combine("fred", [_price_panels(name, table) for name, table in prices.items()])
    panels = panels._replace(notes=list(facts), facts=frozenset(facts))
    return join_context(assembly.market("fred", panels), context)


def with_fred(
    market: Market,
    options: FredOptions | Sequence[str],
    refresh: bool,
    cache: str | Path | None,
    tries: int,
) -> RawData:
    """A market with series of FRED beside it, as context and as tables."""
    if not options:
        return RawData(market)
    given: dict[str, Any] = (
        dict(options) if isinstance(options, Mapping) else {"context": list(options)}
    )
    unknown = set(given) - {"context", "lags", "api_key"}
    if unknown:
        raise unknown_name("option of fred", sorted(unknown)[0], ("context", "lags", "api_key"))
    tables, facts = fred_tables(
        given.get("context", ()), given.get("lags"), given.get("api_key"), refresh, cache, tries
    )
    market = dataclasses.replace(market, notes=(*market.notes, *facts))
    return join_context(market, tables)


def join_context(market: Market, tables: Mapping[str, pd.DataFrame]) -> RawData:
    """Add each table to the context, by release; rows before all are known are left out."""
    dates = nanoseconds(market.dates)
    columns = {
        name: latest(dates, read_releases(table, name, ["value"], "date", None))
        for name, table in tables.items()
    }
    if not columns:
        return RawData(market)
    panel = np.column_stack(list(columns.values()))
    unknown = np.flatnonzero(~np.isfinite(panel).all(axis=1))
    first = int(unknown[-1]) + 1 if unknown.size else 0
    if first >= market.n_periods - 1:
        late = max(columns, key=lambda name: np.isnan(columns[name]).sum())
        raise DataError(
            f"fred: {late} was first released when the prices end, {market.dates[-1]:%Y-%m-%d}"
        )
    notes = market.notes
    if first:
        late = ", ".join(columns)
        notes = (*notes, f"{first} dates before the first release of all of {late} left out")
    kept = market[first:]
    joined = dataclasses.replace(
        kept,
        context=np.column_stack([kept.context, panel[first:].astype(np.float32)]),
        context_names=(*kept.context_names, *columns),
        notes=notes,
    )
    return RawData(joined, dict(tables))


def fred_tables(
    series: Sequence[str],
    lags: Mapping[str, int] | None = None,
    api_key: str | None = None,
    refresh: bool = False,
    cache: str | Path | None = None,
    tries: int = 4,
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Series as tables of `date`, `published` and `value`, and notes about where they come from.

    Raises:
        DataError: Naming each series that could not be had, and why.

    """
    given = dict(lags or {})
    found, notes = fred_copies(
        series, given, api_key=api_key, refresh=refresh, cache=cache, tries=tries
    )
    tables = {}
    for name, copy in found.items():
        vintage = f"{copy.entry['last']}" if name not in given else "latest figures"
        notes.append(f"FRED {name}: vintage {vintage}, downloaded {copy.downloaded}")
        tables[name] = _table(copy.frame, given.get(name))
    return tables, notes


def fred_copies(
    series: Sequence[str],
    lags: Mapping[str, int],
    *,
    api_key: str | None = None,
    refresh: bool = False,
    cache: str | Path | None = None,
    tries: int = 4,
    strict: bool = False,
) -> tuple[dict[str, Stored], list[str]]:
    """Each series as it is stored: by release, or the latest figures where it has a lag.

    Args:
        series: Names.
        lags: As of `fred`.
        api_key: As of `fred`.
        refresh: As of `yahoo_copies`, as for `cache`, `tries` and `strict`.
        cache: Folder of downloads.
        tries: How often to ask.
        strict: Whether to raise where a refresh fails.

    """
    _check(series, lags)
    keys = {name: f"{name}_latest" if name in lags else name for name in dict.fromkeys(series)}
    found, notes = obtain(
        DownloadCache("fred", cache),
        list(keys.values()),
        lambda left: _ask(left, api_key),
        refresh=refresh,
        tries=tries,
        strict=strict,
    )
    return {name: found[key] for name, key in keys.items()}, notes


def _ask(keys: list[str], api_key: str | None) -> tuple[Answers, Reasons, bool]:
    """Each series, by release or as it stands, or why there is none."""
    library: Any = import_extra("fredapi")
    key = api_key or os.environ.get(KEY_VARIABLE)
    if not key:
        raise SettingError(f"fred: needs a key; set ${KEY_VARIABLE} (or the option api_key)")
    client = library.Fred(api_key=key)
    found: Answers = {}
    failed: Reasons = {}
    passing = False
    for name in keys:
        try:
            with _time_limit():
                found[name] = _download(client, name)
            continue
        except (URLError, http.client.HTTPException, ParseError, OSError) as error:
            reason, passing = f"no answer: {error}", True
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error) or type(error).__name__
            passing = passing or bool(_PASSING.search(reason))
        failed[name] = _advice(
            reason.splitlines()[0].replace(key, "***").replace(quote(key), "***")
        )
    return found, failed, passing


def _download(client: Any, key: str) -> pd.DataFrame:
    """One series; by release in the order of release, so that what is new comes last.

    Raises:
        ValueError: If the answer is empty.

    """
    name = key.removesuffix("_latest")
    if name != key:
        latest_figures = client.get_series(name)
        frame = pd.DataFrame({"value": latest_figures.astype(float)})
        frame.index = pd.DatetimeIndex(frame.index, name="date")
        frame = frame.sort_index()
    else:
        rows = client.get_series_all_releases(name)
        if not len(rows):
            raise ValueError("the answer is empty")
        dates = {"published": "realtime_start", "date": "date"}
        index = pd.MultiIndex.from_arrays(
            [pd.DatetimeIndex(pd.to_datetime(rows[column])) for column in dates.values()],
            names=list(dates),
        )
        values = [np.nan if pd.isna(value) else float(value) for value in rows["value"]]
        frame = pd.DataFrame({"value": values}, index).sort_index()
    if not np.isfinite(frame["value"]).any():
        raise ValueError("the answer is empty")
    return frame


def _table(frame: pd.DataFrame, lag: int | None) -> pd.DataFrame:
    """Columns date, published and value; nan where FRED shows a dot."""
    table = frame.reset_index()
    if lag is not None:
        table["published"] = table["date"] + pd.Timedelta(days=lag)
    return table[["date", "published", "value"]]


def _price_panels(series: str, table: pd.DataFrame) -> Panels:
    known = table[np.isfinite(table["value"])]
    close = known["value"].to_numpy()[:, None]
    dates = pd.DatetimeIndex(known["date"])
    return Panels(
        dates, [series], {"close": close}, np.zeros(close.shape, int), [Place("fred")], []
    )


def _advice(reason: str) -> str:
    if "vintage" in reason.lower():
        return f"{reason} Set lags, such as lags={{'DGS10': 1}}, for a series that is not revised"
    return reason


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """Give up on a server that falls silent: fredapi itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _check(series: Sequence[str], lags: Mapping[str, int]) -> None:
    if isinstance(series, str):
        raise SettingError(f"fred: series must be a list of names, got {series!r}")
    for name in series:
        if not isinstance(name, str) or not _SERIES.fullmatch(name):
            raise SettingError(f"fred: {name!r} is no name of a series; such as DGS10 or CPIAUCSL")
    for name, lag in lags.items():
        if name not in series:
            raise SettingError(f"fred: lags names '{name}', which is not among {list(series)}")
        if type(lag) is not int or lag < 0:
            raise SettingError(f"fred: lag of '{name}' must be a whole number >= 0, got {lag!r}")
