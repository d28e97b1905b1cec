"""Data quality: what must be fixed, what is worth a look, and each asset's figures.

fix    numbers that are wrong or stand for the same thing twice; a file that is refused
look   what may be true, and distorts results if it is not: gaps, stale prices, outliers
note   what a reader of results should know: listings, delistings, repairs that were made
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from market.errors import DataError, InputError
from market.market import Market
from market.sources import SOURCES, load_market, repair
from market.sources.assemble import LONGEST_PAUSE
from market.sources.cells import POSITIVE, parse_dates, parse_numbers, require
from market.sources.tables import Table, read_table

Level = Literal["fix", "look", "note"]
LEVELS: tuple[Level, ...] = ("fix", "look", "note")

STALE_ROWS = 5  # equal prices in a row
OUTLIER = 12.0  # robust standard deviations
TICK = 0.25  # a jump this large that is gone the day after
BACK = 0.05
SAME = 0.999  # correlation
_SPLITS = np.log([1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 40, 50, 100, 1000])
_NEAR_SPLIT = 0.06
_SHOWN = 5  # places named in one line


class Issue(NamedTuple):
    """One finding."""

    level: Level
    kind: str
    text: str


class AssetQuality(NamedTuple):
    """Figures of one asset; counts are of rows."""

    asset: str
    first: pd.Timestamp
    last: pd.Timestamp
    rows: int  # with a price one could trade at
    suspended: int  # listed, but nothing to trade at
    stale: int  # the longest run of equal prices
    jumps: int  # steps the size of a split
    outliers: int  # returns beyond 12 robust standard deviations
    no_volume: int | None  # traded rows without volume; None where none is known at all


@dataclass(frozen=True)
class Quality:
    """What was found in one set of data; the market is None where it was refused."""

    name: str
    issues: tuple[Issue, ...]
    assets: tuple[AssetQuality, ...] = ()
    market: Market | None = None

    @property
    def must_fix(self) -> bool:
        """Whether something has to be fixed before results mean anything."""
        return any(issue.level == "fix" for issue in self.issues)

    def of_level(self, level: Level) -> list[Issue]:
        """The issues of one level, in the order found."""
        return [issue for issue in self.issues if issue.level == level]


def check(source: str | Path, **options: Any) -> Quality:
    """Check a universe by name, or a price file or folder, refused ones too.

    Args:
        source: A name in `SOURCES`, else a path.
        options: Of the source, such as `date_format` of files.

    """
    known = str(source) in SOURCES
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # what a loader warns of is in the notes
    try:
        if known:
            market = load_market(str(source), features=["return"], **options)
        else:
            market = load_market("files", path=source, **options)
    except InputError as error:
        if known:
            raise
        return _refused(Path(source), str(error), options)
    finally:
        logging.disable(before)
    return check_market(market, bool(options.get("allow_jumps", False)))


def _refused(path: Path, reason: str, options: dict[str, Any]) -> Quality:
    """Why a file was refused; all the rest too, where only prices are missing."""
    refusals = tuple(_refusals(path, reason, options))
    if "max_gap" not in options:
        with contextlib.suppress(InputError):
            market = load_market("files", path=path, max_gap=LONGEST_PAUSE, **options)
            rest = check_market(market, bool(options.get("allow_jumps", False)))
            return dataclasses.replace(rest, issues=(*refusals, *rest.issues))
    return Quality(str(path), refusals)


def check_market(market: Market, allow_jumps: bool = False) -> Quality:
    """Check a market that is valid as far as its shape goes.

    Args:
        market: With cash or without; cash is not looked at.
        allow_jumps: Whether steps the size of a split are known to be true.

    """
    count = market.n_assets - market.has_cash
    assets = tuple(_asset_quality(market, column) for column in range(count))
    issues = [
        *_jumps(market, count, allow_jumps),
        *_ticks(market, count),
        *_ranges(market, count),
        *_twins(market, count),
        *_stale(market, assets),
        *_outliers(assets),
        *_volume(assets),
        *_calendar(market),
        *_listings(market, assets),
        *(Issue("note", "notes", note) for note in market.notes if not _is_said(note)),
    ]
    issues.sort(key=lambda issue: LEVELS.index(issue.level))
    return Quality(market.name, tuple(issues), assets, market)


def _asset_quality(market: Market, column: int) -> AssetQuality:
    prices, tradable = market.prices[:, column], market.tradable[:, column]
    held = np.flatnonzero(tradable)
    listed = np.flatnonzero(np.isfinite(prices))
    first, last = (held[0], held[-1]) if held.size else (listed[0], listed[-1])
    inside = slice(first, last + 1)
    volume = None if market.volume is None else market.volume[:, column]
    known = volume is not None and bool(np.isfinite(volume).any())
    silent = ~(volume > 0) & tradable if volume is not None else None
    return AssetQuality(
        asset=market.assets[column],
        first=market.dates[first],
        last=market.dates[last],
        rows=len(held),
        suspended=int((~tradable[inside]).sum()),
        stale=longest_run(prices[inside]),
        jumps=len(repair.jumps(market.prices[:, [column]])),
        outliers=int(outlying(market.returns[inside, column]).sum()),
        no_volume=int(silent.sum()) if known and silent is not None else None,
    )


def longest_run(values: np.ndarray) -> int:
    """Length of the longest run of equal numbers."""
    changed = np.flatnonzero(np.diff(values) != 0)
    ends = np.concatenate([[-1], changed, [len(values) - 1]])
    return int(np.diff(ends).max())


def outlying(returns: np.ndarray) -> np.ndarray:
    """Returns further from the median than 12 robust standard deviations, (T,) bool.

    The robust deviation is 1.4826 times the median distance from the median, of returns that are
    not 0.
    """
    moved = returns[returns != 0.0]
    if len(moved) < 20:
        return np.zeros(len(returns), bool)
    centre = np.median(moved)
    spread = 1.4826 * np.median(np.abs(moved - centre))
    return np.abs(returns - centre) > OUTLIER * spread


def _jumps(market: Market, count: int, allowed: bool) -> list[Issue]:
    """Steps the size of a split; one near a whole ratio looks like one."""
    issues = []
    for row, column, ratio in repair.jumps(market.prices[:, :count]):
        size = abs(np.log(ratio))
        near = float(np.abs(_SPLITS - size).min()) < _NEAR_SPLIT
        text = f"{_where(market, column, row)}: price is {ratio:.4g} times the one before"
        if allowed:
            issues.append(Issue("note", "jump", f"{text}; allowed"))
        elif near:
            rule = "like an unadjusted split; adjust the prices, or set allow_jumps if it is true"
            issues.append(Issue("fix", "split", f"{text}, {rule}"))
        else:
            issues.append(Issue("look", "jump", text))
    return issues


def _ticks(market: Market, count: int) -> list[Issue]:
    """Prices far away for one day."""
    now, after = market.returns[1:-1, :count], market.returns[2:, :count]
    back = np.abs((1.0 + now) * (1.0 + after) - 1.0) < BACK
    found = np.argwhere((np.abs(now) > TICK) & back)
    text = "price is {:.4g} times its neighbours for one day, like a wrong number"
    return [
        Issue("fix", "tick", f"{_where(market, i, t + 1)}: {text.format(1.0 + now[t, i])}")
        for t, i in found.tolist()
    ]


def _ranges(market: Market, count: int) -> list[Issue]:
    """Closes outside the day's range."""
    if market.highs is None or market.lows is None:
        return []
    slack = 1e-9 * market.prices
    outside = (market.prices > market.highs + slack) | (market.prices < market.lows - slack)
    rows = outside[:, :count]
    return [
        Issue(
            "fix",
            "range",
            f"'{market.assets[i]}': {rows[:, i].sum()} closes outside the day's low and high, "
            f"{_days(market, rows[:, i])}",
        )
        for i in np.flatnonzero(rows.any(axis=0)).tolist()
    ]


