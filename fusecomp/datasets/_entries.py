"""Entries of annotation files: read by each dataset, checked in one way.

A reader raises the first problem of its entries; ``verify`` lists all of them.
"""

import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from fusecomp._core.strict_json import read_list
from fusecomp.types import Triplet

_Value = TypeVar("_Value")


class Entry(NamedTuple):
    """One query as a file has it; ``where`` is its place there, such as ``"line 3"``."""

    where: str
    query_id: str
    reference: str
    texts: tuple[str, ...]
    targets: tuple[str, ...] = ()
    group: tuple[str, ...] | None = None
    split: str | None = None

    @property
    def target(self) -> str | None:
        """The first of the right answers, which training uses; None where none is known."""
        return self.targets[0] if self.targets else None

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The images that the entry names."""
        return (self.reference, *self.targets, *(self.group or ()))

    def triplet(self) -> Triplet:
        """Return the query; ValueError if its group or its targets name an image twice."""
        _, query_id, reference, texts, targets, group, _ = self
        target = targets[0] if targets else None
        return Triplet(query_id, reference, texts, target, group, targets[1:])


def read_objects(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the objects of a JSON list, each after its place for errors."""
    for number, row in enumerate(read_list(path)):
        where = f"{path}, entry {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object, got {row!r:.80}; fetch the file again")
        yield where, row


def field(row: dict[str, object], name: str, kind: type[_Value], where: str) -> _Value:
    """Return a field of an object; ValueError if it is missing or of another kind."""
    if name not in row:
        raise ValueError(f"{where}: the field {name!r} is missing; fetch the file again")
    value = row[name]
    # A boolean is an int to Python.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(
            f"{where}: {name!r} must be a {kind.__name__}, got {value!r:.80}; fetch the file again"
        )
    return value


def raise_first(path: Path | str, problems: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError on the first problem, a place in the file and a sentence."""
    for where, problem in problems:
        raise ValueError(f"{path}, {where}: {problem}")


def require_listed(path: Path, entries: Iterable[Entry], ids: Collection[str], why: str) -> None:
    """Raise ValueError on the first image of the entries that is none of the ids."""
    known = frozenset(ids)
    missing = ((entry.where, i) for entry in entries for i in entry.image_ids if i not in known)
    raise_first(path, ((where, f"image {image_id!r} {why}") for where, image_id in missing))


def warn_of(entries: Sequence[str], sentence: str, stacklevel: int = 3) -> None:
    """Warn of entries, the first one's place before the sentence, their number for ``{}``."""
    if entries:
        warnings.warn(entries[0] + sentence.format(f"{len(entries):,}"), stacklevel=stacklevel)
