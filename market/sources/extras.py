"""Packages of the extra `data`, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from market.errors import SettingError


def import_extra(package: str) -> ModuleType:
    """The package, or an error that says how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise SettingError(f'{package} is not installed; pip install "allocgym[data]"') from None
