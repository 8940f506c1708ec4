"""Problems of the rows of a table: reading raises the first, ``inspect`` lists all."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, count
from operator import itemgetter
from pathlib import Path

from fusecomp._core.checks import is_blank
from fusecomp.datasets._alike import folded
from fusecomp.datasets._folder import ImageFolder, told_apart
from fusecomp.datasets._table_file import Table
from fusecomp.datasets._table_rows import Groups, Rows, missing_words, read_table
from fusecomp.datasets._verify import Annotations
from fusecomp.datasets._verify_report import Count

_SHOWN = 10


def repetitions(keys: Collection[object]) -> dict[int, int]:
    """Return the position of each key that was there before, with the first position of it."""
    if len({*keys}) == len(keys):  # quickly, as nearly always
        return {}
    first: dict[object, int] = {}
    firsts = enumerate(map(first.setdefault, keys, count()))
    return {position: earlier for position, earlier in firsts if earlier < position}


def questions(rows: Rows) -> list[object]:
    """Return the reference, texts and targets of each row, which tell it from others."""
    # Training uses the first target; the order of the others changes no score.
    targets = [ids if len(ids) < 3 else (ids[0], *sorted(ids[1:])) for ids in rows.targets]
    return list(zip(rows.references, rows.texts, targets, strict=True))


def repetition(table: str, rows: Rows, repeated: Mapping[int, int]) -> str:
    """Return the message on rows that are there before, given as ``repetitions`` does."""
    some = list(repeated.items())[:_SHOWN]
    shown = ", ".join(f"{rows.where[row]} ({rows.where[first]})" for row, first in some)
    more = f" and {len(repeated) - _SHOWN:,} more" if len(repeated) > _SHOWN else ""
    return (
        f"{table}: {len(repeated):,} of {len(rows.where):,} rows have the reference, text and "
        f'target of another one: {shown}{more}; remove them, or pass on_repeated="drop"'
    )


def rows_of_split(table: str, rows: Rows, split: str | None) -> Rows:
    """Return the rows of a split, all for None; ValueError lists the splits there are."""
    if split is None:
        return rows
    if kept := [number for number, name in enumerate(rows.splits) if name == split]:
        return rows.take(kept)
    splits = dict.fromkeys(filter(None, rows.splits))
    if not splits:
        raise ValueError(f"{table} has no column 'split', so there is no split {split!r} in it")
    raise ValueError(f"unknown split {split!r}; {table} has {', '.join(map(repr, splits))}")


def split_problems(rows: Rows) -> Iterator[tuple[str, str]]:
    """Yield where a split is first named that looks like another one, with a sentence."""
    first: dict[str, str] = {}
    for name in dict.fromkeys(filter(None, rows.splits)):
        alike = first.setdefault(folded(name), name)
        if alike != name:
            one, other = told_apart([name, alike])
            where, earlier = (rows.where[rows.splits.index(split)] for split in (name, alike))
            yield where, f"split '{one}' looks like '{other}' of {earlier}; write it in one way"


def without_split(rows: Rows) -> list[str]:
    """Return the places of the rows that name no split, where other rows name one."""
    found = [where for where, split in zip(rows.where, rows.splits, strict=True) if split is None]
    return found if len(found) < len(rows.where) else []


def row_problems(rows: Rows) -> Iterator[tuple[str, str]]:
    """Yield where a row of one split makes no query, each with a sentence that says why."""
    rules = _text_problems, _target_problems, _query_id_problems, _group_problems
    found = [problem for rule in rules for problem in rule(rows)]
    found.sort(key=itemgetter(0))
    return ((rows.where[number], sentence) for number, sentence in found)


# Each rule yields the numbers of rows, with sentences.
_Found = Iterator[tuple[int, str]]


def _text_problems(rows: Rows) -> _Found:
    blank = set(filter(is_blank, chain.from_iterable(rows.texts)))
    for number, texts in enumerate(rows.texts if blank else ()):
        if not blank.isdisjoint(texts):
            yield number, "the text is blank; say what is different, or remove the row"


def _target_problems(rows: Rows) -> _Found:
    for number, (reference, targets) in enumerate(zip(rows.references, rows.targets, strict=True)):
        if reference in targets and reference == targets[0]:
            why = "a query asks for another one"
            yield number, f"the target is the reference, {reference!r}; {why}"
        if len(targets) > 1:
            if len({*targets}) < len(targets):
                yield number, f"the target names an image twice: {' '.join(targets)}"
            if reference in targets[1:]:
                why = "is among the targets; a query asks for other ones"
                yield number, f"the reference {reference!r} {why}"


def _query_id_problems(rows: Rows) -> _Found:
    for number, first in repetitions(rows.query_ids).items():
        query_id = rows.query_ids[number]
        yield number, f"the query_id {query_id!r} is on {rows.where[first]} already"


def _group_problems(rows: Rows) -> _Found:
    if {*rows.groups} == {None}:
        return
    columns = zip(rows.references, rows.targets, rows.groups, strict=True)
    missing = "the group is missing, though other rows have one; give every row a group, or none"
    for number, (reference, targets, group) in enumerate(columns):
        if group is None:
            yield number, missing
            continue
        members = {*group}
        if len(members) < len(group):
            yield number, f"the group names an image twice: {' '.join(group)}"
        if not members.issuperset(targets[:1]):
            yield number, f"the target {targets[0]!r} is not in its group: {' '.join(group)}"
        elif members <= {reference}:
            why = "holds the reference alone; it must name the images to choose from"
            yield number, f"the group {why}"


def inspect(table: Table, images: Path, split: str | None, groups: Groups | None) -> Annotations:
    """Return all that a table and its folder hold, and what is wrong."""
    every_row = read_table(table, groups)
    rows = rows_of_split(table.name, every_row, split)
    folder, found = ImageFolder(images), Annotations(f"table {Path(table.name).name}", images)
    entries = list(rows.entries())
    sources = {image_id: row.where for row in entries for image_id in row.image_ids}
    without_file = [image_id for image_id in sources if not folder.named(image_id)]
    unread = {image_id: why for image_id in without_file if (why := folder.why_not_read(image_id))}
    names = [*folder.names, *(image_id for image_id in without_file if image_id not in unread)]
    found.images = {name: folder.root / name for name in names}
    found.counts = [
        *(Count(f"{s} queries" if s else "queries", n) for s, n in Counter(rows.splits).items()),
        Count("images in the table", len(sources)),
        Count("images in the folder", len(folder.names)),
    ]
    _add_rows(rows, every_row, found)
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
    for row in entries:
        for image_id in row.image_ids:
            splits_of[next(iter(folder.named(image_id)), image_id)][str(row.split)] = None
    shared = ((name, ", ".join(where)) for name, where in splits_of.items() if len(where) > 1)
    found.add("overlap", "{} images are in more than one split", shared, fault=False)
    words = ((where, f"{name}: {value}") for where, name, value in missing_words(rows))
    sentence = "{} values are words that are printed where a value is missing"
    found.add("word", sentence, words, fault=False)
    return found


def _add_rows(rows: Rows, every_row: Rows, found: Annotations) -> None:
    splits: dict[str | None, list[int]] = defaultdict(list)
    for number, split in enumerate(rows.splits):
        splits[split].append(number)
    order = {where: number for number, where in enumerate(rows.where)}
    problems = [found for numbers in splits.values() for found in row_problems(rows.take(numbers))]
    problems.sort(key=lambda problem: (order[problem[0]], problem[1]))
    refused = "{} rows make no query; TripletTable refuses the table"
    confused = "{} names of splits look like another one; TripletTable reads no split"
    unused = "{} rows name no split, though others do; no split has them"
    found.add("row", refused, problems)
    found.add("split", confused, split_problems(every_row))
    found.add("split", unused, ((where, "") for where in without_split(every_row)), fault=False)


def _add_repeated(rows: Rows, found: Annotations) -> None:
    # A row may be in two splits.
    repeated = repetitions(list(zip(rows.splits, questions(rows), strict=True)))
    sentence = (
        "{} rows have the reference, text and target of another one; TripletTable refuses the "
        'table, or leaves them out with on_repeated="drop"'
    )
    reasons = ((rows.where[row], rows.where[first]) for row, first in repeated.items())
    found.add("repeated", sentence, reasons)
