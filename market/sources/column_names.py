"""Names that columns of prices have in the files of vendors.

They are compared in small letters, without < >, without a full stop at the end, with spaces for _.
"""

from __future__ import annotations

DATE = (
    *("date", "datetime", "time", "timestamp", "day", "trade date", "date/time", "open time"),
    "",
)
ASSET = ("asset", "ticker", "tic", "symbol", "name", "instrument", "id")
FIELDS = {
    "close": ("close", "price", "value", "last", "close/last", "close price", "closing price"),
    "adjusted": ("adj close", "adjclose", "adjusted", "adjusted close", "adj. close"),
    "volume": ("volume", "vol"),
    "opens": ("open", "opens"),
    "highs": ("high", "highs"),
    "lows": ("low", "lows"),
}


def plain(name: str) -> str:
    """A column's name as it is compared."""
    return name.strip().strip("<>").rstrip(".").replace("_", " ").lower()


def is_number(cell: str) -> bool:
    """Whether a cell is written as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
