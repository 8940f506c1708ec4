"""Rows of a table of triplets: values checked column by column, problems told row by row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, count
from typing import NamedTuple, TypeVar

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
from fusecomp.types import Triplet

# The images of each group, by its name.
Groups = Mapping[str, Sequence[str]]

_BETWEEN_TARGETS = "|"
_LISTS = (
    f"write several targets as b{_BETWEEN_TARGETS}c, a group as b c, or the table as JSONL, where "
    "text, target and group may be lists"
)
_Strings = tuple[str, ...]
_Read = TypeVar("_Read")


class Rows(NamedTuple):
    """Rows by column, those of ``Entry``: most checks read few, and few rows are looked at."""

    where: Sequence[str]
    query_ids: Sequence[str]
    references: Sequence[str]
    texts: Sequence[_Strings]
    targets: Sequence[_Strings]
    groups: Sequence[_Strings | None]
    splits: Sequence[str | None]

    def entries(self) -> Iterator[Entry]:
        """Yield each row."""
        return map(Entry._make, zip(*self, strict=True))

    def take(self, numbers: Sequence[int]) -> "Rows":
        """Return the rows of these numbers."""
        return Rows._make(list(map(column.__getitem__, numbers)) for column in self)

    @property
    def image_ids(self) -> dict[str, None]:
        """The images that the rows name, once, in their order."""
        named: dict[str, None] = {}
        for row in zip(self.references, self.targets, self.groups, strict=True):
            reference, targets, group = row
            named[reference] = None
            for image_id in targets if group is None else targets + group:
                named[image_id] = None
        return named

    def triplets(self) -> list[Triplet]:
        """Return the query of each row."""
        first = [targets[0] if targets else None for targets in self.targets]
        others = [targets[1:] for targets in self.targets]
        columns = self.query_ids, self.references, self.texts, first, self.groups, others
        return list(map(Triplet, *columns))


def missing_words(rows: Rows) -> Iterator[tuple[str, str, str]]:
    """Yield words that are printed for a missing value, after the place and the column."""
    if not _has_missing_word(rows):  # quickly, as nearly always
        return
    for row in rows.entries():
        others = row.group or (), (row.split or "",), (row.query_id,)
        columns = (row.reference,), row.texts, row.targets, *others
        for name, values in zip(COLUMNS, columns, strict=True):
            yield from ((row.where, name, value) for value in filter(is_missing_word, values))


def _has_missing_word(rows: Rows) -> bool:
    names = filter(None, chain(rows.query_ids, {*rows.references}, {*rows.splits}))
    lists = filter(None, chain(rows.texts, {*rows.targets}, {*rows.groups}))
    values = chain(names, chain.from_iterable(lists))
    return not MISSING_WORDS.isdisjoint(map(str.strip, values))


def read_table(table: Table, groups: Groups | None = None) -> Rows:
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
    return Rows(
        where,
        [str(number) if name is None else name for number, name in names],
        _each(references, partial(check.image_id, "reference")),
        check.texts(texts),
        _each(targets, check.targets),
        _each(of_groups, partial(check.members, groups=groups)),
        check.names("split", splits),
    )


class _Check:
    """Checks of the columns of a table; a ValueError names the place of the wrong value."""

    def __init__(self, table: Table, places: Sequence[str]) -> None:
        self._table = table
        self._places = places
        self._image_ids: set[str] = set()

    def names(self, column: str, values: Sequence[object]) -> Sequence[str | None]:
        """Return strings, some of which may be absent."""

        def read(value: object, row: int) -> str | None:
            return None if value is None else self._name(column, value, row)

        return _each(values, read)

    def texts(self, values: Sequence[object]) -> Sequence[_Strings]:
        """Return the texts of each row."""
        column = [
            (value,) if isinstance(value, str) else self._strings("text", value, row)
            for row, value in enumerate(values)
        ]
        odd = set(filter(may_be_odd, chain.from_iterable(column)))
        for row, texts in enumerate(column if odd else ()):
            for text in filter(odd.__contains__, texts):
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
        if isinstance(value, str) and value in self._image_ids:
            return value
        name = self._name(column, value, row)
        require_below(self._where(row), column, name)
        self._image_ids.add(name)
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


def _each(values: Sequence[object], read: Callable[[object, int], _Read]) -> list[_Read]:
    """Return what each value is read as, from the value and its row, the first where it repeats."""
    # Without one error during another: the row that replays it is the right one.
    with suppress(TypeError, ValueError):
        known = {value: read(value, 0) for value in dict.fromkeys(values)}
        return list(map(known.__getitem__, values))
    return list(map(read, values, count()))
