"""What `monitor` found, as text for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

SHOWN = 5  # features
FORMS = {"volatility": ".1%", "turnover": ".2f", "cost": ".3%", "regimes": ".3f"}
MEASURES = {"return": ".1%", "volatility": ".1%", "sharpe": ".2f", "drawdown": ".1%"} | {
    "turnover": ".2f",
    "cost": ".2%",
    "final_value": ".3f",
}


def print_report(found: dict[str, Any]) -> None:
    """Spans, a line a check, then details of what changed."""
    console = Console(width=100, highlight=False)
    days = found["new"]
    console.print(
        Text(
            f"{found['agent']} seed {found['seed']}: {days[2]} new days {days[0]} .. {days[1]} "
            f"against training {' .. '.join(found['training'])}"
        )
    )
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for heading in ("check", "", "p-value", "finding"):
        table.add_column(heading, justify="right" if heading == "p-value" else "left")
    for name, check in found["checks"].items():
        state = Text("ALARM", style="bold") if check["alarm"] else Text("ok")
        table.add_row(name, state, f"{check['p_value']:.3f}", Text(_finding(name, check)))
    console.print(table)
    _print_drifted(console, found["checks"]["features"])
    for note in found["notes"]:
        console.print(Text(f"Note: {note}."))
    alarms, level = found["alarms"], found["level_of_a_check"]
    said = f"attention: {', '.join(alarms)}" if alarms else "nothing these checks can see changed"
    console.print(
        f"Status {found['status']}: {said}. A check alarms below {level:.4f}, so that unchanged "
        f"days raise any alarm in at most about {found['level']:.0%} of reports. Ranges are of as "
        "many days of the past alone; p-values, which decide, also count that the past is a sample."
    )


def _finding(name: str, check: dict[str, Any]) -> str:
    if name == "features":
        drifted = check["drifted"]
        first = check["features"][0]
        most = f"{first['feature']}, KS {first['statistic']:.2f}"
        return f"{len(drifted)} of {len(check['features'])} drifted; most unusual: {most}"
    if name == "performance":
        cuts = [stretch["from"] for stretch in check["stretches"][1:]]
        changed = f"changed on {', '.join(cuts)}" if cuts else "one stretch, no change point"
        return f"{changed}; likeliest {check['likeliest']}"
    form = FORMS[name]
    value, middle, low, high = (
        format(check[k], form) for k in ("value", "expected", "low", "high")
    )
    measured = f"{value}, expected {middle} ({low} to {high})"
    if name != "regimes":
        return f"{measured} a year"
    shares = ", ".join(
        f"{regime} {now:.0%} of days ({before:.0%} in training)"
        for regime, now, before in zip(check["names"], check["new"], check["training"], strict=True)
    )
    return (
        f"{shares}; last day {check['names'][-1]} {check['last_day'][-1]:.0%}; fit (mean log "
        f"likelihood) {measured}"
    )


def _print_drifted(console: Console, check: dict[str, Any]) -> None:
    for row in [row for row in check["features"] if row["feature"] in check["drifted"]][:SHOWN]:
        console.print(
            Text(
                f"  drifted: {row['feature']}, KS {row['statistic']:.2f} (last quarter "
                f"{row['recent']:.2f}), adjusted p {row['p_adjusted']:.4f}"
            )
        )


def print_refit(refit: dict[str, Any]) -> None:
    """Old and new side by side."""
    if "error" in refit:
        return
    console = Console(width=100, highlight=False)
    start, end, count = refit["days"]
    console.print(
        Text(f"\nRefit on days up to {refit['cut']}; both on {count} days {start} .. {end}")
    )
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("agent")
    for heading in MEASURES:
        table.add_column(heading.replace("_", " "), justify="right")
    for name in ("old", "new"):
        table.add_row(name, *(format(refit[name][key], form) for key, form in MEASURES.items()))
    console.print(table)
    lead = refit["sharpe_difference"]
    console.print(
        f"Sharpe ratio of new minus old {lead['difference']:+.2f} ({lead['low']:+.2f} to "
        f"{lead['high']:+.2f}): {refit['verdict']}."
    )


def print_replaced(refit: dict[str, Any]) -> None:
    """Which of them is in service, and where both are."""
    console = Console(width=100, highlight=False)
    if "error" in refit:
        console.print(Text(f"The refit failed: {refit['error']}. Nothing was replaced."))
    elif refit["replaced"]:
        console.print(Text(f"Replaced: {refit['run']}; the old one is kept in {refit['kept']}"))
    else:
        why = ", because the new one is worse on these days" if "kept_back" in refit else ""
        console.print(Text(f"Nothing was replaced{why}. New: {refit['run']}"))
