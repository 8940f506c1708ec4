"""Rows of a table of triplets, from CSV or JSONL; errors name the line."""

import csv
import io
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from fusecomp._core.files import open_regular
from fusecomp._core.strict_json import parse_json
from fusecomp.datasets._alike import (
    folded,
    is_blank,
    is_missing_word,
    require_no_list,
    require_text,
)
from fusecomp.datasets._names import require_below, told_apart

__all__ = [
    "TableRow",
    "missing_words",
    "read_table",
    "row_problems",
    "split_problems",
    "without_split",
]

_NEEDED = ("reference", "text")
_OPTIONAL = ("target", "group", "split", "query_id")
_COLUMNS = (*_NEEDED, *_OPTIONAL)
# How alike a name and an optional column must be for the column to be meant.
_ALIKE = 0.8
_SYNONYMS = {"target_ids": "target", "target_image": "target", "group_ids": "group"}
_IMAGES = ("reference", "target", "group")
_LISTS = "write it apart, or the table as JSONL, where text and group may be lists"

_QUOTES = (
    "put texts that hold commas, quotes or line breaks between quotes, and write a quote inside "
    'as ""'
)
# How files begin that are no texts.
_OTHER_KINDS = {
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PAR1": "a Parquet file",
}
_TOO_LONG = (
    "no cell may have more characters: shorten it, close a quotation mark that was left open, or "
    "write the table as JSONL"
)

_Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row as it stands in the file, its types checked and nothing more."""

    line: int
    query_id: str
    reference: str
    texts: tuple[str, ...]
    target: str | None
    group: tuple[str, ...] | None
    split: str | None

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The images that the row names."""
        target = () if self.target is None else (self.target,)
        return (self.reference, *target, *(self.group or ()))

    def cells(self) -> Iterator[tuple[str, str]]:
        """Each value with its column."""
        columns: Mapping[str, Iterable[str | None]] = {
            "reference": (self.reference,),
            "text": self.texts,
            "target": (self.target,),
            "group": self.group or (),
            "split": (self.split,),
            "query_id": (self.query_id,),
        }
        for name, values in columns.items():
            yield from ((name, value) for value in values if value is not None)


def read_table(path: Path) -> list[TableRow]:
    """The rows of a .csv or .jsonl file.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it is no regular file, such as a pipe.
        ValueError: if it is of another kind, holds no row, or a line is not as it must be.
    """
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path} must be a .csv or a .jsonl file, got {path.suffix!r}")
    parsed = readers[path.suffix.lower()](path, _read_text(path))
    rows = [_row(path, line, number, fields) for number, (line, fields) in enumerate(parsed)]
    if not rows:
        raise ValueError(f"{path} holds no rows; each is one query: {', '.join(_COLUMNS[:3])}")
    return rows


def _read_text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            content = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}") from None
    for start, kind in _OTHER_KINDS.items():
        if content.startswith(start):
            raise ValueError(
                f"{path} is {kind}, not a text; unpack it, or save it as a {path.suffix}"
            )
    if b"\0" in content[:2] or content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise ValueError(
            f"{path}, line 1: not UTF-8 (but UTF-16, it seems); save the file as UTF-8"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, _Fields]]:
    # strict: a quote that is never closed would otherwise swallow the rest of the file.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if header is None and cells:
                header = cells
                _check_header(path, line, header)
            elif header is not None and cells:
                yield line, _csv_fields(path, line, header, cells)
            line = reader.line_num + 1
    except csv.Error as error:
        way_out = _TOO_LONG if "field limit" in str(error) else _QUOTES
        raise ValueError(f"{path}, line {line}: not CSV ({error}); {way_out}") from error


def _check_header(path: Path, line: int, header: list[str]) -> None:
    where = f"{path}, line {line}"
    _check_spelling(where, header)
    twice = [name for name in _COLUMNS if header.count(name) > 1]
    if twice:
        raise ValueError(f"{where}: the column {twice[0]!r} stands twice; remove one")
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise ValueError(
            f"{where}: no column {' and '.join(map(repr, missing))}; the header has "
            f"{', '.join(map(repr, header))}, separated by commas; needed are "
            f"{', '.join(_NEEDED)} and, where they are known, {', '.join(_OPTIONAL)}"
        )


def _check_spelling(where: str, names: Collection[str]) -> None:
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


@lru_cache
def _probable(name: str) -> str | None:
    """The optional column that another name probably means."""
    close = get_close_matches(folded(name), _OPTIONAL, 1, _ALIKE)
    return _SYNONYMS.get(folded(name), close[0] if close else None)


def _bare(name: str) -> str:
    return folded(name).replace("_", "").replace("-", "")


# The column that a header means, however it is spelled.
_MEANT = {_bare(name): name for name in _COLUMNS}


