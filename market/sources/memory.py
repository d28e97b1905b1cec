"""Panels too large for the machine are refused before they are made."""

from __future__ import annotations

import os

from market.errors import DataError

_BYTES = 8


def check_memory(name: str, n_dates: int, n_assets: int, panels: int) -> None:
    """Refuse `panels` float64 arrays of dates x assets that exceed the machine's memory.

    Raises:
        DataError: With the estimate and the memory there is.

    """
    needed, there = panels * n_dates * n_assets * _BYTES, memory()
    if needed > there:
        raise DataError(
            f"{name}: {n_dates} dates x {n_assets} assets need about {needed / 1e9:.0f} GB, this "
            f"machine has {there / 1e9:.0f} GB; choose fewer assets or a shorter span"
        )


def memory() -> float:
    """Bytes of memory of this machine; infinite where it does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
