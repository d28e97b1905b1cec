"""The comparison in words and as text: what a summary says, for a terminal or a page."""

import math
import re
from collections.abc import Sequence
from typing import Any

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
WIDTH, VERDICT_WIDTH = 120, 19
MANY = 8  # names that are still read in one line
VERSUS = (
    "difference (95 %)",
    "p",
    "no cost",
    "2x cost",
    "day late",
    "1st half",
    "2nd half",
    "verdict",
)
COLUMNS = ("gross", "doubled costs", "a day late", "first half", "second half")
CONVENTIONS = (
    "Out of sample, after costs; interquartile mean over seeds. Sharpe ratio: returns in excess of "
    "the cash rate, annualised with {periods:g} periods a year; 95 % intervals by stationary block "
    "bootstrap over days and seeds, each agent on its own. Return: compound growth a year. "
    "Turnover: half the traded weight of the risky assets, in portfolios a year. Cost: fraction of "
    "value paid a year. The final value starts from 1."
)
VERSUS_CONVENTIONS = (
    "p: how often luck alone gives a difference this large to any of the agents compared (Holm's "
    "correction); the verdict asks for less than 0.05, after costs and before, and small ones "
    "come from {resamples:,} resamples. The other columns are the same difference had trading "
    "been free, and for the same trained agents with doubled costs, with decisions a day late, "
    "and in each half of the days; + and - mark those whose own 95 % interval leaves out 0."
)


def plain(name: str) -> str:
    """A name as words."""
    return name.replace("_", " ")


def headline(frame: pd.DataFrame) -> str:
    """The verdict in one sentence; the number of agents compared is held against the winners."""
    words = plain(frame.attrs["reference"])
    compared = frame[frame["difference"].notna()]
    looks = list(compared.index[compared["difference_low"] > 0])
    better = [name for name in compared.index if _holds(compared.loc[name], 1)]
    if compared.empty:
        return f"Nothing to compare: {words} and at least one other agent must have finished."
    if better:
        who = _listed(better) if len(better) <= 3 else f"{len(better)} of {len(compared)} agents"
        return f"{who} beat {words}: the Sharpe ratio is higher by more than luck explains."
    if all(_holds(row, -1) for _, row in compared.iterrows()):
        return f"Every agent did worse than {words}, by more than luck explains."
    answer = f"No agent is better than {words} by more than luck explains"
    if not looks:
        return f"{answer}."
    who = "one looks" if len(looks) == 1 else f"{len(looks)} look"
    return f"{answer}: {who} so alone, but not as the best of {len(compared)}."


def _holds(row: pd.Series, sign: int) -> bool:
    """Whether the difference has this sign once all agents compared are counted."""
    return bool(sign * row["difference"] > 0 and row["p_adjusted"] < LEVEL)


def verdict_lines(frame: pd.DataFrame) -> list[str]:
    """Every agent against the reference in plain words: Sharpe difference and its 95 % interval."""
    lines = [f"{title}: {'; '.join(agents)}." for title, agents in _by_verdict(frame)]
    return lines + _failures(frame)


