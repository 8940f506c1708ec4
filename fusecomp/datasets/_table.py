import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from fusecomp._core.checks import as_path, as_text, flag, ordered, require_choice, shown
from fusecomp._core.metrics import are_ks, recalls
from fusecomp.datasets._alike import warn_of_missing_words
from fusecomp.datasets._fixed import FixedTriplets
from fusecomp.datasets._folder import ImageFolder
from fusecomp.datasets._names import look_the_same, told_apart
from fusecomp.datasets._table_file import (
    TableRow,
    missing_words,
    read_table,
    row_problems,
    split_problems,
    without_split,
)
from fusecomp.types import Task, Triplet

__all__ = ["TripletTable"]

_GALLERIES = ("all", "split")


class TripletTable(FixedTriplets):
    """One's own triplets, from a CSV or JSONL file and a folder of images; opens no image.

    A CSV file is UTF-8, separated by commas, with a header; a JSONL file holds one object a line.
    Columns, in any order, others are left alone:

    - ``reference``: the image that the text modifies;
    - ``text``: what is different; in JSONL also a list, whose features are averaged;
    - ``target``: the wanted image; may be empty or absent where it is not known;
    - ``group`` (optional): the images among which the query is also ranked, without its
      reference: ids between blanks, in JSONL a list. Every row has one, or none has;
    - ``split`` (optional): such as train or val;
    - ``query_id`` (optional): by default the number of the row in the file, from 0.

    An image id is the path of an image below the folder, with or without its suffix (.png,
    .jpg, .jpeg, .webp, .bmp, .gif, .tif or .tiff); ids stay as the table spells them. Two files
    that differ in the suffix alone are named with it. The images that the table does not name
    are in the gallery under their full path.

    Args:
        path: the .csv or .jsonl file.
        images: the folder of the images.
        split: keep the rows of this split only; None keeps all rows.
        ks: the k of recall@k, each once.
        gallery: ``"all"``, every image of the folder, or ``"split"``, only those that the kept
            rows name (easier, and another number for each split).
        exclude_reference: leave each query's reference out of its ranking, as nobody asks for
            the image that they hold.

    Raises:
        TypeError: if path or images is no path, or split no string.
        FileNotFoundError: if there is no such file, folder or image.
        ValueError: on an unknown option or split, names of splits that look alike (where a split
            is asked for), an id that leads out of the folder, or a file that is not as described;
            the message names the line.

    Warns:
        UserWarning: if values are words such as ``"nan"``, as they are printed for a missing value;
            if a split is asked for and some rows name none, which are in no split.

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
        path: str | Path,
        images: str | Path,
        split: str | None = None,
        ks: Sequence[int] = (1, 5, 10, 50),
        gallery: str = "all",
        exclude_reference: bool = True,
    ) -> None:
        self.table = as_path("path", path)
        self.split = None if split is None else as_text("split", split)
        self.ks = _as_ks(ks)
        self.gallery = require_choice("gallery", gallery, _GALLERIES)
        self.exclude_reference = flag("exclude_reference", exclude_reference)
        folder = as_path("images", images)
        rows = read_table(self.table)
        kept = rows_of_split(self.table, rows, split)
        alike = (found for found in split_problems(rows) if split is not None)
        for row, problem in chain(alike, row_problems(kept)):
            raise ValueError(f"{self.table}, line {row.line}: {problem}")
        if split is not None:
            _warn_of_rows_without_split(self.table, rows)
        words = missing_words(rows)
        warn_of_missing_words(
            (f"{self.table}, line {row.line}: {name}", word) for row, name, word in words
        )
        self._folder = ImageFolder(folder)
        triplets = [
            Triplet(row.query_id, row.reference, row.texts, row.target, row.group) for row in kept
        ]
        super().__init__(triplets, self._find(kept, rows), self._folder.root)

    def _find(self, kept: list[TableRow], rows: list[TableRow]) -> dict[str, str]:
        """The files of the gallery by image id."""
        spelled = self._spelled(kept)
        if self.gallery == "split":
            return {image_id: name for name, image_id in spelled.items()}
        # The ids of an image must not depend on the split; what is wrong with the rows of
        # another one does not matter here.
        for image_id in (i for row in rows for i in row.image_ids):
            names = self._folder.named(image_id)
            if len(names) == 1:
                spelled.setdefault(names[0], image_id)
        return dict(sorted((spelled.get(name, name), name) for name in self._folder.names))

    def _spelled(self, rows: list[TableRow]) -> dict[str, str]:
        """How the rows spell the files that they name."""
        require_images(self.table, rows, self._folder)
        spelled: dict[str, str] = {}
        for row in rows:
            for image_id in row.image_ids:
                where = f"{self.table}, line {row.line}"
                names = self._folder.named(image_id)
                if len(names) > 1:
                    may_be = " or ".join(f"'{name}'" for name in told_apart(names))
                    way_out = "rename one" if look_the_same(names) else "write the suffix too"
                    raise ValueError(f"{where}: {image_id!r} may be {may_be}; {way_out}")
                first = spelled.setdefault(names[0], image_id)
                if first != image_id:
                    own, other = told_apart([image_id, first])
                    raise ValueError(
                        f"{where}: '{own}' and, above, '{other}' are the same image; "
                        "write it in one way"
                    )
        return spelled

    @property
    def protocol(self) -> Mapping[str, str]:
        """The options that make scores comparable or not."""
        return {
            "dataset": self.table.name,
            "split": "all" if self.split is None else self.split,
            "gallery": self.gallery,
            "reference": "excluded" if self.exclude_reference else "kept",
        }

    def tasks(self) -> list[Task]:
        """One task without a name."""
        queries = self._triplets
        exclude = [(query.reference_id,) for query in queries] if self.exclude_reference else None
        subsets = self._subsets()
        metrics = recalls(self.ks, subsets is not None)
        return [Task("", queries, self.image_ids, exclude, subsets, metrics)]

    def _subsets(self) -> list[tuple[str, ...]] | None:
        groups = [(query.reference_id, query.group) for query in self._triplets if query.group]
        # Every row has a group, or none has.
        return [tuple(i for i in group if i != own) for own, group in groups] or None

    def __repr__(self) -> str:
        split = "" if self.split is None else f", split={self.split!r}"
        return f"TripletTable({str(self.table)!r}{split}, {len(self)} triplets)"


def _as_ks(ks: Sequence[int]) -> tuple[int, ...]:
    given = ordered("ks", ks, "whole numbers")
    if not are_ks(given):
        raise ValueError(
            f"ks must be whole numbers above 0, at least one; got {shown(tuple(given))}, "
            "expected such as (1, 5, 10)"
        )
    return tuple(int(k) for k in given)


def rows_of_split(path: Path, rows: Iterable[TableRow], split: str | None) -> list[TableRow]:
    """The rows of a split, all for None; raises ValueError that lists the splits there are."""
    rows = list(rows)
    kept = [row for row in rows if split is None or row.split == split]
    if kept:
        return kept
    there = dict.fromkeys(row.split for row in rows if row.split is not None)
    if not there:
        raise ValueError(f"{path} has no column 'split', so there is no split {split!r} in it")
    raise ValueError(f"unknown split {split!r}; {path} has {', '.join(map(repr, there))}")


def _warn_of_rows_without_split(path: Path, rows: Sequence[TableRow]) -> None:
    lost = without_split(rows)
    if lost:
        warnings.warn(
            f"{path}, line {lost[0].line}: the row names no split, though others do; {len(lost):,} "
            f"of the {len(rows):,} rows are in no split for that: name one in each",
            stacklevel=3,
        )


def require_images(path: Path, rows: Iterable[TableRow], folder: ImageFolder) -> None:
    """Raise FileNotFoundError that counts the images without a file and names the first."""
    lines: dict[str, int] = {}
    for row in rows:
        for image_id in row.image_ids:
            lines.setdefault(image_id, row.line)
    missing = [image_id for image_id in lines if not folder.named(image_id)]
    if missing:
        first = missing[0]
        why = folder.why_not_read(first)
        raise FileNotFoundError(
            f"{path}, line {lines[first]}: no image {first!r} in {folder.root}"
            f"{f' ({why})' if why else ''}; {len(missing)} of the {len(lines)} images in the table "
            "have none. An id is a path below that folder, with or without suffix, such as "
            f"{folder.names[0]!r}"
        )
