"""Scaling: the one fitted step between raw features and what an agent sees; fitted on train only.

A scaler pools all risky assets of a feature, so it carries over to other assets and other numbers
of them. Cash is left out of the fit, because its near-constant features would shrink the scale of
the others; it is transformed like any asset.

    standard   (x - mean) / standard deviation, of train
    robust     (x - median) / (interquartile range / 1.349), of train
    rank       2 F(x) - 1, F the distribution of train
    normal     standard normal quantile of F(x), within about 3.1
    rolling    (x - mean) / standard deviation of an asset's own last `window` rows: nothing fitted
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from market.errors import DataError, SettingError
from market.features.alternative import rolling_zscore
from market.market import Market

Method = Literal["standard", "robust", "rank", "normal", "rolling"]

_QUARTILES_OF_NORMAL = 1.3489795003921634  # interquartile range of a standard normal
_CONSTANT = 1e-6
_STEPS = 500  # of the distribution of train
_LEVELS = np.linspace(0.0, 1.0, _STEPS + 1)

Numbers = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Scaler:
    """scaled = clip(method(value), -clip, clip), per feature; 0 where scale is 0.

    Attributes:
        method: See the head of this module.
        names, context_names: Features it was fitted on, in order, (F,) and (G,).
        center, scale: Of the features, (F,); a scale of 0 marks a feature that never varied.
        context_center, context_scale: Of the context, (G,).
        clip: Largest absolute scaled value.
        quantiles, context_quantiles: 501 quantiles of each, for "rank" and "normal".
        window: Rows of "rolling". Rows with fewer behind them in the market at hand make do with
            those: keep `lookback` more rows in front of the first that counts.

    """

    method: Method
    names: tuple[str, ...]
    center: Numbers
    scale: Numbers
    context_names: tuple[str, ...]
    context_center: Numbers
    context_scale: Numbers
    clip: float
    quantiles: tuple[Numbers, ...] = ()
    context_quantiles: tuple[Numbers, ...] = ()
    window: int = 252

    @classmethod
    def fit(
        cls,
        market: Market,
        method: Method = "standard",
        clip: float = 10.0,
        window: int = 252,
    ) -> Scaler:
        """Learn centre and scale from every row of a training market."""
        if method not in get_args(Method):
            valid = " or ".join(map(repr, get_args(Method)))
            raise SettingError(f"scaler: method must be {valid}, got {method!r}")
        if not clip > 0:
            raise SettingError(f"scaler: clip must be > 0, got {clip!r}")
        if type(window) is not int or window < 2:
            raise SettingError(f"scaler: window must be a whole number >= 2, got {window!r}")
        held = market.tradable.copy()
        if market.has_cash and market.n_assets > 1:
            held[:, -1] = False
        own = _Fit.of((panel[held] for panel in _panels(market.features)), method)
        shared = _Fit.of(iter(market.context.T), method)
        return cls(
            method=method,
            names=market.feature_names,
            center=own.center,
            scale=own.scale,
            context_names=market.context_names,
            context_center=shared.center,
            context_scale=shared.scale,
            clip=float(clip),
            quantiles=own.quantiles,
            context_quantiles=shared.quantiles,
            window=window,
        )

    @property
    def lookback(self) -> int:
        """Rows before one that its scaled values depend on."""
        return self.window - 1 if self.method == "rolling" else 0

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
        own = _Fit(self.center, self.scale, self.quantiles)
        shared = _Fit(self.context_center, self.context_scale, self.context_quantiles)
        listed = np.isfinite(market.prices)
        return market.with_values(
            self._scaled(market.features, own, listed),
            self._scaled(market.context[:, None, :], shared, None)[:, 0],
        )

    def to_json(self) -> str:
        """All there is to it, as text to store with a model."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Scaler:
        """The scaler that `to_json` wrote, equal to the last bit."""
        try:
            stored: dict[str, Any] = json.loads(text)
            scaler = cls(**{key: _frozen(value) for key, value in stored.items()})
            if scaler.method not in get_args(Method):
                raise ValueError(f"method {scaler.method!r}")
            return scaler
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"scaler: not what to_json writes: {error}") from None

    def _scaled(self, values: np.ndarray, fit: _Fit, listed: np.ndarray | None) -> np.ndarray:
        """Scaled values of (T, N, F), float32."""
        if self.method in ("standard", "robust"):
            spread = np.asarray(fit.scale)
            factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
            scaled = (values - np.asarray(fit.center, np.float32)) * factor.astype(np.float32)
        else:
            scaled = np.empty(values.shape, np.float32)
            for place, panel in enumerate(_panels(values)):
                scaled[:, :, place] = self._scaled_panel(panel, fit, place, listed)
        return np.clip(scaled, -self.clip, self.clip, out=scaled)

    def _scaled_panel(
        self, panel: np.ndarray, fit: _Fit, place: int, listed: np.ndarray | None
    ) -> np.ndarray:
        """One feature, (T, N), by rank or by its own past."""
        if self.method == "rolling":
            known = panel.astype(np.float64)
            known = known if listed is None else np.where(listed, known, np.nan)
            return np.nan_to_num(rolling_zscore(known, self.window, 2))
        if not fit.scale[place]:
            return np.zeros(panel.shape)
        share = _distribution(panel.astype(np.float64), np.array(fit.quantiles[place]))
        if self.method == "rank":
            return 2.0 * share - 1.0
        edge = 0.5 / _STEPS
        from scipy.special import ndtri

        normal: np.ndarray = ndtri(np.clip(share, edge, 1.0 - edge))
        return normal


