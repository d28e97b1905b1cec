"""What many paths through one history say: a spread for each agent, and how far to trust a pick."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.cross_run import Crossed
from experiments.seeds import interquartile_mean
from experiments.statistics import probability_of_backtest_overfitting
from experiments.verdict import plain
from market import measures

BLOCKS = 16
NOTE = (
    "Each goes through all days, after costs. Sharpe: interquartile mean over paths and seeds; "
    "what learns nothing takes the same path each time. {lead} Gap: days left out of training "
    "before (purge) and after (embargo) each test, from lookback, horizon, lag and the features' "
    "memory. Training looks at days after a test too: this shows how much a result depends on the "
    "one history there was, not what could have been earned."
)
LEAD = "* is the reference; lead: Sharpe ratio less its, path by path."
ALONE = "No reference to measure a lead against: {reference} is not among those that finished."
HEADINGS = ("paths", "Sharpe", "lowest", "highest", "below 0", "lead", "paths ahead", "gap, days")


def sharpe_of_paths(crossed: Crossed, name: str) -> np.ndarray:
    """Annualised Sharpe ratio over the cash rate of every seed and path, shape (S, P)."""
    free = crossed.free.to_numpy()[:, None]
    return np.stack(
        [
            np.asarray(
                measures.sharpe_ratio(
                    frame.to_numpy() - free, periods_per_year=crossed.periods_per_year
                )
            )
            for frame in crossed.paths[name]
        ]
    )


def summary(crossed: Crossed) -> pd.DataFrame:
    """One row an agent, the best interquartile mean first.

    Columns: paths (over all seeds), sharpe (interquartile mean), low, high, negative (share of
    paths below 0), lead (of the mean over seeds, path by path, over the reference), ahead (share of
    the paths on which it leads), purge, embargo.
    """
    reference = crossed.config.reference
    base = sharpe_of_paths(crossed, reference).mean(0) if reference in crossed.paths else None
    rows: dict[str, dict[str, Any]] = {}
    for name in crossed.paths:
        ratios = sharpe_of_paths(crossed, name)
        row: dict[str, Any] = {
            "paths": ratios.size,
            "sharpe": float(interquartile_mean(ratios)),
            "low": float(ratios.min()),
            "high": float(ratios.max()),
            "negative": float((ratios < 0).mean()),
            "purge": crossed.spaces[name].purge,
            "embargo": crossed.spaces[name].embargo,
        }
        if base is not None and name != reference:
            lead = ratios.mean(0) - base
            row |= {"lead": float(interquartile_mean(lead)), "ahead": float((lead > 0).mean())}
        rows[name] = row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.reindex(columns=[*_COLUMNS]).sort_values("sharpe", ascending=False)


_COLUMNS = (
    "paths",
    "sharpe",
    "low",
    "high",
    "negative",
    "lead",
    "ahead",
    "purge",
    "embargo",
)


def overfitting(crossed: Crossed) -> np.ndarray:
    """Probability of overfitting when picking among the agents, on each path, shape (P,).

    Empty where there are fewer than two agents whose returns vary, or too few days.
    """
    means = [
        np.mean([frame.to_numpy() for frame in frames], axis=0) for frames in crossed.paths.values()
    ]  # (T, P) an agent
    free = crossed.free.to_numpy()
    found = []
    for path in range(crossed.config.folds.paths):
        panel = [returns[:, path] - free for returns in means]
        varied = [returns for returns in panel if np.ptp(returns) > 1e-12]
        if len(varied) > 1 and len(free) >= 2 * BLOCKS:
            found.append(probability_of_backtest_overfitting(np.column_stack(varied), BLOCKS))
    return np.array(found)


def print_crossed(crossed: Crossed, console: Console | None = None) -> None:
    """The table and what it means."""
    console = console or Console(width=120, highlight=False)
    if not crossed.paths:
        return
    frame, reference = summary(crossed), crossed.config.reference
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("agent", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in frame.iterrows():
        table.add_row(f"{name} *" if name == reference else str(name), *_cells(row))
    console.print(table)
    lead = LEAD if reference in crossed.paths else ALONE.format(reference=plain(reference))
    folds, days = crossed.config.folds, crossed.free.index
    console.print(
        Text(
            f"Days {days[0]:%Y-%m-%d} .. {days[-1]:%Y-%m-%d} in {folds.number} folds, {folds.test} "
            f"left out at a time: {folds.choices} fits make {folds.paths} paths a seed. "
            f"{NOTE.format(lead=lead)}"
        )
    )
    shares = overfitting(crossed)
    if shares.size:
        console.print(
            Text(
                "Picking the winner of one half of the days would have given a below-median agent "
                f"in the other half in {shares.mean():.0%} of cases ({shares.min():.0%} to "
                f"{shares.max():.0%} over the paths; probability of overfitting, 50 % is a coin): "
                f"{', '.join(plain(str(name)) for name in frame.index)}."
            )
        )


def _cells(row: pd.Series) -> list[str]:
    led = np.isfinite(row["lead"])
    return [
        f"{row['paths']:.0f}",
        *(f"{row[key]:.2f}" for key in ("sharpe", "low", "high")),
        f"{row['negative']:.0%}",
        f"{row['lead']:+.2f}" if led else "",
        f"{row['ahead']:.0%}" if led else "",
        f"{row['purge']:.0f} / {row['embargo']:.0f}",
    ]
