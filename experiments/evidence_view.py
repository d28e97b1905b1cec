"""The evidence as tables of the report: against the reference, and against luck."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from experiments.verdict import VERSUS, together, versus_cells

CHANCES = (
    "Sharpe above 0",
    "above luck",
    "years needed",
    "beats the reference",
    "may be the best",
)


def report_evidence(frame: pd.DataFrame) -> dict[str, Any]:
    """Headings and rows of both tables, and what all agents at once say."""
    others = frame[frame["difference"].notna()]
    finished = frame[frame["seeds"] > 0]
    return {
        "versus": VERSUS,
        "rows": [
            (name, [*versus_cells(row)[:-1], row["verdict"]]) for name, row in others.iterrows()
        ],
        "chances": CHANCES,
        "chance_rows": [(name, chance_cells(row)) for name, row in finished.iterrows()],
        "sentences": together(frame),
        "profiled": list(finished.index[finished["seeds"] > 1]),
        "trials": frame.attrs["trials"],
    }


def chance_cells(row: pd.Series) -> list[str]:
    """One agent's chances as text, in the order of `CHANCES`; n/a where there is none."""
    better = row["improvement"]
    spread = f"{row['improvement_low']:.0%} to {row['improvement_high']:.0%}"
    return [
        _share(row["probabilistic"]),
        _share(row["deflated"]),
        _years(row["years_needed"]),
        f"{better:.0%} ({spread})" if math.isfinite(better) else "n/a",
        "n/a" if not math.isfinite(row["best_set_p"]) else _kept(row["best_set_p"]),
    ]


def _share(chance: float) -> str:
    return f"{chance:.1%}" if math.isfinite(chance) else "n/a"


def _years(years: float) -> str:
    if math.isnan(years):
        return "n/a"
    if math.isinf(years):
        return "never"
    return f"{years:.1f}" if years < 1000 else "over 1000"


def _kept(p_value: float) -> str:
    return f"{'yes' if p_value > 0.05 else 'no'} (p {p_value:.2f})"
