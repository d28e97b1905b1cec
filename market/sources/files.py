"""A user's own prices: CSV or Parquet, wide, long, or one asset with open, high, low and close.

A path may be a folder with one file an asset. What was taken for what, and every repair, is logged
and kept in `Market.notes`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from market.errors import DataError, SettingError
from market.names import unknown_name
from market.sources.assemble import Assembly
from market.sources.column_names import plain
from market.sources.headers import Layout, sniff_layout
from market.sources.panels import Panels, combine, read_panels
from market.sources.raw import RawData
from market.sources.side_tables import Form, SideTable, read_sectors, read_side_tables
from market.sources.tables import Table, read_table, reading, stem

PRICE_FILES = (".csv", ".txt", ".tsv", ".gz", ".parquet", ".pq")
_SIDE_FILES = ("sectors", "fundamentals", "news")


def files(
    path: str | Path,
    layout: Layout | Literal["auto"] = "auto",
    *,
    cash_rate: float | None = 0.0,
    delisting_return: float | Mapping[str, float] = 0.0,
    max_gap: int | None = None,
    allow_jumps: bool = False,
    calendar: str | None = None,
    date_format: str | None = None,
    timezone: str | None = None,
    sectors: Mapping[str, str] | str | Path | None = None,
    fundamentals: SideTable | None = None,
    news: SideTable | None = None,
    delimiter: str | None = None,
    decimal: str = ".",
    sha256: str | None = None,
) -> RawData:
    """Prices out of a CSV or Parquet file, or out of a folder with one file an asset.

    In a folder each file is called like its asset; files called sectors, fundamentals and news are
    taken for that. A file with its digest beside it (`sha256sum prices.csv > prices.csv.sha256`)
    is refused when it changed.

    Args:
        path: The file or folder.
        layout: "wide", "long" or "single"; found out from the header when "auto".
        cash_rate: What cash earns a year, as a fraction; None for no cash asset.
        delisting_return: What an asset returns as it leaves the data, such as -0.3, for all or by
            name.
        max_gap: Rows a missing price is carried forward before the asset stops being tradable;
            when not given, a price missing inside an asset's history is an error.
        allow_jumps: Whether steps the size of a split are known to be true, and not worth a word.
        calendar: Where some assets trade on days on which others do not: "inner" (dates all have),
            "outer" (all dates), or an asset's name (its dates).
        date_format: Such as %d/%m/%Y; needed where dates could be read in two ways. Without a day
            in it a date is the last day of its month.
        timezone: Such as America/New_York; needed where dates carry several zones. Dates without
            one are taken to be of it.
        sectors: Asset -> group, or a CSV file with the columns asset and sector; assets it does not
            name belong to no group, which is said.
        fundamentals: A file or frame with asset, period_end, published and figures.
        news: A file or frame with timestamp, asset and text, or a score.
        delimiter: Between fields of a CSV; found out from the header when not given.
        decimal: "." or ",".
        sha256: Digest that the file must have.

    Raises:
        DataError: Naming file, column, row (line of the file) and date of what breaks a rule.

    """
    _check_settings(layout, delimiter, decimal, sha256)
    form = Form(date_format, timezone, delimiter, decimal)
    chosen = None if layout == "auto" else layout

    def read(table: Table, form: Layout | None) -> Panels:
        return read_panels(table, form, date_format, timezone, decimal)

    sides: dict[str, SideTable | None] = {"fundamentals": fundamentals, "news": news}
    folder = Path(path)
    with reading(folder):
        is_folder = folder.is_dir()
    if is_folder:
        if sha256 is not None:
            raise SettingError("sha256: is the digest of a file, and path is a folder")
        prices, beside, note = _folder_files(folder)
        tables = [read_table(file, delimiter) for file in prices]
        panels = combine(folder.name, [read(table, _single(table, chosen)) for table in tables])
        panels = panels._replace(notes=[note, *panels.notes], facts=panels.facts | {note})
        sectors = beside.get("sectors") if sectors is None else sectors
        sides = {key: beside.get(key) if given is None else given for key, given in sides.items()}
        name = folder.name
    else:
        table = read_table(path, delimiter, sha256)
        panels, name = read(table, chosen), table.name
    groups, unknown = read_sectors(sectors, panels.assets, form)
    assembly = Assembly(
        cash_rate=cash_rate,
        delisting_return=delisting_return,
        max_gap=max_gap,
        allow_jumps=allow_jumps,
        calendar=calendar,
        sectors=groups,
    )
    market = assembly.market(name, panels)
    given = {key: table for key, table in sides.items() if table is not None}
    frames, notes = read_side_tables(given, form)
    return RawData(dataclasses.replace(market, notes=(*market.notes, *unknown, *notes)), frames)


def _folder_files(folder: Path) -> tuple[list[Path], dict[str, Path], str]:
    """The price files of a folder, the side files by name, and a line about both."""
    with reading(folder):
        found = sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != ".")
    tables = [file for file in found if file.suffix.lower() in PRICE_FILES]
    beside = {stem(file.name).lower(): file for file in tables}
    beside = {name: file for name, file in beside.items() if name in _SIDE_FILES}
    prices = [file for file in tables if file not in beside.values()]
    if not prices:
        names = ", ".join(file.name for file in found[:5]) or "nothing"
        raise DataError(
            f"{folder}: holds no price file ({', '.join(PRICE_FILES)}), but {names}; "
            "put one file an asset there"
        )
    others = [
        file.name for file in found if file not in tables and file.suffix.lower() != ".sha256"
    ]
    note = f"{folder.name}: {len(prices)} files read as one asset each"
    if beside:
        note += f"; {', '.join(file.name for file in beside.values())} taken as side files"
    return prices, beside, note + (f"; left alone: {', '.join(others)}" if others else "")


def _single(table: Table, layout: Layout | None) -> Layout:
    """The layout of a file in a folder: one asset, however few its columns."""
    sniffed = sniff_layout(table)
    names = [plain(column) for column in table.header]
    if layout in (None, "single") and (sniffed == "single" or {"close", "price"} & set(names)):
        return "single"
    raise DataError(
        f"{table.name}: looks like a {sniffed} table, but each file of a folder is one asset, with "
        f"date and close or more; got the columns {table.header[:6]}"
    )


def _check_settings(layout: str, delimiter: str | None, decimal: str, sha256: str | None) -> None:
    if layout not in ("auto", "wide", "long", "single"):
        raise unknown_name("layout", layout, ("auto", "wide", "long", "single"))
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1):
        raise SettingError(f"delimiter: must be one character, got {delimiter!r}")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", str(sha256)):
        raise SettingError(f"sha256: must be 64 digits and letters a to f, got {sha256!r}")
    if decimal not in (".", ","):
        raise SettingError(f"decimal: must be '.' or ',', got {decimal!r}")
