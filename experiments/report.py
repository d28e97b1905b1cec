"""One self-contained HTML page from run folders: what happened, how sure one can be, what was run.

The page needs no network and runs no script. It is built from the files alone, and the same files
give the same bytes. Runs that failed are listed with their reason.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.attribution_view import report_attribution
from experiments.evidence_view import report_evidence
from experiments.explanations import report_explanations
from experiments.facts import configs, facts, notes, versions
from experiments.forecast_notes import report_forecasts
from experiments.page import render_page
from experiments.pictures import Exhibit, all_agents, allocations, learning_curves
from experiments.run_dir import write_atomic
from experiments.runs import Run
from experiments.summary import agent_labels, summarise
from experiments.verdict import (
    HEADINGS,
    cells,
    conventions,
    headline,
    short,
    verdict_groups,
    versus_conventions,
)

FEW, FIRST = 20, 9  # agents that a chart over time holds, and that it starts with where more are


def write_report(
    runs: Sequence[Run],
    path: str | Path,
    *,
    title: str | None = None,
    frame: pd.DataFrame | None = None,
) -> Path:
    """Write the page for these runs; an older page stays until the new one is complete.

    Args:
        runs: As `find_runs` gives them, failed ones too.
        path: The HTML file; its folder is made if missing.
        title: Heading of the page; by default the experiments' names.
        frame: `summarise(runs)`, where the caller has it already.

    Returns:
        The path written.

    Raises:
        SettingError: If there are no runs.
        DataError: If finished runs cover different test days.
    """
    path, page = Path(path), render_report(runs, title=title, frame=frame)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page)
    return path


def render_report(
    runs: Sequence[Run], *, title: str | None = None, frame: pd.DataFrame | None = None
) -> str:
    """The page as text; see `write_report`."""
    frame = summarise(runs) if frame is None else frame
    exhibit = Exhibit.of(runs, frame)
    curves = learning_curves(exhibit)
    return render_page(
        "report.html",
        title=title or ", ".join(dict.fromkeys(run.experiment for run in runs)),
        headline=headline(frame),
        verdicts=verdict_groups(frame),
        conventions=conventions(frame),
        versus_conventions=versus_conventions(frame),
        notes=notes(runs),
        headings=HEADINGS,
        rows=_rows(exhibit),
        reference=frame.attrs["reference"],
        marks=exhibit.marks,
        drawn=_drawn(frame),
        span=_span(exhibit),
        pictures=all_agents(exhibit) if exhibit.agents else {},
        allocations=allocations(exhibit) if exhibit.agents else {},
        trading=_trading(exhibit),
        limits=_limits(exhibit),
        evidence=report_evidence(frame),
        attribution=report_attribution(exhibit.agents),
        forecasts=report_forecasts(runs),
        explanations=report_explanations(runs),
        curves=curves,
        without_curve=[name for name in exhibit.marks if name not in curves],
        seeds=_seeds(exhibit),
        facts=facts(runs),
        versions=versions(runs),
        configs=configs(runs),
    )


def _rows(exhibit: Exhibit) -> list[dict[str, Any]]:
    return [
        {
            "agent": name,
            "cells": cells(row),
            "verdict": row["verdict"],
            "short": _short(row),
            "mark": exhibit.marks[str(name)],
        }
        for name, row in exhibit.frame.iterrows()
    ]


def _drawn(frame: pd.DataFrame) -> list[str]:
    """Who is in the charts over time at first: all, or the best and the reference of many."""
    if len(frame) <= FEW:
        return list(frame.index)
    ranked = frame[frame["difference"].notna()]
    return [*frame.index[frame["verdict"] == "reference"], *ranked.index[:FIRST]]


def _short(row: pd.Series) -> str:
    """Sharpe difference and verdict, without the reference's name, which heads the column."""
    words = short(row["verdict"])
    known = row["verdict"] != "reference" and not pd.isna(row["difference"])
    return f"{row['difference']:+.2f} {words}" if known else words


def _seeds(exhibit: Exhibit) -> list[dict[str, Any]]:
    """Every run, with how it ended and how long it took."""
    rows = []
    for name, group in agent_labels(exhibit.runs).items():
        for run in group:
            seconds = run.manifest.get("seconds", {})
            took = {key: seconds.get(key) for key in ("fit", "test")}
            shown = {
                key: f"{value:.1f}" if isinstance(value, int | float) else ""
                for key, value in took.items()
            }
            about = {"agent": name, "seed": run.seed, "status": run.status, "error": run.error}
            rows.append(about | shown)
    return rows


def _span(exhibit: Exhibit) -> dict[str, Any]:
    finished = sum(run.finished for run in exhibit.runs)
    days = exhibit.days if exhibit.agents else pd.DatetimeIndex([])
    return {
        "days": len(days),
        "start": f"{days[0]:%Y-%m-%d}" if len(days) else "",
        "end": f"{days[-1]:%Y-%m-%d}" if len(days) else "",
        "runs": len(exhibit.runs),
        "failed": len(exhibit.runs) - finished,
        "agents": len(exhibit.frame),
    }


def _limits(exhibit: Exhibit) -> dict[str, Any]:
    """For each agent, on what part of the days each limit moved its target, or was missed."""
    shares = {
        name: pd.concat([run.backtest for run in runs]).filter(regex="^(binding:|unmet$)").mean()
        for name, runs in exhibit.agents.items()
    }
    table = pd.DataFrame(shares).T.dropna(axis=1, how="all")
    return {
        "names": [str(column).removeprefix("binding:") for column in table.columns],
        "rows": [(name, [f"{share:.1%}" for share in row]) for name, row in table.iterrows()],
    }


def _trading(exhibit: Exhibit) -> list[dict[str, Any]]:
    """Turnover and cost per year, with bars relative to the largest."""
    frame = exhibit.frame.loc[list(exhibit.agents)].sort_values("turnover", ascending=False)
    keys = ["turnover", "cost"]
    bars = (frame[keys] / frame[keys].max().clip(lower=1e-12)).to_numpy()
    return [
        {
            "agent": name,
            "numbers": [f"{row['turnover']:.1f}", f"{row['cost']:.2%}"],
            "bars": [f"{bar:.1%}" for bar in bars[number]],
        }
        for number, (name, row) in enumerate(frame.iterrows())
    ]
