"""Results as text, as Markdown and as a plot."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.goals import Result
from benchmarks.scaling import Point

BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
COLOURS = {"single": "C0", "window": "C1", "compact": "C2"}
HEAD = ("line", "steps/s", "against", "steps/s", "ratio", "asked", "")


def row(result: Result) -> tuple[str, ...]:
    """The cells of a line."""
    return (
        result.name,
        f"{result.ours:,.0f}",
        result.other_name,
        f"{result.other:,.0f}",
        f"{result.ratio:.2f}",
        f"{result.least:.2f}",
        "met" if result.met else "missed",
    )


def text(cells: Sequence[str]) -> str:
    """Cells in columns of fixed width."""
    widths = (32, 12, 8, 12, 7, 7, 7)
    aligned = (
        f"{cell:<{width}}" if i in (0, 2) else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(aligned)


def markdown(results: Sequence[Result], points: Sequence[Point], notes: Sequence[str]) -> str:
    """Both tables, and where they were measured."""
    lines = [f"Measured on {machine()}.", *notes, ""]
    lines += ["| " + " | ".join(HEAD) + " |", "|---|--:|---|--:|--:|--:|---|"]
    lines += ["| " + " | ".join(row(result)) + " |" for result in results]
    for axis in dict.fromkeys(point.axis for point in points):
        chosen = [point for point in points if point.axis == axis]
        kinds = list(dict.fromkeys(point.kind for point in chosen))
        lines += ["", f"| {axis} | " + " | ".join(f"{kind}, µs" for kind in kinds) + " |"]
        lines.append("|--:|" + "--:|" * len(kinds))
        for at in dict.fromkeys(point.at for point in chosen):
            cells = [f"{p.microseconds:,.2f}" for p in chosen if p.at == at]
            lines.append(f"| {at:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine() -> str:
    """Processor kind and versions, as far as they matter here."""
    return f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}"


def write(folder: Path, tables: str, points: Sequence[Point]) -> None:
    """Put the tables between the marks of benchmarks.md, and the plot beside it."""
    page = folder / "benchmarks.md"
    before, rest = page.read_text().split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}")
    plot(folder / "benchmarks.svg", points)


def plot(path: Path, points: Sequence[Point]) -> None:
    """Time of a step against each axis, both logarithmic."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    axes_names = list(dict.fromkeys(point.axis for point in points))
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    axes = figure.subplots(1, len(axes_names), sharey=True)
    for ax, name in zip(axes, axes_names, strict=True):
        chosen = [point for point in points if point.axis == name]
        for kind in dict.fromkeys(point.kind for point in chosen):
            own = [point for point in chosen if point.kind == kind]
            colour = COLOURS["single" if "single" in kind else kind.split()[-1]]
            at, taken = [p.at for p in own], [p.microseconds for p in own]
            ax.plot(at, taken, "o-", ms=3, label=kind, color=colour)
        ax.set(xscale="log", yscale="log", xlabel=name)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
        ax.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("microseconds a step")
    with mpl.rc_context({"svg.hashsalt": "allocgym"}):
        figure.savefig(path, metadata={"Date": None})
