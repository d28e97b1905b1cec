"""Where markets come from: `SOURCES` by name, and `load_market`, the one way to get at them."""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from market.calendar import Frequency, resample
from market.errors import DataError, SettingError
from market.features import (
    DEFAULT_FEATURES,
    FEATURES,
    build_features,
    rows_needed,
    warmup_rows,
)
from market.market import CASH, PANELS, Date, Market
from market.names import unknown_name
from market.sources.bundled import UNIVERSES, macro_tables
from market.sources.coverage import table_notes
from market.sources.files import files
from market.sources.fred import fred
from market.sources.raw import RawData
from market.sources.side_tables import Form, SideTable, by_asset, read_side_tables
from market.sources.synthetic import synthetic
from market.sources.yahoo import yahoo
from market.validation import read_date

SOURCES: dict[str, Callable[..., Market | RawData]] = {
    **UNIVERSES,
    "files": files,
    "yahoo": yahoo,
    "fred": fred,
    "synthetic": synthetic,
}

log = logging.getLogger(__name__)

COMMON = (
    *("start", "end", "assets", "features", "frequency", "tables"),
    *("feature_cache", "feature_engine"),
)


def load_market(
    name: str = "multi_asset",
    start: Date | None = None,
    end: Date | None = None,
    *,
    assets: Sequence[str] | None = None,
    features: str | Sequence[str] | None = None,
    frequency: Frequency = "daily",
    tables: Mapping[str, SideTable] | None = None,
    feature_cache: str | Path | None = None,
    feature_engine: str = "pandas",
    **options: Any,
) -> Market:
    """Load a bundled universe or any other source, with its features.

    Features are computed on the whole history; rows in which one is still warming up are dropped
    from the front; then `start` and `end` cut.

    Args:
        name: A name in `SOURCES`: a bundled universe, or a source such as "files".
        start: First date; the earliest there is when not given.
        end: Last date, included.
        assets: Which assets to keep, in this order (cash moves to the end); all when not given.
        features: Specifications such as ["return(5)", "rsi"], see `market.features.FEATURES`, or a
            YAML file that lists them. When not given: the default set for a bundled universe, the
            source's own for others.
        frequency: "daily", "weekly" or "monthly"; features are computed on the longer periods.
        tables: Tables that features may read, frames or files by name, beside the source's own.
        feature_cache: Folder in which features are kept by content; see `build_features`.
        feature_engine: "pandas", or "talib" for the same numbers sooner.
        options: Of the source itself, for instance `path` of "files".

    Raises:
        SettingError: If a name or option is unknown.
        DataError: If the data break a rule, or a date is outside them.

    """
    first = None if start is None else read_date("start", start)
    last = None if end is None else read_date("end", end)
    if first is not None and last is not None and first > last:
        raise SettingError(f"start {first:%Y-%m-%d} is after end {last:%Y-%m-%d}")
    if name not in SOURCES:
        raise unknown_name("market", name, SOURCES)
    market, found = _raw(name, options)
    given, notes = read_side_tables(tables, Form.of(options))
    if assets is not None:
        market = select_assets(market, assets)
    given = {key: by_asset(frame, market.assets) for key, frame in given.items()}
    notes += table_notes({**found, **given}, market)
    if notes:
        market = dataclasses.replace(market, notes=(*market.notes, *notes))
    market = resample(market, frequency)
    if name in UNIVERSES and features is None:
        features = DEFAULT_FEATURES  # which read no tables
    elif name in UNIVERSES:
        found = macro_tables(until=market.dates[-1])
    if features is not None:
        beside = {**found, **given}
        market = with_features(
            market, features, first, beside, cache=feature_cache, engine=feature_engine
        )
    return market if first is last is None else market[first:last]


