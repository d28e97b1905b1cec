"""`build_features`: specifications to arrays, straight or by way of a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from market.errors import DataError
from market.features.cache import Cache, can_be_kept
from market.features.releases import Tables
from market.features.specification import Specification, parse_features
from market.features.talib_path import TALIB
from market.market import Market
from market.names import unknown_name

ENGINES = ("pandas", "talib")

_BLOCK = 8  # features written at once: a result on disk is swept over once a block

Allocate = Callable[[tuple[int, ...]], np.ndarray]


class FeatureSet(NamedTuple):
    """What `build_features` returns; nan where assets listed from the first row warm up."""

    features: np.ndarray  # (T, N, F) float32
    names: tuple[str, ...]
    context: np.ndarray  # (T, G) float32
    context_names: tuple[str, ...]


def build_features(
    market: Market,
    specs: Sequence[str],
    tables: Tables | None = None,
    *,
    cache: str | Path | None = None,
    engine: str = "pandas",
) -> FeatureSet:
    """Compute features on a raw market.

    Args:
        market: Prices and panels of the whole history.
        specs: Specifications, for instance ["return(5)", "rsi"].
        tables: By name, what else features read: "fundamentals", "news", and any other.
        cache: Folder in which the result is kept by the content of all that made it, and read back
            from, mapped from disk. A damaged file is noticed and built anew. A set with a user's
            own function is always built anew: what such a function reads is not known.
        engine: "pandas", or "talib" for the features TA-Lib computes faster, to the same numbers.

    Raises:
        SettingError: If a feature or parameter is unknown or out of range.
        DataError: If the market or a table lacks what a feature needs, or a feature breaks off.

    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    entries = parse_features(specs)
    tables = tables or {}
    if cache is None or not can_be_kept(entries):
        return _build(market, entries, tables, engine, lambda shape: np.empty(shape, np.float32))
    store = Cache.of(Path(cache), market, entries, tables, engine)
    stored = store.load()
    if stored is None:
        built = _build(market, entries, tables, engine, store.allocate)
        stored = store.save(*built)
    return FeatureSet(*stored)


def _build(
    market: Market,
    entries: list[Specification],
    tables: Tables,
    engine: str,
    allocate: Allocate,
) -> FeatureSet:
    """A few features at a time, so that beside the result little else is in memory."""

    def compute(entry: Specification) -> np.ndarray:
        available = _available(market, entry)
        function = TALIB.get(entry.name) if engine == "talib" else None
        function = function or entry.feature.function
        inputs = (market, tables) if entry.feature.table else (market,)
        values = np.array(function(*inputs, **entry.settings), np.float64)
        if values.ndim == 1:
            return _finished_shared(market, entry, values).astype(np.float32)
        return _finished(market, entry, values, available).astype(np.float32)

    early = {i: compute(e) for i, e in enumerate(entries) if e.feature.shared is None}
    shared = [
        i for i, e in enumerate(entries) if e.feature.shared or (i in early and early[i].ndim == 1)
    ]
    own = [i for i in range(len(entries)) if i not in set(shared)]
    features = allocate((*market.prices.shape, len(own)))
    for first in range(0, len(own), _BLOCK):
        block = own[first : first + _BLOCK]
        panels = [early.pop(i) if i in early else compute(entries[i]) for i in block]
        features[:, :, first : first + len(block)] = np.stack(panels, axis=2)
    context = np.empty((market.n_periods, len(shared)), np.float32)
    for place, i in enumerate(shared):
        context[:, place] = early[i] if i in early else compute(entries[i])
    names, shared_names = (tuple(entries[i].text for i in part) for part in (own, shared))
    return FeatureSet(features, names, context, shared_names)


def _finished(
    market: Market, entry: Specification, values: np.ndarray, available: np.ndarray
) -> np.ndarray:
    """One feature, (T, N): neutral where unknown, nan only in the warm-up.

    That is the warm-up of assets listed from the first row, and of all as long as none is known.
    """
    feature = entry.feature
    listed = np.isfinite(market.prices) & available
    finite = np.isfinite(values)
    if feature.neutral is None:
        return _or_median(values, listed & finite)
    begun = np.maximum.accumulate(finite & listed, axis=0)
    broken = listed & ~finite & begun
    if broken.any() and not feature.needs:
        t, i = (int(x) for x in np.argwhere(broken)[0])
        raise _broken_off(market, f"'{entry.text}' of '{market.assets[i]}'", t, values[t, i])
    known_yet = np.logical_or.accumulate((listed & finite).any(axis=1))[:, None]
    warming = listed & ~finite & (listed[0] | ~known_yet) & ~broken
    return np.where(warming, np.nan, np.where(listed & finite, values, feature.neutral))


def _finished_shared(market: Market, entry: Specification, values: np.ndarray) -> np.ndarray:
    """One shared feature, (T,): nan in its warm-up only."""
    known = np.isfinite(values)
    broken = np.flatnonzero(~known & np.maximum.accumulate(known))
    if broken.size:
        t = int(broken[0])
        raise _broken_off(market, f"'{entry.text}'", t, values[t])
    return values


def _or_median(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values where they are known, else the day's median of those that are, (T, N).

    Rows before anything is known are nan, later ones without anything known 0.
    """
    rows = known.any(axis=1)
    neutral = np.where(np.maximum.accumulate(rows), 0.0, np.nan)
    neutral[rows] = np.nanmedian(np.where(known, values, np.nan)[rows], axis=1)
    return np.where(known, values, neutral[:, None])


def _available(market: Market, entry: Specification) -> np.ndarray:
    """Where the panels that the feature needs have a number, (T, N)."""
    available = np.ones(market.prices.shape, bool)
    for panel in entry.feature.needs:
        if getattr(market, panel) is None:
            raise DataError(
                f"{market.name}: feature '{entry.name}' needs {panel}, which it does not have"
            )
        available &= np.isfinite(getattr(market, panel))
    return available


def _broken_off(market: Market, which: str, t: int, value: float) -> DataError:
    return DataError(
        f"{market.name}: feature {which} breaks off on {market.dates[t]:%Y-%m-%d}: {value}"
    )
