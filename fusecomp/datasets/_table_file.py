"""Rows of a table of triplets, from CSV or JSONL; errors name the line."""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from fusecomp._core.checks import shown, strings
from fusecomp._core.files import open_regular
from fusecomp._core.strict_json import parse_json
from fusecomp.datasets._alike import folded, require_no_list, require_text
from fusecomp.datasets._entries import Entry
from fusecomp.datasets._folder import require_below

# The images of each group, by its name.
Groups = Mapping[str, Sequence[str]]

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
_TOO_LONG = (
    "no cell may have more characters: shorten it, close a quotation mark that was left open, or "
    "write the table as JSONL"
)

_Fields = dict[str, object]


def cells(row: Entry) -> Iterator[tuple[str, str]]:
    """Yield each value after its column."""
    columns: Mapping[str, Iterable[str | None]] = {
        "reference": [row.reference],
        "text": row.texts,
        "target": [row.target],
        "group": row.group or (),
        "split": [row.split],
        "query_id": [row.query_id],
    }
    for name, values in columns.items():
        yield from ((name, value) for value in values if value is not None)


def read_table(path: Path, groups: Groups | None = None) -> list[Entry]:
    """Return the rows of a .csv or .jsonl file, which name their group or list its members."""
    suffix = path.suffix.lower()
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    if suffix not in readers:
        raise ValueError(f"{path} must be a .csv or a .jsonl file, got {path.suffix!r}")
    if groups is not None:
        if not isinstance(groups, Mapping):
            raise ValueError(f"groups must map names to lists of image ids, got {shown(groups)}")
        groups = {name: strings(f"groups[{name!r}]", ids) for name, ids in groups.items()}
    rows: list[Entry] = []
    for line, fields in readers[suffix](path, _read_text(path)):
        where, group = f"{path}, line {line}", fields.get("group")
        if group is not None and groups is not None:
            name = _string(where, "group", group)
            if name not in groups:
                known = shown(list(groups))
                raise ValueError(f"{where}: unknown group {name!r}; groups has {known}")
            fields["group"] = list(groups[name])
        elif isinstance(group, str) and suffix == ".csv":
            require_no_list(where, "group", group, _LISTS)
            fields["group"] = group.split()
        rows.append(_row(where, f"line {line}", len(rows), fields))
    if not rows:
        raise ValueError(f"{path} holds no rows; each is one query: {', '.join(_COLUMNS[:3])}")
    return rows


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


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, _Fields]]:
    # strict: a quote that is never closed would otherwise swallow the rest of the file.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            where = f"{path}, line {line}"
            if header is None and cells:
                header = cells
                _check_columns(where, header)
                for name in _COLUMNS:
                    if header.count(name) > 1:
                        raise ValueError(f"{where}: the column {name!r} is there twice; remove one")
            elif header is not None and cells:
                if len(cells) != len(header):
                    raise ValueError(
                        f"{where}: {len(cells)} cells under {len(header)} columns; "
                        "put texts that hold commas between quotes"
                    )
                fields: _Fields = dict(zip(header, cells, strict=True))
                yield line, fields | {name: fields.get(name) or None for name in _OPTIONAL}
            line = reader.line_num + 1
    except csv.Error as error:
        way_out = _TOO_LONG if "field limit" in str(error) else _QUOTES
        raise ValueError(f"{path}, line {line}: not CSV ({error}); {way_out}") from error


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, _Fields]]:
    for line, content in enumerate(text.split("\n"), 1):
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
        yield line, fields


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
_MEANT = {_bare(name): name for name in _COLUMNS}


def _row(where: str, line: str, number: int, fields: _Fields) -> Entry:
    text, group = fields["text"], fields.get("group")
    row = Entry(
        where=line,
        query_id=_optional(where, "query_id", fields) or str(number),
        reference=_string(where, "reference", fields["reference"]),
        texts=(text,) if isinstance(text, str) else _strings(where, "text", text),
        target=_optional(where, "target", fields),
        group=None if group is None else _strings(where, "group", group),
        split=_optional(where, "split", fields),
    )
    for name, value in cells(row):
        check = require_text if name == "text" else require_no_list
        check(where, name, value, _LISTS)
        if name in _IMAGES:
            require_below(where, name, value)
    return row


def _string(where: str, name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {name} must be a string that is not empty, got {value!r:.80}")
    return value


def _optional(where: str, name: str, fields: _Fields) -> str | None:
    value = fields.get(name)
    return None if value is None else _string(where, name, value)


def _strings(where: str, name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise ValueError(
            f"{where}: {name} must be a list of strings, at least one"
            f"{', or a string' if name == 'text' else ''}; got {value!r:.80}"
        )
    return tuple(value)
