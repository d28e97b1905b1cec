"""Other worlds: the same data cut off, replaced, rescaled or begun later, for leak audits.

Data are a `Market`, a table, or a mapping or tuple of them. A table's row is known from the day in
its column `published` (or `available_at`), else in `date`, `period_end` or `timestamp`, else in its
index; a table that has no dates at all is always known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from market.errors import DataError
from market.market import CASH, PANELS, Market
from market.returns import simple_returns

World = Any  # Market | pd.DataFrame | Mapping[str, World] | tuple[World, ...]

KNOWN_BY = ("published", "available_at", "date", "period_end", "timestamp", "time")
FACTOR = 7.0
_PANELS = ("prices", *PANELS)
_TEXT = "profit warning, fraud, loss, default and bankruptcy"


def world_dates(world: World) -> pd.DatetimeIndex:
    """Dates of the first market in the data, else of the first table indexed by date."""
    for kind in (Market, pd.DataFrame):
        for part in _parts(world):
            if isinstance(part, kind):
                dates = part.dates if isinstance(part, Market) else part.index
                if isinstance(dates, pd.DatetimeIndex):
                    return dates
    raise DataError("audit: the data hold neither a market nor a table indexed by date")


def cut(world: World, date: pd.Timestamp) -> World:
    """What was known at the close of `date`."""

    def market(part: Market) -> Market:
        return part.upto(int(part.dates.searchsorted(date, side="right")) - 1)

    def table(part: pd.DataFrame) -> pd.DataFrame:
        return part[_known(part, date)]

    return _each(world, market, table)


def poisoned(world: World, date: pd.Timestamp, rng: np.random.Generator) -> World:
    """Everything that is known only after `date` replaced by something else of the same shape.

    Prices take a wild path, volumes and every other number too, and one asset that is listed on
    `date` is not from the day after.
    """

    def market(part: Market) -> Market:
        return _poisoned_market(part, int(part.dates.searchsorted(date, side="right")), rng)

    def table(part: pd.DataFrame) -> pd.DataFrame:
        later, changed = ~_known(part, date), part.copy()
        for column in changed.columns:
            values = changed[column]
            if pd.api.types.is_bool_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
                continue
            if pd.api.types.is_numeric_dtype(values):
                noise = rng.uniform(0.2, 0.9, len(changed))  # a score stays a score
                changed[column] = np.where(later, values * noise, values)
            elif column == "text":
                changed[column] = values.where(~later, _TEXT)
        return changed

    return _each(world, market, table)


def rescaled(world: World) -> World:
    """As a later split or another currency would show the past: prices times 7, or one seventh.

    Risky assets take turns, volumes change inversely. A table called "fundamentals" holds figures
    per share and changes as prices do, each asset by its own factor; other tables stay. Where the
    market has the closes as they were paid, neither they nor the figures beside them change: what
    comes later rewrites the adjusted prices alone. Where there is no market, tables indexed by date
    are its prices.
    """
    markets = [part for part in _parts(world) if isinstance(part, Market)]
    if not markets:
        return _each(world, lambda part: part, lambda part: part * FACTOR if _dated(part) else part)
    as_paid = markets[0].closes is not None
    factors = {
        asset: 1.0 if asset == CASH else FACTOR ** (1 - 2 * (number % 2))
        for number, asset in enumerate(markets[0].assets)
    }

    def per_share(part: pd.DataFrame) -> pd.DataFrame:
        numbers = part.select_dtypes("number").columns
        factor = part["asset"].map(factors).fillna(FACTOR) if "asset" in part else FACTOR
        return part.assign(**{str(column): part[column] * factor for column in numbers})

    def walk(part: World, name: str = "") -> World:
        if isinstance(part, Market):
            return _rescaled_market(part, np.array([factors[asset] for asset in part.assets]))
        if isinstance(part, Mapping):
            return {key: walk(value, key) for key, value in part.items()}
        if isinstance(part, tuple):
            return tuple(walk(value) for value in part)
        return per_share(part) if name == "fundamentals" and not as_paid else part

    return walk(world)


def begun(world: World, date: pd.Timestamp) -> World:
    """The same data without the prices before `date`; tables keep their past."""
    only_tables = not any(isinstance(part, Market) for part in _parts(world))

    def table(part: pd.DataFrame) -> pd.DataFrame:
        return part[date:] if only_tables and _dated(part) else part

    return _each(world, lambda part: part[date:], table)


def with_listings(world: World) -> World:
    """A market whose assets were all there from first to last, with one late and one that leaves.

    Leaks of availability show only where there is some. Markets of fewer than three risky assets,
    and those that have listings of their own, stay as they are.
    """

    def market(part: Market) -> Market:
        risky = part.n_assets - part.has_cash
        if risky < 3 or not np.isfinite(part.prices).all():
            return part
        panels = _panels(part)
        late, gone = slice(0, int(0.3 * part.n_periods)), slice(int(0.85 * part.n_periods), None)
        for rows, column in ((late, risky - 1), (gone, risky - 2)):
            _delist(panels, rows, column)
        return _rebuilt(part, **panels)

    return _each(world, market, lambda part: part)


def _parts(world: World) -> list[World]:
    if isinstance(world, Mapping):
        return [leaf for part in world.values() for leaf in _parts(part)]
    if isinstance(world, tuple):
        return [leaf for part in world for leaf in _parts(part)]
    return [world]


def _each(
    world: World,
    market: Callable[[Market], Market],
    table: Callable[[pd.DataFrame], pd.DataFrame],
) -> World:
    """The same structure with every market and every table changed."""
    if isinstance(world, Market):
        return market(world)
    if isinstance(world, pd.DataFrame):
        return table(world)
    if isinstance(world, Mapping):
        return {key: _each(part, market, table) for key, part in world.items()}
    if isinstance(world, tuple):
        return tuple(_each(part, market, table) for part in world)
    raise DataError(f"audit: data must be markets and tables, got {type(world).__name__}")


def _dated(table: pd.DataFrame) -> bool:
    """Whether it is indexed by date."""
    return isinstance(table.index, pd.DatetimeIndex)


def _known(table: pd.DataFrame, date: pd.Timestamp) -> np.ndarray:
    """Rows that were known at the close of `date`, by calendar day."""
    column = next((name for name in KNOWN_BY if name in table.columns), None)
    if column is None and not _dated(table):
        return np.ones(len(table), bool)
    stamps = pd.DatetimeIndex(pd.to_datetime(table.index if column is None else table[column]))
    return np.asarray(
        stamps.tz_localize(None) <= date.normalize() + pd.Timedelta(hours=24, seconds=-1)
    )


def _panels(market: Market) -> dict[str, Any]:
    """Copies of what there is of each asset and day."""
    keys = [key for key in (*_PANELS, "tradable") if getattr(market, key) is not None]
    return {key: getattr(market, key).copy() for key in keys}


def _delist(panels: dict[str, Any], rows: slice, column: int) -> None:
    """Make an asset unknown on some rows."""
    for key, panel in panels.items():
        panel[rows, column] = False if key == "tradable" else np.nan


def _poisoned_market(market: Market, first: int, rng: np.random.Generator) -> Market:
    """Rows from `first` on replaced."""
    if first >= market.n_periods:
        return market
    changes = _panels(market)
    path = np.exp(np.cumsum(rng.normal(0.0, 0.2, (market.n_periods - first, market.n_assets)), 0))
    for key in changes.keys() - {"tradable"}:
        changes[key][first:] *= path
    leaver = _leaver(market, first, rng)
    if leaver is not None:
        _delist(changes, slice(first, None), leaver)
    for key in ("context", "risk_free"):
        changes[key] = _noise_after(getattr(market, key), first, rng)
    if market.feature_names != ("return",):
        changes["features"] = _noise_after(market.features, first, rng)
    return _rebuilt(market, **changes)


def _leaver(market: Market, first: int, rng: np.random.Generator) -> int | None:
    """A risky asset listed the row before, where there are others."""
    listed = np.flatnonzero(market.tradable[first - 1])
    listed = listed[listed < market.n_assets - market.has_cash]
    return int(rng.choice(listed)) if len(listed) > 1 else None


def _noise_after(panel: np.ndarray, first: int, rng: np.random.Generator) -> np.ndarray:
    changed = panel.copy()
    spread = 1e-3 + (float(panel[:first].std()) if panel[:first].size else 0.0)
    changed[first:] += np.abs(rng.normal(0.0, spread, changed[first:].shape)).astype(panel.dtype)
    return changed


def _rescaled_market(market: Market, factors: np.ndarray) -> Market:
    changes = {
        key: panel / factors if key == "volume" else panel * factors
        for key in _PANELS
        if key != "closes" and (panel := getattr(market, key)) is not None
    }
    return _rebuilt(market, **changes)


def _rebuilt(market: Market, **changes: Any) -> Market:
    """Other panels; returns, and features that are returns, follow from the prices."""
    returns = simple_returns(changes["prices"])
    returns[0] = market.returns[0]  # a slice knows more than its prices
    anew: dict[str, Any] = {"returns": returns}
    if market.feature_names == ("return",):
        anew |= {"features": None, "feature_names": ()}
    return dataclasses.replace(market, **(anew | changes))
