"""Tables as panels: wide, long and single-asset layouts, one schema out.

    wide     date, AAA, BBB, ..            one column of prices an asset
    long     date, asset, close[, ..]      one row a date and asset
    single   date, open, high, low, close  one asset, called like the file

Where there is an adjusted close it is the price, and open, high and low are scaled by the same
factor.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from market.errors import DataError
from market.sources.cells import parse_dates, parse_numbers, require
from market.sources.tables import Table

Layout = Literal["wide", "long", "single"]

_DATE = ("date", "datetime", "time", "timestamp", "day", "")
_ASSET = ("asset", "ticker", "tic", "symbol", "name", "instrument", "id")
_FIELDS = {
    "close": ("close", "price", "value", "last"),
    "adjusted": ("adj close", "adj_close", "adjclose", "adjusted", "adjusted close"),
    "volume": ("volume", "vol"),
    "opens": ("open", "opens"),
    "highs": ("high", "highs"),
    "lows": ("low", "lows"),
}
_NAME = re.compile(r"[\w^][\w .,:^&%()/=+-]{0,63}")


class Panels(NamedTuple):
    """Panels by field, (T, N), with the line of the file each cell stands on.

    `fields["close"]` is always there; the others are as in `Market`. Dates rise.
    """

    dates: pd.DatetimeIndex
    assets: list[str]
    fields: dict[str, np.ndarray]  # (T, N) each
    lines: np.ndarray  # (T, N)
    notes: list[str]

    def on_rows(self, rows: np.ndarray) -> Panels:
        """These rows only, bool (T,); the others are counted in a note."""
        if rows.all():
            return self
        if rows.sum() < 2:
            raise DataError(f"{rows.sum()} dates are left by the calendar chosen; needs at least 2")
        fields = {field: panel[rows] for field, panel in self.fields.items()}
        note = f"{(~rows).sum()} of {len(rows)} dates left out by the calendar chosen"
        return Panels(self.dates[rows], self.assets, fields, self.lines[rows], [*self.notes, note])


def read_panels(
    table: Table,
    layout: Layout | None = None,
    date_format: str | None = None,
    timezone: str | None = None,
    decimal: str = ".",
) -> Panels:
    """Panels of a table; the layout is found out from the header when not given."""
    layout = layout or sniff_layout(table)
    table = _located(table, layout)
    dates = parse_dates(table, table.date_column, date_format, timezone)
    notes = [f"{table.name}: read as a {layout} table"]
    falls = np.flatnonzero(np.diff(dates.to_numpy()) < np.timedelta64(0))
    if falls.size and layout != "long":
        row = int(falls[0]) + 1
        where = f"row {table.lines[row]}, {dates[row]:%Y-%m-%d}"
        notes.append(f"{table.name}: dates do not rise ({where}, is before the row above); sorted")
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
    kept = {field: panel[full] for field, panel in fields.items()}
    return Panels(dates[full], assets, kept, lines[full], notes)


def sniff_layout(table: Table) -> Layout:
    """The layout a header has."""
    names = [column.lower() for column in table.header]
    has_price = any(name in _FIELDS["close"] + _FIELDS["adjusted"] for name in names)
    if has_price and any(name in _ASSET for name in names):
        return "long"
    known = {alias for aliases in _FIELDS.values() for alias in aliases}
    rest = [name for name in names if name not in _DATE]
    return "single" if has_price and len(rest) > 1 and known.issuperset(rest) else "wide"


def _located(table: Table, layout: Layout) -> Table:
    """Find the column of dates (by name, else the first) and, in a long table, of assets."""
    names = [column.lower() for column in table.header]
    date = next((names.index(alias) for alias in _DATE if alias in names), 0)
    if re.fullmatch(r"\d{4}-\d\d-\d\d.*|\d{8}", table.header[date]):
        raise DataError(
            f"{table.name}: row 1 must name the columns, got {table.header[date]!r}, ..."
        )
    if layout != "long":
        return dataclasses.replace(table, date_column=date)
    asset = next((names.index(alias) for alias in _ASSET if alias in names), None)
    if asset is None:
        raise DataError(
            f"{table.name}: layout 'long' needs a column named {' or '.join(_ASSET)}, "
            f"got {table.header}"
        )
    return dataclasses.replace(table, date_column=date, asset_column=asset)


Read = tuple[pd.DatetimeIndex, list[str], dict[str, np.ndarray], np.ndarray]


def _wide(table: Table, dates: pd.DatetimeIndex, decimal: str) -> Read:
    order = _date_order(table, dates)
    columns = [i for i in range(len(table.header)) if i != table.date_column]
    for i in columns:
        _check_name(table, table.header[i])
    close = np.column_stack([_values(table, "close", i, decimal) for i in columns])[order]
    lines = np.repeat(np.array(table.lines)[order, None], len(columns), axis=1)
    return dates[order], [table.header[i] for i in columns], {"close": close}, lines


def _single(table: Table, dates: pd.DatetimeIndex, decimal: str) -> Read:
    order = _date_order(table, dates)
    asset = Path(table.name).stem
    _check_name(table, asset)
    fields = {
        field: _values(table, field, column, decimal)[order, None]
        for field, column in _field_columns(table).items()
    }
    return dates[order], [asset], _adjusted(table, fields), np.array(table.lines)[order, None]


def _long(table: Table, dates: pd.DatetimeIndex, decimal: str) -> Read:
    names = table.columns[table.asset_column or 0]
    assets = list(dict.fromkeys(names))
    for asset in assets:
        _check_name(table, asset, names)
    column = np.asarray(pd.Categorical(names, categories=assets).codes, int)
    order = np.lexsort((column, dates))
    same = (np.diff(dates.asi8[order]) == 0) & (np.diff(column[order]) == 0)
    _refuse_twice(table, order, same)
    calendar = pd.DatetimeIndex(dates.unique().sort_values())
    row = calendar.get_indexer(dates)
    lines = np.zeros((len(calendar), len(assets)), int)
    lines[row, column] = table.lines
    fields = {}
    for field, position in _field_columns(table).items():
        fields[field] = np.full(lines.shape, np.nan)
        fields[field][row, column] = _values(table, field, position, decimal)
    return calendar, assets, _adjusted(table, fields), lines


def _adjusted(table: Table, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The adjusted close as the close, and the other prices scaled by the same factor."""
    adjusted = fields.pop("adjusted", None)
    if adjusted is not None and "close" in fields:
        factor = adjusted / fields["close"]
        fields |= {key: fields[key] * factor for key in ("opens", "highs", "lows") if key in fields}
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