def verdict_groups(frame: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """`verdict_lines` for a page: a line a verdict, and what to fold away under it.

    A verdict of more than `MANY` agents is a line of their number, highest and lowest, with all of
    them folded away; nothing is folded away under the others.
    """
    groups: list[tuple[str, list[str]]] = []
    for title, agents in _by_verdict(frame):
        if len(agents) > MANY:
            ends = f"from {agents[0]} to {agents[-1]}"
            groups.append((f"{title}: {len(agents)} agents, {ends}.", agents))
        else:
            groups.append((f"{title}: {'; '.join(agents)}.", []))
    return groups + [(line, []) for line in _failures(frame)]


def _by_verdict(frame: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Each verdict, capitalised, and who got it with the difference, in the frame's order."""
    return [
        (
            f"{str(verdict)[:1].upper()}{str(verdict)[1:]}",
            [f"{agent}{_difference(row)}" for agent, row in group.iterrows()],
        )
        for verdict, group in frame.groupby("verdict", sort=False)
        if verdict not in ("reference", "no finished run")
    ]


def _failures(frame: pd.DataFrame) -> list[str]:
    return [
        f"Failed: {agent}, {int(row['failed'])} of {int(row['seeds'] + row['failed'])} runs did "
        "not finish."
        for agent, row in frame[frame["failed"] > 0].iterrows()
    ]


def _difference(row: pd.Series) -> str:
    low, high = row["difference_low"], row["difference_high"]
    known = math.isfinite(row["difference"])
    return f" {row['difference']:+.2f} ({low:+.2f} to {high:+.2f})" if known else ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _some(names: Sequence[str], everyone: Sequence[str]) -> str:
    """Names after a colon, or who is not among them, whichever is short; nothing if neither."""
    if len(names) <= MANY:
        return f": {_listed(names)}"
    others = [name for name in everyone if name not in names]
    return f": all but {_listed(others)}" if 0 < len(others) <= MANY else ""


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


def versus_cells(row: pd.Series) -> list[str]:
    """One agent against the reference as text, in the order of `VERSUS`; empty for itself."""
    if not math.isfinite(row["difference"]):
        return [""] * (len(VERSUS) - 1) + [str(row["verdict"])]
    interval = f"({row['difference_low']:+.2f} to {row['difference_high']:+.2f})"
    shown = [f"{row['difference']:+.2f} {interval}", f"{row['p_adjusted']:.2f}"]
    shown += [marked(row, name) for name in COLUMNS]
    return [*shown, short(row["verdict"])]


def marked(row: pd.Series, name: str) -> str:
    """A difference with + or - where its own interval leaves out 0; n/a where there is none."""
    if not math.isfinite(row[name]):
        return "n/a"
    mark = "+" if row[f"{name}_low"] > 0 else "-" if row[f"{name}_high"] < 0 else " "
    return f"{row[name]:+.2f}{mark}"


def short(words: Any) -> str:
    """A verdict without the reference's name, for a column that is headed by it."""
    found = re.fullmatch(
        r"(better|worse|not distinguishable) (?:than|from) .*?((?: before| after).*)?", str(words)
    )
    return "".join(filter(None, found.groups())) if found else str(words)


def together(frame: pd.DataFrame) -> list[str]:
    """What all agents at once say, a sentence each; only what could be computed."""
    found, words = frame.attrs, plain(frame.attrs["reference"])
    lines = []
    if "superior" in found:
        stepwise = _listed(found["stepwise"]) or "none"
        lines.append(
            f"Is any agent better than {words}? p = {found['superior']:.2f} for none being so, "
            f"with all of them looked at (superior predictive ability); found by steps: {stepwise}."
        )
    if "best_set" in found:
        held = found["best_set"]
        compared = list(frame.index[frame["best_set_p"].notna()])
        lines.append(
            f"The best Sharpe ratio is, with 95 % confidence, among {len(held)} of "
            f"{len(compared)} (model confidence set){_some(held, compared)}."
        )
    if "overfitting" in found:
        lines.append(
            f"Picking the winner of one half of the days would have given a below-median agent in "
            f"the other half in {found['overfitting']:.0%} of cases (probability of overfitting, "
            "50 % is a coin)."
        )
    if frame["seeds"].between(2, 4).any():
        lines.append(
            "Two to four seeds tell little about the luck of the seed: 5 or more make narrower and "
            "surer intervals."
        )
    known = frame[frame["deflated"].notna()]
    if len(known):
        best = known.iloc[0]
        lines.append(
            f"Best Sharpe ratio, {known.index[0]}: above 0 with probability "
            f"{best['probabilistic']:.0%}; above what luck gives the best of "
            f"{_count(found['trials'], 'configuration')} tried here with {best['deflated']:.0%} "
            "(deflated)."
        )
    return lines


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def print_table(frame: pd.DataFrame, console: Console | None = None) -> None:
    """The summary on a terminal, within 120 columns, with its verdicts and conventions."""
    console = console or Console(width=WIDTH)
    _print_measures(frame, console)
    words = plain(frame.attrs["reference"])
    compared, said = frame["difference"].notna().any(), verdict_lines(frame)
    if compared:
        console.print(Text(f"\n* {words} is the reference. Sharpe ratio less that of {words}:"))
        _print_versus(frame, console)
        said = [line for line in said if line.startswith("Failed")]
    console.print()
    for line in [headline(frame), *together(frame), *said]:
        console.print(Text(line))
    console.print()
    console.print(Text(conventions(frame), style="dim"))
    if compared:
        console.print(Text(versus_conventions(frame), style="dim"))


def _print_versus(frame: pd.DataFrame, console: Console) -> None:
    others = frame[frame["verdict"] != "reference"]
    names, rows = list(others.index), [versus_cells(row) for _, row in others.iterrows()]
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    widths = [max(map(len, column)) for column in zip(VERSUS, *rows, strict=True)]
    widths[-1] = min(widths[-1], VERDICT_WIDTH)
    room = max(8, console.width - sum(widths) - 2 * len(widths))
    table.add_column("agent", overflow="ellipsis", max_width=room, no_wrap=True)
    for heading, width in zip(VERSUS, widths, strict=True):
        words = heading == VERSUS[-1]
        table.add_column(
            heading,
            justify="left" if words else "right",
            no_wrap=not words,
            min_width=width,
            max_width=VERDICT_WIDTH if words else None,
        )
    for name, numbers in zip(names, rows, strict=True):
        table.add_row(Text(str(name)), *map(Text, numbers))
    console.print(table)


def _print_measures(frame: pd.DataFrame, console: Console) -> None:
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


def conventions(frame: pd.DataFrame) -> str:
    """How the numbers are meant; to be printed with them."""
    return CONVENTIONS.format(periods=frame.attrs["periods_per_year"])


def versus_conventions(frame: pd.DataFrame) -> str:
    """The same for differences to the reference."""
    return VERSUS_CONVENTIONS.format(resamples=frame.attrs["resamples"])
