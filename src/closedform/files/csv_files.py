"""Text: CSV and its relatives, parsed by pyarrow. What they are separated by is read off their first lines.

Commas, semicolons (with decimal commas, as spreadsheets in much of Europe write them), tabs, bars and runs of blanks
separate; ``#`` at the start of a line comments it out; UTF-8, UTF-16 and Windows-1252 are told apart; gzip, bzip2,
xz and zstandard are unpacked.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast, final

import numpy as np
from torch import Tensor
from typing_extensions import override

from closedform.files.columns import ColumnSource, arrow_errors, entries_of, words_of
from closedform.files.formats import Entry, FileFormat, FileSource, import_extra, reading
from closedform.words.errors import SourceError
from closedform.words.text import printable

__all__ = ["CsvFormat", "CsvSource", "looks_like_table", "parsed_once"]

_TITLE = "CSV"
#: Bytes of a file that tell how it is written.
_SAMPLE = 1 << 16
#: Lines of them.
_LINES = 100
#: What may separate columns, tried in this order after the one that the ending promises; blanks come last.
_SEPARATORS = (",", ";", "\t", "|", " ")
_UNPACK = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")
#: The line above a table with which spreadsheets say what separates its columns.
_DECLARED = re.compile(r"sep=(.)", re.IGNORECASE)
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


#: The texts that were parsed within :func:`parsed_once`, with their notes.
_parsed: ContextVar[dict[Path, tuple[Any, tuple[str, ...]]] | None] = ContextVar("parsed", default=None)


@contextmanager
def parsed_once() -> Iterator[None]:
    """Parse each text only once within, however often its names, words and numbers are asked for, and then let it go.

    Example:
        >>> with parsed_once():
        ...     pass  # files are looked into and opened here
    """
    outer = _parsed.get()
    token = _parsed.set({} if outer is None else outer)
    try:
        yield
    finally:
        _parsed.reset(token)


@final
@dataclass(frozen=True)
class _Dialect:
    """How a text is written."""

    encoding: str
    separator: str
    decimal: str
    comments: bool
    quoted: bool
    names: tuple[str, ...] | None
    notes: tuple[str, ...]


@final
class CsvFormat(FileFormat):
    """Text whose first line names the columns."""

    title = _TITLE
    suffixes = (".csv", ".tsv", *(f"{ending}{packed}" for ending in (".csv", ".tsv", ".txt") for packed in _UNPACK))
    columns = True

    @override
    def entries(self, path: Path) -> dict[str, Entry]:
        table, _ = _read_csv(path, None)
        return entries_of(table.schema, table.num_rows)

    @override
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        # Only parsing tells how many numbers the text holds; and it is rarely smaller than they are.
        size = path.stat().st_size
        if size > budget:
            raise _too_large(path, size, budget)
        table, notes = _read_csv(path, budget)
        return CsvSource(path, key, table, notes)

    @override
    def words(self, path: Path, key: str) -> np.ndarray[Any, Any] | None:
        table, _ = _read_csv(path, None)
        return words_of(table.select([key])) if table.column_names.count(key) == 1 else None


def _too_large(path: Path, size: int, budget: int) -> SourceError:
    return SourceError(
        f"{path} has {size / 1e9:.2f} GB of text, over the memory share of {budget / 1e9:.2f} GB, "
        "and text cannot be read by row ranges; convert it to .parquet or .h5."
    )


def looks_like_table(path: Path) -> bool:
    """Return whether a file of unknown ending is text whose first line names the columns of numbers below it."""
    try:
        text, _ = _sample(path)
        rows = _rows(_lines(text), _separator(_lines(text), ","))
    except (SourceError, OSError, ValueError, EOFError):
        return False
    if "\0" in text or len(rows) < 2 or _are_data(rows[0]):
        return False
    numbers = [_is_number(cell) for row in rows[1:] for cell in row]
    return len(rows[0]) == len(rows[1]) and sum(numbers) > len(numbers) / 2


def _open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading its bytes, unpacked."""
    unpack: Any = _UNPACK.get(path.suffix.lower(), open)
    return cast(BinaryIO, unpack(path, "rb"))


