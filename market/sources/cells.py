"""Text cells as numbers and dates, each refusal naming the row, the column and the text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError
from market.sources.tables import Table
from market.validation import check_zone

MISSING = frozenset(
    {"", "NA", "N/A", "#N/A", "NaN", "nan", "NAN", "null", "NULL", "None", ".", "-"}
)
_SIGNS = re.compile(r"[$€£¥%]|\d[kKmMbB]\b")
_MONTH, _SERIAL = re.compile(r"%-?[mbBh]"), re.compile(r"[34]\d{4}(\.0)?")
_MILLISECONDS, _DAY = re.compile(r"1\d{12}"), re.compile(r"%-?[djexcDFsUVWu]")
_DIGITS = frozenset("0123456789.eE+-")
_SWAP = str.maketrans(",.", ".,")
_FORMATS = {
    r"\d{4}/\d\d?/\d\d?": ("%Y/%m/%d",),
    r"\d{4}\.\d\d?\.\d\d?": ("%Y.%m.%d",),
    r"\d{8}": ("%Y%m%d",),
    r"\d\d?/\d\d?/\d{4}": ("%d/%m/%Y", "%m/%d/%Y"),
    r"\d\d?/\d\d?/\d\d": ("%d/%m/%y", "%m/%d/%y"),
    r"\d\d?-\d\d?-\d{4}": ("%d-%m-%Y", "%m-%d-%Y"),
    r"\d\d?\.\d\d?\.\d{4}": ("%d.%m.%Y", "%m.%d.%Y"),
    r"\d\d?-[A-Za-z]{3}-\d{4}": ("%d-%b-%Y",),
    r"\d\d? [A-Za-z]{3} \d{4}": ("%d %b %Y",),
    r"[A-Za-z]{3} \d\d?, \d{4}": ("%b %d, %Y",),
    r"[A-Za-z]{3} \d\d? \d{4}": ("%b %d %Y",),
    r"\d{4}-\d\d": ("%Y-%m",),
    r"[A-Za-z]{3}[ -]\d{4}": ("%b-%Y", "%b %Y"),
}
_ISO = re.compile(r"\d{4}-\d\d?-\d\d?([ T]\d\d?:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d){0,2})?)?")
_OFFSET = re.compile(r":.*(Z|[+-]\d\d(:?\d\d){0,2})$")
_SAME = {"Z": "+00:00", "UTC": "+00:00", "+00": "+00:00", "+0000": "+00:00"}
_YEARS = (1700, 2200)
POSITIVE = "must be > 0; a price is positive"
_FEW = 0.2


def parse_numbers(table: Table, column: int, decimal: str = ".") -> np.ndarray:
    """A column as floats, (rows,); nan where the cell is empty or one of `MISSING`.

    Raises:
        DataError: At the first cell that is no finite number; nothing is turned into one.

    """
    cells = ["nan" if cell in MISSING else cell for cell in table.columns[column]]
    if decimal == ",":
        cells = [cell.translate(_SWAP) for cell in cells]
    if _DIGITS.issuperset("".join({cell for cell in cells if cell != "nan"})):
        try:
            values = np.array([float(cell) for cell in cells])
        except ValueError:
            values = None
        if values is not None and not np.isinf(values).any():
            return values
    row = next(row for row, cell in enumerate(cells) if not _is_number(cell))
    text = table.columns[column][row]
    hint = "; is ',' the decimal or thousands sign?" if "," in text else ""
    if _SIGNS.search(text):
        hint = "; write it out, without signs and units"
    if decimal == "," and "." in text:
        hint = "; where ',' is the decimal sign, write thousands without '.'"
    raise table.error(column, row, f"{text[:40]!r} is not a finite number{hint}")


def require(
    table: Table,
    column: int,
    values: np.ndarray,
    holds: Callable[[np.ndarray], np.ndarray],
    rule: str,
) -> None:
    """Refuse the first value, nan aside, for which `holds` is false."""
    bad = np.flatnonzero(~(holds(values) | np.isnan(values)))
    if bad.size:
        row = int(bad[0])
        if rule == POSITIVE and np.nanmax(np.abs(values)) < 1.0 and len(bad) > _FEW * len(values):
            rule += "; these look like returns, and prices are needed"
        raise table.error(column, row, f"{values[row]:g} {rule}")


def parse_dates(
    table: Table, column: int, date_format: str | None = None, timezone: str | None = None
) -> pd.DatetimeIndex:
    """A column as dates without time zone, (rows,).

    ISO dates and every format that only one reading fits are understood; a column that could be
    day/month or month/day is refused unless `date_format` says which. A form without a day, such
    as 2019-03, stands for the last day of the month.
    """
    cells = pd.Series(table.columns[column], dtype=object)
    unique = pd.Series(cells.unique(), dtype=object)
    if timezone is not None:
        check_zone("timezone", timezone)
    if date_format is not None:
        found = _formatted_dates(unique, date_format)
        kind = f"a date of the form {date_format}"
    elif unique.map(lambda cell: _ISO.fullmatch(cell) is not None).mean() > 0.5:
        found = _iso_dates(table, column, unique, timezone)
        kind = "a date like 2019-03-04"
    else:
        found, kind = _guessed_dates(table, column, unique)
    dates = pd.DatetimeIndex(cells.map(dict(zip(unique, found, strict=True))))
    _check_dates(table, column, dates, kind)
    return dates


def _formatted_dates(unique: pd.Series, date_format: Any) -> pd.Series:
    """Dates of a form that a user named."""
    if not isinstance(date_format, str):
        raise SettingError(f"date_format: must be a text such as %d/%m/%Y, got {date_format!r}")
    try:
        return _at_end(pd.to_datetime(unique, format=date_format, errors="coerce"), date_format)
    except ValueError as error:
        raise SettingError(f"date_format: {date_format!r}: {error}") from None


def _at_end(dates: pd.Series, form: str) -> pd.Series:
    """Dates of a form without a day are about whole months or years, known at their last day."""
    if _DAY.search(form):
        return dates
    whole = pd.offsets.MonthEnd(0) if _MONTH.search(form) else pd.offsets.YearEnd(0)
    return dates + whole


def _is_number(cell: str) -> bool:
    try:
        return cell == "nan" or (_DIGITS.issuperset(cell) and np.isfinite(float(cell)))
    except ValueError:
        return False


def zone_of(table: Table, column: int) -> str:
    """The zone its first date carries, such as +01:00 or, in a Parquet file, Asia/Tokyo; or ""."""
    zone = table.zones.get(column) or offset_of(table.columns[column][0])
    return _SAME.get(zone, zone)


def offset_of(cell: str) -> str:
    """The offset from UTC at the end of a time, as it is written there, or ""."""
    mark = _OFFSET.search(cell)
    return mark[1] if mark else ""


def parse_instants(table: Table, column: int, timezone: str | None, usual: str) -> pd.Series:
    """Times with offsets, each an instant, (rows,); in the zone whose clock wrote them.

    That zone is the one of a Parquet column, the offset all times share, `timezone` or `usual`
    where the offsets are those of its winter and summer, or else UTC.

    Raises:
        DataError: At the first cell that is no time, or where some have an offset and some none.

    """
    cells = pd.Series(table.columns[column], dtype=object)
    stamps = pd.to_datetime(cells, format="ISO8601", errors="coerce", utc=True)
    if stamps.isna().any():
        row = int(np.flatnonzero(stamps.isna())[0])
        raise table.error(column, row, f"{cells[row][:40]!r} is not a time like the others")
    marks = cells.map(offset_of)
    if (marks == "").any():
        bare, zoned = (int(np.flatnonzero(rows)[0]) for rows in (marks == "", marks != ""))
        raise DataError(
            f"{table.name}: column '{table.header[column]}': row {table.lines[bare]} "
            f"({cells[bare]}) has no time zone, row {table.lines[zoned]} ({cells[zoned]}) has one; "
            "give all of them a zone, or none"
        )
    if timezone is not None:
        check_zone("timezone", timezone)
    if column in table.zones:
        return stamps.dt.tz_convert(table.zones[column])
    if marks.nunique() == 1:
        return pd.to_datetime(cells, format="ISO8601")
    wall = pd.to_datetime(
        pd.Series([c.removesuffix(m) for c, m in zip(cells, marks, strict=True)]), format="ISO8601"
    )
    there = stamps.dt.tz_convert(timezone or usual)
    if (there.dt.tz_localize(None) == wall).all():
        return there
    days = wall == wall.dt.normalize()  # dates without a time: nobody knows the hour
    return stamps.mask(days, stamps + pd.Timedelta(days=1) - pd.Timedelta(1, "us"))


def _iso_dates(table: Table, column: int, unique: pd.Series, timezone: str | None) -> pd.Series:
    """ISO dates; those with a zone become the local time there, or in `timezone`."""
    marks = unique.map(offset_of)
    zones = sorted(set(marks))
    if zones == [""]:
        return pd.to_datetime(unique, format="ISO8601", errors="coerce")
    cells = table.columns[column]
    several = len(zones) > 1 and column not in table.zones
    if several and ("" in zones or timezone is None):
        first, other = unique.iloc[0], unique[marks != marks.iloc[0]].iloc[0]
        lines = f"{table.lines[cells.index(first)]} and {table.lines[cells.index(other)]}"
        raise DataError(
            f"{table.name}: column '{table.header[column]}': rows {lines} are in different time "
            f"zones ({first} and {other}); "
            + ("give all of them a zone" if "" in zones else "set timezone, e.g. America/New_York")
        )
    if timezone is None:
        plain = [cell.removesuffix(mark) for cell, mark in zip(unique, marks, strict=True)]
        return pd.to_datetime(pd.Series(plain, dtype=object), format="ISO8601", errors="coerce")
    stamps = pd.to_datetime(unique, format="ISO8601", errors="coerce", utc=True)
    return stamps.dt.tz_convert(timezone).dt.tz_localize(None)


def _guessed_dates(table: Table, column: int, unique: pd.Series) -> tuple[pd.Series, str]:
    """Dates of the one format that reads most cells; two that read all alike are ambiguous."""
    readings = []
    for pattern, formats in _FORMATS.items():
        fits = unique.map(lambda cell, pattern=pattern: re.fullmatch(pattern, cell) is not None)
        if fits.any():
            for form in formats:
                found = pd.to_datetime(unique.where(fits), format=form, errors="coerce")
                readings.append((int(found.notna().sum()), form, found))
    readings.sort(key=lambda reading: -reading[0])
    if not readings or not readings[0][0]:
        text = unique.iloc[0]
        hint = "%Y%m%d" if text.isdigit() else "%d.%m.%y" if "." in text else "%d/%m/%Y"
        rule = f"{text[:40]!r} is not a date; set date_format, e.g. {hint}"
        if _MILLISECONDS.fullmatch(text):
            rule += "; it looks like milliseconds since 1970"
        if _SERIAL.fullmatch(text):
            rule += "; it looks like the number of a day in a spreadsheet"
        raise table.error(column, 0, rule)
    count, form, found = readings[0]
    found = _at_end(found, form)
    rival = next((r for r in readings[1:] if r[0] == count and not found.equals(r[2])), None)
    if rival is not None:
        at = int(np.flatnonzero((found != rival[2]) & found.notna())[0])
        row = table.columns[column].index(unique.iloc[at])
        both = f"{found.iloc[at]:%Y-%m-%d} ({form}) or {rival[2].iloc[at]:%Y-%m-%d} ({rival[1]})"
        raise table.error(column, row, f"{unique.iloc[at]!r} reads as {both}; set date_format")
    return found, f"a date of the form {form}"


def _check_dates(table: Table, column: int, dates: pd.DatetimeIndex, kind: str) -> None:
    bad = np.flatnonzero(dates.isna())
    if bad.size:
        row = int(bad[0])
        raise table.error(column, row, f"{table.columns[column][row][:40]!r} is not {kind}")
    years = dates.year.to_numpy()
    bad = np.flatnonzero((years < _YEARS[0]) | (years > _YEARS[1]))
    if bad.size:
        row = int(bad[0])
        text = table.columns[column][row]
        rule = f"{text!r} is in the year {years[row]}; is date_format, e.g. %Y%m%d, right?"
        raise table.error(column, row, rule)
    tomorrow = pd.Timestamp.now().normalize() + pd.Timedelta(days=2)
    bad = np.flatnonzero(dates >= tomorrow)
    if bad.size:
        row = int(bad[0])
        text = table.columns[column][row]
        rule = f"{text!r} is in the future; is date_format, e.g. %Y%m%d, right?"
        raise table.error(column, row, rule)
