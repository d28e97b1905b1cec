"""`allocgym data download`: prices and series into the cache that `--data yahoo` and fred read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.options import options_of, show_help
from experiments.settings import CommandLine, build, resolve
from experiments.yaml_file import Document
from market.errors import SettingError
from market.names import unknown_name
from market.sources.download_cache import DownloadCache, Stored, cache_folder
from market.sources.fred import fred_copies
from market.sources.yahoo import yahoo_copies

VENDORS = ("yahoo", "fred")
_TEXT = """Download whole histories into the cache, all of those named or none.

What the cache holds is not asked for again without --refresh true; what the vendor then changed of
what it had given before is said, and the copy before is kept. Exit status 2 where one could not be
had; the cache is then as it was. FRED needs a key in $FRED_API_KEY."""
_EXAMPLES = """examples:
  allocgym data download yahoo SPY TLT GLD
  allocgym data download yahoo SPY --refresh true --cache downloads
  allocgym data download fred CPIAUCSL UNRATE --lags.DGS10 1 DGS10
  allocgym compare --data yahoo --data.options.tickers "[SPY, TLT, GLD]"     (reads the copies)
"""


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """How to download.

    Attributes:
        refresh: Whether to ask for what the cache holds too.
        cache: Folder of downloads; $ALLOCGYM_CACHE or the platform's place when not given.
        tries: How often to ask in all, waiting 2, 4, 8, .. seconds in between.
        lags: Of fred, such as --lags.DGS10 1: days from a figure's date to its release, for series
            without release dates; the figures are then the latest.

    """

    refresh: bool = False
    cache: str | None = None
    tries: int = 4
    lags: dict[str, int] = field(default_factory=dict)


def download(line: CommandLine) -> int:
    """Download, and print what there is now."""
    options = list(options_of(DownloadConfig, group="How."))
    if "help" in line.flags:
        usage = "yahoo TICKER... | fred SERIES... [--key value ...]"
        show_help("allocgym data download", usage, _TEXT, options, _EXAMPLES)
        return 0
    vendor, names = (line.words or [""])[0], line.words[1:]
    if vendor not in VENDORS:
        raise unknown_name("vendor of `data download`", vendor, VENDORS)
    if not names:
        kind = "ticker, such as SPY" if vendor == "yahoo" else "series, such as CPIAUCSL"
        raise SettingError(f"data download {vendor}: name at least 1 {kind}")
    config: DownloadConfig = build(DownloadConfig, resolve(Document(), line.pairs, options))
    settings = {"refresh": config.refresh, "cache": config.cache, "tries": config.tries}
    if vendor == "yahoo":
        if config.lags:
            raise SettingError("data download yahoo: --lags is of fred")
        found, notes = yahoo_copies(names, strict=True, **settings)  # type: ignore[arg-type]
    else:
        found, notes = fred_copies(names, config.lags, strict=True, **settings)  # type: ignore[arg-type]
    _print_copies(vendor, found, notes, config.cache)
    return 0


def _print_copies(
    vendor: str, found: Mapping[str, Stored], notes: list[str], folder: str | None
) -> None:
    console = Console(width=110, highlight=False)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for heading in ("name", "from", "to", "rows", "downloaded", "sha256"):
        table.add_column(heading, justify="right" if heading == "rows" else "left", no_wrap=True)
    for name, copy in found.items():
        entry = copy.entry
        cells = (name, entry["first"], entry["last"], entry["rows"], copy.downloaded)
        table.add_row(*(Text(str(cell)) for cell in cells), Text(entry["sha256"][:12]))
    console.print(table)
    for note in notes:
        console.print(Text(f"Note: {note}."))
    place = DownloadCache(vendor, folder or cache_folder()).place
    option = "tickers" if vendor == "yahoo" else "prices"
    own = "" if folder is None else f" --data.options.cache {folder}"
    names = ", ".join(found)
    console.print(Text(f"Kept in {place}"), soft_wrap=True)
    use = f'Use: --data {vendor} --data.options.{option} "[{names}]"{own}'
    console.print(Text(use), soft_wrap=True)
