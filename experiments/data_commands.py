"""`allocgym data`: what data there are, what they are worth, and whether they tell the future."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.config import DataConfig
from experiments.download_commands import download
from experiments.options import Option, options_of, show_help
from experiments.settings import CommandLine, build, read_tokens, resolve
from experiments.tables import print_market, print_options, print_sources
from experiments.values import Given, check_type
from experiments.yaml_file import Document, parse_value
from market import SOURCES, Market, SettingError, load_market
from market.calendar import resample
from market.features import listing
from market.names import unknown_name
from market.sources import COMMON
from market.sources.side_tables import Form, by_asset, read_side_tables

HELP = """usage: allocgym data [list | show SOURCE | features | check SOURCE |
                      download VENDOR NAME... | audit] [--key value]

List the market data there are, show, check and download them, and audit what is made of them.

  list                bundled universes and other sources; the default
  show SOURCE         span, assets, features and caveats of a universe, a price file, a folder or,
                      with its options, any other source; without them, what they are
  features            every feature with its parameters and formula
  check SOURCE        data quality of a price file, a folder or a universe; exit status 2 where
                      something must be fixed
  download VENDOR NAME...   prices from yahoo or series from fred, into the cache; see --help
  audit               whether a feature, join or scaler knows the future; exit status 2 if one does

examples:
  allocgym data show prices.csv --features "return, volatility(20)"
  allocgym data show synthetic --kind kelly
  allocgym data check prices.csv --html quality.html
  allocgym data check prices.csv --date_format %d/%m/%Y --allow_jumps true
  allocgym data audit --data us_stocks
  allocgym data audit --features "rsi, mine.py:signal" --data files --data.options.path prices.csv
  allocgym data audit --features set.yaml        (a YAML list of features)
  allocgym data audit --data files --data.options.path prices.csv \\
      --data.options.tables.mine mine.csv --features "table('mine', lag=30)"   (a table of yours)
