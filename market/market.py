"""`Market`: a frozen panel of prices, returns and features that validates once.

Indexing says who knows what when. Everything at row `t` is known at the close of `dates[t]`:

    row            t-1            t             t+1
    close     prices[t-1] --> prices[t] --> prices[t+1]
                      returns[t]     returns[t+1]
    a decision at t sees rows <= t and earns returns[t+1]

`returns[t] = prices[t] / prices[t-1] - 1`. Row 0 of loaded data has no earlier price and returns 0;
a slice keeps the true return of its first row. Cash, where there is any, is the last asset, named
"cash", and earns the risk-free rate that was known a row earlier.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import numbers
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError

CASH = "cash"
DAYS_PER_YEAR = 365.0
_PERIODS = (365, 252, 52, 12, 4, 1)

Date = str | pd.Timestamp | np.datetime64 | Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Market:
    """Prices, returns and features of N assets over T periods.

    Attributes:
        dates: Period ends, strictly increasing, without time zone, (T,).
        assets: Names, unique; "cash" last where there is cash, (N,).
        prices: Positive prices, nan before listing and after delisting, (T, N) float64.
        returns: Simple returns, 0 where there is none, (T, N) float64; computed when not given.
        features: Finite features of each asset, (T, N, F) float32; the day's return when not given.
            Float32 features and context are not copied: they may be large, or mapped from disk.
        feature_names: (F,).
        context: Finite features shared by all assets, (T, G) float32.
        context_names: (G,).
        volume, opens, highs, lows: (T, N) float64 or None.
        sectors: Asset name -> group.
        tradable: Whether the asset can be held from t to t+1, (T, N); finite prices when not given.
        risk_free: Simple rate earned from t-1 to t, known at t-1, (T,); zeros when not given.
        name: What errors and reports call this data.
        notes: Caveats about the data that a report must show.
        optimum: The best policy, of a synthetic market whose best policy is known.

    Raises:
        DataError: If a rule above is broken; the message names the column, row and date.

    """

    dates: pd.DatetimeIndex
    assets: tuple[str, ...]
    prices: np.ndarray
    returns: np.ndarray = None  # type: ignore[assignment]  # filled in __post_init__
    features: np.ndarray = None  # type: ignore[assignment]
    feature_names: tuple[str, ...] = ()
    context: np.ndarray = None  # type: ignore[assignment]
    context_names: tuple[str, ...] = ()
    volume: np.ndarray | None = None
    opens: np.ndarray | None = None
    highs: np.ndarray | None = None
    lows: np.ndarray | None = None
    sectors: dict[str, str] = field(default_factory=dict)
    tradable: np.ndarray = None  # type: ignore[assignment]
    risk_free: np.ndarray = None  # type: ignore[assignment]
    name: str = "market"
    notes: tuple[str, ...] = ()
    optimum: Any = None

    def __post_init__(self) -> None:
        put = lambda key, value: object.__setattr__(self, key, value)  # noqa: E731  # frozen
        put("dates", _checked_dates(self.dates, self.name))
        put("assets", tuple(str(asset) for asset in self.assets))
        put("prices", _own(self.prices, np.float64))
        put("feature_names", tuple(self.feature_names))
        put("context_names", tuple(self.context_names))
        _check_names(self.name, "asset", self.assets)
        _check_shape(self, "prices", (self.n_periods, self.n_assets))
        if CASH in self.assets[:-1]:
            raise DataError(f"{self.name}: asset 'cash' must be the last one, got {self.assets}")
        if self.tradable is None:
            put("tradable", np.isfinite(self.prices))
        put("tradable", _own(self.tradable, bool))
        _check_shape(self, "tradable", self.prices.shape)
        _check_prices(self)
        computed = simple_returns(self.prices)
        if self.returns is None:
            put("returns", computed)
        put("returns", _own(self.returns, np.float64))
        _check_returns(self, computed)
        if self.risk_free is None:
            put("risk_free", np.zeros(self.n_periods))
        if self.features is None:
            put("features", self.returns[:, :, None])
            put("feature_names", ("return",))
        if self.context is None:
            put("context", np.zeros((self.n_periods, 0), np.float32))
        put("features", np.asarray(self.features, np.float32))
        put("context", np.asarray(self.context, np.float32))
        put("risk_free", _own(self.risk_free, np.float64))
        _check_panels(self)
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, np.ndarray):
                put(entry.name, _read_only(value))

    @classmethod
    def from_prices(
        cls, frame: pd.DataFrame, cash_rate: float | pd.Series | None = 0.0, **fields: Any
    ) -> Market:
        """Build a market from a table of prices.

        Args:
            frame: Prices, dates x assets. Missing prices are allowed before an asset's first and
                after its last price only.
            cash_rate: What cash earns a year, as a fraction: a number, or a series by date of which
                the last value known on the day before is earned. None: there is no cash asset.
            fields: Other fields of `Market`; per-asset arrays and features must include cash.

        Returns:
            A market whose last asset is "cash" unless `cash_rate` is None. Cash grows by
            (1 + rate) ** (calendar days / 365) - 1.

        """
        name = fields.setdefault("name", "prices")
        dates = _checked_dates(frame.index, name)
        assets = [str(column) for column in frame.columns]
        prices = _numeric(frame, name)
        if cash_rate is not None:
            if CASH in assets:
                raise DataError(
                    f"{name}: column 'cash' clashes with the cash of cash_rate={cash_rate!r};"
                    " rename it, or pass cash_rate=None"
                )
            earned = accrued_cash(dates, cash_rate)
            fields.setdefault("risk_free", earned)
            prices = np.column_stack([prices, np.cumprod(1.0 + earned)])
            assets.append(CASH)
        return cls(dates=dates, assets=tuple(assets), prices=prices, **fields)

    @property
    def n_periods(self) -> int:
        """T, the number of rows."""
        return len(self.dates)

    @property
    def n_assets(self) -> int:
        """N, the number of assets, cash included."""
        return len(self.assets)

    @property
    def has_cash(self) -> bool:
        """Whether the last asset is cash."""
        return self.assets[-1] == CASH

    @property
    def periods_per_year(self) -> int:
        """The usual count (365, 252, 52, 12, 4 or 1) nearest to this calendar's own."""
        if self.n_periods < 2:
            return 252
        days = (self.dates[-1] - self.dates[0]) / pd.Timedelta(days=1) / (self.n_periods - 1)
        return min(_PERIODS, key=lambda count: abs(np.log(count * days / 365.25)))

    def __len__(self) -> int:
        return self.n_periods

    def __repr__(self) -> str:
        return (
            f"Market({self.name!r}, {self.n_periods} periods {self.dates[0]:%Y-%m-%d} .. "
            f"{self.dates[-1]:%Y-%m-%d}, {self.n_assets} assets, "
            f"{len(self.feature_names)} features, {len(self.context_names)} context)"
        )

    def __getitem__(self, key: slice) -> Market:
        """Rows by position (end excluded) or by date (both ends included)."""
        if not isinstance(key, slice) or key.step not in (None, 1):
            raise TypeError(f"a market is indexed by a plain slice of rows or dates, got {key!r}")
        start = _position(self, key.start, "left", 0)
        stop = _position(self, key.stop, "right", self.n_periods)
        if not 0 <= start < stop <= self.n_periods:
            raise DataError(f"{self.name}: no rows in [{key.start}:{key.stop}] of {self!r}")
        return self._rows(start, stop)

    def upto(self, t: int) -> Market:
        """Rows 0 .. t: all that is known at the close of row `t`."""
        if not 0 <= t < self.n_periods:
            raise DataError(f"{self.name}: row {t} is outside 0 .. {self.n_periods - 1}")
        return self._rows(0, t + 1)

    def index(self, date: Date) -> int:
        """Row of the last period that ended on or before `date`.

        Raises:
            DataError: If the date is outside the data.

        """
        return int(self.dates.searchsorted(_inside(self, date), side="right")) - 1

    def split(self, *ends: Date, history: int = 0) -> tuple[Market, ...]:
        """Cut in time: periods up to the first date, up to the second, ..., and the rest.

        Args:
            ends: Last date of each part but the final one, rising.
            history: Rows before each later part that are kept in front of it, so that with a
                lookback of `history` the first return earned is the part's own first one.

        Returns:
            len(ends) + 1 markets, in order; `train, valid, test = market.split(a, b)`.

        """
        cuts = [0, *(self.index(end) + 1 for end in ends), self.n_periods]
        for position, (start, stop) in enumerate(itertools.pairwise(cuts)):
            if start >= stop:
                raise DataError(f"{self.name}: part {position + 1} of split {ends} holds no period")
        return tuple(
            self._rows(max(0, start - history), stop) for start, stop in itertools.pairwise(cuts)
        )

    def fingerprint(self) -> str:
        """SHA-256 of names, dates, prices, returns and features: equal data, equal digest."""
        digest = hashlib.sha256()
        names = (self.assets, self.feature_names, self.context_names)
        digest.update(repr(names).encode())
        digest.update(self.dates.to_numpy("datetime64[s]").tobytes())
        for panel in (self.prices, self.returns, self.features, self.context, self.tradable):
            digest.update(np.ascontiguousarray(panel).tobytes())
        return digest.hexdigest()

    def with_values(self, features: np.ndarray, context: np.ndarray) -> Market:
        """Other values of the same features and context; cheaper than `dataclasses.replace`.

        Raises:
            DataError: If a shape differs or a value is not finite.

        """
        part = object.__new__(Market)
        part.__dict__.update(self.__dict__)
        for key, panel in (("features", features), ("context", context)):
            part.__dict__[key] = _read_only(np.asarray(panel, np.float32))
            _check_shape(part, key, getattr(self, key).shape)
        if not (np.isfinite(part.features).all() and np.isfinite(part.context).all()):
            _check_panels(part)
        return part

    def _rows(self, start: int, stop: int) -> Market:
        """A slice without a second validation: parts of valid data are valid."""
        part = object.__new__(Market)
        for key, value in self.__dict__.items():
            timed = key == "dates" or isinstance(value, np.ndarray)
            part.__dict__[key] = value[start:stop] if timed else value
        return part


