"""One door to a trial's data: rows the agent may not know of yet are shut until they are released.

    row      0 ........ train_end | ........ valid_end = limit | test .............
    fitting  ---------------------------------------------->|   shut: reading raises
    release  -------------------------------------------------------------------->|

What is handed out owns its memory as long as anything is shut, so that no later row can be reached
through it. Every read is kept in `reads`, for whoever wants to see what was served when.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from market import Market


class LookAheadError(RuntimeError):
    """Something asked for days it must not know of: a fault of the program, not of its user."""


class Read(NamedTuple):
    """One opening of the door: the days handed out, and the last that could have been."""

    first: pd.Timestamp
    last: pd.Timestamp
    limit: pd.Timestamp


class Guard:
    """Reads rows of a market up to a limit that only moves forward.

    Args:
        market: All the data.
        limit: Last row that may be read.

    """

    def __init__(self, market: Market, limit: int) -> None:
        self._market, self._limit = market, limit
        self.reads: list[Read] = []

    @property
    def dates(self) -> pd.DatetimeIndex:
        """The calendar, which is no secret."""
        return self._market.dates

    @property
    def limit(self) -> pd.Timestamp:
        """Last day that may be read."""
        return self.dates[self._limit]

    def index(self, date: str | pd.Timestamp) -> int:
        """Row of the last period that ended on or before a date."""
        return self._market.index(date)

    def rows(self, start: int, stop: int) -> Market:
        """Rows start .. stop - 1.

        Raises:
            LookAheadError: If a row lies after the limit.

        """
        if stop - 1 > self._limit:
            last = self.dates[min(stop, len(self.dates)) - 1]
            raise LookAheadError(
                f"{self._market.name}: {last:%Y-%m-%d} was asked for, but nothing after "
                f"{self.limit:%Y-%m-%d} may be read before the final evaluation"
            )
        part = self._market[start:stop]
        self.reads.append(Read(part.dates[0], part.dates[-1], self.limit))
        return part if self._limit == len(self.dates) - 1 else detached(part)

    def release(self, last: int | None = None) -> None:
        """Let rows up to `last` be read, all when not given; the limit never moves back."""
        self._limit = max(self._limit, len(self.dates) - 1 if last is None else last)


def detached(market: Market) -> Market:
    """The same market in memory of its own."""
    part = object.__new__(Market)
    for key, value in market.__dict__.items():
        part.__dict__[key] = _own(value) if isinstance(value, np.ndarray) else value
    part.__dict__["dates"] = pd.DatetimeIndex(market.dates.to_numpy(copy=True))
    return part


def _own(values: np.ndarray) -> np.ndarray:
    copy = values.copy()
    copy.flags.writeable = False
    return copy
