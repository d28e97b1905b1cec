"""Files as tables of text: nothing is guessed, shifted or dropped before it can be named.

A CSV is read field by field, so that a row with a field too many is an error and not a shifted
column, and every later error can say the line it stands on. Line 1 is the header.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from market.errors import DataError, InputError
from market.sources.memory import check_memory
from market.sources.stacked import unstacked

_DELIMITERS = ",;\t|"
_OTHERS = (
    *(".xlsx", ".xls", ".ods", ".json", ".feather", ".h5", ".hdf5", ".pkl", ".pickle", ".zip"),
    *(".orc", ".dta", ".sas7bdat", ".mat", ".npy", ".npz", ".db", ".sqlite", ".html", ".pdf"),
)
_MOST_BYTES = 4 * 10**9
_PANELS_OF_TEXT = 8  # float64 panels that the cells of a table take as text


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        name: File name, for messages.
        header: Column names.
        columns: One list of cells per column.
        lines: Line of each row in the file; records counted from 1 in a Parquet file.
        ended: Whether the last line ends with a line break; a file cut off in mid-write does not.
        date_column, asset_column: Which columns say what a row is about.
        zones: Name of the time zone of each column of a Parquet file that has one.

    """

    name: str
    header: list[str]
    columns: list[list[str]]
    lines: list[int]
    ended: bool = True
    date_column: int = 0
    asset_column: int | None = None
    zones: dict[int, str] = field(default_factory=dict)

    def error(self, column: int, row: int, rule: str) -> DataError:
        """What is wrong with one cell, and where."""
        about = [i for i in (self.date_column, self.asset_column) if i not in (None, column)]
        context = ", ".join(self.columns[i][row] for i in about if i is not None)
        where = f"column '{self.header[column]}', row {self.lines[row]}"
        return DataError(f"{self.name}: {where}{f' ({context})' if context else ''}: {rule}")


def stem(name: str) -> str:
    """A file's name without its ending: AAPL of AAPL.csv and of AAPL.csv.gz, BRK.B of BRK.B.csv."""
    return Path(name.removesuffix(".gz")).stem


def read_table(
    path: str | Path, delimiter: str | None = None, sha256: str | None = None, least: int = 2
) -> Table:
    """Read a CSV or Parquet file.

    Args:
        path: The file; ".parquet" and ".pq" are Parquet, ".gz" compressed text, all else is text.
        delimiter: Between fields; the most frequent of , ; tab | in the header when not given.
        sha256: Digest the file must have; that in the file of the same name and ".sha256", where
            there is one, when not given.
        least: Rows the file must have.

    Raises:
        DataError: If the file is missing, unreadable, changed, not a table, or has no rows.

    """
    file = Path(path)
    with reading(file):
        other = file.suffix.lower() in _OTHERS and file.is_file()
    if other:
        raise DataError(
            f"{file.name}: {file.suffix} files are not read; save it as CSV (.csv or .csv.gz) or "
            "Parquet"
        )
    content = _bytes(file)
    check_digest(file, content, sha256)
    if file.suffix.lower() == ".gz":
        content = _unzipped(file.name, content)
    if file.suffix.lower() in (".parquet", ".pq"):
        table = _parquet_table(file.name, content)
    else:
        table = _csv_table(file.name, _decoded(file.name, content), delimiter)
    table = unstacked(table)
    _check_size(table, least)
    return table


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file or folder if the system does not let it be read."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _bytes(file: Path) -> bytes:
    with reading(file):
        if file.is_dir():
            raise DataError(f"{file}: is a directory; name one CSV or Parquet file")
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            folder = file.parent
            names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
            near = difflib.get_close_matches(file.name, names, n=3)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise DataError(f"{file}: no such file{hint}") from None
    if not content.strip():
        raise DataError(f"{file.name}: is empty; needs a header and at least 2 rows")
    return content


def _unzipped(name: str, content: bytes) -> bytes:
    """What a .gz file holds, refused where it is damaged or grows beyond all measure."""
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            text = stream.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: is no readable .gz file: {error}") from None
    if len(text) > _MOST_BYTES:
        raise DataError(f"{name}: holds more than {_MOST_BYTES / 1e9:.0f} GB; bring it as Parquet")
    return text


