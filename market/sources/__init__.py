"""Where markets come from: `SOURCES` by name, and `load_market`, the one way to get at them."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from market.calendar import Frequency, resample
from market.errors import DataError, SettingError
from market.features import DEFAULT_FEATURES, build_features, warmup_rows
from market.market import CASH, Date, Market
from market.names import unknown_name
from market.sources.bundled import UNIVERSES
from market.sources.files import files

SOURCES: dict[str, Callable[..., Market]] = {**UNIVERSES, "files": files}


def load_market(
    name: str = "multi_asset",
    start: Date | None = None,
    end: Date | None = None,
    *,
    assets: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    frequency: Frequency = "daily",
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
        features: Specifications such as ["return(5)", "rsi"]; see `market.features.FEATURES`. When
            not given: the default set for a bundled universe, the day's return for other sources.
        frequency: "daily", "weekly" or "monthly"; features are computed on the longer periods.
        options: Of the source itself, for instance `path` of "files".

    Raises:
        SettingError: If a name or option is unknown.
        DataError: If the data break a rule, or a date is outside them.

    """
    first, last = _stamp("start", start), _stamp("end", end)
    if name not in SOURCES:
        raise unknown_name("market", name, SOURCES)
    loader = SOURCES[name]
    own = inspect.signature(loader).parameters
    for option in options:
        if option not in own:
            valid = [*own, "start", "end", "assets", "features", "frequency"]
            raise unknown_name(f"option of market '{name}'", option, valid)
    for option, entry in own.items():
        if entry.default is entry.empty and option not in options:
            raise SettingError(f"market '{name}' needs the option '{option}'")
    market = loader(**options)
    if assets is not None:
        market = select_assets(market, assets)
    market = resample(market, frequency)
    if features is None and name in UNIVERSES:
        features = DEFAULT_FEATURES
    if features is not None:
        market = with_features(market, features, first)
    return market if first is last is None else market[first:last]


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
        for key in ("prices", "returns", "features", "tradable", "volume", "opens", "highs", "lows")
        if (panel := getattr(market, key)) is not None
    }
    changes["sectors"] = {asset: market.sectors[asset] for asset in kept if asset in market.sectors}
    return dataclasses.replace(market, assets=tuple(kept), **changes)


def with_features(
    market: Market, specs: Sequence[str], start: pd.Timestamp | None = None
) -> Market:
    """Replace the features of a raw market and drop the rows that warm them up."""
    built = build_features(market, specs)
    rows, slowest = warmup_rows(built)
    if rows >= market.n_periods:
        raise DataError(
            f"{market.name}: feature '{slowest}' needs more history than the {market.n_periods} "
            "rows there are; shorten its window or bring more data"
        )
    if rows and start is not None and market.dates[0] <= start < market.dates[rows - 1]:
        raise DataError(
            f"{market.name}: start {start:%Y-%m-%d} falls in the {rows} rows that "
            f"warm up feature '{slowest}'; the earliest start is {market.dates[rows]:%Y-%m-%d}"
        )
    ready = dataclasses.replace(
        market,
        features=np.nan_to_num(built.features, copy=False),
        feature_names=built.names,
        context=np.nan_to_num(built.context, copy=False),
        context_names=built.context_names,
    )
    return ready[rows:]


def _stamp(key: str, date: Date | None) -> pd.Timestamp | None:
    """A date as given by a user; a number is a mistake here, not a row."""
    if date is None:
        return None
    if not isinstance(date, (int, float)):
        with contextlib.suppress(ValueError, TypeError):
            stamp = pd.Timestamp(date)
            if not pd.isna(stamp):
                return stamp
    raise SettingError(f"{key}: {date!r} is not a date; write it as 2015-12-31")