def simple_returns(prices: np.ndarray) -> np.ndarray:
    """prices[t] / prices[t-1] - 1, shape (T, N); 0 at t = 0 and where a price is nan."""
    returns = np.zeros_like(prices)
    returns[1:] = prices[1:] / prices[:-1] - 1.0
    return np.where(np.isfinite(returns), returns, 0.0)


def accrued_cash(dates: pd.DatetimeIndex, rate: float | pd.Series) -> np.ndarray:
    """What cash earns from each date to the next, known at the earlier one, shape (T,).

    earned[t] = (1 + rate[t-1]) ** (calendar days / 365) - 1, and earned[0] = 0.
    """
    if isinstance(rate, pd.Series):
        known = rate.sort_index().reindex(dates, method="ffill").to_numpy(np.float64)
        if not np.isfinite(known[:-1]).all():
            row = int(np.flatnonzero(~np.isfinite(known))[0])
            raise DataError(f"cash_rate: no rate is known on {dates[row]:%Y-%m-%d}")
    elif isinstance(rate, numbers.Real):
        known = np.full(len(dates), float(rate))
    else:
        raise DataError(f"cash_rate: must be a number, a series by date, or None, got {rate!r}")
    if not (np.isfinite(known[:-1]) & (known[:-1] > -1.0)).all():
        raise DataError(f"cash_rate: must be a finite fraction a year above -1, got {rate!r}")
    days = np.diff(dates.to_numpy()) / np.timedelta64(1, "D")
    earned = np.zeros(len(dates))
    earned[1:] = (1.0 + known[:-1]) ** (days / DAYS_PER_YEAR) - 1.0
    return earned


