"""Reading return series: the array plumbing below `market.measures`.

numpy arrays and torch tensors alike through the Python array API; lists and pandas objects are read
as numpy. Time is axis 0.
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat
import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor, floating
ROUNDING = 1e-12  # a loss, a fall or a spread this small is the rounding of 1 + r, not a fact


def read(values: Any, name: str = "returns") -> tuple[Any, Array]:
    """The array's library and the values as a finite, non-empty floating array with time first."""
    if not array_api_compat.is_array_api_obj(values):
        values = np.asarray(values, dtype=np.float64)
    xp = array_api_compat.array_namespace(values)
    if not xp.isdtype(values.dtype, "real floating"):
        values = xp.astype(values, xp.float64)
    if values.ndim == 0 or 0 in values.shape:
        raise ValueError(f"`{name}` must hold at least one period, got shape {tuple(values.shape)}")
    if not bool(xp.all(xp.isfinite(values))):
        first = int(xp.argmax(xp.astype(~xp.isfinite(xp.reshape(values, (-1,))), xp.int8)))
        row = first // math.prod(values.shape[1:])
        raise ValueError(f"`{name}` must be finite, got nan or infinity in period {row}")
    return xp, values


def alongside(xp: Any, returns: Array, other: Any, name: str) -> Array:
    """`other`, a number, (T,) or of the shape of the returns, ready to broadcast with them."""
    values = xp.asarray(other, dtype=returns.dtype, device=returns.device)
    if values.ndim and tuple(values.shape) not in {tuple(returns.shape), (returns.shape[0],)}:
        raise ValueError(
            f"`{name}` must be a number, one per period or of the shape of the returns "
            f"{tuple(returns.shape)}, got shape {tuple(values.shape)}"
        )
    if not bool(xp.all(xp.isfinite(values))):
        raise ValueError(f"`{name}` must be finite, got nan or infinity")
    if 0 < values.ndim < returns.ndim:
        values = xp.reshape(values, (-1,) + (1,) * (returns.ndim - 1))
    return values


def read_excess(returns: Any, other: Any, name: str) -> tuple[Any, Array]:
    """The library and `returns - other`."""
    xp, values = read(returns)
    return xp, values - alongside(xp, values, other, name)


def ratio(xp: Any, top: Array, bottom: Array, undefined: Array) -> Array:
    """`top / bottom`, nan where `undefined`: neither a warning nor a nan gradient elsewhere."""
    safe = xp.where(undefined, xp.ones_like(bottom), bottom)
    return xp.where(undefined, xp.full_like(safe, math.nan), top / safe)[()]


def deviation(xp: Any, values: Array) -> tuple[Array, Array]:
    """Standard deviation (ddof 1) over time, and where it is no more than rounding."""
    if values.shape[0] < 2:
        none = xp.full_like(values[0, ...], math.nan)
        return none, xp.isnan(none)
    spread = xp.std(values, axis=0, correction=1)
    rounding = max(ROUNDING, 4.0 * float(xp.finfo(values.dtype).eps))
    return spread, spread <= rounding * (1.0 + xp.max(xp.abs(values), axis=0))


def log_values(xp: Any, returns: Array) -> Array:
    """Logarithm of the value after each period, minus infinity from a total loss on."""
    if bool(xp.any(returns < -1.0)):
        raise ValueError(f"`returns` must be >= -1 to compound, got {float(xp.min(returns))!r}")
    with np.errstate(divide="ignore"):
        return xp.cumulative_sum(xp.log1p(returns), axis=0)


def running_max(values: Array) -> Array:
    """Largest value so far along axis 0."""
    if array_api_compat.is_torch_array(values):
        return values.cummax(dim=0).values
    return np.maximum.accumulate(values, axis=0)


def check_periods(periods_per_year: float) -> None:
    """Refuse a year that is not a positive number of periods."""
    if not 0.0 < periods_per_year < math.inf:
        raise ValueError(f"`periods_per_year` must be a positive number, got {periods_per_year!r}")
