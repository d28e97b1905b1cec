"""`FEATURES` by name, and `build_features`, which turns their specifications into arrays.

A specification is text: "rsi", "return(5)", "volatility(window=60)". A feature is a pure function
of a raw `Market` and of rows <= t; adding one is a function and an entry below.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from market.errors import DataError, SettingError
from market.features import cross_section, macro, technical
from market.market import Market
from market.names import parse_call, unknown_name


@dataclass(frozen=True)
class Feature:
    """A named function of the past.

    Attributes:
        function: (market, parameters with defaults) -> (T, N), or (T,) when shared; nan where it
            is not known yet.
        shared: Whether it is one number for all assets, and so belongs to the context.
        neutral: What stands in for assets that are not listed, or not long enough.
        needs: Panels of the market it reads, such as "volume"; neutral where they are unknown.

    """

    function: Callable[..., np.ndarray]
    shared: bool = False
    neutral: float = 0.0
    needs: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameter names and their defaults."""
        signature = inspect.signature(self.function).parameters
        return {name: entry.default for name, entry in list(signature.items())[1:]}

    @property
    def formula(self) -> str:
        """The formula line of the function's docstring."""
        return inspect.getdoc(self.function).split("\n\n")[1].replace("\n", " ")  # type: ignore[union-attr]


class FeatureSet(NamedTuple):
    """What `build_features` returns; nan where assets listed from the first row warm up."""

    features: np.ndarray  # (T, N, F) float32
    names: tuple[str, ...]
    context: np.ndarray  # (T, G) float32
    context_names: tuple[str, ...]


FEATURES: dict[str, Feature] = {
    "return": Feature(technical.past_return),
    "moving_average_ratio": Feature(technical.moving_average_ratio),
    "volatility": Feature(technical.volatility),
    "parkinson_volatility": Feature(technical.parkinson_volatility, needs=("highs", "lows")),
    "momentum": Feature(technical.momentum),
    "drawdown": Feature(technical.drawdown),
    "rsi": Feature(technical.relative_strength, neutral=50.0),
    "macd": Feature(technical.macd),
    "macd_histogram": Feature(technical.macd_histogram),
    "bollinger": Feature(technical.bollinger),
    "atr": Feature(technical.average_true_range, needs=("highs", "lows")),
    "volume_ratio": Feature(technical.volume_ratio, needs=("volume",)),
    "correlation": Feature(cross_section.correlation),
    "turbulence": Feature(cross_section.turbulence, shared=True),
    "term_spread": Feature(macro.term_spread, shared=True),
    "treasury_yield": Feature(macro.treasury_yield, shared=True),
}

DEFAULT_FEATURES = (
    "return",
    "return(5)",
    "return(20)",
    "return(60)",
    "moving_average_ratio(50)",
    "volatility(20)",
    "rsi(14)",
    "term_spread",
    "treasury_yield",
)


def build_features(market: Market, specs: Sequence[str]) -> FeatureSet:
    """Compute features on a raw market.

    Args:
        market: Prices and panels of the whole history.
        specs: Specifications, for instance ["return(5)", "rsi"].

    Raises:
        SettingError: If a feature or parameter is unknown or out of range.
        DataError: If the market lacks what a feature needs, or a feature breaks off.

    """
    if isinstance(specs, str):
        raise SettingError(f"features: must be a list of specifications, got {specs!r}")
    entries = [parse_feature(spec) for spec in specs]
    own = [entry for entry in entries if not FEATURES[entry[0]].shared]
    shared = [entry for entry in entries if FEATURES[entry[0]].shared]
    features = np.empty((*market.prices.shape, len(own)), np.float32)
    for position, (name, settings) in enumerate(own):
        features[:, :, position] = _asset_feature(market, name, settings)
    context = np.empty((market.n_periods, len(shared)), np.float32)
    for position, (name, settings) in enumerate(shared):
        context[:, position] = FEATURES[name].function(market, **settings)
    return FeatureSet(
        features,
        tuple(canonical(*entry) for entry in own),
        context,
        tuple(canonical(*entry) for entry in shared),
    )


def warmup_rows(built: FeatureSet) -> tuple[int, str]:
    """How many leading rows hold a nan, and the feature that takes longest."""
    slowest, rows = "", 0
    for names, panel in (
        (built.names, built.features.transpose(2, 0, 1)),
        (built.context_names, built.context.T[:, :, None]),
    ):
        for name, values in zip(names, panel, strict=True):
            missing = np.flatnonzero(np.isnan(values).any(axis=1))
            if missing.size and missing[-1] + 1 > rows:
                slowest, rows = name, int(missing[-1]) + 1
    return rows, slowest


def parse_feature(spec: str) -> tuple[str, dict[str, Any]]:
    """Read a specification into the feature's name and all its parameters."""
    name, values, named = parse_call(str(spec))
    if name not in FEATURES:
        raise unknown_name("feature", name, FEATURES)
    settings = FEATURES[name].parameters
    if len(values) > len(settings):
        raise SettingError(f"feature {spec!r}: takes at most {len(settings)} parameters")
    for key, value in [*zip(settings, values, strict=False), *named.items()]:
        if key not in settings:
            raise unknown_name(f"parameter of feature '{name}'", key, settings)
        _check_parameter(name, key, value, settings[key])
        settings[key] = value
    return name, settings


def canonical(name: str, settings: dict[str, Any]) -> str:
    """The shortest specification: "return", "return(5)"; equal features have equal names."""
    defaults = list(FEATURES[name].parameters.values())
    values = list(settings.values())
    while values and values[-1] == defaults[len(values) - 1]:
        values.pop()
    return f"{name}({', '.join(map(str, values))})" if values else name


def _check_parameter(feature: str, key: str, value: Any, default: Any) -> None:
    whole = isinstance(default, int)
    if type(value) is not type(default) or (whole and value < 1):
        rule = "a whole number >= 1" if whole else f"a {type(default).__name__}"
        raise SettingError(f"feature '{feature}': {key} must be {rule}, got {value!r}")


def _asset_feature(market: Market, name: str, settings: dict[str, Any]) -> np.ndarray:
    """One feature, (T, N): neutral where unknown, nan only in the warm-up of the first listed."""
    feature = FEATURES[name]
    listed = np.isfinite(market.prices)
    for panel in feature.needs:
        if getattr(market, panel) is None:
            raise DataError(
                f"{market.name}: feature '{name}' needs {panel}, which it does not have"
            )
        listed = listed & np.isfinite(getattr(market, panel))
    values = np.array(feature.function(market, **settings), np.float64)
    finite = np.isfinite(values)
    broken = listed & ~finite & np.maximum.accumulate(finite & listed, axis=0)
    if broken.any() and not feature.needs:
        t, i = (int(x) for x in np.argwhere(broken)[0])
        raise DataError(
            f"{market.name}: feature '{canonical(name, settings)}' of '{market.assets[i]}' breaks "
            f"off on {market.dates[t]:%Y-%m-%d}: {values[t, i]}"
        )
    warming = listed & ~finite & listed[0] & ~broken
    return np.where(warming, np.nan, np.where(listed & finite, values, feature.neutral))
