"""Panels as a market: one calendar, gaps carried, doubts said, cash added."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from market.calendar import shared_rows
from market.errors import DataError, SettingError
from market.market import CASH, Market
from market.returns import is_number
from market.sources import repair
from market.sources.panels import Panels

LONGEST_PAUSE = 5  # rows an asset may miss before its calendar counts as another

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """How panels of prices become a market.

    Attributes:
        cash_rate: What cash earns a year, as a fraction; None for no cash asset.
        delisting_return: See `Market.from_prices`.
        max_gap: Rows a missing price is carried forward before the asset stops being tradable;
            None refuses a price missing inside an asset's history, unless a calendar is chosen.
            Where gaps are refused an asset leaves on the row after its last price, and where they
            are allowed once a gap is longer than they may be.
        allow_jumps: Whether steps the size of a split are known to be true, and not worth a word.
        calendar: "inner", "outer" or an asset's name where calendars differ; see
            `market.calendar.shared_rows`.
        sectors: Asset -> group.

    """

    cash_rate: float | None = 0.0
    delisting_return: float | Mapping[str, float] = 0.0
    max_gap: int | None = 5
    allow_jumps: bool = False
    calendar: str | None = None
    sectors: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_gap is not None and (type(self.max_gap) is not int or self.max_gap < 0):
            raise SettingError(f"max_gap: must be a whole number >= 0, got {self.max_gap!r}")
        if is_number(self.cash_rate) and not -1.0 < self.cash_rate < 1.0:  # type: ignore[operator]
            raise SettingError(
                f"cash_rate: is a fraction a year, such as 0.03 for 3 %, got {self.cash_rate!r}"
            )
        if not isinstance(self.allow_jumps, bool):
            raise SettingError(f"allow_jumps: must be true or false, got {self.allow_jumps!r}")

    def market(self, name: str, panels: Panels) -> Market:
        """The market of these panels; what was repaired or is doubtful is logged and noted."""
        panels = self._on_one_calendar(name, panels)
        if self._refuses_holes:
            _refuse_holes(panels)
        prices, tradable, carried, suspended = repair.carry_gaps(
            panels.fields["close"], 0 if self._refuses_holes else self._pause
        )
        notes = [
            *panels.notes,
            *repair.gap_notes(panels.dates, panels.assets, tradable, carried, suspended),
            *_doubts(panels, prices, self.allow_jumps),
        ]
        for note in notes:
            log.log(logging.INFO if note in panels.facts else logging.WARNING, "%s", note)
        fields = {**panels.fields, "close": prices}
        if "closes" in fields:
            fields["closes"] = repair.carried(fields["closes"], panels.fields["close"], prices)
        panels = panels._replace(notes=notes, fields=fields)
        return self._with_cash(name, panels, tradable)

    @property
    def _refuses_holes(self) -> bool:
        return self.max_gap is None and self.calendar is None

    @property
    def _pause(self) -> int:
        """Rows a price is carried where holes are allowed."""
        return LONGEST_PAUSE if self.max_gap is None else self.max_gap

    def _on_one_calendar(self, name: str, panels: Panels) -> Panels:
        price = panels.fields["close"]
        kept = shared_rows(name, panels.dates, panels.assets, price, self.calendar, self._pause)
        panels = panels.on_rows(kept)
        never = np.flatnonzero(~np.isfinite(panels.fields["close"]).any(axis=0))
        if never.size:
            raise DataError(
                f"{panels.places[never[0]].name}: '{panels.assets[never[0]]}' has no price on any "
                f"of the {len(panels.dates)} dates "
                f"{panels.dates[0]:%Y-%m-%d} .. {panels.dates[-1]:%Y-%m-%d}"
            )
        return panels

    def _with_cash(self, name: str, panels: Panels, tradable: np.ndarray) -> Market:
        """Bring a cash column of the data to the end, add the cash asked for, and validate."""
        order = sorted(range(len(panels.assets)), key=lambda i: panels.assets[i] == CASH)
        if self.cash_rate is None and len(order) == 1:
            raise DataError(
                f"{name}: 1 asset and no cash leaves nothing to allocate; set cash_rate"
            )

        def arranged(panel: np.ndarray, of_cash: float) -> np.ndarray:
            panel = panel[:, order]
            column = np.full(len(panel), of_cash)
            return panel if self.cash_rate is None else np.column_stack([panel, column])

        others = {key: panel for key, panel in panels.fields.items() if key != "close"}
        assets = [panels.assets[i] for i in order]
        return Market.from_prices(
            pd.DataFrame(panels.fields["close"][:, order], panels.dates, assets),
            cash_rate=self.cash_rate,
            delisting_return=self.delisting_return,
            tradable=arranged(tradable, True),
            sectors=dict(self.sectors),
            name=name,
            notes=tuple(panels.notes),
            **{key: arranged(panel, np.nan) for key, panel in others.items()},
        )


def _refuse_holes(panels: Panels) -> None:
    """Raise a DataError for the first price that is missing inside an asset's history."""
    listed = np.isfinite(panels.fields["close"])
    started = np.maximum.accumulate(listed, axis=0)
    to_come = np.maximum.accumulate(listed[::-1], axis=0)[::-1]
    holes = np.argwhere(~listed & started & to_come)
    if holes.size:
        t, i = (int(x) for x in holes[0])
        line = int(panels.lines[t, i])
        row = f"row {line} ({panels.dates[t]:%Y-%m-%d})" if line else f"{panels.dates[t]:%Y-%m-%d}"
        raise DataError(
            f"{panels.places[i].name}: column '{panels.assets[i]}', {row}: price is missing; "
            "fill it in, or carry the last one for up to 5 rows by max_gap=5 (data.options.max_gap)"
        )


def _doubts(panels: Panels, prices: np.ndarray, allow_jumps: bool) -> list[str]:
    """Findings that are worth a look but may be true; a cut-off last line is not."""
    notes = []
    day = lambda row: f"{panels.dates[row]:%Y-%m-%d}"  # noqa: E731
    for row, column, ratio in [] if allow_jumps else repair.jumps(prices):
        place = panels.places[column]
        line = panels.lines[row, column]
        text = (
            f"{place.name}: column '{panels.assets[column]}', "
            f"{f'row {line} ' if line else ''}({day(row)}): price is "
            f"{ratio:.4g} times the one before"
        )
        if line and line == place.torn_line:
            raise DataError(f"{text}, and the last line is not ended: the file looks cut off")
        notes.append(f"{text}, like an unadjusted split; if it is true, set allow_jumps")
    notes += _alike(panels.assets)
    for column in repair.constant_assets(prices):
        notes.append(
            f"'{panels.assets[column]}' never moves; its risk and correlations are undefined"
        )
    starts = repair.period_starts(panels.dates)
    if starts:
        notes.append(repair.STARTS.format(starts))
    for row in repair.pauses(panels.dates):
        notes.append(f"no dates between {day(row - 1)} and {day(row)}: one return spans them")
    return notes


def _alike(assets: list[str]) -> list[str]:
    """A note for each name that differs from another, or from cash, in its capitals only."""
    notes, seen = [], {CASH: CASH}
    for asset in assets:
        other = seen.setdefault(asset.lower(), asset)
        if other != asset:
            notes.append(f"'{asset}' and '{other}' differ in capitals only: taken for two assets")
    return notes