def _checked_dates(index: pd.Index, name: str) -> pd.DatetimeIndex:
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


def _numeric(frame: pd.DataFrame, name: str) -> np.ndarray:
    for column, kind in zip(frame.columns, frame.dtypes, strict=True):
        if not pd.api.types.is_numeric_dtype(kind):
            raise DataError(f"{name}: column '{column}' must hold numbers, got {kind}")
    return frame.to_numpy(np.float64)


def _check_names(source: str, kind: str, names: tuple[str, ...]) -> None:
    if kind == "asset" and not names:
        raise DataError(f"{source}: needs at least 1 asset, got none")
    for position, value in enumerate(names):
        if not value.strip():
            raise DataError(f"{source}: {kind} {position} has an empty name")
        if value in names[:position]:
            first = names.index(value)
            raise DataError(f"{source}: {kind} '{value}' appears twice, at {first} and {position}")


def _check_shape(market: Market, key: str, shape: tuple[int, ...]) -> None:
    found = getattr(market, key).shape
    if found != shape:
        raise DataError(f"{market.name}: {key} must have shape {shape}, got {found}")


def _check_prices(market: Market) -> None:
    prices = market.prices
    listed = np.isfinite(prices)
    _refuse(market, np.isinf(prices) | (prices <= 0), prices, "price {} must be finite and > 0")
    never = np.flatnonzero(~listed.any(0))
    if never.size:
        raise DataError(f"{market.name}: column '{market.assets[never[0]]}' has no price at all")
    started = np.maximum.accumulate(listed, axis=0)
    to_come = np.maximum.accumulate(listed[::-1], axis=0)[::-1]
    rule = "price is missing (nan) inside the asset's history"
    _refuse(market, ~listed & started & to_come, prices, rule)
    _refuse(market, market.tradable & ~listed, prices, "tradable without a price")
    if market.has_cash and not listed[:, -1].all():
        raise DataError(f"{market.name}: column 'cash' must have a price on every date")


