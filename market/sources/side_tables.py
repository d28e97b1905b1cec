"""Fundamentals, news and any other table beside the prices, as data frames that features read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError
from market.sources.cells import MISSING, parse_dates, parse_numbers
from market.sources.panels import ASSET
from market.sources.tables import Table, read_table

log = logging.getLogger(__name__)

SideTable = pd.DataFrame | str | Path

_OWN_DATE = {"fundamentals": "period_end", "news": "timestamp"}
_ALIASES = {
    "period_end": (
        "period_end",
        "period end",
        "fiscal_period_end",
        "report_date",
        "period",
        "date",
    ),
    "timestamp": ("timestamp", "time", "datetime", "date"),
    "date": ("date", "period_end", "day", "timestamp", "observation_date"),
    "published": (
        "published",
        "publication_date",
        "release_date",
        "released",
        "filed",
        "filing_date",
    ),
    "asset": ASSET,
    "text": ("text", "headline", "title", "body"),
}


def read_side_tables(
    tables: Mapping[str, SideTable] | None, date_format: str | None = None
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Tables by name, read where a file is named, and what was taken for what.

    Raises:
        SettingError: If a table is neither a data frame nor a path.
        DataError: Naming the file, column and row of what cannot be read.

    """
    frames, notes = {}, []
    for name, table in (tables or {}).items():
        if isinstance(table, pd.DataFrame):
            frames[name] = table
        elif isinstance(table, (str, Path)):
            frames[name], note = read_side_table(name, table, date_format)
            log.info("%s", note)
            notes.append(note)
        else:
            raise SettingError(f"tables: '{name}' must be a data frame or a path, got {table!r}")
    return frames, notes


def read_side_table(
    name: str, path: str | Path, date_format: str | None = None
) -> tuple[pd.DataFrame, str]:
    """One table, with its columns called what features call them.

    Args:
        name: "fundamentals" (asset, period_end, published, figures), "news" (timestamp, asset,
            text, score) or any other (date, published, asset, values).
        path: CSV or Parquet.
        date_format: As of the prices.

    Returns:
        The frame, and one line that says what was taken for what. Times of news keep their zone;
        figures are nan and publications NaT where the file is empty.

    """
    table = read_table(path)
    own_date = _OWN_DATE.get(name, "date")
    places = _columns(table, own_date, name)
    if own_date not in places:
        raise DataError(f"{table.name}: needs a column named {own_date}, got {table.header}")
    columns: dict[str, pd.Series] = {}
    for key in (own_date, "published"):
        if key in places:
            columns[key] = _dates(table, places[key], date_format, key)
    for key in ("asset", "text"):
        if key in places:
            columns[key] = pd.Series(table.columns[places[key]], dtype=object)
    figures, left_out = _figures(table, set(places.values()))
    frame = pd.DataFrame({**columns, **figures})
    if name == "news" and not {"text", "score"} & set(frame.columns):
        raise DataError(f"{table.name}: needs a column named text or score, got {table.header}")
    taken = ", ".join(
        f"{table.header[column]} as {key}" if table.header[column] != key else key
        for key, column in places.items()
    )
    note = f"{table.name}: read as the table '{name}': {taken}; values {', '.join(figures) or '-'}"
    return frame, note + (f"; left out, not numbers: {', '.join(left_out)}" if left_out else "")


def _columns(table: Table, own_date: str, name: str) -> dict[str, int]:
    """What each column is, for those that are not figures."""
    header = [column.lower() for column in table.header]
    places: dict[str, int] = {}
    keys = [own_date, "published", "asset", *(["text"] if name == "news" else [])]
    for key in keys:
        for alias in _ALIASES[key]:
            if alias in header and header.index(alias) not in places.values():
                places[key] = header.index(alias)
                break
    return places


def _dates(table: Table, column: int, date_format: str | None, key: str) -> pd.Series:
    cells = table.columns[column]
    missing = np.array([cell in MISSING for cell in cells])
    if missing.any() and (key != "published" or missing.all()):
        if missing.all() and key == "published":
            return pd.Series(pd.NaT, index=range(len(cells)), dtype="datetime64[ns]")
        raise table.error(column, int(np.flatnonzero(missing)[0]), "the date is missing")
    if key == "timestamp" and any("+" in cell or cell.endswith("Z") for cell in cells):
        stamps = pd.to_datetime(pd.Series(cells), format="ISO8601", errors="coerce", utc=True)
        if stamps.isna().any():
            row = int(np.flatnonzero(stamps.isna())[0])
            raise table.error(column, row, f"{cells[row][:40]!r} is not a time like the others")
        return stamps
    filled = next(cell for cell, empty in zip(cells, missing, strict=True) if not empty)
    whole = [filled if empty else cell for cell, empty in zip(cells, missing, strict=True)]
    columns = [whole if i == column else other for i, other in enumerate(table.columns)]
    known = Table(table.name, table.header, columns, table.lines, date_column=column)
    return pd.Series(parse_dates(known, column, date_format)).mask(missing)


def _figures(table: Table, taken: set[int]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns of numbers, by their names in lower case, and those without a single number."""
    figures, left_out = {}, []
    for column, cells in enumerate(table.columns):
        if column in taken:
            continue
        name = table.header[column].lower().replace(" ", "_")
        if any(_looks_numeric(cell) for cell in cells):
            figures[name] = parse_numbers(table, column)
        else:
            left_out.append(table.header[column])
    return figures, left_out


def _looks_numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell not in MISSING
