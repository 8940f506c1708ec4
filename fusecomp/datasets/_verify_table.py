from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fusecomp.datasets._folder import ImageFolder
from fusecomp.datasets._names import told_apart
from fusecomp.datasets._table import rows_of_split
from fusecomp.datasets._table_file import (
    TableRow,
    missing_words,
    read_table,
    row_problems,
    split_problems,
    without_split,
)
from fusecomp.datasets._verify_annotations import Annotations
from fusecomp.datasets._verify_report import Count, Finding

__all__ = ["table"]


def table(path: Path, images: Path, split: str | None) -> Annotations:
    """What a TripletTable would be made of: all that is wrong with it, not the first thing."""
    every_row = read_table(path)
    rows = rows_of_split(path, every_row, split)
    folder = ImageFolder(images)
    splits = _by_split(rows)
    named = dict.fromkeys(i for row in rows for i in row.image_ids)
    spelled, findings = _spellings(rows, folder)
    files = {name: folder.root / name for name in folder.names}
    lost = [image_id for image_id in named if not folder.named(image_id)]
    unread = {image_id: why for image_id in lost if (why := folder.why_not_read(image_id))}
    files |= {image_id: folder.root / image_id for image_id in lost if image_id not in unread}
    counts = [
        *(Count(f"{name} queries" if name else "queries", len(r)) for name, r in splits.items()),
        Count("images in the table", len(named)),
        Count("images in the folder", len(folder.names)),
    ]
    problems = [
        *_problems(splits),
        *_alike(every_row),
        *_without_split(every_row),
        *findings,
        *_misnamed(unread),
        *_shared(splits, spelled),
        *_words(rows),
    ]
    return Annotations(f"table {path.name}", counts, problems, files)


def _by_split(rows: Iterable[TableRow]) -> dict[str | None, list[TableRow]]:
    splits: dict[str | None, list[TableRow]] = {}
    for row in rows:
        splits.setdefault(row.split, []).append(row)
    return splits


def _problems(splits: Mapping[str | None, list[TableRow]]) -> list[Finding]:
    found = [(row.line, problem) for rows in splits.values() for row, problem in row_problems(rows)]
    if not found:
        return []
    found.sort()
    message = f"{len(found):,} rows make no query; TripletTable refuses the table"
    lines = tuple(f"line {line}" for line, _ in found)
    return [Finding("row", message, lines, tuple(problem for _, problem in found))]


def _alike(rows: Iterable[TableRow]) -> list[Finding]:
    found = [(f"line {row.line}", problem) for row, problem in split_problems(rows)]
    if not found:
        return []
    message = f"{len(found):,} names of splits look like another one; TripletTable reads no split"
    lines, problems = zip(*found, strict=True)
    return [Finding("split", message, lines, problems)]


def _without_split(every_row: Sequence[TableRow]) -> list[Finding]:
    """A note on rows that no split has, where other rows have one."""
    rows = without_split(every_row)
    if not rows:
        return []
    message = f"{len(rows):,} rows name no split, though others do; no split has them"
    lines = tuple(f"line {row.line}" for row in rows)
    return [Finding("split", message, lines, fault=False)]


def _words(rows: Iterable[TableRow]) -> list[Finding]:
    """A note on values that may have been printed where nothing was."""
    found = missing_words(rows)
    if not found:
        return []
    message = f"{len(found):,} values are words that are printed where a value is missing"
    lines = tuple(f"line {row.line}" for row, _, _ in found)
    words = tuple(f"{name}: {word}" for _, name, word in found)
    return [Finding("word", message, lines, words, fault=False)]


def _spellings(
    rows: Iterable[TableRow], folder: ImageFolder
) -> tuple[dict[str, str], list[Finding]]:
    """The file of each image id that has one, and a finding on ids that are not unique."""
    files: dict[str, str] = {}
    first: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for row in rows:
        for image_id in row.image_ids:
            names = folder.named(image_id)
            if len(names) > 1:
                wrong[image_id] = f"line {row.line}: may be {' or '.join(told_apart(names))}"
            for name in names:
                files.setdefault(image_id, name)
            if len(names) == 1 and first.setdefault(names[0], image_id) != image_id:
                _, other = told_apart([image_id, first[names[0]]])
                wrong[image_id] = f"line {row.line}: the same image as {other}"
    if not wrong:
        return files, []
    message = f"{len(wrong):,} images are not named in one way; TripletTable refuses the table"
    return files, [Finding("ambiguous", message, tuple(wrong), tuple(wrong.values()))]


def _misnamed(unread: Mapping[str, str]) -> list[Finding]:
    """A finding on images whose files are there, but are not read."""
    if not unread:
        return []
    message = (
        f"{len(unread):,} images have files that are hidden or of a suffix that is not read; "
        "TripletTable refuses the table: rename them"
    )
    return [Finding("misnamed", message, tuple(unread), tuple(unread.values()))]


def _shared(splits: Mapping[str | None, list[TableRow]], files: Mapping[str, str]) -> list[Finding]:
    """A note on images that stand in several splits."""
    places: dict[str, dict[str | None, None]] = {}
    for split, rows in splits.items():
        for image_id in (i for row in rows for i in row.image_ids):
            places.setdefault(files.get(image_id, image_id), {})[split] = None
    shared = {name: found for name, found in places.items() if len(found) > 1}
    if not shared:
        return []
    message = f"{len(shared):,} images stand in more than one split"
    reasons = (", ".join(str(split) for split in found) for found in shared.values())
    return [Finding("overlap", message, tuple(shared), tuple(reasons), fault=False)]
