"""What a column is, by its name: date, asset, prices, volume; the others are left out, and said.

wide     date, AAA, BBB, ..            one column of prices an asset
long     date, asset, close[, ..]      one row a date and asset
single   date, open, high, low, close  one asset, called like the file
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from market.errors import DataError
from market.sources.column_names import ASSET, DATE, FIELDS, is_number, plain
from market.sources.tables import Table

Layout = Literal["wide", "long", "single"]

_ALIASES = {alias for aliases in FIELDS.values() for alias in aliases}
_BARS = {alias for field in ("volume", "opens", "highs", "lows") for alias in FIELDS[field]}
_SURE = {*FIELDS["adjusted"], "close", "close/last"}  # what is hardly an asset's name
_RANGE = {"open", "high", "low"}
_FEW_BARS = 2  # beside a sure close, that make a table of one asset whatever else it holds
_CALLED = {"close": "the price", "adjusted": "the price, adjusted"}


def sniff_layout(table: Table) -> Layout:
    """The layout a header has.

    Raises:
        DataError: If it holds part of what a long or a single table needs.

    """
    names = [plain(name) for name in table.header]
    has_price = any(name in (*FIELDS["close"], *FIELDS["adjusted"]) for name in names)
    of_asset = next((names.index(alias) for alias in ASSET if alias in names), None)
    if of_asset is not None:
        if has_price:
            return "long"
        if not is_number(table.columns[of_asset][0]) and of_asset != date_column(table):
            raise DataError(
                f"{table.name}: column '{table.header[of_asset]}' names assets, and no column is "
                f"named {' or '.join(FIELDS['close'][:4])} or adj close; got {table.header}"
            )
    rest = [name for name in names if name not in DATE]
    bars = [table.header[names.index(name)] for name in rest if name in _BARS]
    if has_price and len(rest) > 1 and _ALIASES.issuperset(rest):
        return "single"
    sure = not _SURE.isdisjoint(rest) or (has_price and _RANGE.issubset(rest))
    if sure and len(bars) >= _FEW_BARS:
        return "single"
    if bars:
        raise DataError(
            f"{table.name}: column '{bars[0]}' is no asset; a table of one asset needs a column "
            "close, one of several a column asset, one column an asset layout='wide'"
        )
    return "wide"


def date_column(table: Table) -> int:
    """Where the dates are: by name, else the first column."""
    names = [plain(name) for name in table.header]
    return next((names.index(alias) for alias in DATE if alias in names), 0)


def located(table: Table, layout: Layout) -> Table:
    """The table with its column of dates found and, in a long table, that of assets."""
    date = date_column(table)
    if re.fullmatch(r"\d{4}-\d\d-\d\d.*|\d{8}", table.header[date]):
        raise DataError(
            f"{table.name}: row 1 must name the columns, got {table.header[date]!r}, ..."
        )
    if layout != "long":
        return dataclasses.replace(table, date_column=date)
    names = [plain(name) for name in table.header]
    asset = next((names.index(alias) for alias in ASSET if alias in names), None)
    if asset is None:
        raise DataError(
            f"{table.name}: layout 'long' needs a column named {' or '.join(ASSET)}, "
            f"got {table.header}"
        )
    return dataclasses.replace(table, date_column=date, asset_column=asset)


def field_columns(table: Table) -> dict[str, int]:
    """Field -> column, for the columns whose names are known."""
    names = [plain(name) for name in table.header]
    columns = {
        field: next(names.index(alias) for alias in aliases if alias in names)
        for field, aliases in FIELDS.items()
        if any(alias in names for alias in aliases)
    }
    if "close" not in columns and "adjusted" not in columns:
        raise DataError(
            f"{table.name}: needs a column named close or adj close, got {table.header}"
        )
    return columns


def taken_note(table: Table) -> str:
    """What each column of a located long or single table was taken for, and what is left out."""
    columns = field_columns(table)
    places = {table.date_column: "the date"}
    if table.asset_column is not None:
        places[table.asset_column] = "the asset"
    for field, column in columns.items():
        as_paid = field == "close" and "adjusted" in columns
        called = field.removesuffix("s") if field != "volume" else field
        places[column] = "the close as it was paid" if as_paid else _CALLED.get(field, called)
    taken = ", ".join(f"'{table.header[column]}' is {place}" for column, place in places.items())
    left = [name for i, name in enumerate(table.header) if i not in places]
    return f"{table.name}: {taken}" + (f"; left out: {', '.join(map(repr, left))}" if left else "")
