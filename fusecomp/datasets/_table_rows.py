"""Rows of a table of triplets: values checked column by column, problems told row by row."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TypeVar, cast

from fusecomp._core.checks import shown, strings
from fusecomp.datasets._alike import (
    MISSING_WORDS,
    is_missing_word,
    may_be_odd,
    require_no_list,
    require_text,
)
from fusecomp.datasets._entries import Entry
from fusecomp.datasets._folder import require_below
from fusecomp.datasets._table_file import COLUMNS, Table

# The images of each group, by its name.
Groups = Mapping[str, Sequence[str]]

_BETWEEN_TARGETS = "|"
_LISTS = (
    f"write several targets as b{_BETWEEN_TARGETS}c, a group as b c, or the table as JSONL, where "
    "text, target and group may be lists"
)
_Strings = tuple[str, ...]
_Read = TypeVar("_Read")


def image_ids_of(rows: Iterable[Entry]) -> dict[str, None]:
    """Return the images that rows name, once, in the order of the rows."""
    return dict.fromkeys(chain.from_iterable(row.image_ids for row in rows))


def missing_words(rows: Sequence[Entry]) -> Iterator[tuple[str, str, str]]:
    """Yield words that are printed for a missing value, after the place and the column."""
    if not _has_missing_word(rows):  # quickly, as nearly always
        return
    for row in rows:
        columns: Mapping[str, Iterable[str | None]] = {
            "reference": [row.reference],
            "text": row.texts,
            "target": row.targets,
            "group": row.group or (),
            "split": [row.split],
            "query_id": [row.query_id],
        }
        for name, values in columns.items():
            for value in values:
                if value is not None and is_missing_word(value):
                    yield row.where, name, value


def _has_missing_word(rows: Sequence[Entry]) -> bool:
    names = chain(image_ids_of(rows), (row.query_id for row in rows), {row.split for row in rows})
    texts = chain.from_iterable(row.texts for row in rows)
    return not MISSING_WORDS.isdisjoint(map(str.strip, chain(filter(None, names), texts)))


def read_table(table: Table, groups: Groups | None = None) -> list[Entry]:
    """Return the rows of a table, which name their group or list its members."""
    if groups is not None:
        if not isinstance(groups, Mapping):
            raise ValueError(f"groups must map names to lists of image ids, got {shown(groups)}")
        groups = {name: strings(f"groups[{name!r}]", ids) for name, ids in groups.items()}
    places, (references, texts, targets, of_groups, splits, query_ids) = table.read()
    if not places:
        raise ValueError(f"{table.name} holds no rows; each is one query: {', '.join(COLUMNS[:3])}")
    where = [f"{table.place} {place}" for place in places]
    check = _Check(table, where)
    names = enumerate(check.names("query_id", query_ids))
    columns = (
        [str(number) if name is None else name for number, name in names],
        _each(references, partial(check.image_id, "reference")),
        check.texts(texts),
    )
    answers = _each(targets, check.targets)
    first, others = [ids[0] if ids else None for ids in answers], [ids[1:] for ids in answers]
    members = _each(of_groups, partial(check.members, groups=groups))
    return list(map(Entry, where, *columns, first, members, check.names("split", splits), others))


class _Check:
    """Checks of the columns of a table; a ValueError names the place of the wrong value."""

    def __init__(self, table: Table, places: Sequence[str]) -> None:
        self._table = table
        self._places = places

    def names(self, column: str, values: Sequence[object]) -> Sequence[str | None]:
        """Return strings, some of which may be absent."""
        for row, value in _different(values):
            if value is not None:
                self._name(column, value, row)
        return cast("Sequence[str | None]", values)

    def texts(self, values: Sequence[object]) -> Sequence[_Strings]:
        """Return the texts of each row."""
        column: Sequence[_Strings] = list(zip(cast("Sequence[str]", values), strict=True))
        if {*map(type, values)} != {str}:
            column = [
                (value,) if isinstance(value, str) else self._strings("text", value, row)
                for row, value in enumerate(values)
            ]
        for row, texts in enumerate(column):
            for text in texts:
                if may_be_odd(text):
                    require_text(self._where(row), "text", text, _LISTS)
        return column

    def targets(self, value: object, row: int) -> _Strings:
        """Return the right answers of a row, () where none is known."""
        if value is None:
            return ()
        if not isinstance(value, str):
            return self._ids("target", value, row)
        several = self._table.of_cells and _BETWEEN_TARGETS in value
        parts = value.split(_BETWEEN_TARGETS) if several else [value]
        return tuple(self.image_id("target", p.strip() if several else p, row) for p in parts)

    def members(self, value: object, row: int, groups: Groups | None) -> _Strings | None:
        """Return the members of a row's group, None where it has none."""
        if value is None:
            return None
        if groups is not None:
            name = self._name("group", value, row)
            if name not in groups:
                known = shown(list(groups))
                raise ValueError(f"{self._where(row)}: unknown group {name!r}; groups has {known}")
            value = list(groups[name])
        elif isinstance(value, str) and self._table.of_cells:
            require_no_list(self._where(row), "group", value, _LISTS)
            value = value.split()
        return self._ids("group", value, row)

    def _ids(self, column: str, value: object, row: int) -> _Strings:
        return tuple(self.image_id(column, name, row) for name in self._strings(column, value, row))

    def image_id(self, column: str, value: object, row: int) -> str:
        """Return an image id."""
        name = self._name(column, value, row)
        require_below(self._where(row), column, name)
        return name

    def _name(self, column: str, value: object, row: int) -> str:
        where = self._where(row)
        if not isinstance(value, str) or not value.strip():
            expected = "a string that is not empty"
            raise ValueError(f"{where}: {column} must be {expected}, got {value!r:.80}")
        require_no_list(where, column, value, _LISTS)
        return value

    def _strings(self, column: str, value: object, row: int) -> _Strings:
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise ValueError(
                f"{self._where(row)}: {column} must be a list of strings, at least one"
                f"{'' if column == 'group' else ', or a string'}; got {value!r:.80}"
            )
        return tuple(value)

    def _where(self, row: int) -> str:
        return f"{self._table.name}, {self._places[row]}"


def _different(values: Sequence[object]) -> list[tuple[int, object]]:
    """Return each value after its first row; all values, where some are lists."""
    try:
        # The first row comes last, and is kept.
        first = dict(zip(reversed(values), range(len(values) - 1, -1, -1), strict=True))
    except TypeError:
        return list(enumerate(values))
    return sorted((row, value) for value, row in first.items())


def _each(values: Sequence[object], read: Callable[[object, int], _Read]) -> list[_Read]:
    """Return what each value is read as, from the value and its first row."""
    rows = _different(values)
    if len(rows) == len(values):
        return [read(value, row) for row, value in rows]
    known = {value: read(value, row) for row, value in rows}
    return list(map(known.__getitem__, values))
