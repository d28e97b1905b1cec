"""What a source hands on: a market without features, and the tables that features may read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from market.market import Market


class RawData(NamedTuple):
    """A raw market, and tables by name.

    Tables are read once, when features are built, and are no part of the market: what a feature
    takes from them was published by the date it stands at. Their columns: `date` (for
    "fundamentals" `period_end`, for "news" `timestamp`), `published` where it is known, `asset`
    where rows are about one, and values.
    """

    market: Market
    tables: Mapping[str, pd.DataFrame] = {}  # never written to