def _twins(market: Market, count: int) -> list[Issue]:
    """Columns that say the same, and those that nearly do."""
    known = market.tradable[1:, :count] & np.isfinite(market.prices[:-1, :count])
    returns = np.where(known, market.returns[1:, :count], np.nan)
    if count < 2:
        return []
    correlation = pd.DataFrame(returns).corr(min_periods=20).to_numpy()
    issues = []
    for i, j in np.argwhere(np.triu(correlation > SAME, k=1)).tolist():
        both = known[:, i] & known[:, j]
        pair = f"'{market.assets[i]}' and '{market.assets[j]}'"
        if np.allclose(returns[both, i], returns[both, j], rtol=1e-9, atol=1e-12):
            text = f"{pair} have the same returns on all {both.sum()} rows they share; drop one"
            issues.append(Issue("fix", "duplicate", text))
        else:
            text = f"{pair} correlate by {correlation[i, j]:.5f}; weights between them are luck"
            issues.append(Issue("look", "correlation", text))
    return issues


def _stale(market: Market, assets: tuple[AssetQuality, ...]) -> list[Issue]:
    issues = []
    for column, entry in enumerate(assets):
        prices = market.prices[:, column]
        if np.nanmax(prices) == np.nanmin(prices):
            text = f"'{entry.asset}' never moves; its risk and correlations are undefined"
            issues.append(Issue("look", "constant", text))
        elif entry.stale >= STALE_ROWS:
            text = f"'{entry.asset}': the same price on {entry.stale} rows in a row"
            issues.append(Issue("look", "stale", text))
    return issues


