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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from market.errors import DataError
from market.returns import accrued_cash, delisted_returns, simple_returns
from market.validation import (
    check_asset_name,
    check_names,
    check_panels,
    check_prices,
    check_returns,
    check_shape,
    checked_dates,
    checked_names,
    numeric,
    read_date,
)

CASH = "cash"
PANELS = ("volume", "opens", "highs", "lows", "closes")  # (T, N), each of them optional
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
        volume, opens, highs, lows: (T, N) float64 or None; on the scale of the prices.
        closes: Closes as they were paid, where the prices are adjusted for later dividends or
            splits, (T, N) float64; None where the prices are what was paid.
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
    closes: np.ndarray | None = None
    sectors: dict[str, str] = field(default_factory=dict)
    tradable: np.ndarray = None  # type: ignore[assignment]
    risk_free: np.ndarray = None  # type: ignore[assignment]
    name: str = "market"
    notes: tuple[str, ...] = ()
    optimum: Any = None

    def __post_init__(self) -> None:
        put = lambda key, value: object.__setattr__(self, key, value)  # noqa: E731  # frozen
        put("dates", checked_dates(self.dates, self.name))
        for key in ("assets", "feature_names", "context_names"):
            put(key, checked_names(self.name, key, getattr(self, key)))
        put("prices", _own(self.prices, np.float64))
        check_names(self.name, "asset", self.assets)
        check_shape(self, "prices", (self.n_periods, self.n_assets))
        if CASH in self.assets[:-1]:
            raise DataError(f"{self.name}: asset 'cash' must be the last one, got {self.assets}")
        if self.tradable is None:
            put("tradable", np.isfinite(self.prices))
        put("tradable", _own(self.tradable, bool))
        check_shape(self, "tradable", self.prices.shape)
        check_prices(self)
        computed = simple_returns(self.prices)
        if self.returns is None:
            put("returns", computed)
        put("returns", _own(self.returns, np.float64))
        check_returns(self, computed)
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
        traded = {key: getattr(self, key) for key in PANELS}
        self.__dict__.update({k: None if v is None else _own(v, float) for k, v in traded.items()})
        check_panels(self)
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, np.ndarray):
                put(entry.name, _read_only(value))

    @classmethod
    def from_prices(
        cls,
        frame: pd.DataFrame,
        cash_rate: float | pd.Series | None = 0.0,
        *,
        delisting_return: float | Mapping[str, float] = 0.0,
        **fields: Any,
    ) -> Market:
        """Build a market from a table of prices.

        Args:
            frame: Prices, dates x assets. Missing prices are allowed before an asset's first and
                after its last price only.
            cash_rate: What cash earns a year, as a fraction: a number, or a series by date of which
                the last value known on the day before is earned. None: there is no cash asset.
            delisting_return: What an asset without prices to the end returns on its first day
                without one, >= -1, for all or by name; -0.3 loses 30 % of the last price.
            fields: Other fields of `Market`; per-asset arrays and features must include cash.

        Returns:
            A market whose last asset is "cash" unless `cash_rate` is None. Cash grows by
            (1 + rate) ** (calendar days / 365) - 1.

        """
        name = fields.setdefault("name", "prices")
        if not isinstance(frame, pd.DataFrame):
            kind = type(frame).__name__
            raise DataError(f"{name}: must be a pandas DataFrame of dates x assets, got {kind}")
        dates = checked_dates(frame.index, name)
        assets = [str(column) for column in frame.columns]
        check_names(name, "asset", tuple(assets))
        for asset in assets:
            check_asset_name(name, asset)
        prices = numeric(frame, name)
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
        if delisting_return != 0.0 and "returns" not in fields:
            fields["returns"] = delisted_returns(prices, assets, delisting_return)
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
            ends = (f"{e:%Y-%m-%d}" if hasattr(e, "strftime") else e for e in (key.start, key.stop))
            raise DataError(f"{self.name}: no rows in [{':'.join(map(str, ends))}] of {self!r}")
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
        """SHA-256 of all that results depend on: names, dates, sectors and every array."""
        digest = hashlib.sha256()
        names = (self.assets, self.feature_names, self.context_names, sorted(self.sectors.items()))
        digest.update(repr(names).encode())
        digest.update(self.dates.to_numpy("datetime64[s]").tobytes())
        for entry in dataclasses.fields(self):
            panel = getattr(self, entry.name)
            if isinstance(panel, np.ndarray):
                digest.update(f"{entry.name}{panel.shape}".encode())
                digest.update(np.ascontiguousarray(panel).reshape(-1).view(np.uint8).data)
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
            check_shape(part, key, getattr(self, key).shape)
        if not (np.isfinite(part.features).all() and np.isfinite(part.context).all()):
            check_panels(part)
        return part

    def _rows(self, start: int, stop: int) -> Market:
        """A slice without a second validation: parts of valid data are valid."""
        part = object.__new__(Market)
        for key, value in self.__dict__.items():
            timed = key == "dates" or isinstance(value, np.ndarray)
            part.__dict__[key] = value[start:stop] if timed else value
        return part


def _own(array: Any, kind: type) -> np.ndarray:
    """A contiguous array that its giver cannot write to behind our back."""
    found: np.ndarray = np.ascontiguousarray(array, kind)
    return found.copy() if found is array and found.flags.writeable else found


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _inside(market: Market, date: Date) -> pd.Timestamp:
    stamp = read_date(market.name, date)
    first, last = market.dates[0], market.dates[-1]
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
