"""Tables as panels: wide, long and single-asset layouts (`market.sources.headers`), one schema out.

Where there is an adjusted close it is the price, and open, high and low are scaled by the same
factor; the close as it was paid is kept beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from market.errors import DataError
from market.sources.cells import POSITIVE, parse_dates, parse_numbers, require, zone_of
from market.sources.headers import (
    FIELDS,
    Layout,
    field_columns,
    located,
    sniff_layout,
    taken_note,
)
from market.sources.memory import check_memory
from market.sources.tables import Table, stem
from market.validation import check_asset_name


class Place(NamedTuple):
    """Where prices come from."""

    name: str
    torn_line: int | None = None  # a last line without an end
    zone: str = ""  # of the dates
    date: str = ""  # the first, and where it stands


class Panels(NamedTuple):
    """Panels by field, (T, N), with the line of the file each cell stands on.

    `fields["close"]`, the prices, is always there; the others are as in `Market`. Dates rise.
    """

    dates: pd.DatetimeIndex
    assets: list[str]
    fields: dict[str, np.ndarray]  # (T, N) each
    lines: np.ndarray  # (T, N); 0 where there is no file
    places: list[Place]  # (N,)
    notes: list[str]
    facts: frozenset[str] = frozenset()  # the notes that give no cause for a warning

    def rows(self, kept: np.ndarray) -> Panels:
        """Some of the rows, bool (T,)."""
        fields = {field: panel[kept] for field, panel in self.fields.items()}
        return self._replace(dates=self.dates[kept], fields=fields, lines=self.lines[kept])

    def on_rows(self, rows: np.ndarray) -> Panels:
        """These rows only, bool (T,); the others are counted in a note."""
        if rows.all():
            return self
        if rows.sum() < 2:
            raise DataError(f"{rows.sum()} dates are left by the calendar chosen; needs at least 2")
        note = f"{(~rows).sum()} of {len(rows)} dates left out by the calendar chosen"
        return self.rows(rows)._replace(notes=[*self.notes, note])


def read_panels(
    table: Table,
    layout: Layout | None = None,
    date_format: str | None = None,
    timezone: str | None = None,
    decimal: str = ".",
) -> Panels:
    """Panels of a table; the layout is found out from the header when not given."""
    layout = layout or sniff_layout(table)
    table = located(table, layout)
    dates = parse_dates(table, table.date_column, date_format, timezone)
    facts = [f"{table.name}: read as a {layout} table"]
    if layout != "wide":
        facts.append(taken_note(table))
    notes = list(facts)
    if not table.ended:
        unended, doubt = _unended(table)
        facts += [] if doubt else [unended]
        notes.append(unended)
    notes += _falls(table, dates)
    read = _long if layout == "long" else _wide if layout == "wide" else _single
    dates, assets, fields, lines = read(table, dates, decimal)
    price = fields["close"]
    full = np.asarray(np.isfinite(price).any(axis=1))
    if not full.all():
        first = dates[~full][0]
        notes.append(f"{(~full).sum()} dates without any price left out, first {first:%Y-%m-%d}")
    if full.sum() < 2:
        raise DataError(f"{table.name}: {full.sum()} dates with a price; needs at least 2")
    never = np.flatnonzero(~np.isfinite(price).any(axis=0))
    if never.size:
        raise DataError(f"{table.name}: '{assets[never[0]]}' has no price at all")
    zone = timezone or zone_of(table, table.date_column)
    start = f"row {table.lines[0]} ({table.columns[table.date_column][0]})"
    place = Place(table.name, None if table.ended else table.lines[-1], zone, start)
    places = [place] * len(assets)
    return Panels(dates, assets, fields, lines, places, notes, frozenset(facts)).rows(full)


def _unended(table: Table) -> tuple[str, bool]:
    """A last line without an end: what is said of it, and whether it looks cut off.

    Raises:
        DataError: If its last field is empty, and no other field of that column is.

    """
    row, (*above, last) = f"{table.name}: row {table.lines[-1]}", table.columns[-1]
    if not last and all(above):
        raise DataError(
            f"{row}: column '{table.header[-1]}' is empty and the last line is not ended: the file "
            "looks cut off"
        )
    said = f"{row}, the last, has no line break at its end"
    fewest = min((_decimals(cell) for cell in above if cell), default=0)
    if last and _decimals(last) < fewest:
        return f"{said}, and '{last}' fewer decimals than all above it: is the file whole?", True
    return said, False


def _decimals(cell: str) -> int:
    """Digits after the last sign that is none."""
    return len(cell) - max(cell.rfind("."), cell.rfind(",")) - 1 if set(cell) & {".", ","} else 0


def combine(name: str, parts: Sequence[Panels]) -> Panels:
    """Panels of single assets side by side, on all their dates."""
    assets = [asset for part in parts for asset in part.assets]
    for asset, count in Counter(assets).items():
        if count > 1:
            both = [part.places[0].name for part in parts if asset in part.assets]
            raise DataError(f"{name}: asset '{asset}' stands in {' and in '.join(both)}")
    _refuse_zones(name, [part.places[0] for part in parts])
    dates = parts[0].dates
    for part in parts[1:]:
        dates = dates.union(part.dates)
    check_memory(name, len(dates), len(assets), len(FIELDS) + 2)
    found = sorted({field for part in parts for field in part.fields})
    shape = (len(dates), len(assets))
    fields = {field: np.full(shape, np.nan) for field in found}
    lines = np.zeros(shape, int)
    column = 0
    for part in parts:
        rows, columns = dates.get_indexer(part.dates), slice(column, column + len(part.assets))
        for field, panel in part.fields.items():
            fields[field][rows, columns] = panel
        if "closes" in found and "closes" not in part.fields:
            fields["closes"][rows, columns] = part.fields["close"]
        lines[rows, columns] = part.lines
        column += len(part.assets)
    places = [place for part in parts for place in part.places]
    notes, facts = _said_once(parts)
    return Panels(dates, assets, fields, lines, places, notes, facts)


def _said_once(parts: Sequence[Panels]) -> tuple[list[str], frozenset[str]]:
    """Facts of all files, those that are the same once with the number of files, and notes."""
    files: dict[str, list[str]] = {}
    for part in parts:
        for name, _, fact in (note.partition(": ") for note in part.notes if note in part.facts):
            files.setdefault(fact, []).append(name)
    facts = [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {fact}"
        for fact, names in files.items()
    ]
    notes = [note for part in parts for note in part.notes if note not in part.facts]
    return [*facts, *notes], frozenset(facts)


def _refuse_zones(name: str, places: Sequence[Place]) -> None:
    """Refuse files whose dates are not those of one time zone: their days are not the same."""
    first = places[0]
    for place in places[1:]:
        if place.zone != first.zone:
            both = " and ".join(
                f"{p.name}, {p.date}, in {p.zone or 'no zone'}" for p in (first, place)
            )
            raise DataError(
                f"{name}: files are in different time zones: {both}; set timezone, e.g. "
                "America/New_York (dates without a zone are taken to be of it)"
            )


def _falls(table: Table, dates: pd.DatetimeIndex) -> list[str]:
    """A note where dates, of each asset of a long table, do not rise."""
    names = [""] * len(dates)
    if table.asset_column is not None:
        names = table.columns[table.asset_column]
    codes = pd.factorize(np.array(names, object))[0]
    rows = np.argsort(codes, kind="stable")  # each asset's rows as they stand in the file
    falls = (np.diff(dates.asi8[rows]) < 0) & (np.diff(codes[rows]) == 0)
    if not falls.any():
        return []
    row = int(rows[1:][falls].min())
    above = f" of '{names[row]}'" if names[row] else ""
    where = f"row {table.lines[row]}, {dates[row]:%Y-%m-%d}"
    return [f"{table.name}: dates do not rise ({where}, is before the row{above} above); sorted"]


Read = tuple[pd.DatetimeIndex, list[str], dict[str, np.ndarray], np.ndarray]


def _wide(table: Table, dates: pd.DatetimeIndex, decimal: str) -> Read:
    order = _date_order(table, dates)
    columns = [i for i in range(len(table.header)) if i != table.date_column]
    for i in columns:
        check_asset_name(f"{table.name}: row 1, column {i + 1}", table.header[i])
    close = np.column_stack([_values(table, "close", i, decimal) for i in columns])[order]
    lines = np.repeat(np.array(table.lines)[order, None], len(columns), axis=1)
    return dates[order], [table.header[i] for i in columns], {"close": close}, lines


def _single(table: Table, dates: pd.DatetimeIndex, decimal: str) -> Read:
    order = _date_order(table, dates)
    asset = stem(table.name)
    check_asset_name(f"{table.name}: row 1", asset)
    fields = {
        field: _values(table, field, column, decimal)[order, None]
        for field, column in field_columns(table).items()
    }
    return dates[order], [asset], _adjusted(table, fields), np.array(table.lines)[order, None]


def _long(table: Table, dates: pd.DatetimeIndex, decimal: str) -> Read:
    names = table.columns[table.asset_column or 0]
    first: dict[str, int] = {}
    for asset, line in zip(names, table.lines, strict=True):
        first.setdefault(asset, line)
    assets = list(first)
    for asset, line in first.items():
        check_asset_name(f"{table.name}: row {line}", asset)
    column = np.asarray(pd.Categorical(names, categories=assets).codes, int)
    order = np.lexsort((column, dates))
    same = (np.diff(dates.asi8[order]) == 0) & (np.diff(column[order]) == 0)
    _refuse_twice(table, order, same)
    calendar = pd.DatetimeIndex(dates.unique().sort_values())
    check_memory(table.name, len(calendar), len(assets), len(FIELDS) + 2)
    row = calendar.get_indexer(dates)
    lines = np.zeros((len(calendar), len(assets)), int)
    lines[row, column] = table.lines
    fields = {}
    for field, position in field_columns(table).items():
        fields[field] = np.full(lines.shape, np.nan)
        fields[field][row, column] = _values(table, field, position, decimal)
    return calendar, assets, _adjusted(table, fields), lines


def _adjusted(table: Table, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The adjusted close as the close, and the other prices scaled by the same factor."""
    adjusted = fields.pop("adjusted", None)
    if adjusted is not None and "close" in fields:
        factor = adjusted / fields["close"]
        fields |= {key: fields[key] * factor for key in ("opens", "highs", "lows") if key in fields}
        fields["closes"] = fields["close"]
    if adjusted is not None:
        fields["close"] = adjusted
    return fields