def _refuse(market: Market, bad: np.ndarray, values: np.ndarray, rule: str) -> None:
    """Raise a DataError that names the first bad cell by column, row and date."""
    if bad.any():
        t, i = (int(x) for x in np.argwhere(bad)[0])
        text = rule.format(values[t, i])
        where = f"column '{market.assets[i]}', row {t} ({market.dates[t]:%Y-%m-%d})"
        raise DataError(f"{market.name}: {where}: {text}")


def _check_returns(market: Market, computed: np.ndarray) -> None:
    _check_shape(market, "returns", market.prices.shape)
    given = market.returns
    _refuse(market, ~np.isfinite(given) | (given < -1.0), given, "return {} must be finite, >= -1")
    off = np.abs(given - computed) > 1e-9 * (1.0 + np.abs(computed))
    off[0] = False  # a slice knows the return of its first row, its prices do not
    _refuse(market, off, given, "return {} disagrees with the prices; replace both, or neither")


def _check_panels(market: Market) -> None:
    shape = market.prices.shape
    _check_names(market.name, "feature", market.feature_names)
    _check_names(market.name, "context", market.context_names)
    _check_shape(market, "features", (*shape, len(market.feature_names)))
    _check_shape(market, "context", (shape[0], len(market.context_names)))
    _check_shape(market, "risk_free", shape[:1])
    if not np.isfinite(market.risk_free).all():
        raise DataError(f"{market.name}: risk_free must be finite")
    for position, feature in enumerate(market.feature_names):
        values = market.features[:, :, position]
        _refuse(market, ~np.isfinite(values), values, f"feature '{feature}' is {{}}, not finite")
    bad = np.argwhere(~np.isfinite(market.context))
    if bad.size:
        t, g = (int(x) for x in bad[0])
        where = f"context '{market.context_names[g]}', row {t} ({market.dates[t]:%Y-%m-%d})"
        raise DataError(f"{market.name}: {where}: value is not finite")
    for key in ("volume", "opens", "highs", "lows"):
        panel = getattr(market, key)
        if panel is None:
            continue
        object.__setattr__(market, key, _own(panel, np.float64))
        _check_shape(market, key, shape)
        _refuse(market, np.isinf(panel) | (panel < 0), panel, f"{key} {{}} must be finite and >= 0")
    unknown = set(market.sectors) - set(market.assets)
    if unknown:
        raise DataError(f"{market.name}: sectors name unknown assets {sorted(unknown)}")


def _own(array: Any, kind: type) -> np.ndarray:
    """A contiguous array that its giver cannot write to behind our back."""
    found: np.ndarray = np.ascontiguousarray(array, kind)
    return found.copy() if found is array and found.flags.writeable else found


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _inside(market: Market, date: Date) -> pd.Timestamp:
    try:
        stamp = pd.Timestamp(date)
    except (ValueError, TypeError):
        raise SettingError(f"{date!r} is not a date; write it as 2015-12-31") from None
    first, last = market.dates[0], market.dates[-1]
    if pd.isna(stamp) or stamp.tz is not None:
        raise SettingError(f"{date!r} must be a plain date without time zone")
    if not first <= stamp < last.normalize() + pd.Timedelta(days=1):
        raise DataError(
            f"{market.name}: date {stamp:%Y-%m-%d} is outside the data "
            f"({first:%Y-%m-%d} .. {last:%Y-%m-%d})"
        )
    return stamp


def _position(market: Market, key: Any, side: Any, default: int) -> int:
    if key is None:
        return default
    if isinstance(key, (int, np.integer)):
        row = int(key) + (market.n_periods if key < 0 else 0)
        return min(max(row, 0), market.n_periods)
    stamp = _inside(market, key)
    return int(market.dates.searchsorted(stamp, side=side))
