"""What was written about each asset: from tables["news"], (T, N), or (T,) where no asset is named.

The table holds one row a text: `timestamp`, `asset` (left out where the news are about everything)
and `text`, or a ready `score` in [-1, 1]. A model named in the specification comes before a ready
score, a ready score before the lexicon.

A text written by the close of day t counts for t; later ones, and those of a weekend, for the next
day of the market. The close is `cutoff` o'clock in `zone`; timestamps without a zone are taken to
be in `zone`, and those with an offset from UTC are the instants they say, read on the clock of
`zone` (America/New_York unless set). A timestamp of exactly midnight, on its own clock, is a date
without a time: nobody knows whether it was written before the close, so it counts for the next
day. Days without a text score 0.

Days before the first text of the table are not known: no text does not say there was no news. The
first day of a market counts what was written since its midnight. Longer windows do not reach over
that first day, whose texts may be incomplete: they are not known for `window` rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError
from market.features.releases import Tables, find_column, find_table
from market.features.scores import score_texts
from market.market import Market
from market.validation import check_zone

CUTOFF = "16:00"
ZONE = "America/New_York"


def sentiment(
    market: Market,
    tables: Tables,
    window: int = 1,
    model: str = "",
    cutoff: str = CUTOFF,
    zone: str = ZONE,
) -> np.ndarray:
    """Mean score of the texts of the last days, -1 to 1; 0 where there are none.

    sum of scores / number of texts, of days t-window+1 .. t

    Scored by a local transformers model where `model` names its directory, else by the table's own
    `score`, else by the words of Loughran and McDonald: (positive - negative) / (both).

    Source: Loughran & McDonald, Journal of Finance 66 (2011).
    """
    news = _news(market, tables, model, cutoff, zone)
    count, total = (_rolling(market, news, key, window) for key in ("one", "score"))
    mean = np.divide(total, count, out=0.0 * count, where=count > 0.5)
    return _of_assets(tables, mean)


def sentiment_dispersion(
    market: Market,
    tables: Tables,
    window: int = 1,
    model: str = "",
    cutoff: str = CUTOFF,
    zone: str = ZONE,
) -> np.ndarray:
    """How much the scores of the last days disagree; 0 where there is no second text.

    sqrt(mean of squared scores - squared mean score) of days t-window+1 .. t

    Source: Antweiler & Frank, Journal of Finance 59 (2004), their disagreement.
    """
    news = _news(market, tables, model, cutoff, zone)
    sums = (_rolling(market, news, key, window) for key in ("one", "score", "square"))
    count, total, squares = sums
    safe = np.maximum(count, 1.0)
    variance = np.maximum(squares / safe - (total / safe) ** 2, 0.0)
    spread = np.where((count > 1.5) & (variance > 1e-12), np.sqrt(variance), 0.0)
    return _of_assets(tables, np.where(np.isnan(count), np.nan, spread))


def news_count(
    market: Market, tables: Tables, window: int = 1, cutoff: str = CUTOFF, zone: str = ZONE
) -> np.ndarray:
    """Number of texts of the last days.

    count of texts of days t-window+1 .. t

    Source: Barber & Odean, Review of Financial Studies 21 (2008).
    """
    table = find_table(tables, "news", "news_count")
    placed = _placed(market, table, cutoff, zone)
    return _of_assets(tables, _rolling(market, placed, "one", window))


def market_rows(times: pd.Series, dates: pd.DatetimeIndex, cutoff: str, zone: str) -> np.ndarray:
    """Row of the first date whose close is not before each time; len(dates) after the last.

    Args:
        times: Timestamps, with or without a zone.
        dates: Of the market.
        cutoff: Time of the close, "HH:MM" in `zone`.
        zone: Such as "America/New_York".

    """
    closes = (dates.normalize() + _clock(cutoff)).to_numpy("datetime64[ns]")
    local = _local_times(times, zone).to_numpy("datetime64[ns]")
    return np.searchsorted(closes, local, side="left")


class _News(NamedTuple):
    """Texts with the row and column of the market that they belong to, and the first row of any."""

    texts: pd.DataFrame
    begins: int


def _news(market: Market, tables: Tables, model: str, cutoff: str, zone: str) -> _News:
    """The texts that fall into the market, with their score."""
    table = find_table(tables, "news", "sentiment")
    news = _placed(market, table, cutoff, zone)
    place = news.texts["place"]
    if not model and "score" in table.columns:
        scores = _ready_scores(table)[place]
    else:
        texts = table[find_column(table, "news", ["text"])].iloc[place]
        scores = score_texts(tuple(texts.fillna("").astype(str)), model)
    return news._replace(texts=news.texts.assign(score=scores, square=np.square(scores)))


def _placed(market: Market, table: pd.DataFrame, cutoff: str, zone: str) -> _News:
    """The rows of the table that fall into the market: place in the table, row and column."""
    if "timestamp" not in table.columns and isinstance(table.index, pd.DatetimeIndex):
        table = table.rename_axis("timestamp").reset_index()
    times = table[find_column(table, "news", ["timestamp"])]
    rows = market_rows(times, market.dates, cutoff, zone)
    before = _local_times(times, zone) < market.dates[0].normalize()
    columns: np.ndarray = np.zeros(len(table), np.int64)
    if "asset" in table.columns:
        number = {asset: i for i, asset in enumerate(market.assets)}
        columns = table["asset"].astype(str).map(number).fillna(-1).to_numpy(dtype=np.int64)
        if len(table) and (columns < 0).all():
            raise DataError("table 'news': none of its assets is in the market")
    kept = np.flatnonzero((rows < market.n_periods) & ~before & (columns >= 0))
    texts = pd.DataFrame({"place": kept, "row": rows[kept], "column": columns[kept], "one": 1.0})
    return _News(texts, int(rows.min(initial=market.n_periods)))


def _rolling(market: Market, news: _News, key: str, window: int) -> np.ndarray:
    """Sum of a column of the news over the last `window` rows, by asset, (T, N).

    nan before the first text, and where a window of more than a day reaches back to its day or to
    the market's first.
    """
    daily = np.zeros(market.prices.shape)
    texts = news.texts
    np.add.at(daily, (texts["row"].to_numpy(), texts["column"].to_numpy()), texts[key].to_numpy())
    daily[: news.begins + (window > 1)] = np.nan
    return daily if window == 1 else pd.DataFrame(daily).rolling(window).sum().to_numpy()


def _of_assets(tables: Tables, values: np.ndarray) -> np.ndarray:
    """(T, N), or (T,) where the news name no asset and stand in the first column."""
    return values if "asset" in tables["news"].columns else values[:, 0]


def _ready_scores(table: pd.DataFrame) -> np.ndarray:
    scores = pd.to_numeric(table["score"], errors="coerce").to_numpy(np.float64)
    bad = ~(np.abs(scores) <= 1.0)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        found = table["score"].iloc[row]
        raise DataError(f"table 'news': row {row}: score must be within -1 and 1, got {found}")
    return scores


def _local_times(times: pd.Series, zone: str) -> pd.DatetimeIndex:
    """Wall clock of `zone`, without a zone; the last moment of the day for a bare date."""
    check_zone("sentiment: zone", zone)
    if pd.api.types.is_numeric_dtype(times):
        raise DataError("table 'news': column 'timestamp' must hold times, got numbers")
    try:
        read = pd.DatetimeIndex(pd.to_datetime(times))
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"table 'news': column 'timestamp' must hold times: {reason}") from None
    if read.hasnans:
        row = int(np.flatnonzero(read.isna())[0])
        raise DataError(f"table 'news': row {row}: the timestamp is missing")
    local = read if read.tz is None else read.tz_convert(zone).tz_localize(None)
    bare = read == read.normalize()
    if str(read.tz) == "UTC":  # a frame's own dates of `zone`, converted
        bare |= local == local.normalize()
    own = read.tz_localize(None).normalize()
    return local.where(~bare, own + pd.Timedelta(days=1) - pd.Timedelta(1, "us"))


def _clock(cutoff: str) -> pd.Timedelta:
    hours, _, minutes = cutoff.partition(":")
    if not (hours.isdigit() and minutes.isdigit() and int(hours) < 24 and int(minutes) < 60):
        raise SettingError(f"sentiment: cutoff must be a time such as {CUTOFF}, got {cutoff!r}")
    return pd.Timedelta(hours=int(hours), minutes=int(minutes))
