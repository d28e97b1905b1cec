"""Leak audit: does a number that claims to be known at t move when only the future changes?

    truncate   cut the data after t: nothing labelled <= t may change, appear or vanish
    poison     replace everything after t: the same
    scale      prices times 7: as a later split would show the past, nothing may change
    start      begin the data later: what is not nan must be what the longer history gives

Anything that turns data into numbers by date can be audited: a feature, a scaler, a join of tables,
an agent's weights. A test passes at all of its dates or fails at the first; a date on which the
function refuses the changed data (an `InputError`) is counted as not tested. Half of the dates are
ends and first rows of months, quarters and years. A leak on other rare days, such as each 15 March,
is found only where one of the dates is such a day: a pass speaks of the dates tested.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from market.errors import DataError, InputError, SettingError
from market.market import PANELS, Market
from market.what_if import World, begun, cut, poisoned, rescaled, world_dates

TESTS = ("truncate", "poison", "scale", "start")
_EXACT, _SCALE, _START = 1e-6, 1e-5, 1e-4  # of a number, or of its column's standard deviation


class Finding(NamedTuple):
    """How one function fared in one test.

    Attributes:
        name: What was audited.
        test: One of `TESTS`.
        verdict: "pass", "FAIL", or "n/a" where it could not be tested.
        tested: Dates it was tested at.
        date: The first date whose number moved.
        size: By how much at most, in standard deviations of its column; inf where it came or went.
        detail: The column, or why it was not tested.

    """

    name: str
    test: str
    verdict: str
    tested: int
    date: pd.Timestamp | None = None
    size: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class AuditReport:
    """All findings, in the order they were made."""

    findings: tuple[Finding, ...]

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """The findings that failed."""
        return tuple(finding for finding in self.findings if finding.verdict == "FAIL")

    @property
    def passed(self) -> bool:
        """Whether nothing failed and something was tested."""
        return not self.leaks and any(finding.verdict == "pass" for finding in self.findings)

    @property
    def dates(self) -> int:
        """The fewest dates of what passed against another future, or of all that passed."""
        passed = [finding for finding in self.findings if finding.verdict == "pass"]
        future = [finding for finding in passed if finding.test in ("truncate", "poison")]
        return min((finding.tested for finding in future or passed), default=0)

    def frame(self) -> pd.DataFrame:
        """One row a finding."""
        return pd.DataFrame(self.findings, columns=Finding._fields)


def audit_function(
    function: Callable[[Any], Any],
    world: World,
    *,
    name: str = "function",
    dates: int = 20,
    seed: int = 0,
    tests: Sequence[str] = TESTS,
    after: Any = None,
) -> tuple[Finding, ...]:
    """Audit one function of the data.

    Args:
        function: Data -> numbers by date: an array whose first axis is the market's rows, a table
            indexed by date, or a `Market` (its features, context, returns and, but for scale and
            start, its panels and the prices at which something could be held).
        world: A `Market`, a table by date, or a mapping or tuple of them; see `market.what_if`.
        name: What findings call it.
        dates: How many dates to test at: up to half of them ends and first rows of months,
            quarters and years, the others one from each of as many equal spans.
        seed: Of the dates and of what replaces the future.
        tests: Which of `TESTS`.
        after: Only numbers after this date count, for what is fitted on the days up to it.

    Raises:
        SettingError: If a test is unknown or there are too few dates.
        DataError: If what the function returns cannot be told by date.

    """
    for test in tests:
        if test not in TESTS:
            raise SettingError(f"audit: unknown test {test!r}; valid: {', '.join(TESTS)}")
    calendar = world_dates(world)
    first = 1 if after is None else int(calendar.searchsorted(pd.Timestamp(after), side="right"))
    days = _drawn(calendar, first, dates, np.random.default_rng(seed))
    try:
        result = function(world)
    except InputError as error:
        return tuple(Finding(name, test, "n/a", 0, detail=str(error)) for test in tests)
    with_prices, without = (_by_date(result, calendar, prices) for prices in (True, False))
    check = _Check(function, world, with_prices, without, days, seed)
    return tuple(getattr(check, f"_{test}")().finding(name, test) for test in tests)


class _Moved:
    """What moved over the dates of one test."""

    def __init__(self) -> None:
        self.tested, self.refusal = 0, ""
        self.date: pd.Timestamp | None = None
        self.size, self.column = 0.0, ""

    def add(self, date: pd.Timestamp, size: float, column: str) -> None:
        if self.date is None or date < self.date:
            self.date, self.column = date, column
        self.size = max(self.size, size)

    def finding(self, name: str, test: str) -> Finding:
        if not self.tested:
            return Finding(name, test, "n/a", 0, detail=self.refusal)
        verdict = "pass" if self.date is None else "FAIL"
        return Finding(name, test, verdict, self.tested, self.date, self.size, self.column)


@dataclass
class _Check:
    """One function on one world, with what it gives there."""

    function: Callable[[Any], Any]
    world: World
    with_prices: pd.DataFrame
    without: pd.DataFrame
    days: pd.DatetimeIndex
    seed: int

    def _truncate(self) -> _Moved:
        return self._future(cut)

    def _poison(self) -> _Moved:
        rng = np.random.default_rng(self.seed + 1)
        return self._future(lambda world, date: poisoned(world, date, rng))

    def _future(self, change: Callable[[World, pd.Timestamp], World]) -> _Moved:
        moved = _Moved()
        for day in self.days:
            other = self._run(partial(change, self.world, day), moved, prices=True)
            if other is not None:
                _compare(self.with_prices.loc[:day], other.loc[:day], moved, _EXACT)
        return moved

    def _scale(self) -> _Moved:
        moved = _Moved()
        other = self._run(partial(rescaled, self.world), moved)
        if other is not None:
            _compare(self.without, other, moved, _SCALE)
        return moved

    def _start(self) -> _Moved:
        moved, whole = _Moved(), self.without
        for day in self.days[: -(len(self.days) // 4) or None]:  # leave room to warm up
            other = self._run(partial(begun, self.world, day), moved)
            if other is not None:
                rows = other.index[1:].intersection(whole.index)  # a first row knows no return
                columns = other.columns.intersection(whole.columns)
                short, long = other.loc[rows, columns], whole.loc[rows, columns]
                _compare(long.where(short.notna()), short, moved, _START)
        return moved

    def _run(
        self, changed: Callable[[], World], moved: _Moved, prices: bool = False
    ) -> pd.DataFrame | None:
        """The function's numbers in another world; None, with the reason kept, if it refuses."""
        try:
            world = changed()
            other = _by_date(self.function(world), world_dates(world), prices)
        except InputError as error:
            moved.refusal = str(error)
            return None
        moved.tested += 1
        return other


