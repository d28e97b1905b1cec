"""The rules a `Market` keeps, each broken one a DataError that names column, row and date."""

from __future__ import annotations

import re
import zoneinfo
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError
from market.names import nearest

if TYPE_CHECKING:
    from market.market import Market

_DATE = re.compile(r"\d{4}(-\d\d?(-\d\d?([ T]|$)|$)|$)|\d{8}$")
_ASSET = re.compile(r"[\w^][\w .,:^&%()/=+-]{0,63}")


def read_date(key: str, given: Any) -> pd.Timestamp:
    """A plain date that a user gave; texts begin with the year, so that none can be misread.

    Raises:
        SettingError: If it is anything else.

    """
    odd = isinstance(given, str) and not _DATE.match(given.strip())
    try:
        stamp: Any = pd.NaT if odd or isinstance(given, (int, float)) else pd.Timestamp(given)
    except (ValueError, TypeError):
        stamp = pd.NaT
    if pd.isna(stamp):
        raise SettingError(f"{key}: {given!r} is not a date; write it as 2015-12-31")
    if stamp.tz is not None:
        raise SettingError(f"{key}: {given!r} must be a plain date without time zone")
    return stamp


def check_zone(key: str, zone: Any) -> None:
    """Refuse a name that is no time zone."""
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise SettingError(f"{key}: unknown time zone {zone!r}; such as America/New_York") from None


def checked_dates(index: pd.Index, name: str) -> pd.DatetimeIndex:
    """The dates as an index that rises, without time zone; else a DataError naming the row."""
    if not isinstance(index, pd.DatetimeIndex):
        if pd.api.types.is_numeric_dtype(index):
            raise DataError(f"{name}: the index must hold dates, got numbers such as {index[:1]}")
        try:
            index = pd.DatetimeIndex(index)
        except (ValueError, TypeError) as error:
            raise DataError(f"{name}: the index must hold dates: {error}") from None
    if len(index) < 2:
        raise DataError(f"{name}: needs at least 2 dates, got {len(index)}")
    if index.tz is not None:
        raise DataError(
            f"{name}: dates carry the time zone {index.tz}; convert them to plain dates"
        )
    if index.hasnans:
        row = int(np.flatnonzero(index.isna())[0])
        raise DataError(f"{name}: row {row}: the date is missing")
    steps = np.diff(index.to_numpy())
    bad = np.flatnonzero(steps <= np.timedelta64(0))
    if bad.size:
        row = int(bad[0]) + 1
        rule = "appears twice" if steps[bad[0]] == np.timedelta64(0) else "is before the row above"
        raise DataError(f"{name}: row {row}: date {index[row]:%Y-%m-%d} {rule}; dates must rise")
    return index


def numeric(frame: pd.DataFrame, name: str) -> np.ndarray:
    """The table as float64; else a DataError naming the column."""
    for column, kind in zip(frame.columns, frame.dtypes, strict=True):
        if not pd.api.types.is_any_real_numeric_dtype(kind):
            raise DataError(f"{name}: column '{column}' must hold numbers, got {kind}")
    return frame.to_numpy(np.float64)


def checked_names(source: str, key: str, given: Any) -> tuple[str, ...]:
    """The names as texts; one text is not a list of its letters."""
    if isinstance(given, str):
        raise DataError(f"{source}: {key} must be a list of names, got {given!r}")
    return tuple(map(str, given))


def check_asset_name(where: str, asset: Any) -> None:
    """Refuse names that are no tickers: paths, scripts, formulas, essays."""
    if not isinstance(asset, str) or not _ASSET.fullmatch(asset) or ".." in asset:
        raise DataError(
            f"{where}: {str(asset)[:40]!r} is no name for an asset; use 1 to 64 letters, "
            "digits, spaces and . , : ^ & % ( ) / = + - _, starting with a letter, digit, ^ or _"
        )


def check_names(source: str, kind: str, names: tuple[str, ...]) -> None:
    """Names are not empty and appear once."""
    if kind == "asset" and not names:
        raise DataError(f"{source}: needs at least 1 asset, got none")
    for position, value in enumerate(names):
        if not value.strip():
            raise DataError(f"{source}: {kind} {position} has an empty name")
        if value in names[:position]:
            first = names.index(value)
            raise DataError(f"{source}: {kind} '{value}' appears twice, at {first} and {position}")


