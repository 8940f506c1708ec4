"""The entries of annotation files: read by each dataset, checked in one way.

A reader raises the first problem of its entries; ``verify`` lists all of them.
"""

import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusecomp.types import Triplet


@dataclass(frozen=True, slots=True)
class Entry:
    """One query as a file has it, its types checked and nothing more.

    ``where`` is its place in the file, such as ``"line 3"`` or ``"pair 7"``.
    """

    where: str
    query_id: str
    reference: str
    texts: tuple[str, ...]
    target: str | None = None
    group: tuple[str, ...] | None = None
    split: str | None = None

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The images that the entry names."""
        target = () if self.target is None else (self.target,)
        return (self.reference, *target, *(self.group or ()))

    def triplet(self) -> Triplet:
        """Return the query; ValueError if its group names an image twice."""
        return Triplet(self.query_id, self.reference, self.texts, self.target, self.group)


# Entries, each with a sentence on what is wrong with it.
Problems = Iterable[tuple[Entry, str]]


def raise_first(path: Path, problems: Problems) -> None:
    """Raise ValueError on the first problem, naming the file and the place in it."""
    for entry, problem in problems:
        raise ValueError(f"{path}, {entry.where}: {problem}")


def unlisted(entries: Iterable[Entry], known: Collection[str]) -> Iterator[tuple[Entry, str]]:
    """Yield each image that the split file lacks, behind the entry that names it."""
    known = frozenset(known)
    return ((entry, i) for entry in entries for i in entry.image_ids if i not in known)


def warn_of(places: Sequence[str], sentence: str, stacklevel: int = 3) -> None:
    """Warn of what is in these places, if there are any.

    Args:
        places: where it is; the warning begins with the first one.
        sentence: what it is, with ``{}`` for the number of places.
        stacklevel: of the user's line; 3 if a constructor calls this.
    """
    if places:
        warnings.warn(places[0] + sentence.format(f"{len(places):,}"), stacklevel=stacklevel)
