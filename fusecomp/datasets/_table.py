import gc
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fusecomp._core.checks import as_path, as_text, flag, require_choice
from fusecomp.datasets._alike import folded, is_blank, warn_of_missing_words
from fusecomp.datasets._entries import Entry, raise_first, warn_of
from fusecomp.datasets._folder import ImageFolder, told_apart
from fusecomp.datasets._table_file import Table, table_of
from fusecomp.datasets._table_rows import Groups, Rows, missing_words, read_table
from fusecomp.datasets._triplets import Triplets
from fusecomp.datasets._verify import Annotations, make_report
from fusecomp.datasets._verify_report import Count, VerifyReport

if TYPE_CHECKING:
    from pandas import DataFrame

_GALLERIES = ("all", "split")
_ON_REPEATED = ("raise", "drop")
_SHOWN = 10


class TripletTable(Triplets):
    """Triplets of a CSV or JSONL file, or a pandas DataFrame, and a folder of images; opens none.

    A CSV file is UTF-8, separated by commas, with a header; a JSONL file holds one object a line; a
    DataFrame has what a CSV file has, or lists as JSONL. Columns, in any order; others are ignored:

    - ``reference``: the image that the text modifies;
    - ``text``: the difference in words; in JSONL also a list, whose features are averaged;
    - ``target``: the image to find; empty or absent where it is not known. Several right answers
      are ids between ``|``, in JSONL a list: training uses the first, evaluation all;
    - ``group`` (optional): the images among which the query is also ranked, without its
      reference: ids between blanks, in JSONL a list; or, with ``groups``, the name of one of
      them. Every row has one, or none has;
    - ``split`` (optional): such as train or val;
    - ``query_id`` (optional): by default the number of the row in the file, from 0.

    An image id is the path of an image below the folder, with or without its suffix, which it
    needs where two files differ in nothing else. Images that the table does not name are in the
    gallery under their full path.

    Args:
        path: the .csv or .jsonl file, or the DataFrame.
        images: the folder of the images.
        split: keep the rows of this split only; None keeps all rows.
        ks: the k of recall@k, and of map@k where rows have several targets; each once.
        gallery: ``"all"``, every image of the folder, or ``"split"``, only those that the kept
            rows name (easier, and another number for each split).
        exclude_reference: leave each query's reference out of its ranking.
        groups: the image ids of each group by its name, where rows name their group.
        on_repeated: ``"raise"`` refuses rows that repeat another one's reference, text and target;
            ``"drop"`` leaves them out, and the protocol says how many.

    Raises:
        TypeError: if path is no path or DataFrame, images no path, or split no string.
        FileNotFoundError: if there is no such file, folder or image.
        ValueError: on an unknown option or split, or a table that is not as described; the message
            names the line, or the row of a DataFrame, from 0.

    Warns:
        UserWarning: if values are words such as ``"nan"``, which programs print for missing ones;
            if a split is asked for and some rows name none.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("red.jpg", "blue.jpg"):
        ...     _ = (folder / name).write_bytes(b"no image is opened")
        >>> table = folder / "mine.csv"
        >>> _ = table.write_text("reference,text,target\\nred,is blue,blue\\n")
        >>> data = TripletTable(table, images=folder)
        >>> data.triplets()[0].texts, data.tasks()[0].gallery
        (('is blue',), ('blue', 'red'))
    """

    def __init__(
        self,
        path: "str | Path | DataFrame",
        images: str | Path,
        split: str | None = None,
        ks: Sequence[int] = (1, 5, 10, 50),
        gallery: str = "all",
        exclude_reference: bool = True,
        groups: Mapping[str, Sequence[str]] | None = None,
        on_repeated: str = "raise",
    ) -> None:
        table = table_of(path)
        self.table = table.name
        self.split = None if split is None else as_text("split", split)
        self.gallery = require_choice("gallery", gallery, _GALLERIES)
        exclude_reference = flag("exclude_reference", exclude_reference)
        on_repeated = require_choice("on_repeated", on_repeated, _ON_REPEATED)
        image_folder = as_path("images", images)
        with _no_collection():
            rows = read_table(table, groups)
        kept = _rows_of_split(self.table, rows, split)
        repeated = kept.repeated()
        if repeated and on_repeated == "raise":
            raise ValueError(_repetition(self.table, kept, repeated))
        self.repeated = len(repeated)
        if repeated:
            kept = kept.select([row for row in range(len(kept)) if row not in repeated])
        if split is not None:
            entries = rows.entries()
            raise_first(self.table, _split_problems(entries))
            warn_of(
                [f"{self.table}, {row.where}" for row in _without_split(entries)],
                ": the row names no split, though others do; {} of the "
                f"{len(rows):,} rows are in no split for that: name one in each",
            )
        if kept.may_have_problems():
            raise_first(self.table, _row_problems(kept.entries()))
        warn_of_missing_words(
            (f"{self.table}, {where}: {name}", value) for where, name, value in missing_words(rows)
        )
        folder = ImageFolder(image_folder)
        files = self._files(kept, rows, folder)
        with _no_collection():
            super().__init__(
                kept.triplets(),
                {image_id: folder.root / name for image_id, name in files.items()},
                ks=ks,
                gallery=list(files),
                exclude_reference=exclude_reference,
                name=Path(self.table).name,
            )

    def _files(self, kept: Rows, rows: Rows, folder: ImageFolder) -> dict[str, str]:
        files = folder.files(kept.image_ids(), lambda i: f"{self.table}, {kept.where(i)}")
        if self.gallery == "split":
            return files
        spelled = {name: image_id for image_id, name in files.items()}
        # The id of an image must not depend on the split; problems in the rows of other splits
        # do not matter here.
        for image_id in () if rows is kept else rows.image_ids():
            names = folder.named(image_id)
            if len(names) == 1:
                spelled.setdefault(names[0], image_id)
        return dict(sorted((spelled.get(name, name), name) for name in folder.names))

    @classmethod
    def verify(
        cls,
        path: "str | Path | DataFrame",
        images: str | Path,
        split: str | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        *,
        decode: bool = False,
        num_workers: int | None = None,
    ) -> VerifyReport:
        """List all that is wrong with a table and its folder; reading it raises the first of it.

        Takes ``decode`` and ``num_workers`` as ``FashionIQ.verify`` does, and raises what it does.

        Args:
            path: the .csv or .jsonl file, or the DataFrame.
            images: the folder of the images.
            split: check the rows of this split only; None checks all.
            groups: the images of each group, where rows name their group.
            decode: read every pixel too.
            num_workers: threads; None chooses.
        """
        folder = as_path("images", images)
        split = None if split is None else as_text("split", split)
        table = table_of(path)
        read = partial(_inspect, table, folder, split, groups)
        return make_report(Path(table.name), lambda _: read(), decode, num_workers)

    @property
    def protocol(self) -> Mapping[str, str]:
        """The options that make scores comparable or not."""
        return {
            "dataset": self.name,
            "split": "all" if self.split is None else self.split,
            "gallery": self.gallery,
            "reference": "excluded" if self.exclude_reference else "kept",
            **({"repeated rows": f"{self.repeated:,} left out"} if self.repeated else {}),
        }

    def __repr__(self) -> str:
        split = "" if self.split is None else f", split={self.split!r}"
        return f"TripletTable({self.table!r}{split}, {len(self)} triplets)"


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the search for circles of objects, half of the time where many without any are made."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