def _csv_fields(path: Path, line: int, header: list[str], cells: list[str]) -> _Fields:
    if len(cells) != len(header):
        raise ValueError(
            f"{path}, line {line}: {len(cells)} cells under {len(header)} columns; "
            "put texts that hold commas between quotes"
        )
    fields: dict[str, Any] = dict(zip(header, cells, strict=True))
    for name in _OPTIONAL:
        fields[name] = fields.get(name) or None
    if fields["group"] is not None:
        require_no_list(f"{path}, line {line}", "group", fields["group"], _LISTS)
        fields["group"] = fields["group"].split()
    return fields


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, _Fields]]:
    for line, content in enumerate(text.split("\n"), 1):
        where = f"{path}, line {line}"
        if not content.strip():
            continue
        try:
            fields = parse_json(content, path, line)
        except ValueError as error:
            raise ValueError(
                f"{error}; write one object a line, such as "
                '{"reference": "1.jpg", "text": "is blue", "target": "2.jpg"}'
            ) from error
        if not isinstance(fields, dict):
            raise ValueError(f"{where}: expected an object, got {fields!r:.80}")
        _check_spelling(where, fields)
        for name in _NEEDED:
            if name not in fields:
                raise ValueError(
                    f"{where}: the field {name!r} is missing; there are "
                    f"{', '.join(map(repr, fields))}; needed are {', '.join(_NEEDED)} and, where "
                    f"they are known, {', '.join(_OPTIONAL)}"
                )
        yield line, fields


def _row(path: Path, line: int, number: int, fields: _Fields) -> TableRow:
    where = f"{path}, line {line}"
    text = fields["text"]
    texts = (text,) if isinstance(text, str) else _strings(where, "text", text)
    group = fields.get("group")
    query_id = _optional(where, "query_id", fields)
    row = TableRow(
        line=line,
        query_id=str(number) if query_id is None else query_id,
        reference=_string(where, "reference", fields["reference"]),
        texts=texts,
        target=_optional(where, "target", fields),
        group=None if group is None else _strings(where, "group", group),
        split=_optional(where, "split", fields),
    )
    for name, value in row.cells():
        check = require_text if name == "text" else require_no_list
        check(where, name, value, _LISTS)
        if name in _IMAGES:
            require_below(where, name, value)
    return row


def _string(where: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {name} must be a string that is not empty, got {value!r:.80}")
    return value


def _optional(where: str, name: str, fields: _Fields) -> str | None:
    value = fields.get(name)
    return None if value is None else _string(where, name, value)


def _strings(where: str, name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise ValueError(
            f"{where}: {name} must be a list of strings, at least one"
            f"{', or a string' if name == 'text' else ''}; got {value!r:.80}"
        )
    return tuple(value)


def split_problems(rows: Iterable[TableRow]) -> Iterator[tuple[TableRow, str]]:
    """Names of splits that look like another one: the first row of each, with a sentence."""
    known: set[str] = set()
    first: dict[str, TableRow] = {}
    for row in rows:
        if row.split is None or row.split in known:
            continue
        known.add(row.split)
        alike = first.setdefault(folded(row.split), row)
        if alike is not row:
            own, other = told_apart([row.split, alike.split or ""])
            yield (
                row,
                f"split '{own}' looks like '{other}' of line {alike.line}; write it in one way",
            )


def without_split(rows: Sequence[TableRow]) -> list[TableRow]:
    """The rows that name no split, where other rows name one."""
    found = [row for row in rows if row.split is None]
    return found if len(found) < len(rows) else []


def missing_words(rows: Iterable[TableRow]) -> list[tuple[TableRow, str, str]]:
    """The values that are a word such as "nan": row, column and word."""
    return [
        (row, name, value) for row in rows for name, value in row.cells() if is_missing_word(value)
    ]


def row_problems(rows: Iterable[TableRow]) -> Iterator[tuple[TableRow, str]]:
    """What is wrong with rows that are well formed: each row with a sentence that says it."""
    rows = list(rows)
    grouped = any(row.group is not None for row in rows)
    queries: dict[str, int] = {}
    seen: dict[tuple[str, tuple[str, ...], str | None], int] = {}
    for row in rows:
        if any(map(is_blank, row.texts)):
            yield row, "the text is blank; say what is different, or remove the row"
        if row.target == row.reference:
            yield row, f"the target is the reference, {row.target!r}; a query asks for another one"
        first = queries.setdefault(row.query_id, row.line)
        if first != row.line:
            yield row, f"the query_id {row.query_id!r} stands on line {first} already"
        first = seen.setdefault((row.reference, row.texts, row.target), row.line)
        if first != row.line:
            yield row, f"reference, text and target are those of line {first}; remove one"
        if grouped:
            yield from ((row, sentence) for sentence in _group_problems(row))


def _group_problems(row: TableRow) -> Iterator[str]:
    if row.group is None:
        yield "the group is missing, though other rows have one; give every row a group, or none"
        return
    if len(set(row.group)) != len(row.group):
        yield f"the group names an image twice: {' '.join(row.group)}"
    if row.target is not None and row.target not in row.group:
        yield f"the target {row.target!r} is not in its group: {' '.join(row.group)}"
    elif set(row.group) <= {row.reference}:
        yield "the group holds the reference alone; it must name the images to choose from"