def _drawn(
    calendar: pd.DatetimeIndex, first: int, count: int, rng: np.random.Generator
) -> pd.DatetimeIndex:
    """`count` of the rows first .. T - 2: turns of the calendar, and one from each equal span."""
    last = len(calendar) - 2
    if count < 1:
        raise SettingError(f"audit: dates must be >= 1, got {count}")
    if last - first + 1 < count:
        raise SettingError(
            f"audit: {count} dates need more than the {len(calendar)} rows there are"
        )
    turns = [row for row in _turns(calendar, rng) if first <= row <= last][: count // 2]
    others = np.setdiff1d(np.arange(first, last + 1), turns)
    edges = np.linspace(0, len(others), count - len(turns) + 1)
    spans = np.floor(rng.uniform(edges[:-1], edges[1:])).astype(int)
    return calendar[np.sort([*turns, *others[np.minimum(spans, len(others) - 1)]])]


def _turns(calendar: pd.DatetimeIndex, rng: np.random.Generator) -> list[int]:
    """Rows that end a year, a quarter and a month, and first ones of months, in turn and shuffled.

    What is stamped by the calendar tends to leak on these rows alone.
    """
    months = np.asarray(calendar.year * 12 + calendar.month - 1)
    year, quarter, month = (np.flatnonzero(np.diff(months // size)) for size in (12, 3, 1))
    kinds = (year, np.setdiff1d(quarter, year), np.setdiff1d(month, quarter), month + 1)
    rows = itertools.chain.from_iterable(
        itertools.zip_longest(*(rng.permutation(kind).tolist() for kind in kinds))
    )
    return list(dict.fromkeys(row for row in rows if row is not None))


def _by_date(result: Any, dates: pd.DatetimeIndex, prices: bool) -> pd.DataFrame:
    """Numbers as a table by date."""
    if isinstance(result, Market):
        return _market_table(result, prices)
    if isinstance(result, pd.Series):
        result = result.to_frame()
    if isinstance(result, pd.DataFrame):
        if not isinstance(result.index, pd.DatetimeIndex):
            raise DataError("audit: a table must be indexed by date")
        return result.select_dtypes(["number", "bool"]).astype(np.float64)
    values = np.asarray(result)
    if values.ndim == 0 or len(values) != len(dates):
        raise DataError(
            f"audit: an array must have a row for each of the {len(dates)} dates, got shape "
            f"{values.shape}; return a table by date instead"
        )
    return pd.DataFrame(values.reshape(len(values), -1).astype(np.float64), dates)


def _market_table(market: Market, prices: bool) -> pd.DataFrame:
    """A market's numbers; prices, where asked for, only where something could be held."""
    flat = market.features.reshape(market.n_periods, -1).astype(np.float64)
    parts = [flat, market.context, market.returns]
    names = [f"{feature}[{asset}]" for asset in market.assets for feature in market.feature_names]
    names += [*market.context_names, *(f"return of {asset}" for asset in market.assets)]
    if prices:
        panels = {"price": np.where(market.tradable, market.prices, np.nan)}
        panels["tradable"] = market.tradable
        for key in PANELS:
            if (panel := getattr(market, key)) is not None:
                panels[key] = panel
        for key, panel in panels.items():
            parts.append(panel)
            names += [f"{key} of {asset}" for asset in market.assets]
        parts.append(market.risk_free[:, None])
        names.append("risk_free")
    return pd.DataFrame(np.hstack(parts), market.dates, names)


def _compare(expected: pd.DataFrame, found: pd.DataFrame, moved: _Moved, tolerance: float) -> None:
    """Note what differs between two tables of numbers by date."""
    for column in expected.columns.symmetric_difference(found.columns):
        owner = expected if column in expected else found
        values = owner[column].dropna()
        if len(values):
            moved.add(values.index[0], np.inf, f"column {column} comes or goes")
    odd = expected.index.symmetric_difference(found.index)
    if len(odd):
        moved.add(odd[0], np.inf, "the row comes or goes")
    columns = expected.columns.intersection(found.columns)
    rows = expected.index.intersection(found.index)
    if not len(rows) or not len(columns):
        return
    here, there = expected.loc[rows, columns].to_numpy(), found.loc[rows, columns].to_numpy()
    _compare_values(here, there, tolerance, rows, columns, moved)


def _compare_values(
    here: np.ndarray,
    there: np.ndarray,
    limit: float,
    rows: pd.Index,
    columns: pd.Index,
    moved: _Moved,
) -> None:
    spread = _spread(here)
    with np.errstate(invalid="ignore"):  # nan and inf are compared below
        gap = np.abs(here - there)
        off = gap > limit * np.maximum(np.abs(here), spread)
    gone = (np.isfinite(here) != np.isfinite(there)) | (np.isnan(here) != np.isnan(there))
    bad = off | gone
    if bad.any():
        row = int(np.flatnonzero(bad.any(axis=1))[0])
        column = int(np.flatnonzero(bad[row])[0])
        sizes = np.where(gone, np.inf, gap / np.where(spread > 0.0, spread, 1.0))[bad]
        moved.add(rows[row], float(sizes.max()), str(columns[column]))


def _spread(values: np.ndarray) -> np.ndarray:
    """Standard deviation of each column over its finite values, 0 where there are none."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, values, 0.0)
    mean = filled.sum(axis=0) / count
    return np.sqrt((np.where(known, filled - mean, 0.0) ** 2).sum(axis=0) / count)
