"""Scaling: the one fitted step between raw features and what an agent sees; fitted on train only.

A scaler pools all risky assets of a feature, so it carries over to other assets and other numbers
of them. Cash is left out of the fit, because its near-constant features would shrink the scale of
the others; it is transformed like any asset.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from market.errors import DataError, SettingError
from market.market import Market

Method = Literal["standard", "robust"]

_QUARTILES_OF_NORMAL = 1.3489795003921634  # interquartile range of a standard normal
_CONSTANT = 1e-6


@dataclass(frozen=True, kw_only=True)
class Scaler:
    """scaled = clip((value - center) / scale, -clip, clip), per feature; 0 where scale is 0.

    Attributes:
        method: "standard" (mean and standard deviation) or "robust" (median and quartiles).
        names, context_names: Features it was fitted on, in order, (F,) and (G,).
        center, scale: Of the features, (F,); a scale of 0 marks a feature that never varied.
        context_center, context_scale: Of the context, (G,).
        clip: Largest absolute scaled value.

    """

    method: Method
    names: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    context_names: tuple[str, ...]
    context_center: tuple[float, ...]
    context_scale: tuple[float, ...]
    clip: float

    @classmethod
    def fit(cls, market: Market, method: Method = "standard", clip: float = 10.0) -> Scaler:
        """Learn centre and scale from every row of a training market."""
        if method not in ("standard", "robust"):
            raise SettingError(f"scaler: method must be 'standard' or 'robust', got {method!r}")
        if not clip > 0:
            raise SettingError(f"scaler: clip must be > 0, got {clip!r}")
        held = market.tradable.copy()
        if market.has_cash and market.n_assets > 1:
            held[:, -1] = False
        center, scale = _location_scale(market.features[held], method)
        context_center, context_scale = _location_scale(market.context, method)
        return cls(
            method=method,
            names=market.feature_names,
            center=center,
            scale=scale,
            context_names=market.context_names,
            context_center=context_center,
            context_scale=context_scale,
            clip=float(clip),
        )

    def transform(self, market: Market) -> Market:
        """The same market with scaled features and context.

        Raises:
            DataError: If its features are not those of the fit, in the same order.

        """
        for kind in ("names", "context_names"):
            found = market.feature_names if kind == "names" else market.context_names
            if found != getattr(self, kind):
                expected = getattr(self, kind)
                raise DataError(f"{market.name}: scaler was fitted on {expected}, got {found}")
        return market.with_values(
            _scaled(market.features, self.center, self.scale, self.clip),
            _scaled(market.context, self.context_center, self.context_scale, self.clip),
        )

    def to_json(self) -> str:
        """All there is to it, as text to store with a model."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Scaler:
        """The scaler that `to_json` wrote, equal to the last bit."""
        try:
            stored: dict[str, Any] = json.loads(text)
            fields: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in stored.items()
            }
            return cls(**fields)
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"scaler: not what to_json writes: {error}") from None


def _location_scale(
    values: np.ndarray, method: Method
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Centre and scale of each column of (rows, F); scale 0 for a column that does not vary."""
    if method == "standard":
        center = values.mean(axis=0, dtype=np.float64)
        scale = np.sqrt(np.square(values - center).mean(axis=0))
    else:
        low, center, high = np.quantile(values.astype(np.float64), [0.25, 0.5, 0.75], axis=0)
        scale = (high - low) / _QUARTILES_OF_NORMAL
    scale = np.where(scale > _CONSTANT * np.abs(center), scale, 0.0)
    return tuple(center.tolist()), tuple(scale.tolist())


def _scaled(
    values: np.ndarray, center: tuple[float, ...], scale: tuple[float, ...], clip: float
) -> np.ndarray:
    spread = np.asarray(scale)
    factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    scaled = (values - np.asarray(center, np.float32)) * factor.astype(np.float32)
    return np.clip(scaled, -clip, clip, out=scaled)
