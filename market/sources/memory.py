"""Panels too large for the machine are refused before they are made."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from market.errors import DataError

_BYTES = 8


def check_memory(name: str, n_dates: int, n_assets: int, panels: int) -> None:
    """Refuse `panels` float64 arrays of dates x assets that exceed the memory there is.

    Raises:
        DataError: With the estimate and the memory there is.

    """
    needed, there = panels * n_dates * n_assets * _BYTES, memory()
    if needed > there:
        raise DataError(
            f"{name}: {n_dates} dates x {n_assets} assets need about {needed / 1e9:.0f} GB, there "
            f"are {there / 1e9:.0f} GB; choose fewer assets or a shorter span"
        )


def memory() -> float:
    """Bytes this process may take: of the machine, its container or its own limit, the least.

    Infinite where none of them says.
    """
    return min(_machine(), container_memory(), _process())


def _machine() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def container_memory(root: Path = Path("/sys/fs/cgroup")) -> float:
    """What a control group allows, of either version of Linux's; others have none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        return float(text) if text.isdigit() else float("inf")  # "max": no limit
    return float("inf")


def _process() -> float:
    """The limit of `ulimit -v`; the system has no such thing where there is no `resource`."""
    if sys.platform == "win32":
        return float("inf")
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return float("inf") if soft == resource.RLIM_INFINITY else float(soft)
