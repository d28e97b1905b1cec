"""What the world looks like: validated data, features of the past, measures of a result."""

from market.errors import ActionError, DataError, InputError, SettingError
from market.market import Market
from market.sources import SOURCES, load_market

__all__ = [
    "SOURCES",
    "ActionError",
    "DataError",
    "InputError",
    "Market",
    "SettingError",
    "load_market",
]
