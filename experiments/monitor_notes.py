"""What the reader of a monitor's report should know: revised data, days known or not judged."""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.runs import Run
from market import Market

ROUNDING = 1e-6  # of a return, up to which two are the same


def notes(
    run: Run,
    known: Market,
    market: Market,
    *,
    chosen: pd.Timestamp,
    first: pd.Timestamp,
    history: int,
) -> list[str]:
    """Caveats of a report.

    Args:
        run: Whose days are held against its past.
        known: Data it was made with, as they are now.
        market: Data that hold the new days; the same where they go on.
        chosen: Last day that trained or chose the agent.
        first: First new day.
        history: Rows the agent needs up to its first decision.

    """
    found = []
    data = run.manifest.get("data", {})
    end = data.get("end")
    is_there = end and pd.Timestamp(end) in known.dates
    if is_there and known[:end].fingerprint() != data.get("sha256"):
        found.append(f"{known.name}: data up to {end} are not those of the run")
    if market is not known:
        found += revised(known, market)
        waits = history - int(market.dates.searchsorted(first))
        if waits > 0:
            found.append(
                f"{market.name}: its first {waits} new days are the agent's history and are not "
                "judged; data that reach further back have them judged too"
            )
    if first <= chosen:
        found.append("some new days were used to train or to choose the agent")
    return found


def revised(known: Market, market: Market) -> list[str]:
    """Whether returns of the days that both have differ, on how many and where first."""
    shared = known.dates[1:].intersection(market.dates[1:])
    ours, theirs = (
        np.where(each.tradable, each.returns, 0.0)[each.dates.get_indexer(shared)]
        for each in (known, market)
    )
    changed = np.abs(ours - theirs) > ROUNDING  # (days, N)
    if not changed.any():
        return []
    row = int(changed.any(axis=1).argmax())
    return [
        f"{market.name}: returns differ from those of the run's data on "
        f"{changed.any(axis=1).sum()} of {len(shared)} days, first on {shared[row]:%Y-%m-%d}, "
        f"{known.assets[int(changed[row].argmax())]}"
    ]
