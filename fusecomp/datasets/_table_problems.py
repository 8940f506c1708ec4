"""Problems of the rows of a table: reading raises the first, ``inspect`` lists all."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fusecomp._core.checks import is_blank
from fusecomp.datasets._alike import folded
from fusecomp.datasets._entries import Entry
from fusecomp.datasets._folder import ImageFolder, told_apart
from fusecomp.datasets._table_file import Table
from fusecomp.datasets._table_rows import Groups, missing_words, read_table
from fusecomp.datasets._verify import Annotations
from fusecomp.datasets._verify_report import Count

_SHOWN = 10


def repetitions(keys: Iterable[object]) -> dict[int, int]:
    """Return the position of each key that was there before, with the first position of it."""
    first: dict[object, int] = {}
    firsts = [first.setdefault(key, position) for position, key in enumerate(keys)]
    return {position: earlier for position, earlier in enumerate(firsts) if earlier < position}


def repetition(table: str, rows: Sequence[Entry], repeated: Mapping[int, int]) -> str:
    """Return the message on rows that are there before, given as ``repetitions`` does."""
    some = list(repeated.items())[:_SHOWN]
    shown = ", ".join(f"{rows[row].where} ({rows[first].where})" for row, first in some)
    more = f" and {len(repeated) - _SHOWN:,} more" if len(repeated) > _SHOWN else ""
    return (
        f"{table}: {len(repeated):,} of {len(rows):,} rows have the reference, text and target of "
        f'another one: {shown}{more}; remove them, or pass on_repeated="drop"'
    )


def rows_of_split(table: str, rows: list[Entry], split: str | None) -> list[Entry]:
    """Return the rows of a split, all for None; ValueError lists the splits there are."""
    if split is None:
        return rows
    if kept := [row for row in rows if row.split == split]:
        return kept
    splits = dict.fromkeys(row.split for row in rows if row.split is not None)
    if not splits:
        raise ValueError(f"{table} has no column 'split', so there is no split {split!r} in it")
    raise ValueError(f"unknown split {split!r}; {table} has {', '.join(map(repr, splits))}")


def split_problems(rows: Iterable[Entry]) -> Iterator[tuple[Entry, str]]:
    """Yield the first row of each split whose name looks like another one, with a sentence."""
    known: set[str] = set()
    first: dict[str, Entry] = {}
    for row in rows:
        if row.split is None or row.split in known:
            continue
        known.add(row.split)
        alike = first.setdefault(folded(row.split), row)
        if alike is not row:
            name, other = told_apart([row.split, alike.split or ""])
            sentence = f"split '{name}' looks like '{other}' of {alike.where}; write it in one way"
            yield row, sentence


def without_split(rows: Sequence[Entry]) -> list[Entry]:
    """Return the rows that name no split, where other rows name one."""
    found = [row for row in rows if row.split is None]
    return found if len(found) < len(rows) else []


def row_problems(rows: Collection[Entry]) -> Iterator[tuple[Entry, str]]:
    """Yield the rows of one split that make no query, each with a sentence that says why."""
    grouped = any(row.group is not None for row in rows)
    queries: dict[str, Entry] = {}
    for row in rows:
        if any(map(is_blank, row.texts)):
            yield row, "the text is blank; say what is different, or remove the row"
        if row.target == row.reference:
            yield row, f"the target is the reference, {row.target!r}; a query asks for another one"
        if row.other_targets:
            yield from ((row, sentence) for sentence in _target_problems(row))
        first = queries.setdefault(row.query_id, row)
        if first is not row:
            yield row, f"the query_id {row.query_id!r} is on {first.where} already"
        if grouped:
            yield from ((row, sentence) for sentence in _group_problems(row))


def _target_problems(row: Entry) -> Iterator[str]:
    if len(set(row.targets)) != len(row.targets):
        yield f"the target names an image twice: {' '.join(row.targets)}"
    if row.reference in row.other_targets:
        yield f"the reference {row.reference!r} is among the targets; a query asks for other ones"


def _group_problems(row: Entry) -> Iterator[str]:
    if row.group is None:
        yield "the group is missing, though other rows have one; give every row a group, or none"
        return
    if len(set(row.group)) != len(row.group):
        yield f"the group names an image twice: {' '.join(row.group)}"
    if row.target is not None and row.target not in row.group:
        yield f"the target {row.target!r} is not in its group: {' '.join(row.group)}"
    elif set(row.group) <= {row.reference}:
        yield "the group holds the reference alone; it must name the images to choose from"


def inspect(table: Table, images: Path, split: str | None, groups: Groups | None) -> Annotations:
    """Return all that a table and its folder hold, and what is wrong."""
    every_row = read_table(table, groups)
    rows = rows_of_split(table.name, every_row, split)
    folder, found = ImageFolder(images), Annotations(f"table {Path(table.name).name}", images)
    splits: dict[str | None, list[Entry]] = defaultdict(list)
    for row in rows:
        splits[row.split].append(row)
    sources = {image_id: row.where for row in rows for image_id in row.image_ids}
    without_file = [image_id for image_id in sources if not folder.named(image_id)]
    unread = {image_id: why for image_id in without_file if (why := folder.why_not_read(image_id))}
    names = [*folder.names, *(image_id for image_id in without_file if image_id not in unread)]
    found.images = {name: folder.root / name for name in names}
    found.counts = [
        *(Count(f"{name} queries" if name else "queries", len(r)) for name, r in splits.items()),
        Count("images in the table", len(sources)),
        Count("images in the folder", len(folder.names)),
    ]
    _add_rows(rows, splits.values(), every_row, found)
    _add_repeated(rows, found)
    spelled = ((i, f"{sources[i]}: {why}") for i, why, _ in folder.spelling_problems(sources))
    ambiguous = "{} images are not named in one way; TripletTable refuses the table"
    hidden = (
        "{} images have files that are hidden or of a suffix that is not read; TripletTable "
        "refuses the table: rename them"
    )
    found.add("ambiguous", ambiguous, spelled)
    found.add("misnamed", hidden, unread.items())
    splits_of: dict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        for image_id in row.image_ids:
            splits_of[next(iter(folder.named(image_id)), image_id)][str(row.split)] = None
    shared = ((name, ", ".join(where)) for name, where in splits_of.items() if len(where) > 1)
    found.add("overlap", "{} images are in more than one split", shared, fault=False)
    words = ((where, f"{name}: {value}") for where, name, value in missing_words(rows))
    sentence = "{} values are words that are printed where a value is missing"
    found.add("word", sentence, words, fault=False)
    return found


def _add_rows(
    rows: Sequence[Entry],
    splits: Iterable[Collection[Entry]],
    every_row: Sequence[Entry],
    found: Annotations,
) -> None:
    # Rows of two splits may be equal.
    order = {id(row): number for number, row in enumerate(rows)}
    problems = [problem for of_split in splits for problem in row_problems(of_split)]
    problems.sort(key=lambda problem: (order[id(problem[0])], problem[1]))
    refused = "{} rows make no query; TripletTable refuses the table"
    confused = "{} names of splits look like another one; TripletTable reads no split"
    unused = "{} rows name no split, though others do; no split has them"
    found.add("row", refused, ((row.where, why) for row, why in problems))
    found.add("split", confused, ((row.where, why) for row, why in split_problems(every_row)))
    nowhere = ((row.where, "") for row in without_split(every_row))
    found.add("split", unused, nowhere, fault=False)


def _add_repeated(rows: Sequence[Entry], found: Annotations) -> None:
    # A row may be in two splits.
    repeated = repetitions((row.split, row.question) for row in rows)
    sentence = (
        "{} rows have the reference, text and target of another one; TripletTable refuses the "
        'table, or leaves them out with on_repeated="drop"'
    )
    reasons = ((rows[row].where, rows[first].where) for row, first in repeated.items())
    found.add("repeated", sentence, reasons)