def _repetition(table: str, rows: Rows, repeated: Mapping[int, int]) -> str:
    some = list(repeated.items())[:_SHOWN]
    shown = ", ".join(f"{rows[row].where} ({rows[first].where})" for row, first in some)
    more = f" and {len(repeated) - _SHOWN:,} more" if len(repeated) > _SHOWN else ""
    return (
        f"{table}: {len(repeated):,} of {len(rows):,} rows have the reference, text and target of "
        f'another one: {shown}{more}; remove them, or pass on_repeated="drop"'
    )


def _rows_of_split(table: str, rows: Rows, split: str | None) -> Rows:
    """Return the rows of a split, all for None; ValueError lists the splits there are."""
    if split is None:
        return rows
    if kept := [row for row, name in enumerate(rows.splits) if name == split]:
        return rows.select(kept)
    splits = dict.fromkeys(name for name in rows.splits if name is not None)
    if not splits:
        raise ValueError(f"{table} has no column 'split', so there is no split {split!r} in it")
    raise ValueError(f"unknown split {split!r}; {table} has {', '.join(map(repr, splits))}")


def _split_problems(rows: Iterable[Entry]) -> Iterator[tuple[Entry, str]]:
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


def _without_split(rows: Sequence[Entry]) -> list[Entry]:
    """Return the rows that name no split, where other rows name one."""
    found = [row for row in rows if row.split is None]
    return found if len(found) < len(rows) else []


def _row_problems(rows: Collection[Entry]) -> Iterator[tuple[Entry, str]]:
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


def _inspect(table: Table, images: Path, split: str | None, groups: Groups | None) -> Annotations:
    """Return all that a table and its folder hold, and what is wrong."""
    every_row = read_table(table, groups)
    kept = _rows_of_split(table.name, every_row, split)
    rows = kept.entries()
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
    _add_rows(rows, splits.values(), every_row.entries(), found)
    _add_repeated(kept, found)
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
    words = ((where, f"{name}: {value}") for where, name, value in missing_words(kept))
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
    problems = [problem for of_split in splits for problem in _row_problems(of_split)]
    problems.sort(key=lambda problem: (order[id(problem[0])], problem[1]))
    refused = "{} rows make no query; TripletTable refuses the table"
    confused = "{} names of splits look like another one; TripletTable reads no split"
    unused = "{} rows name no split, though others do; no split has them"
    found.add("row", refused, ((row.where, why) for row, why in problems))
    found.add("split", confused, ((row.where, why) for row, why in _split_problems(every_row)))
    nowhere = ((row.where, "") for row in _without_split(every_row))
    found.add("split", unused, nowhere, fault=False)


def _add_repeated(rows: Rows, found: Annotations) -> None:
    # A row may be in two splits.
    numbers: dict[str | None, list[int]] = defaultdict(list)
    for number, split in enumerate(rows.splits):
        numbers[split].append(number)
    pairs = [
        (own[row], own[first])
        for own in numbers.values()
        for row, first in rows.select(own).repeated().items()
    ]
    sentence = (
        "{} rows have the reference, text and target of another one; TripletTable refuses the "
        'table, or leaves them out with on_repeated="drop"'
    )
    reasons = ((rows[row].where, rows[first].where) for row, first in sorted(pairs))
    found.add("repeated", sentence, reasons)