@dataclass(frozen=True)
class _Fit:
    """What train says of some features, (F,)."""

    center: Numbers
    scale: Numbers
    quantiles: tuple[Numbers, ...]

    @classmethod
    def of(cls, columns: Iterator[np.ndarray], method: Method) -> _Fit:
        """Learn from one column of numbers a feature."""
        center, scale, quantiles = [], [], []
        for column in columns:
            values = column.astype(np.float64)
            middle, spread = _LOCATION_SCALE[method](values)
            center.append(float(middle))
            scale.append(float(spread) if spread > _CONSTANT * abs(middle) else 0.0)
            if method in ("rank", "normal"):
                quantiles.append(tuple(np.quantile(values, _LEVELS).tolist()))
        return cls(tuple(center), tuple(scale), tuple(quantiles))


def _mean_deviation(values: np.ndarray) -> tuple[float, float]:
    center = values.mean()
    return center, np.sqrt(np.square(values - center).mean())


def _median_quartiles(values: np.ndarray) -> tuple[float, float]:
    low, center, high = np.quantile(values, [0.25, 0.5, 0.75])
    return center, (high - low) / _QUARTILES_OF_NORMAL


_LOCATION_SCALE: dict[str, Callable[[np.ndarray], tuple[float, float]]] = {
    "standard": _mean_deviation,
    "robust": _median_quartiles,
    "rank": _mean_deviation,
    "normal": _mean_deviation,
    "rolling": lambda _: (0.0, 1.0),
}


def _panels(features: np.ndarray) -> Iterator[np.ndarray]:
    """One (T, N) a feature of (T, N, F), so that no second copy of all is needed."""
    return (features[:, :, place] for place in range(features.shape[2]))


def _distribution(values: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Share of train below each value, linear between quantiles; the middle of a run of ties."""
    from_below = np.interp(values, quantiles, _LEVELS)
    if (np.diff(quantiles) > 0.0).all():
        return from_below
    from_above = 1.0 - np.interp(-values, -quantiles[::-1], _LEVELS)
    share: np.ndarray = 0.5 * (from_below + from_above)
    return share


def _frozen(value: Any) -> Any:
    """Lists of a JSON text as tuples, inner ones too."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