def _date_order(table: Table, dates: pd.DatetimeIndex) -> np.ndarray:
    """The order that sorts the rows; a date that stands twice is refused."""
    order = np.argsort(dates.asi8, kind="stable")
    _refuse_twice(table, order, np.diff(dates.asi8[order]) == 0)
    return order


def _refuse_twice(table: Table, order: np.ndarray, same: np.ndarray) -> None:
    """Refuse two rows about one thing; `same` marks sorted rows equal to the next."""
    if not same.any():
        return
    at = int(np.flatnonzero(same)[0])
    first, second = sorted(int(row) for row in order[at : at + 2])
    cells = [[column[row] for column in table.columns] for row in (first, second)]
    values = "the same values" if cells[0] == cells[1] else "different values"
    what = table.columns[table.date_column][second]
    if table.asset_column is not None:
        what += f" of '{table.columns[table.asset_column][second]}'"
    raise DataError(
        f"{table.name}: rows {table.lines[first]} and {table.lines[second]}: date {what} appears "
        f"twice, with {values}"
    )


def _values(table: Table, field: str, column: int, decimal: str) -> np.ndarray:
    """A column of numbers, positive (volume: not negative), nan where missing."""
    values = parse_numbers(table, column, decimal)
    if field == "volume":
        require(table, column, values, lambda x: x >= 0, "must be >= 0")
    else:
        require(table, column, values, lambda x: x > 0, POSITIVE)
    return values
