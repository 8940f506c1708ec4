"""Rows of a table of triplets, from CSV or JSONL; errors name the line."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusecomp.data._names import require_below

__all__ = ["TableRow", "read_table", "row_problems"]

_NEEDED = ("reference", "text")
_COLUMNS = (*_NEEDED, "target", "group", "split", "query_id")
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


def read_table(path: Path) -> list[TableRow]:
    """The rows of a .csv or .jsonl file.

    Raises:
        FileNotFoundError: if there is none.
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
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}") from None
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
        raise ValueError(
            f"{path}, line {line}: not CSV ({error}); put texts that hold commas, quotes or line "
            'breaks between quotes, and write a quote inside as ""'
        ) from error


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
            f"{', '.join(_NEEDED)} and, where they are known, {', '.join(_COLUMNS[2:])}"
        )


def _check_spelling(where: str, names: Iterable[str]) -> None:
    # An optional column that is not recognised would be left out in silence.
    for name in names:
        meant = name.strip().lower()
        if meant in _COLUMNS and name != meant:
            raise ValueError(f"{where}: write {meant!r} in place of {name!r}")


def _csv_fields(path: Path, line: int, header: list[str], cells: list[str]) -> _Fields:
    if len(cells) != len(header):
        raise ValueError(
            f"{path}, line {line}: {len(cells)} cells under {len(header)} columns; "
            "put texts that hold commas between quotes"
        )
    fields: dict[str, Any] = dict(zip(header, cells, strict=True))
    for name in _COLUMNS[2:]:
        fields[name] = fields.get(name) or None
    if fields["group"] is not None:
        fields["group"] = fields["group"].split()
    return fields


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, _Fields]]:
    for line, content in enumerate(text.split("\n"), 1):
        where = f"{path}, line {line}"
        if not content.strip():
            continue
        try:
            fields = json.loads(content)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(
                f"{where}: not JSON ({error}); write one object a line, such as "
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
                    f"they are known, {', '.join(_COLUMNS[2:])}"
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
    _check_names(where, row)
    return row


def _check_names(where: str, row: TableRow) -> None:
    named = {"reference": (row.reference,), "target": (row.target,), "group": row.group or ()}
    for field, names in named.items():
        for name in names:
            if name is not None:
                require_below(where, field, name)


def _string(where: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
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


def row_problems(rows: Iterable[TableRow]) -> Iterator[tuple[TableRow, str]]:
    """What is wrong with rows that are well formed: each row with a sentence that says it."""
    rows = list(rows)
    grouped = any(row.group is not None for row in rows)
    queries: dict[str, int] = {}
    seen: dict[tuple[str, tuple[str, ...], str | None], int] = {}
    for row in rows:
        if not all(text.strip() for text in row.texts):
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