def _sample(path: Path) -> tuple[str, str]:
    """Return the start of a text, whole lines of it, and its encoding."""
    with _open_bytes(path) as stream:
        head = stream.read(_SAMPLE)
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")
    if encoding == "utf-8" and head[1:2] == b"\0" and head[3:4] == b"\0":
        encoding = "utf-16-le"
    if encoding == "utf-8" and head[:1] == b"\0" and head[2:3] == b"\0":
        encoding = "utf-16-be"
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        text = decoder.decode(head)
    except UnicodeDecodeError:
        encoding = "cp1252"
        text = head.decode(encoding, "replace")
    if len(head) == _SAMPLE and "\n" in text:
        text = text[: text.rindex("\n") + 1]
    return text, encoding


def _lines(text: str) -> list[str]:
    """Return the first lines that are neither blank nor comments."""
    found = (line.rstrip("\n") for line in io.StringIO(text, newline=None))
    return list(islice((line for line in found if _is_row(line)), _LINES))


def _is_row(line: str) -> bool:
    stripped = line.strip()
    return bool(stripped) and not stripped.startswith("#") and _DECLARED.fullmatch(stripped) is None


def _rows(lines: list[str], separator: str) -> list[list[str]]:
    if separator == " ":
        return [line.split() for line in lines]
    text = "\n".join(lines)
    return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True) if row]


def _separator(lines: list[str], promised: str) -> str:
    """Return what separates the columns: the first separator that cuts every line into as many parts as the first."""
    for separator in dict.fromkeys((promised, *_SEPARATORS)):
        rows = _rows(lines, separator)
        if rows and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows):
            return separator
    return promised


def _dialect(path: Path) -> _Dialect:
    promised = "\t" if ".tsv" in path.suffixes else ","
    text, encoding = _sample(path)
    declared = _DECLARED.match(text)
    lines = _lines(text)
    separator = _separator(lines, promised if declared is None else declared[1])
    rows = _rows(lines, separator)
    notes = []
    if separator != promised:
        words = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
        notes.append(f"{path} was read as separated by {words[separator]}")

    decimal = _decimal(path, separator, rows[1:])
    if decimal == ",":
        notes.append(f"numbers of {path} were read with decimal commas")

    if encoding == "cp1252":
        notes.append(f"{path} is not UTF-8 and was read as Windows-1252")

    comments = [line.strip().lstrip("#").strip() for line in io.StringIO(text) if line.lstrip().startswith("#")]
    cleaned, names = bool(comments) or declared is not None, None
    if rows and _are_data(rows[0]) and comments:
        # numpy.savetxt(header=...) writes the names as a comment.
        named = _rows(comments[-1:], separator)
        if named and len(named[0]) == len(rows[0]) and not any(map(_is_number, named[0])):
            names = tuple(named[0])
            notes.append(f"the columns of {path} were named by its comment")

    return _Dialect(encoding, separator, decimal, cleaned, '"' in text, names, tuple(notes))


def _decimal(path: Path, separator: str, rows: list[list[str]]) -> str:
    """Return the decimal mark: a comma where numbers hold one and it does not separate the columns.

    Raises:
        SourceError: the commas may as well stand between thousands.
    """
    if separator == ",":
        return "."
    cells = [cell.strip() for row in rows for cell in row if "," in cell]
    numbers = [cell for cell in cells if _DECIMAL_COMMA.fullmatch(cell)]
    if not numbers:
        return "."
    if separator != ";" and all(re.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}", cell) for cell in numbers):
        raise SourceError(
            f"{path} holds numbers such as {numbers[0]}, which may have a decimal comma or a comma between thousands; "
            "write them with a decimal point."
        )
    return ","