"""


def data(argv: list[str]) -> int:
    """Run `allocgym data`; returns the exit status."""
    line = read_tokens(argv, flags=("debug", "trust"))
    name = line.words.pop(0) if line.words else "list"
    if name not in _COMMANDS:
        raise SettingError(
            "data: expected list, `show SOURCE`, features, `check SOURCE`, `download VENDOR "
            f"NAME...` or audit, got {name!r}"
        )
    if "help" in line.flags and name not in ("audit", "download"):
        print(HELP, end="")
        return 0
    return _COMMANDS[name](line)


def _list(line: CommandLine) -> int:
    _only(line, "list", words=0)
    print_sources()
    return 0


def _show(line: CommandLine) -> int:
    """Any source, or what its options are where it needs some."""
    if len(line.words) != 1:
        raise _unexpected(line, "show SOURCE")
    options = {key: parse_value(text, f"--{key}") for key, text in line.pairs}
    for key in {"features", "assets"} & options.keys():
        option = Option(key, list[str], None, "", "")
        options[key] = check_type(option, Given(dict(line.pairs)[key], f"--{key}", is_text=True))
    name = line.words[0]
    if name not in SOURCES:
        if not Path(name).exists() and not Path(name).suffix:
            raise unknown_name("source", name, SOURCES)
        print_market(load_market("files", path=name, **options))
    elif not options and _needed(name):
        print_options(name)
    else:
        print_market(load_market(name, **options))
    return 0


def _needed(name: str) -> list[str]:
    """Options without which a source cannot be loaded."""
    return [
        key
        for key, entry in inspect.signature(SOURCES[name]).parameters.items()
        if entry.default is entry.empty and entry.kind is not entry.VAR_KEYWORD
    ]


def _features(line: CommandLine) -> int:
    """Name, parameters, what it reads, formula."""
    _only(line, "features", words=0)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for heading in ("feature", "parameters", "needs", "formula"):
        table.add_column(heading)
    for row in listing():
        table.add_row(*(Text(row[key]) for key in ("name", "parameters", "needs", "formula")))
    Console(width=140, highlight=False).print(table)
    print(
        "A table of yours, read by table('mine') or macro('mine'): --data.options.tables.mine "
        "mine.csv"
    )
    return 0


def _check(line: CommandLine) -> int:
    """Print the findings, and draw them where --html says."""
    from market.quality import check

    if len(line.words) != 1:
        raise _unexpected(line, "check SOURCE")
    options = {key: parse_value(text, f"--{key}") for key, text in line.pairs}
    html = options.pop("html", None)
    source = line.words[0]
    if source not in SOURCES:
        _check_options(options)
    quality = check(source, **options)
    _print_quality(quality)
    if html is not None:
        from experiments.quality_page import write_quality_page

        try:
            page = write_quality_page(quality, Path(str(html)))
        except OSError as error:
            raise SettingError(f"--html: cannot write {html}: {error.strerror}") from error
        print(f"Page: {page}")
    return 2 if quality.must_fix else 0


def _check_options(options: dict[str, Any]) -> None:
    """Refuse options the files source does not have; what it makes of the others is a finding."""
    known = [name for name in inspect.signature(SOURCES["files"]).parameters if name != "path"]
    for option in options:
        if option not in known:
            raise unknown_name("option of `data check`", option, [*known, "html"])


def _print_quality(quality: Any) -> None:
    from experiments.quality_page import COLUMNS, TITLES, asset_rows, headline, span_facts
    from market.quality import LEVELS

    console = Console(width=110, highlight=False)
    console.print(Text(f"{quality.name}: {headline(quality)}"))
    if quality.market is not None:
        console.print(Text("; ".join(span_facts(quality))))
    for level in LEVELS:
        for issue in quality.of_level(level):
            console.print(Text(f"{TITLES[level]}: {issue.text}"))
    if quality.assets:
        table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
        for heading in COLUMNS.values():
            table.add_column(heading, justify="left" if heading == "asset" else "right")
        for row in asset_rows(quality):
            table.add_row(*map(Text, row))
        console.print(table)


def _audit(line: CommandLine) -> int:
    """Audit features, joins and scalers: no number may move when only the future does."""
    group = "What is audited, and how."
    options = [
        Option("features", list[str] | None, None, "Such as rsi,mine.py:signal; all.", group),
        Option("dates", int, 20, "Dates to test at.", group),
        Option("rows", int, 1200, "Only the last so many rows are used.", group),
        Option("seed", int, 0, "Of the dates and of what replaces the future.", group),
        *options_of(DataConfig, "data.", "Which market data."),
    ]
    if "help" in line.flags:
        text = inspect.getdoc(_audit) or ""
        show_help("allocgym data audit", "[--key value ...]", text, options, "")
        return 0
    if line.words:
        raise SettingError(f"data audit: takes options only, got {line.words[0]!r}")
    values = resolve(Document(), line.pairs, options)
    own = {key.removeprefix("data."): v for key, v in values.items() if key.startswith("data.")}
    config: DataConfig = build(DataConfig, own)
    market, tables = _raw(config)
    from market.audit import audit

    settings = {key: values[key] for key in ("dates", "rows", "seed") if key in values}
    features = values.get("features") or config.features
    report = audit(market, features, tables=tables, joins=features is None, **settings)
    _print_audit(report)
    return 2 if report.leaks else 0


def _raw(config: DataConfig) -> tuple[Market, Any]:
    """A market with its whole history and without features, and the tables beside it."""
    load_market(config.source, features=["return"], **config.options)  # checks the options
    own = {key: value for key, value in config.options.items() if key not in COMMON}
    found: Any = SOURCES[config.source](**own)
    market, tables = (found, {}) if isinstance(found, Market) else found
    given, _ = read_side_tables(config.options.get("tables"), Form.of(own))
    tables = {**tables, **given}
    if config.assets is not None:
        from market.sources import select_assets

        market = select_assets(market, config.assets)
    tables = {key: by_asset(frame, market.assets) for key, frame in tables.items()}
    market = resample(market, config.frequency)
    return market[config.start : config.end], tables


def _print_audit(report: Any) -> None:
    """A row a function, a column a test; leaks and what was not tested below."""
    from market.audit import TESTS

    console = Console(width=110, highlight=False)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for heading in ("audited", *TESTS):
        table.add_column(heading)
    rows: dict[str, dict[str, str]] = {}
    for finding in report.findings:
        rows.setdefault(finding.name, {})[finding.test] = finding.verdict
    for name, verdicts in rows.items():
        table.add_row(Text(name), *(Text(verdicts.get(test, "")) for test in TESTS))
    console.print(table)
    for leak in report.leaks:
        date = f"{leak.date:%Y-%m-%d}"
        size = f"by {leak.size:.3g} standard deviations" if leak.size < 1e300 else "or came or went"
        console.print(Text(f"LEAK {leak.name}: {leak.test} moved {date} {size} ({leak.detail})"))
    left = {f"{f.name}: {f.detail}": None for f in report.findings if f.verdict == "n/a"}
    for text in left:
        console.print(Text(f"Not tested: {text}"))
    console.print(_verdict(report))


def _verdict(report: Any) -> str:
    if report.leaks:
        return f"{len({leak.name for leak in report.leaks})} of those above know what they cannot."
    if not report.passed:
        return "Nothing could be tested."
    return f"No leak found at {report.dates} date{'s' * (report.dates != 1)}."


def _only(line: CommandLine, usage: str, words: int) -> None:
    if len(line.words) != words or line.pairs:
        raise _unexpected(line, usage)


def _unexpected(line: CommandLine, usage: str) -> SettingError:
    given = [*line.words, *(f"--{key}" for key, _ in line.pairs)]
    return SettingError(f"data: expected `{usage}`, got {' '.join(given) or 'nothing'!r}")


_COMMANDS: dict[str, Callable[[CommandLine], int]] = {
    "list": _list,
    "show": _show,
    "features": _features,
    "check": _check,
    "download": download,
    "audit": _audit,
}
