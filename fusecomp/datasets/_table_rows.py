"""Rows of a table that are well formed: what is wrong with them, and with the images they name."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fusecomp.datasets._alike import folded, is_blank, is_missing_word
from fusecomp.datasets._entries import Entry
from fusecomp.datasets._folder import ImageFolder
from fusecomp.datasets._names import told_apart
from fusecomp.datasets._table_file import Groups, cells, read_table
from fusecomp.datasets._verify import Annotations
from fusecomp.datasets._verify_report import Count, Finding, listed

_Splits = Mapping[str | None, Collection[Entry]]


def rows_of_split(path: Path, rows: Sequence[Entry], split: str | None) -> list[Entry]:
    """Return the rows of a split, all for None; ValueError lists the splits there are."""
    kept = [row for row in rows if split is None or row.split == split]
    if kept:
        return kept
    splits = dict.fromkeys(row.split for row in rows if row.split is not None)
    if not splits:
        raise ValueError(f"{path} has no column 'split', so there is no split {split!r} in it")
    raise ValueError(f"unknown split {split!r}; {path} has {', '.join(map(repr, splits))}")


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
    seen: dict[tuple[str, tuple[str, ...], str | None], Entry] = {}
    for row in rows:
        if any(map(is_blank, row.texts)):
            yield row, "the text is blank; say what is different, or remove the row"
        if row.target == row.reference:
            yield row, f"the target is the reference, {row.target!r}; a query asks for another one"
        first = queries.setdefault(row.query_id, row)
        if first is not row:
            yield row, f"the query_id {row.query_id!r} is on {first.where} already"
        first = seen.setdefault((row.reference, row.texts, row.target), row)
        if first is not row:
            yield row, f"reference, text and target are those of {first.where}; remove one"
        if grouped:
            yield from ((row, sentence) for sentence in _group_problems(row))


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


def inspect(path: Path, images: Path, split: str | None, groups: Groups | None) -> Annotations:
    """Return all that a table and its folder hold, and what is wrong."""
    every_row = read_table(path, groups)
    rows = rows_of_split(path, every_row, split)
    folder = ImageFolder(images)
    splits: dict[str | None, list[Entry]] = defaultdict(list)
    for row in rows:
        splits[row.split].append(row)
    sources = {image_id: row.where for row in rows for image_id in row.image_ids}
    without_file = [image_id for image_id in sources if not folder.named(image_id)]
    unread = {image_id: why for image_id in without_file if (why := folder.why_not_read(image_id))}
    names = [*folder.names, *(image_id for image_id in without_file if image_id not in unread)]
    counts = [
        *(Count(f"{name} queries" if name else "queries", len(r)) for name, r in splits.items()),
        Count("images in the table", len(sources)),
        Count("images in the folder", len(folder.names)),
    ]
    words = (
        (row.where, f"{name}: {value}")
        for row in rows
        for name, value in cells(row)
        if is_missing_word(value)
    )
    sentence = "{} values are words that are printed where a value is missing"
    findings = [
        *_row_findings(splits, every_row),
        *_image_findings(splits, sources, unread, folder),
        *listed("word", sentence, words, fault=False),
    ]
    files = {name: folder.root / name for name in names}
    return Annotations(f"table {path.name}", counts, findings, files, folder=images)


def _row_findings(splits: _Splits, every_row: Sequence[Entry]) -> list[Finding]:
    # Rows of two splits may be equal.
    order = {id(row): number for number, row in enumerate(every_row)}
    problems = [found for rows in splits.values() for found in row_problems(rows)]
    problems.sort(key=lambda found: (order[id(found[0])], found[1]))
    alike = ((row.where, why) for row, why in split_problems(every_row))
    nowhere = ((row.where, "") for row in without_split(every_row))
    refused = "{} rows make no query; TripletTable refuses the table"
    confused = "{} names of splits look like another one; TripletTable reads no split"
    unused = "{} rows name no split, though others do; no split has them"
    return [
        *listed("row", refused, ((row.where, why) for row, why in problems)),
        *listed("split", confused, alike),
        *listed("split", unused, nowhere, fault=False),
    ]


def _image_findings(
    splits: _Splits, sources: Mapping[str, str], unread: Mapping[str, str], folder: ImageFolder
) -> list[Finding]:
    splits_of: dict[str, dict[str, None]] = defaultdict(dict)
    for split, rows in splits.items():
        for image_id in (i for row in rows for i in row.image_ids):
            splits_of[next(iter(folder.named(image_id)), image_id)][str(split)] = None
    shared = ((name, ", ".join(names)) for name, names in splits_of.items() if len(names) > 1)
    spelled = ((i, f"{sources[i]}: {why}") for i, why, _ in folder.spelling_problems(sources))
    ambiguous = "{} images are not named in one way; TripletTable refuses the table"
    hidden = (
        "{} images have files that are hidden or of a suffix that is not read; TripletTable "
        "refuses the table: rename them"
    )
    return [
        *listed("ambiguous", ambiguous, spelled),
        *listed("misnamed", hidden, unread.items()),
        *listed("overlap", "{} images are in more than one split", shared, fault=False),
    ]