def _outliers(assets: tuple[AssetQuality, ...]) -> list[Issue]:
    return [
        Issue(
            "look",
            "outlier",
            f"'{entry.asset}': {entry.outliers} {'return' if entry.outliers == 1 else 'returns'} "
            "beyond 12 robust standard deviations",
        )
        for entry in assets
        if entry.outliers
    ]


def _volume(assets: tuple[AssetQuality, ...]) -> list[Issue]:
    return [
        Issue("look", "volume", f"'{entry.asset}': no volume on {entry.no_volume} traded rows")
        for entry in assets
        if entry.no_volume
    ]


def _calendar(market: Market) -> list[Issue]:
    issues = []
    weekend = np.array(market.dates.day_of_week >= 5)
    if market.periods_per_year <= 52:
        weekend[:] = False  # a month may end on a Sunday
    if weekend.mean() > 0.2:
        issues.append(Issue("note", "weekend", "trades at weekends too"))
    elif weekend.any():
        text = f"{weekend.sum()} rows fall on weekends, {_days(market, weekend)}"
        issues.append(Issue("look", "weekend", text))
    starts = repair.period_starts(market.dates)
    if starts:
        issues.append(Issue("look", "labels", repair.STARTS.format(starts)))
    for row in repair.pauses(market.dates):
        span = f"{market.dates[row - 1]:%Y-%m-%d} and {market.dates[row]:%Y-%m-%d}"
        issues.append(Issue("look", "pause", f"no dates between {span}: one return spans them"))
    return issues


def _listings(market: Market, assets: tuple[AssetQuality, ...]) -> list[Issue]:
    issues = []
    for entry in assets:
        if entry.suspended:
            text = f"'{entry.asset}': {entry.suspended} rows inside its history without a price"
            issues.append(Issue("look", "gap", text))
        if entry.first > market.dates[0]:
            text = f"'{entry.asset}' is listed from {entry.first:%Y-%m-%d}"
            issues.append(Issue("note", "listing", text))
        if entry.last < market.dates[-1]:
            text = f"'{entry.asset}' is delisted after {entry.last:%Y-%m-%d}"
            issues.append(Issue("note", "delisting", text))
    return issues


def _is_said(note: str) -> bool:
    """Whether a loader's note repeats what is found here."""
    repeated = (
        "the dates are all",
        "never moves",
        "like an unadjusted split",
        "no dates between",
        "is not tradable on",
    )
    return any(words in note for words in (*repeated, "is listed from", "is delisted after"))


def _refusals(path: Path, reason: str, options: dict[str, Any]) -> list[Issue]:
    """Why a file is refused: the first reason, and one more for each other column at fault."""
    issues = [Issue("fix", "refused", reason)]
    try:
        table = read_table(path, options.get("delimiter"))
    except InputError:
        return issues
    for column in range(len(table.header)):
        text = _column_fault(table, column, options)
        if text is not None and text not in {issue.text for issue in issues}:
            issues.append(Issue("fix", "refused", text))
    return issues


def _column_fault(table: Table, column: int, options: dict[str, Any]) -> str | None:
    """What is wrong with one column of text, None where nothing is."""
    name = table.header[column].lower()
    try:
        if column == table.date_column:
            parse_dates(table, column, options.get("date_format"), options.get("timezone"))
        elif name not in ("asset", "ticker", "tic", "symbol", "name", "instrument", "id", "date"):
            values = parse_numbers(table, column, options.get("decimal", "."))
            if "vol" in name:
                require(table, column, values, lambda x: x >= 0, "must be >= 0")
            else:
                require(table, column, values, lambda x: x > 0, POSITIVE)
    except (DataError, InputError) as error:
        return str(error)
    return None


def _where(market: Market, column: int, row: int) -> str:
    return f"'{market.assets[column]}', {market.dates[row]:%Y-%m-%d}"


def _days(market: Market, rows: np.ndarray) -> str:
    """The first few dates of rows, bool (T,)."""
    days = [f"{date:%Y-%m-%d}" for date in market.dates[rows][:_SHOWN]]
    return ", ".join(days) + (", .." if rows.sum() > _SHOWN else "")
