"""Explanations in the report: what `allocgym explain` kept in run folders, as pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.figures import STYLE, canvas, time_axis
from experiments.runs import Run
from experiments.svg import MUTED, area_colour, to_svg
from market.errors import DataError

FILE = "explanation.json"
_WIDTH = 340
_LINES = 5  # features whose lags are drawn
_BARS = 12


def report_explanations(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One entry a run that was explained: its sentence, and its pictures by title."""
    found: list[dict[str, Any]] = []
    for run in runs:
        path = run.path / FILE
        if not (run.finished and path.is_file()):
            continue
        try:
            kept = json.loads(path.read_text("utf-8"))
            name = f"{run.agent} seed {run.seed}"
            about = {"name": name, "sentence": _sentence(kept), "note": kept.get("note", "")}
            found.append(about | {"panels": _panels(kept, len(found), name)})
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(f"{path}: not what explain writes: {error}") from error
    return found


def _sentence(kept: dict[str, Any]) -> str:
    return str(kept["why"]["sentence"]) if "why" in kept else ""


def _panels(kept: dict[str, Any], number: int, name: str) -> dict[str, Markup]:
    drawn = {}
    if "why" in kept:
        why, averages = kept["why"], kept["gradients"]
        parts = {each["input"]: each["part"] for each in why["drivers"]}
        top = dict(list(parts.items())[:_BARS])
        title = f"{why['asset']} on {why['date']}: parts of its {why['meaning']}"
        drawn[title] = _svg(bars(top), f"why-{number}", f"{name}: {title}", top)
        size = averages["features"]
        drawn["Inputs, mean size of gradients"] = _svg(
            bars(_largest(size)), f"inputs-{number}", f"{name}: gradients by input", size
        )
        lags = np.array(averages["lags"]["size"])
        drawn["How far back it looks: size by lag"] = _svg(
            lag_lines(lags, averages["lags"]["names"]),
            f"lags-{number}",
            f"{name}: gradients by lag of {', '.join(averages['lags']['names'])}",
        )
        seen = averages["assets"]
        drawn["Whose inputs (columns) move whose answer (rows)"] = _svg(
            matrix(np.array(seen["size"]), seen["answers"], seen["seen"]),
            f"assets-{number}",
            f"{name}: gradients by asset seen and asset answered for",
        )
    has_ratio = all(each["sharpe"] is not None for each in kept["importance"])
    lost, called = ("sharpe", "Sharpe ratio") if has_ratio else ("reward", "Reward a period")
    groups = {each["group"]: each[lost] for each in kept["importance"]}
    errors = [each[f"{lost}_error"] or 0.0 for each in kept["importance"]]
    drawn[f"{called} lost when shuffled in time"] = _svg(
        bars(groups, errors), f"importance-{number}", f"{name}: permutation importance", groups
    )
    if kept["limits"]:
        drawn["Days on which limits bound"] = _svg(
            strips(kept["limits"], kept["days"]), f"limits-{number}", f"{name}: binding limits"
        )
    return drawn


def _svg(figure: Figure, name: str, label: str, numbers: dict[str, float] | None = None) -> Markup:
    words = ", ".join(f"{key} {value:+.3g}" for key, value in (numbers or {}).items())
    return to_svg(figure, name, f"{label}. {words}" if words else f"{label}.")


def _largest(parts: dict[str, float]) -> dict[str, float]:
    return dict(sorted(parts.items(), key=lambda item: -abs(item[1]))[:_BARS])


@mpl.rc_context(STYLE)
def bars(parts: dict[str, float], errors: Sequence[float] | None = None) -> Figure:
    """A horizontal bar each; with errors, a whisker of one standard error to each side."""
    figure, axes = canvas(_WIDTH, 22 * len(parts) + 44)
    values, rows = list(parts.values()), np.arange(len(parts))
    colours = [area_colour(0 if value >= 0 else 2) for value in values]
    axes.barh(rows, values, 0.62, color=colours, xerr=errors, ecolor=MUTED)
    axes.axvline(0, color=MUTED, lw=0.8)
    axes.set_yticks(rows, [_short(name) for name in parts])
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}.."


@mpl.rc_context(STYLE)
def lag_lines(size: np.ndarray, names: Sequence[str]) -> Figure:
    """Size of gradients by days before the decision, (L, K); the largest few inputs."""
    figure, axes = canvas(_WIDTH, 210)
    for place, column in enumerate(np.argsort(-size.sum(axis=0))[:_LINES]):
        axes.plot(size[:, column], color=area_colour(place), lw=1.6, label=_short(names[column]))
    axes.set_xlabel("days before the decision")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.legend(frameon=False, fontsize=10)
    return figure


@mpl.rc_context(STYLE)
def matrix(size: np.ndarray, answers: Sequence[str], seen: Sequence[str]) -> Figure:
    """Dots whose area is the size of gradients, (answers, seen)."""
    figure, axes = canvas(_WIDTH, 26 * len(answers) + 90)
    rows, columns = np.indices(size.shape)
    scale = float(size.max()) or 1.0
    axes.scatter(columns, rows, s=260 * size / scale, color=area_colour(0), lw=0)
    axes.set_xticks(range(len(seen)), [name[:12] for name in seen], rotation=45, ha="right")
    axes.set_yticks(range(len(answers)), [name[:14] for name in answers])
    axes.set_ylim(len(answers) - 0.5, -0.5)
    axes.set_xlim(-0.5, len(seen) - 0.5)
    axes.grid(visible=False)
    return figure


@mpl.rc_context(STYLE)
def strips(limits: Sequence[dict[str, Any]], days: Sequence[Any]) -> Figure:
    """A row a limit, a bar a spell of days on which it moved the target."""
    figure, axes = canvas(_WIDTH, 30 * len(limits) + 50)
    for row, limit in enumerate(limits):
        spells = [
            (date2num(pd.Timestamp(a)), date2num(pd.Timestamp(b)) - date2num(pd.Timestamp(a)) + 1)
            for a, b, _ in limit["spells"]
        ]
        axes.broken_barh(spells, (row - 0.3, 0.6), color=area_colour(0), lw=0)
    axes.set_yticks(range(len(limits)), [_short(limit["name"]) for limit in limits])
    axes.set_ylim(len(limits) - 0.5, -0.5)
    axes.grid(visible=False)
    time_axis(axes, pd.DatetimeIndex(list(days[:2])), _WIDTH)
    return figure
