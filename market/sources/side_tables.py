"""Fundamentals, news and any other table beside the prices, as data frames that features read."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError
from market.market import CASH
from market.sources.cells import MISSING, offset_of, parse_dates, parse_instants, parse_numbers
from market.sources.column_names import ASSET, is_number, plain
from market.sources.coverage import coverage
from market.sources.tables import Table, read_table

log = logging.getLogger(__name__)

SideTable = pd.DataFrame | str | Path

USUAL_ZONE = "America/New_York"  # of news whose offsets are those of its winter and summer
_MEANT = re.compile(r"[-+($€£ ]*\d[\d.,' ]*(e[-+]?\d+)?[ )%$€£]*", re.IGNORECASE)  # as a number
_SECTOR = ("sector", "group", "industry", "gics sector")
_OWN_DATE = {"fundamentals": "period_end", "news": "timestamp"}
_ALIASES = {
    "period_end": (
        *("period end", "fiscal period end", "fiscal date ending", "fiscaldateending"),
        *("report date", "period", "date"),
    ),
    "timestamp": ("timestamp", "time", "datetime", "date"),
    "date": ("date", "period end", "day", "timestamp", "observation date"),
    "published": (
        *("published", "publication date", "publish date", "release date", "released", "filed"),
        *("filing date", "reported date", "reporteddate", "announcement date"),
    ),
    "asset": ASSET,
    "text": ("text", "headline", "title", "body"),
    "score": ("score", "sentiment", "sentiment score", "polarity"),
}


class Form(NamedTuple):
    """How dates and numbers are written in a file; see `market.sources.files.files`."""

    date_format: str | None = None
    timezone: str | None = None
    delimiter: str | None = None
    decimal: str = "."

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Form:
        """Out of the options of a source, for the tables beside it."""
        return cls(**{key: options[key] for key in cls._fields if key in options})


PLAIN = Form()


def read_side_tables(
    tables: Mapping[str, SideTable] | None, form: Form = PLAIN
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
            frames[name], note = read_side_table(name, table, form)
            log.info("%s", note)
            notes.append(note)
        else:
            raise SettingError(f"tables: '{name}' must be a data frame or a path, got {table!r}")
    return frames, notes


def read_side_table(name: str, path: str | Path, form: Form = PLAIN) -> tuple[pd.DataFrame, str]:
    """One table, with its columns called what features call them.

    Args:
        name: "fundamentals" (asset, period_end, published, figures), "news" (timestamp, asset,
            text, score) or any other (date, published, asset, values).
        path: CSV or Parquet.
        form: As of the prices; a delimiter that is not in the header is found out.

    Returns:
        The frame, and one line that says what was taken for what. Times of news with an offset
        are instants, without one times of the zone the feature names; figures are nan and
        publications NaT where the file is empty.

    """
    table = _read(path, form)
    own_date = _OWN_DATE.get(name, "date")
    places = _columns(table, own_date, name)
    if own_date not in places:
        raise DataError(f"{table.name}: needs a column named {own_date}, got {table.header}")
    table = dataclasses.replace(
        table, date_column=places[own_date], asset_column=places.get("asset")
    )
    columns: dict[str, pd.Series] = {}
    for key in (own_date, "published"):
        if key in places:
            columns[key] = _dates(table, places[key], form, key)
    for key in ("asset", "text"):
        if key in places:
            columns[key] = pd.Series(table.columns[places[key]], dtype=object)
    if "score" in places and not any(map(is_number, table.columns[places["score"]])):
        del places["score"]  # words such as "positive"
    if "score" in places:
        columns["score"] = pd.Series(parse_numbers(table, places["score"], form.decimal))
    figures, left_out = _figures(table, set(places.values()), form.decimal)
    frame = pd.DataFrame({**columns, **figures})
    if name == "news" and not {"text", "score"} & set(frame.columns):
        raise DataError(f"{table.name}: needs a column named text or score, got {table.header}")
    taken = ", ".join(
        f"{table.header[column]} as {key}" if table.header[column] != key else key
        for key, column in places.items()
    )
    note = f"{table.name}: read as the table '{name}': {taken}; values {', '.join(figures) or '-'}"
    return frame, note + (f"; left out, not numbers: {', '.join(left_out)}" if left_out else "")


def by_asset(frame: pd.DataFrame, assets: Sequence[str]) -> pd.DataFrame:
    """A table with one column an asset as one with the columns date, asset and value.

    That is one without a column asset, most of whose figures are called like assets.
    """
    named = {asset.lower().replace(" ", "_"): asset for asset in assets}
    figures = [str(key) for key in frame.select_dtypes("number").columns]
    known = [key for key in figures if key.lower() in named]
    if "asset" in frame.columns or 2 * len(known) <= len(figures):
        return frame
    if "date" not in frame.columns:
        frame = frame.rename_axis("date").reset_index()
    kept = [key for key in frame.columns if key not in figures]
    long = frame.melt(kept, figures, var_name="asset", value_name="value")
    return long.assign(asset=[named.get(str(key).lower(), key) for key in long["asset"]])


def read_sectors(
    sectors: Mapping[str, str] | str | Path | None, assets: Sequence[str], form: Form = PLAIN
) -> tuple[dict[str, str], list[str]]:
    """Asset -> group, read from a file with the columns asset and sector where it is one.

    Returns:
        The groups of assets that have prices, and notes about those the file does not know.

    Raises:
        DataError: If the file has other columns, or names an asset twice, or none with a price.

    """
    if sectors is None or isinstance(sectors, Mapping):
        return dict(sectors or {}), []
    table = _read(sectors, form)
    header = [plain(column) for column in table.header]
    of_asset, of_sector = (
        next((header.index(name) for name in names if name in header), None)
        for names in (ASSET, _SECTOR)
    )
    if of_asset is None or of_sector is None:
        raise DataError(f"{table.name}: needs the columns asset and sector, got {table.header}")
    groups: dict[str, str] = {}
    lines: dict[str, int] = {}
    for row, asset in enumerate(table.columns[of_asset]):
        if asset in lines:
            both = f"rows {lines[asset]} and {table.lines[row]}"
            raise DataError(f"{table.name}: {both}: asset '{asset}' appears twice")
        lines[asset] = table.lines[row]
        if table.columns[of_sector][row] not in MISSING:
            groups[asset] = table.columns[of_sector][row]
    notes = coverage(table.name, "sectors", groups, assets)
    return {asset: groups[asset] for asset in (*assets, CASH) if asset in groups}, notes


def _read(path: str | Path, form: Form) -> Table:
    """A table beside the prices, which may have one row and a delimiter of its own."""
    table = read_table(path, least=1)
    if form.delimiter is None or form.delimiter not in "".join(table.header):
        return table
    return read_table(path, form.delimiter, least=1)


def _columns(table: Table, own_date: str, name: str) -> dict[str, int]:
    """What each column is, for those that are not figures."""
    header = [plain(column) for column in table.header]
    places: dict[str, int] = {}
    keys = [own_date, "published", "asset", *(["text", "score"] if name == "news" else [])]
    for key in keys:
        for alias in _ALIASES[key]:
            if alias in header and header.index(alias) not in places.values():
                places[key] = header.index(alias)
                break
    return places


def _dates(table: Table, column: int, form: Form, key: str) -> pd.Series:
    cells = table.columns[column]
    missing = np.array([cell in MISSING for cell in cells])
    if missing.any() and (key != "published" or missing.all()):
        if missing.all() and key == "published":
            return pd.Series(pd.NaT, index=range(len(cells)), dtype="datetime64[ns]")
        raise table.error(column, int(np.flatnonzero(missing)[0]), "the date is missing")
    if key == "timestamp" and any(map(offset_of, cells)):
        return parse_instants(table, column, form.timezone, USUAL_ZONE)
    filled = next(cell for cell, empty in zip(cells, missing, strict=True) if not empty)
    whole = [filled if empty else cell for cell, empty in zip(cells, missing, strict=True)]
    columns = [whole if i == column else other for i, other in enumerate(table.columns)]
    known = dataclasses.replace(table, columns=columns, date_column=column)
    return pd.Series(parse_dates(known, column, form.date_format, form.timezone)).mask(missing)


def _figures(
    table: Table, taken: set[int], decimal: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns of numbers, by their names in lower case, and those without anything like one."""
    figures, left_out = {}, []
    for column, cells in enumerate(table.columns):
        if column in taken:
            continue
        name = table.header[column].lower().replace(" ", "_")
        if any(
            _MEANT.fullmatch(cell) or (is_number(cell) and cell not in MISSING) for cell in cells
        ):
            figures[name] = parse_numbers(table, column, decimal)
        else:
            left_out.append(table.header[column])
    return figures, left_out