def check_digest(file: Path, content: bytes, sha256: str | None = None) -> None:
    """Refuse a file that is not the one that was registered.

    Args:
        file: Where the content stood; "<file>.sha256" holds its digest, as `sha256sum` writes it.
        content: Of the file.
        sha256: The digest, when not in a file.

    """
    beside = file.with_name(file.name + ".sha256")
    if sha256 is None and beside.is_file():
        sha256 = beside.read_text(encoding="utf-8").strip().split(" ")[0]
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise DataError(
            f"{file.name}: file changed since it was registered: its sha256 is {found[:12]}.., "
            f"registered was {sha256[:12]}.."
        )


def _decoded(name: str, content: bytes) -> str:
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    encoding, label = ("utf-16", "UTF-16") if wide else ("utf-8-sig", "UTF-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name}: row {line}: byte {content[error.start]:#04x} is not {label} "
            "text; save the file as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{name}: row {line}: holds a NUL byte; the file is damaged or not text")
    return text


def _csv_table(name: str, text: str, delimiter: str | None) -> Table:
    first = text.lstrip().split("\n", 1)[0]
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter or max(_DELIMITERS, key=first.count),
        strict=True,
        skipinitialspace=True,
    )
    rows: list[list[str]] = []
    lines: list[int] = []
    ended = text.endswith(("\n", "\r"))
    line = 1
    try:
        for row in reader:
            if any(row):
                rows.append(row)
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        unclosed = "unexpected end of data" in str(error)
        reason = "a quotation mark is opened and never closed" if unclosed else str(error)
        raise DataError(f"{name}: row {line}: {reason}") from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    for row, number in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(header):
            cut = not ended and number == lines[-1]
            raise DataError(
                f"{name}: row {number}: {len(row)} fields, the header has {len(header)}"
                + ("; the last line is not ended, the file looks cut off" if cut else "")
            )
    columns = [[cell.strip() for cell in column] for column in zip(*rows[1:], strict=True)]
    columns = columns or [[] for _ in header]
    return Table(name, header, columns, lines[1:], ended)


def _parquet_table(name: str, content: bytes) -> Table:
    from pyarrow import parquet

    try:
        about = parquet.read_metadata(io.BytesIO(content))
        check_memory(name, about.num_rows, about.num_columns, _PANELS_OF_TEXT)
        frame = pd.read_parquet(io.BytesIO(content))
    except InputError:
        raise
    except (OSError, ValueError) as error:  # pyarrow's errors are both of these
        reason = str(error).splitlines()[0]
        raise DataError(f"{name}: is not a readable Parquet file: {reason}") from None
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    levels = frame.columns.nlevels
    if levels > 2:
        raise DataError(f"{name}: columns have names of {levels} levels; bring one or two")
    above = [[str(part).strip() for part in _parts(column)] for column in frame.columns]
    columns = [_as_text(frame.iloc[:, i]).tolist() for i in range(len(above))]
    lines = list(range(1, len(frame) + 1))
    if levels == 2:  # as a text file has it, with a second row of names
        above[0] = ["", ""]
        columns = [[names[1], *cells] for names, cells in zip(above, columns, strict=True)]
        lines = [0, *lines]
    kinds = dict(enumerate(frame.dtypes))
    zones = {i: str(k.tz) for i, k in kinds.items() if isinstance(k, pd.DatetimeTZDtype)}
    return Table(name, [names[0] for names in above], columns, lines, zones=zones)


def _parts(column: Any) -> tuple[Any, ...]:
    """The levels of a column's name."""
    return column if isinstance(column, tuple) else (column,)


def _as_text(column: pd.Series) -> pd.Series:
    """A column as a text file would have it: days without a time, times of a zone with offset."""
    if pd.api.types.is_datetime64_dtype(column.dtype):
        days = column.dropna()
        if (days == days.dt.normalize()).all():
            return column.dt.strftime("%Y-%m-%d").where(column.notna(), "")
    return column.astype(object).map(str).where(column.notna(), "")


def _check_size(table: Table, least: int) -> None:
    name, header, n_rows = table.name, table.header, len(table.lines)
    if n_rows < least or len(header) < 2:
        raise DataError(
            f"{name}: {n_rows} rows and {max(len(header) - 1, 0)} columns beside the dates; "
            f"needs at least {least} row{'s' if least > 1 else ''} and 1 column"
        )
    first: dict[str, int] = {}
    for position, column in enumerate(header, start=1):
        if first.setdefault(column, position) != position:
            raise DataError(
                f"{name}: column '{column}' appears twice, at positions {first[column]} and "
                f"{position}"
            )
