"""Columns of a table of triplets, from CSV, JSONL or a DataFrame; errors name the line."""

import csv
import io
import sys
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fusecomp._core.checks import as_path
from fusecomp._core.files import open_regular
from fusecomp._core.strict_json import parse_json
from fusecomp.datasets._alike import folded

if TYPE_CHECKING:
    from pandas import DataFrame, Series

_NEEDED = ("reference", "text")
_OPTIONAL = ("target", "group", "split", "query_id")
COLUMNS = (*_NEEDED, *_OPTIONAL)
# How alike a name and an optional column must be for the column to be meant.
_ALIKE = 0.8
_SYNONYMS = {"target_ids": "target", "target_image": "target", "group_ids": "group"}

_QUOTES = (
    "put texts that hold commas, quotes or line breaks between quotes, and write a quote inside "
    'as ""'
)
_TOO_LONG = (
    "no cell may have more characters: shorten it, close a quotation mark that was left open, or "
    "write the table as JSONL"
)

# Where rows are (such as lines), and the values of each of COLUMNS; None is absent.
_Content = tuple[Sequence[int], Sequence[Sequence[object]]]


class Table(NamedTuple):
    """A table before it is read.

    ``name`` and ``place`` are for errors, as in "mine.csv, line 3". Where it is ``of_cells``, a
    cell may hold several ids; otherwise a list does.
    """

    name: str
    place: str
    of_cells: bool
    read: Callable[[], _Content]


def table_of(source: object) -> Table:
    """Return the table of a .csv or .jsonl file, or of a DataFrame."""
    pandas = sys.modules.get("pandas")  # whoever has a DataFrame has imported it
    if pandas is not None and isinstance(source, pandas.DataFrame):
        return Table("DataFrame", "row", True, lambda: _frame_columns(source))
    path = as_path("path", source)
    if path.suffix.lower() == ".csv":
        return Table(str(path), "line", True, lambda: _csv_columns(path))
    if path.suffix.lower() == ".jsonl":
        return Table(str(path), "line", False, lambda: _json_columns(path))
    raise ValueError(f"{path} must be a .csv or a .jsonl file, got {path.suffix!r}")


def _read_text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            content = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}") from None
    if b"\0" in content[:8]:
        raise ValueError(
            f"{path}, line 1: not UTF-8 (but UTF-16, or compressed, or of another program, as it "
            f"starts with {content[:8]!r}); save it as a {path.suffix} in UTF-8"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error


def _csv_columns(path: Path) -> _Content:
    lines, rows = _csv_rows(path, _read_text(path))
    if not rows:
        return [], [[]] * len(COLUMNS)
    header = rows[0]
    _check_header(f"{path}, line {lines[0]}", header)
    if {*map(len, rows)} != {len(header)}:
        line, row = next(p for p in zip(lines, rows, strict=True) if len(p[1]) != len(header))
        raise ValueError(
            f"{path}, line {line}: {len(row)} cells under {len(header)} columns; "
            "put texts that hold commas between quotes"
        )
    columns = dict(zip(header, zip(*rows[1:], strict=True), strict=False))
    return lines[1:], [_filled(name, columns.get(name), len(rows) - 1) for name in COLUMNS]


def _csv_rows(path: Path, text: str) -> tuple[Sequence[int], Sequence[list[str]]]:
    """Return the lines of the rows that are not empty, and their cells."""
    # strict: a quote that is never closed would otherwise swallow the rest of the file.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines, rows = [1], []
    try:
        for cells in reader:
            rows.append(cells)
            lines.append(reader.line_num + 1)
    except csv.Error as error:
        way_out = _TOO_LONG if "field limit" in str(error) else _QUOTES
        raise ValueError(f"{path}, line {lines[-1]}: not CSV ({error}); {way_out}") from error
    return list(compress(lines, rows)), list(filter(None, rows))


def _filled(name: str, column: Sequence[object] | None, rows: int) -> Sequence[object]:
    """Return a column whose empty cells are absent values, where it is optional."""
    if column is None:
        return [None] * rows
    return [None if cell == "" else cell for cell in column] if name in _OPTIONAL else column


def _check_header(where: str, header: Sequence[str]) -> None:
    _check_columns(where, header)
    for name in COLUMNS:
        if header.count(name) > 1:
            raise ValueError(f"{where}: the column {name!r} is there twice; remove one")


def _json_columns(path: Path) -> _Content:
    lines, rows = [], []
    for line, content in enumerate(_read_text(path).split("\n"), 1):
        if not content.strip():
            continue
        try:
            fields = parse_json(content, path, line)
        except ValueError as error:
            raise ValueError(
                f"{error}; write one object a line, such as "
                '{"reference": "1.jpg", "text": "is blue", "target": "2.jpg"}'
            ) from error
        where = f"{path}, line {line}"
        if not isinstance(fields, dict):
            raise ValueError(f"{where}: expected an object, got {fields!r:.80}")
        _check_columns(where, fields)
        lines.append(line)
        rows.append(fields)
    return lines, [[fields.get(name) for fields in rows] for name in COLUMNS]


def _frame_columns(frame: "DataFrame") -> _Content:
    header = [name for name in frame.columns if isinstance(name, str)]
    _check_header("DataFrame", header)
    columns = {name: _values_of(frame[name]) for name in COLUMNS if name in header}
    rows = range(len(frame))
    return rows, [_filled(name, columns.get(name), len(rows)) for name in COLUMNS]


def _values_of(column: "Series[object]") -> list[object]:
    """Return the values of a column, None where one is missing; ValueError if they are numbers."""
    missing = column.isna().tolist()
    if column.dtype.kind in "biufcmM" and not all(missing):
        raise ValueError(
            f"DataFrame: the column {column.name!r} is {column.dtype}, expected strings; read the "
            "table with dtype=str, as an id such as 007 has lost its zeros, or use .astype(str)"
        )
    # A column of lists comes from a Parquet file as arrays.
    values = [v.tolist() if isinstance(v, np.ndarray) else v for v in column.tolist()]
    return [None if absent else v for v, absent in zip(values, missing, strict=True)]


def _check_columns(where: str, names: Collection[str]) -> None:
    # An optional column that is not recognised would be left out in silence.
    for name in names:
        meant = _MEANT.get(_bare(name), name)
        if name != meant:
            raise ValueError(f"{where}: write {meant!r} in place of {name!r}")
        probable = _probable(name)
        if probable is not None and probable not in names:
            raise ValueError(
                f"{where}: there is no {probable!r} but {name!r}, which probably means it: write "
                f"{probable!r}, or give {name!r} another name if it is something else"
            )
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise ValueError(
            f"{where}: no {' and '.join(map(repr, missing))}; there are "
            f"{', '.join(map(repr, names))}; needed are {', '.join(_NEEDED)} and, where they are "
            f"known, {', '.join(_OPTIONAL)}; a CSV file separates them by commas"
        )


@lru_cache
def _probable(name: str) -> str | None:
    """The optional column that another name probably means."""
    close = get_close_matches(folded(name), _OPTIONAL, 1, _ALIKE)
    return _SYNONYMS.get(folded(name), close[0] if close else None)


def _bare(name: str) -> str:
    return folded(name).replace("_", "").replace("-", "")


# The column that a header means, however it is spelled.
_MEANT = {_bare(name): name for name in COLUMNS}