def _read_csv(path: Path, budget: int | None) -> tuple[Any, tuple[str, ...]]:
    """Return the rows of a text as an Arrow table, and notes on how it was read."""
    known = _parsed.get()
    if known is None:
        return _parse(path, budget)
    if path not in known:
        known[path] = _parse(path, budget)
    return known[path]


def _parse(path: Path, budget: int | None) -> tuple[Any, tuple[str, ...]]:
    """Parse a text; its rows as an Arrow table, and notes on how it was read.

    Raises:
        SourceError: it is damaged, has another separator than its ending says, or no line that names the columns.
    """
    library = import_extra("pyarrow.csv", "pyarrow", "reading CSV files")
    with reading(path, _TITLE, *arrow_errors(), EOFError, lzma.LZMAError, csv.Error, UnicodeError):
        dialect = _dialect(path)
        separator = "\t" if dialect.separator == " " else dialect.separator
        names = dialect.names
        table = library.read_csv(
            _clean(path, dialect, budget),
            read_options=library.ReadOptions(encoding=_plain(dialect.encoding), column_names=names),
            parse_options=library.ParseOptions(delimiter=separator, newlines_in_values=dialect.quoted),
            convert_options=library.ConvertOptions(decimal_point=dialect.decimal),
        )
        table = table.rename_columns([_unquoted(name) for name in table.column_names])

    names = table.column_names
    if len(names) == 1 and any(mark in names[0] for mark in ";\t,"):
        wanted = "tabs" if separator == "\t" else "commas"
        raise SourceError(
            f"{path} is not separated by {wanted}: its first line is "
            f"{names[0]!r}; write it with the separator of its ending (.csv: comma, .tsv: tab)."
        )

    if dialect.names is None and _are_data(names):
        raise SourceError(
            f"the first line of {path} holds numbers ({', '.join(names[:3])}, ...), not column names; add a "
            "first line that names the columns."
        )

    return table, dialect.notes


def _plain(encoding: str) -> str:
    return "utf-8" if encoding == "utf-8-sig" else encoding


def _unquoted(name: str) -> str:
    """Return a name without the blanks around it, and without quotes that stand behind a blank."""
    name = name.strip()
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] == '"' else name


def _clean(path: Path, dialect: _Dialect, budget: int | None) -> Any:
    """Return what pyarrow shall parse: the file itself where it can, else its text without comments and runs of blanks.

    Raises:
        SourceError: it unpacks to more than the budget.
    """  # noqa: DOC501  # _too_large makes it
    packed = path.suffix.lower() in _UNPACK
    if not (packed or dialect.comments or dialect.separator == " "):
        return path
    with _open_bytes(path) as stream:
        content = stream.read() if budget is None else stream.read(budget + 1)
    if budget is not None and len(content) > budget:
        raise _too_large(path, len(content), budget)
    if dialect.comments or dialect.separator == " ":
        text = content.decode(dialect.encoding)
        return io.BytesIO("".join(_cleaned(text, dialect.separator == " ")).encode(_plain(dialect.encoding)))
    return io.BytesIO(content)


def _cleaned(text: str, blanks: bool) -> Iterator[str]:
    for line in io.StringIO(text, newline=None):
        if _is_row(line):
            yield "\t".join(line.split()) + "\n" if blanks else line


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _are_data(names: list[str]) -> bool:
    """Whether a header line looks like a row of numbers; 0, 1, 2, ... are the names pandas gives columns."""
    if [name for name in names if name] == [str(i) for i in range(len([name for name in names if name]))]:
        return False
    return bool(names) and all(map(_is_number, names))


@final
class CsvSource(ColumnSource):
    """Columns of a parsed text."""

    streams = False

    def __init__(self, path: Path, key: str, table: Any, notes: tuple[str, ...] = ()) -> None:
        self.set_columns(path, key, table.schema, table.num_rows, {})
        self.notes += tuple(map(printable, notes))
        self._table = table

    @override
    def read(self, start: int, stop: int) -> Tensor:
        return self.stack(self._table.slice(start, stop - start), start)

    @override
    def read_table(self, names: list[str]) -> Any:
        return self._table.select(names)
