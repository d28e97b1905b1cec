"""A user's own function as a feature: by `module:name` or `file.py:name`, checked as it runs.

    def spread(market, window=20): ...      # (T, N), one number an asset, or (T,), one for all
    def buzz(market, tables, window=20): ...         # a second argument `tables` gets the tables

Row t of the result may use rows <= t alone: it is computed again on markets that end earlier, and
refused if it changes. nan marks rows that are not known yet.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from market.errors import DataError, SettingError
from market.features.registry import Feature
from market.market import Market
from market.plugin import guarded, load_plugin

_KIND = "feature"
_CUTS = (0.5, 0.8)


class LookAheadError(DataError):
    """A user's feature changes with what comes after."""


def user_feature(reference: str) -> Feature:
    """What `module:name` or `file.py:name` names, as a feature.

    Raises:
        SettingError: If it is not a function of a market whose other arguments have defaults.

    """
    function = load_plugin(reference, _KIND)
    names = _parameters(reference, function)
    table = "*" if names[:1] == ["tables"] else ""

    @functools.wraps(function)
    def checked(market: Market, *tables: Any, **settings: Any) -> np.ndarray:
        values = _run(reference, function, market, *tables, **settings)
        for cut in _CUTS:
            t = int(cut * (market.n_periods - 1))
            earlier = _run(reference, function, market.upto(t), *tables, **settings)
            _refuse_look_ahead(reference, market, values[: t + 1], earlier)
        return values

    return Feature(checked, shared=None, table=table)


def _parameters(reference: str, function: Any) -> list[str]:
    """Names of the arguments after the market."""
    rule = "must be a function of a market, whose other arguments have defaults"
    try:
        entries = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise SettingError(f"feature `{reference}` {rule}") from None
    rest = entries[2:] if [entry.name for entry in entries[1:2]] == ["tables"] else entries[1:]
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if (
        isinstance(function, type)
        or not entries
        or any(e.kind in kinds or e.default is e.empty for e in rest)
    ):
        raise SettingError(f"feature `{reference}` {rule}")
    return [entry.name for entry in entries[1:]]


def _run(
    reference: str, function: Callable[..., Any], market: Market, *tables: Any, **settings: Any
) -> np.ndarray:
    """The function's values as (T, N) or (T,) float64 without infinities."""
    result = guarded(reference, _KIND, lambda: function(market, *tables, **settings))
    values = guarded(reference, _KIND, lambda: np.array(result, np.float64))
    allowed = (market.prices.shape, market.prices.shape[:1])
    if values.shape not in allowed:
        raise SettingError(
            f"feature `{reference}` must return shape {allowed[0]} or {allowed[1]}, "
            f"got {values.shape}"
        )
    if np.isinf(values).any():
        t = int(np.argwhere(np.isinf(values))[0][0])
        raise DataError(f"feature `{reference}` is infinite on {market.dates[t]:%Y-%m-%d}")
    return values


def _refuse_look_ahead(
    reference: str, market: Market, whole: np.ndarray, earlier: np.ndarray
) -> None:
    same = whole.ndim == earlier.ndim and np.isclose(
        whole, earlier, rtol=1e-5, atol=1e-9, equal_nan=True
    )
    if not np.all(same):
        t = int(np.argwhere(~np.atleast_1d(same))[0][0])
        raise LookAheadError(
            f"feature `{reference}`: its value of {market.dates[t]:%Y-%m-%d} changes with what "
            f"comes after {market.dates[len(whole) - 1]:%Y-%m-%d}: it knows the future"
        )