def _field_columns(table: Table) -> dict[str, int]:
    """Field -> column, for the columns whose names are known."""
    names = [column.lower() for column in table.header]
    columns = {
        field: next(names.index(alias) for alias in aliases if alias in names)
        for field, aliases in _FIELDS.items()
        if any(alias in names for alias in aliases)
    }
    if "close" not in columns and "adjusted" not in columns:
        raise DataError(
            f"{table.name}: needs a column named close or adj close, got {table.header}"
        )
    return columns


def _values(table: Table, field: str, column: int, decimal: str) -> np.ndarray:
    """A column of numbers, positive (volume: not negative), nan where missing."""
    values = parse_numbers(table, column, decimal)
    if field == "volume":
        require(table, column, values, lambda x: x >= 0, "must be >= 0")
    else:
        require(table, column, values, lambda x: x > 0, "must be > 0; a price is positive")
    return values


def _check_name(table: Table, asset: str, cells: list[str] | None = None) -> None:
    if not _NAME.fullmatch(asset) or ".." in asset:
        where = "row 1" if cells is None else f"row {table.lines[cells.index(asset)]}"
        raise DataError(
            f"{table.name}: {where}: {asset[:40]!r} is no name for an asset; use 1 to 64 letters, "
            "digits, spaces and . , : ^ & % ( ) / = + - _, starting with a letter or digit"
        )
