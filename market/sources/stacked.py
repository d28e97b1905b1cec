"""Tables with two rows of names, fields above assets or assets above fields, as long tables.

Price,  Close, Close, Volume, Volume          what yfinance and pandas write
Ticker, AAPL,  MSFT,  AAPL,   MSFT
Date,   ,      ,      ,
2020-01-02, ..
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from market.sources.column_names import FIELDS, is_number, plain

if TYPE_CHECKING:
    from market.sources.tables import Table

_CORNERS = {"", "price", "ticker", "symbol", "asset", "field", "attributes"}
_DATE = {"", "date", "datetime"}
_FIELDS = {alias for aliases in FIELDS.values() for alias in aliases}


def unstacked(table: Table) -> Table:
    """The table as a long one where it has two rows of names, else as it is."""
    if len(table.lines) < 2 or len(table.header) < 2:
        return table
    upper = table.header[1:]
    corner, *lower = (column[0] for column in table.columns)
    if plain(table.header[0]) not in _CORNERS or plain(corner) not in _CORNERS:
        return table
    by_field = [_share(names) for names in (upper, lower)]
    if max(by_field) == 0.0 or any(map(is_number, lower)):
        return table
    fields, assets = (upper, lower) if by_field[0] >= by_field[1] else (lower, upper)
    third = [column[1] for column in table.columns]
    first = 2 if plain(third[0]) in _DATE and not any(third[1:]) else 1
    return _long(table, fields, assets, first)


def _share(names: list[str]) -> float:
    """How many of the names are those of fields."""
    return sum(plain(name) in _FIELDS for name in names) / len(names)


def _long(table: Table, fields: list[str], assets: list[str], first: int) -> Table:
    """One row a date and asset, in the order of the assets."""
    days, lines = table.columns[0][first:], table.lines[first:]
    kinds = list(dict.fromkeys(fields))
    place = {pair: i + 1 for i, pair in enumerate(zip(fields, assets, strict=True))}
    columns: list[list[str]] = [[] for _ in range(2 + len(kinds))]
    numbers: list[int] = []
    for asset in dict.fromkeys(assets):
        own = [
            table.columns[place[kind, asset]][first:]
            if (kind, asset) in place
            else [""] * len(days)
            for kind in kinds
        ]
        kept = [row for row, cells in enumerate(zip(*own, strict=True)) if any(cells)]
        columns[0] += [days[row] for row in kept]
        columns[1] += [asset] * len(kept)
        for column, cells in zip(columns[2:], own, strict=True):
            column += [cells[row] for row in kept]
        numbers += [lines[row] for row in kept]
    zones = {0: table.zones[0]} if 0 in table.zones else {}
    header = ["date", "asset", *kinds]
    return dataclasses.replace(table, header=header, columns=columns, lines=numbers, zones=zones)
