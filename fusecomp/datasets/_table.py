import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fusecomp._core.checks import as_path, as_text, flag, require_choice
from fusecomp.datasets._alike import warn_of_missing_words
from fusecomp.datasets._entries import raise_first, warn_of
from fusecomp.datasets._folder import ImageFolder
from fusecomp.datasets._table_file import table_of
from fusecomp.datasets._table_problems import (
    inspect,
    questions,
    repetition,
    repetitions,
    row_problems,
    rows_of_split,
    split_problems,
    without_split,
)
from fusecomp.datasets._table_rows import Rows, missing_words, read_table
from fusecomp.datasets._triplets import Triplets
from fusecomp.datasets._verify import make_report
from fusecomp.datasets._verify_report import VerifyReport

if TYPE_CHECKING:
    from pandas import DataFrame

_GALLERIES = ("all", "split")
_ON_REPEATED = ("raise", "drop")


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
            ``"drop"`` leaves them out, and the protocol says how many. Rows with another first
            target differ, as training uses it; the order of further ones tells no rows apart.

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
            kept = self._checked(rows, on_repeated)
            words = missing_words(rows)
            warn_of_missing_words((f"{self.table}, {at}: {name}", word) for at, name, word in words)
            folder = ImageFolder(image_folder)
            files = self._files(kept, rows, folder)
            super().__init__(
                kept.triplets(),
                {image_id: folder.root / name for image_id, name in files.items()},
                ks=ks,
                gallery=list(files),
                exclude_reference=exclude_reference,
                name=Path(self.table).name,
            )

    def _checked(self, rows: Rows, on_repeated: str) -> Rows:
        """Return the rows of the split, without repeated ones; ValueError on the first problem."""
        kept = rows_of_split(self.table, rows, self.split)
        repeated = repetitions(questions(kept))
        if repeated and on_repeated == "raise":
            raise ValueError(repetition(self.table, kept, repeated))
        self.repeated = len(repeated)
        if repeated:
            kept = kept.take([n for n in range(len(kept.where)) if n not in repeated])
        if self.split is not None:
            raise_first(self.table, split_problems(rows))
            warn_of(
                [f"{self.table}, {where}" for where in without_split(rows)],
                ": the row names no split, though others do; {} of the "
                f"{len(rows.where):,} rows are in no split for that: name one in each",
                stacklevel=4,
            )
        raise_first(self.table, row_problems(kept))
        return kept

    def _files(self, kept: Rows, rows: Rows, folder: ImageFolder) -> dict[str, str]:
        def where(image_id: str) -> str:
            place = next(row.where for row in kept.entries() if image_id in row.image_ids)
            return f"{self.table}, {place}"

        files = folder.files(kept.image_ids, where)
        if self.gallery == "split":
            return files
        spelled = {name: image_id for image_id, name in files.items()}
        # The id of an image must not depend on the split; problems in the rows of other splits
        # do not matter here.
        for image_id in () if rows is kept else rows.image_ids:
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
        read = partial(inspect, table, folder, split, groups)
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