def check_shape(market: Market, key: str, shape: tuple[int, ...]) -> None:
    """A panel has the shape it must have."""
    found = getattr(market, key).shape
    if found != shape:
        raise DataError(f"{market.name}: {key} must have shape {shape}, got {found}")


def check_prices(market: Market) -> None:
    """Prices are positive and finite wherever the asset can be held, without holes."""
    prices = market.prices
    listed = np.isfinite(prices)
    refuse(market, np.isinf(prices) | (prices <= 0), prices, "price {} must be finite and > 0")
    never = np.flatnonzero(~listed.any(0))
    if never.size:
        raise DataError(f"{market.name}: column '{market.assets[never[0]]}' has no price at all")
    started = np.maximum.accumulate(listed, axis=0)
    to_come = np.maximum.accumulate(listed[::-1], axis=0)[::-1]
    rule = "price is missing (nan) inside the asset's history"
    refuse(market, ~listed & started & to_come, prices, rule)
    refuse(market, market.tradable & ~listed, prices, "tradable without a price")
    if market.has_cash and not listed[:, -1].all():
        raise DataError(f"{market.name}: column 'cash' must have a price on every date")


def refuse(market: Market, bad: np.ndarray, values: np.ndarray, rule: str) -> None:
    """Raise a DataError that names the first bad cell by column, row and date."""
    if bad.any():
        t, i = (int(x) for x in np.argwhere(bad)[0])
        text = rule.format(values[t, i])
        where = f"column '{market.assets[i]}', row {t} ({market.dates[t]:%Y-%m-%d})"
        raise DataError(f"{market.name}: {where}: {text}")


def check_returns(market: Market, computed: np.ndarray) -> None:
    """Returns are those of the prices; row 0 of a slice knows its own."""
    check_shape(market, "returns", market.prices.shape)
    given = market.returns
    refuse(market, ~np.isfinite(given) | (given < -1.0), given, "return {} must be finite, >= -1")
    off = np.abs(given - computed) > 1e-9 * (1.0 + np.abs(computed))
    off[0] = False  # a slice knows the return of its first row, its prices do not
    listed = np.isfinite(market.prices)
    off[1:] &= ~(listed[:-1] & ~listed[1:])  # what a delisting pays is not in the prices
    refuse(market, off, given, "return {} disagrees with the prices; replace both, or neither")


def check_panels(market: Market) -> None:
    """Features, context and traded fields have their shapes and finite values."""
    shape = market.prices.shape
    check_names(market.name, "feature", market.feature_names)
    check_names(market.name, "context", market.context_names)
    check_shape(market, "features", (*shape, len(market.feature_names)))
    check_shape(market, "context", (shape[0], len(market.context_names)))
    check_shape(market, "risk_free", shape[:1])
    if not np.isfinite(market.risk_free).all():
        raise DataError(f"{market.name}: risk_free must be finite")
    for position, feature in enumerate(market.feature_names):
        values = market.features[:, :, position]
        refuse(market, ~np.isfinite(values), values, f"feature '{feature}' is {{}}, not finite")
    bad = np.argwhere(~np.isfinite(market.context))
    if bad.size:
        t, g = (int(x) for x in bad[0])
        where = f"context '{market.context_names[g]}', row {t} ({market.dates[t]:%Y-%m-%d})"
        raise DataError(f"{market.name}: {where}: value is not finite")
    least = {"volume": ">= 0", "opens": ">= 0", "highs": ">= 0", "lows": ">= 0", "closes": "> 0"}
    for key, rule in least.items():
        panel = getattr(market, key)
        if panel is None:
            continue
        check_shape(market, key, shape)
        below = panel < 0 if rule == ">= 0" else panel <= 0
        refuse(market, np.isinf(panel) | below, panel, f"{key} {{}} must be finite and {rule}")
    unknown = set(market.sectors) - set(market.assets)
    if unknown:
        near = nearest(min(unknown), sorted(set(market.assets) - set(market.sectors)))
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise DataError(f"{market.name}: sectors name unknown assets {sorted(unknown)}{hint}")
