"""The leak audit of everything that stands between data and an agent: features, joins, scalers.

    report = audit(load_market("files", path="prices.csv"), features=["rsi", "mine.py:signal"])
    report.passed, report.leaks, report.frame()

Features are built on the market's last rows. Where all assets were there throughout, one is made
to list late and one to leave; sample tables stand in for those that a feature needs and were not
given.
`audit_function` audits anything else, such as an agent's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import numpy as np
import pandas as pd

from market.features import FEATURES, build_features, expand_features, parse_feature
from market.features.scaling import Method, Scaler
from market.joins import JOINS
from market.leaks import TESTS, AuditReport, Finding, audit_function
from market.market import Market
from market.plugin import guarded
from market.sample_tables import SPECS, sample_tables
from market.what_if import with_listings

__all__ = ["JOINS", "TESTS", "AuditReport", "Finding", "audit", "audit_function"]

Tables = Mapping[str, pd.DataFrame]


def audit(
    market: Market | Callable[[], Market],
    features: Iterable[str | Callable[[Market], Any]] | None = None,
    *,
    tables: Tables | None = None,
    dates: int = 20,
    rows: int = 1200,
    seed: int = 0,
    joins: bool = True,
) -> AuditReport:
    """Audit features, and with them the joins of sources and the scalers.

    Args:
        market: A raw market, or a loader of one.
        features: Specifications, also of a user's own "module:name" or "file.py:name(20)", or
            functions of the market; all registered features when not given.
        tables: Tables that features read; sample ones stand in for those not given.
        dates: How many dates to test at.
        rows: Only the last so many rows are used.
        seed: Of all that is drawn.
        joins: Whether to audit the joins and the scalers too.

    Returns:
        One finding a feature, join or scaler and test.

    """
    whole = market if isinstance(market, Market) else market()
    world = with_listings(whole[max(0, whole.n_periods - rows) :])
    tables = {**sample_tables(world, seed), **(tables or {})}
    findings: list[Finding] = []
    settings: dict[str, Any] = {"dates": dates, "seed": seed}
    for feature in _all_features() if features is None else _listed(features):
        name, function = _feature(feature)
        read = _tables_of(feature, tables)
        findings += audit_function(function, (world, read), name=name, **settings)
    if joins:
        for name, join in JOINS.items():
            made = join.make(world, seed)
            findings += audit_function(
                join.function, made, name=f"join {name}", tests=join.tests, **settings
            )
        for method in get_args(Method):
            findings += _audit_scaler(world, method, settings)
    return AuditReport(tuple(findings))


def _all_features() -> list[str]:
    return [SPECS.get(name, name) for name in FEATURES]


def _listed(
    features: Iterable[str | Callable[[Market], Any]],
) -> Iterator[str | Callable[[Market], Any]]:
    """What was asked for, with what a YAML file lists in the place of its name."""
    for feature in features:
        yield from expand_features([feature]) if isinstance(feature, str) else [feature]


def _tables_of(feature: str | Callable[[Market], Any], tables: Tables) -> Tables:
    """The tables a feature may read."""
    wanted = parse_feature(feature).feature.table if isinstance(feature, str) else ""
    return {name: table for name, table in tables.items() if wanted in ("*", name)}


def _feature(feature: str | Callable[[Market], Any]) -> tuple[str, Callable[[Any], Any]]:
    """A name, and the numbers by date of a (market, tables) pair."""
    if isinstance(feature, str) and ":" not in feature:
        return feature, partial(_built, feature)
    if isinstance(feature, str):
        return feature, _users(feature)
    return getattr(feature, "__name__", repr(feature)), lambda world: feature(world[0])


def _users(reference: str) -> Callable[[Any], Any]:
    """A user's function as it is, without the check that building it makes."""
    entry = parse_feature(reference)
    function: Callable[..., Any] = vars(entry.feature.function)["__wrapped__"]  # decorators stay

    def values(world: tuple[Market, Tables]) -> Any:
        given = world if entry.feature.table else world[:1]
        return guarded(reference, "feature", lambda: function(*given, **entry.settings))

    return values


def _built(spec: str, world: tuple[Market, Tables]) -> np.ndarray:
    market, tables = world
    built = build_features(market, [spec], tables)
    return np.hstack([built.features.reshape(market.n_periods, -1), built.context])


def _audit_scaler(market: Market, method: Method, settings: dict[str, Any]) -> Sequence[Finding]:
    """A scaler fitted on the first half, for the rows after it."""
    end = market.dates[market.n_periods // 2]

    def scaled(other: Market) -> np.ndarray:
        made = Scaler.fit(other[:end], method).transform(other)
        return np.hstack([made.features.reshape(made.n_periods, -1), made.context])

    tests = ("truncate", "poison", "scale")
    return audit_function(
        scaled, market, name=f"scaler {method}", after=end, tests=tests, **settings
    )