def _raw(name: str, options: dict[str, Any]) -> RawData:
    """What a source makes of its options."""
    loader = SOURCES[name]
    own = inspect.signature(loader).parameters
    open_ended = any(entry.kind is entry.VAR_KEYWORD for entry in own.values())
    for option in options:
        if option not in own and not open_ended:
            valid = [*own, *COMMON]
            raise unknown_name(f"option of market '{name}'", option, valid)
    for option, entry in own.items():
        needed = entry.default is entry.empty and entry.kind is not entry.VAR_KEYWORD
        if needed and option not in options:
            raise SettingError(f"market '{name}' needs the option '{option}'")
    raw = loader(**options)
    return raw if isinstance(raw, RawData) else RawData(raw)


def select_assets(market: Market, assets: Sequence[str]) -> Market:
    """The same market with some of its assets, in the order asked for, cash last."""
    if isinstance(assets, str):
        raise SettingError(f"assets: must be a list of names, got {assets!r}")
    if not assets:
        raise SettingError("assets: needs at least 1 name, got none")
    for asset in assets:
        if asset not in market.assets:
            raise unknown_name(f"asset of market '{market.name}'", asset, market.assets)
    order = [market.assets.index(asset) for asset in sorted(assets, key=CASH.__eq__)]
    kept = [market.assets[column] for column in order]
    changes: dict[str, Any] = {
        key: panel[:, order]
        for key in ("prices", "returns", "features", "tradable", *PANELS)
        if (panel := getattr(market, key)) is not None
    }
    changes["optimum"] = market.optimum if kept == list(market.assets) else None
    changes["sectors"] = {asset: market.sectors[asset] for asset in kept if asset in market.sectors}
    return dataclasses.replace(market, assets=tuple(kept), **changes)


def with_features(
    market: Market,
    specs: str | Sequence[str],
    start: pd.Timestamp | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
    **build: Any,
) -> Market:
    """Replace the features of a raw market and drop the rows that warm them up.

    Args:
        market: With the whole history.
        specs: See `build_features`, as for `tables` and `build`.
        start: Where the user means to start; refused where features are not ready by then.
        tables: By name.
        build: Cache and engine.

    """
    built = build_features(market, specs, tables, **build)
    rows, slowest = warmup_rows(built)
    if rows > market.n_periods - 2:
        raise _too_short(market, specs, slowest, rows)
    if rows and start is not None and market.dates[0] <= start < market.dates[rows - 1]:
        raise DataError(
            f"{market.name}: start {start:%Y-%m-%d} falls in the {rows} rows that "
            f"warm up feature '{slowest}'; the earliest start is {market.dates[rows]:%Y-%m-%d}"
        )
    changes: dict[str, Any] = {"feature_names": built.names, "context_names": built.context_names}
    known = FEATURES.get(slowest.partition("(")[0])
    if rows and (known is None or known.table):  # a user's own, or one that reads a table
        words = f"{rows} rows left out, before {market.dates[rows]:%Y-%m-%d}"
        changes["notes"] = (*market.notes, f"{words}: '{slowest}' is not known sooner")
        log.warning("%s: %s", market.name, changes["notes"][-1])
    if np.isfinite(market.prices[rows:]).any(axis=0).all():  # no copy: features may be on disk
        changes |= {"features": built.features[rows:], "context": built.context[rows:]}
        return dataclasses.replace(market[rows:], **changes)
    changes |= {"features": np.nan_to_num(built.features), "context": np.nan_to_num(built.context)}
    return dataclasses.replace(market, **changes)[rows:]


def _too_short(market: Market, specs: str | Sequence[str], feature: str, rows: int) -> DataError:
    """A feature leaves no two rows, one to decide on and one to earn on."""
    span = f"{market.n_periods} ({market.dates[0]:%Y-%m-%d} .. {market.dates[-1]:%Y-%m-%d})"
    first = rows + 1 if rows < market.n_periods else rows_needed(market, specs, feature)
    if first is None:
        return DataError(
            f"{market.name}: feature '{feature}' has no value on any of the {span} rows: what it "
            "reads begins later, or it looks further back"
        )
    return DataError(
        f"{market.name}: feature '{feature}' needs {first + 1} rows, {first} up to its first value "
        f"and 1 to earn on, got {span}; bring {first + 1 - market.n_periods} rows more of "
        "history, or shorten its window"
    )
