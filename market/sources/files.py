"""A user's own prices: CSV or Parquet, wide, long, or one asset with open, high, low and close.

What was taken for what, and every repair, is logged and kept in `Market.notes`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from market.calendar import shared_rows
from market.errors import DataError, SettingError
from market.market import CASH, Market
from market.names import unknown_name
from market.sources import repair
from market.sources.panels import Layout, Panels, read_panels
from market.sources.tables import Table, read_table

log = logging.getLogger(__name__)


def files(
    path: str | Path,
    layout: Layout | Literal["auto"] = "auto",
    *,
    cash_rate: float | None = 0.0,
    max_gap: int = 5,
    allow_jumps: bool = False,
    date_format: str | None = None,
    timezone: str | None = None,
    calendar: str | None = None,
    sectors: Mapping[str, str] | str | Path | None = None,
    delimiter: str | None = None,
    decimal: str = ".",
) -> Market:
    """Prices out of a CSV or Parquet file.

    Args:
        path: The file.
        layout: "wide", "long" or "single"; found out from the header when "auto".
        cash_rate: What cash earns a year, as a fraction; None for no cash asset.
        max_gap: Rows a missing price is carried forward before the asset stops being tradable.
        allow_jumps: Whether steps the size of a split are known to be true, and not worth a word.
        date_format: Such as %d/%m/%Y; needed where dates could be read in two ways.
        timezone: Such as America/New_York; needed where dates carry several zones.
        calendar: Where some assets trade at weekends and others do not: "inner" (rows on which all
            have a price), "outer" (all rows, prices carried) or an asset's name (its rows).
        sectors: Asset -> group, or a CSV file with the columns asset and sector.
        delimiter: Between fields of a CSV; found out from the header when not given.
        decimal: "." or ",".

    Raises:
        DataError: Naming file, column, row (line of the file) and date of what breaks a rule.

    """
    _check_settings(layout, max_gap, delimiter, decimal)
    table = read_table(path, delimiter)
    panels = read_panels(
        table, None if layout == "auto" else layout, date_format, timezone, decimal
    )
    rows = shared_rows(
        table.name, panels.dates, panels.assets, panels.fields["close"], calendar, max_gap
    )
    panels = panels.on_rows(rows)
    price = panels.fields["close"]
    prices, tradable, carried, suspended = repair.carry_gaps(price, max_gap)
    notes = [
        *panels.notes,
        *repair.gap_notes(panels.dates, panels.assets, tradable, carried, suspended),
        *_doubts(table, panels, prices, allow_jumps),
    ]
    for note in notes[1:]:
        log.warning("%s", note)
    panels = panels._replace(notes=notes, fields={**panels.fields, "close": prices})
    return _market(table.name, panels, tradable, cash_rate, _sectors(sectors))


def _check_settings(layout: str, max_gap: int, delimiter: str | None, decimal: str) -> None:
    if layout not in ("auto", "wide", "long", "single"):
        raise unknown_name("layout", layout, ("auto", "wide", "long", "single"))
    if type(max_gap) is not int or max_gap < 0:
        raise SettingError(f"max_gap: must be a whole number >= 0, got {max_gap!r}")
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1):
        raise SettingError(f"delimiter: must be one character, got {delimiter!r}")
    if decimal not in (".", ","):
        raise SettingError(f"decimal: must be '.' or ',', got {decimal!r}")


def _sectors(sectors: Mapping[str, str] | str | Path | None) -> dict[str, str]:
    """Asset -> group, read from a file where it is one."""
    if sectors is None or isinstance(sectors, Mapping):
        return dict(sectors or {})
    table = read_table(sectors)
    names = [column.lower() for column in table.header]
    if "asset" not in names or "sector" not in names:
        raise DataError(f"{table.name}: needs the columns asset and sector, got {table.header}")
    pairs = (table.columns[names.index(name)] for name in ("asset", "sector"))
    return dict(zip(*pairs, strict=True))


def _market(
    name: str,
    panels: Panels,
    tradable: np.ndarray,
    cash_rate: float | None,
    sectors: dict[str, str],
) -> Market:
    """Bring a cash column of the file to the end, add the cash asked for, and validate."""
    order = sorted(range(len(panels.assets)), key=lambda i: panels.assets[i] == CASH)
    if cash_rate is None and len(order) == 1:
        raise DataError(f"{name}: 1 asset and no cash leaves nothing to allocate; set cash_rate")

    def arranged(panel: np.ndarray, of_cash: float) -> np.ndarray:
        panel = panel[:, order]
        column = np.full(len(panel), of_cash)
        return panel if cash_rate is None else np.column_stack([panel, column])

    others = {key: panel for key, panel in panels.fields.items() if key != "close"}
    assets = [panels.assets[i] for i in order]
    return Market.from_prices(
        pd.DataFrame(panels.fields["close"][:, order], panels.dates, assets),
        cash_rate=cash_rate,
        tradable=arranged(tradable, True),
        sectors=sectors,
        name=name,
        notes=tuple(panels.notes),
        **{key: arranged(panel, np.nan) for key, panel in others.items()},
    )


def _doubts(table: Table, panels: Panels, prices: np.ndarray, allow_jumps: bool) -> list[str]:
    """Findings that are worth a look but may be true; a cut-off last line is not."""
    notes = []
    day = lambda row: f"{panels.dates[row]:%Y-%m-%d}"  # noqa: E731
    for row, column, ratio in [] if allow_jumps else repair.jumps(prices):
        line = panels.lines[row, column]
        text = (
            f"{table.name}: column '{panels.assets[column]}', row {line} ({day(row)}): price is "
            f"{ratio:.4g} times the one before"
        )
        if not table.ended and line == table.lines[-1]:
            raise DataError(f"{text}, and the last line is not ended: the file looks cut off")
        notes.append(f"{text}, like an unadjusted split; if it is true, set allow_jumps")
    for column in repair.constant_assets(prices):
        notes.append(
            f"'{panels.assets[column]}' never moves; its risk and correlations are undefined"
        )
    for row in repair.pauses(panels.dates):
        notes.append(f"no dates between {day(row - 1)} and {day(row)}: one return spans them")
    return notes
