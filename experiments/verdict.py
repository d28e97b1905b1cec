"""The comparison in words and as text: what a summary says, for a terminal or a page."""

import math
from collections.abc import Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

HEADINGS = (
    "return",
    "volatility",
    "Sharpe",
    "95 % interval",
    "drawdown",
    "turnover",
    "cost",
    "value",
    "seeds",
)
LEVEL = 0.05
CONVENTIONS = (
    "Out of sample, after costs; interquartile mean over seeds. Sharpe ratio: returns in excess of "
    "the cash rate, annualised with {periods:g} periods a year; 95 % intervals by stationary block "
    "bootstrap over days and seeds, each agent on its own: of 20 agents without any edge, one is "
    "expected to look better or worse. Return: compound growth a year. Turnover: half the traded "
    "weight of the risky assets, in portfolios a year. Cost: fraction of value paid a year. The "
    "final value starts from 1."
)


def plain(name: str) -> str:
    """A name as words."""
    return name.replace("_", " ")


def headline(frame: pd.DataFrame) -> str:
    """The verdict in one sentence; the number of agents compared is held against the winners."""
    words = plain(frame.attrs["reference"])
    compared = frame[frame["difference"].notna()]
    looks = list(compared.index[compared["difference_low"] > 0])
    better = [name for name in looks if compared["p_adjusted"][name] < LEVEL]
    if compared.empty:
        return f"Nothing to compare: {words} and at least one other agent must have finished."
    if better:
        who = _listed(better) if len(better) <= 3 else f"{len(better)} of {len(compared)} agents"
        return f"{who} beat {words}: the Sharpe ratio is higher by more than luck explains."
    if (compared["difference_high"] < 0).all():
        return f"Every agent did worse than {words}, by more than luck explains."
    answer = f"No agent is better than {words} by more than luck explains"
    if not looks:
        return f"{answer}."
    who = "one looks" if len(looks) == 1 else f"{len(looks)} look"
    return f"{answer}: {who} so alone, but not as the best of {len(compared)}."


def verdict_lines(frame: pd.DataFrame) -> list[str]:
    """Every agent against the reference in plain words: Sharpe difference and its 95 % interval."""
    lines = []
    for verdict, group in frame.groupby("verdict", sort=False):
        if verdict in ("reference", "no finished run"):
            continue
        names = [f"{agent}{_difference(row)}" for agent, row in group.iterrows()]
        lines.append(f"{str(verdict)[:1].upper()}{str(verdict)[1:]}: {'; '.join(names)}.")
    for agent, row in frame[frame["failed"] > 0].iterrows():
        total = int(row["seeds"] + row["failed"])
        lines.append(f"Failed: {agent}, {int(row['failed'])} of {total} runs did not finish.")
    return lines


def _difference(row: pd.Series) -> str:
    low, high = row["difference_low"], row["difference_high"]
    known = math.isfinite(row["difference"])
    return f" {row['difference']:+.2f} ({low:+.2f} to {high:+.2f})" if known else ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def cells(row: pd.Series) -> list[str]:
    """One agent's numbers as text, in the order of `HEADINGS`; n/a where there is none."""

    def show(name: str, form: str) -> str:
        return format(row[name], form) if math.isfinite(row[name]) else "n/a"

    interval = f"{show('sharpe_low', '.2f')} to {show('sharpe_high', '.2f')}"
    return [
        show("annual_return", ".1%"),
        show("volatility", ".1%"),
        show("sharpe", ".2f"),
        interval if math.isfinite(row["sharpe_low"]) else "n/a",
        show("max_drawdown", ".1%"),
        show("turnover", ".1f"),
        show("cost", ".2%"),
        show("final_value", ".3f"),
        f"{row['seeds']:.0f}"
        + (f" of {row['seeds'] + row['failed']:.0f}" if row["failed"] else ""),
    ]


def print_table(frame: pd.DataFrame, console: Console | None = None) -> None:
    """The summary on a terminal, within 100 columns, with its conventions and verdicts."""
    console = console or Console(width=100)
    headings = [heading.replace("volatility", "vol.") for heading in HEADINGS]
    rows = [headings, *(cells(row) for _, row in frame.iterrows())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = max(8, console.width - sum(widths) - 2 * len(widths))  # what is left for the name
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("agent", overflow="ellipsis", max_width=room, no_wrap=True)
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(heading, justify="right", no_wrap=True, min_width=width)
    for (agent, row), numbers in zip(frame.iterrows(), rows[1:], strict=True):
        is_reference = row["verdict"] == "reference"
        name = Text(f"{agent} *" if is_reference else str(agent))
        table.add_row(name, *numbers, style="bold" if is_reference else "")
    console.print(table)
    words = plain(frame.attrs["reference"])
    console.print(Text(f"* {words} is the reference. Sharpe differences to it, 95 % intervals:"))
    for line in verdict_lines(frame):
        console.print(Text(line))
    console.print(Text(conventions(frame), style="dim"))


def conventions(frame: pd.DataFrame) -> str:
    """How the numbers are meant; to be printed with them."""
    return CONVENTIONS.format(periods=frame.attrs["periods_per_year"])
