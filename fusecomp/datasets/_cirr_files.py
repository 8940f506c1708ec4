"""The files of CIRR (rc2): where they lie, and what the pairs in them must be."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusecomp._core.strict_json import read_json, read_list
from fusecomp.datasets._alike import require_text
from fusecomp.datasets._names import require_below

__all__ = ["SOURCE", "CirrFolder", "CirrPair", "pair_problems", "read_files", "read_pairs"]

SOURCE = "https://github.com/Cuberick-Orion/CIRR, branch cirr_dataset"
_GROUP = 6
# The split whose targets only the server knows.
_HIDDEN = "test1"


class CirrFolder:
    """A folder of CIRR in either published layout.

    ``captions`` and ``image_splits`` lie in it or in its folder ``cirr``; the images in it, or
    beside the annotations in ``img_raw``.

    Raises:
        FileNotFoundError: if no annotations are there.
    """

    def __init__(self, root: Path) -> None:
        nested = (root / "cirr" / "image_splits").is_dir()
        self._annotations = root / "cirr" if nested else root
        splits = self._annotations / "image_splits"
        if not splits.is_dir():
            raise FileNotFoundError(
                f"no CIRR in {root}: the folder {splits} is missing, and cirr/image_splits too; "
                f"give the folder that holds one, or fetch the annotations from {SOURCE}"
            )
        raw = self._annotations / "img_raw"
        self.image_folder = raw if raw.is_dir() else root

    def captions(self, split: str) -> Path:
        """The file of the pairs."""
        return self._annotations / "captions" / f"cap.rc2.{split}.json"

    def images(self, split: str) -> Path:
        """The file of the images and their places."""
        return self._annotations / "image_splits" / f"split.rc2.{split}.json"


@dataclass(frozen=True, slots=True)
class CirrPair:
    """One entry of a caption file, its types checked and nothing more."""

    pair_id: str
    reference: str
    caption: str
    target: str | None
    members: tuple[str, ...]

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The images that the entry names."""
        target = () if self.target is None else (self.target,)
        return (self.reference, *target, *self.members)


def read_files(path: Path) -> dict[str, str]:
    """The place of each image of a split, relative to the folder of the images.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not as described, or an image or its file leads out of that folder;
            the message names it.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object, got a {type(content).__name__}")
    for name, file in content.items():
        if not isinstance(file, str) or not file:
            raise ValueError(f"{path}: expected the file of image {name!r}, got {file!r:.80}")
        require_below(f"{path}", "image id", name)
        require_below(f"{path}, image {name!r}", "file", file)
    return content


def read_pairs(path: Path, split: str) -> list[CirrPair]:
    """The entries of a caption file; targets may be absent in test1.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no list, or a field is missing or of another type.
    """
    rows, has_target = read_list(path), split != _HIDDEN
    return [_pair(row, f"{path}, entry {number}", has_target) for number, row in enumerate(rows)]


def _pair(row: Any, where: str, has_target: bool) -> CirrPair:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object, got {row!r:.80}")
    known = has_target or row.get("target_hard") is not None
    target = _field(row, "target_hard", str, where) if known else None
    members = _field(row, "img_set", dict, where).get("members")
    if not isinstance(members, list) or not all(isinstance(m, str) for m in members):
        raise ValueError(
            f"{where}: img_set.members must be a list of names, got {members!r:.80}; "
            "fetch the file again"
        )
    caption = _field(row, "caption", str, where)
    require_text(where, "caption", caption, "write the caption itself")
    return CirrPair(
        pair_id=str(_field(row, "pairid", int, where)),
        reference=_field(row, "reference", str, where),
        caption=caption,
        target=target,
        members=tuple(members),
    )


def _field(row: dict[str, Any], name: str, kind: type, where: str) -> Any:
    if name not in row:
        raise ValueError(f"{where}: the field {name!r} is missing; fetch the file again")
    # A boolean is an int to Python.
    if not isinstance(row[name], kind) or isinstance(row[name], bool):
        raise ValueError(
            f"{where}: {name!r} must be a {kind.__name__}, got {row[name]!r:.80}; "
            "fetch the file again"
        )
    return row[name]


def pair_problems(pairs: Iterable[CirrPair]) -> Iterator[tuple[CirrPair, str]]:
    """What is wrong with pairs that are well formed: each pair with a sentence that says it."""
    seen: set[str] = set()
    for pair in pairs:
        if pair.pair_id in seen:
            yield pair, "the pairid stands in the file already"
        seen.add(pair.pair_id)
        group = " ".join(pair.members)
        if len(pair.members) != _GROUP or len(set(pair.members)) != _GROUP:
            yield pair, f"the group must be {_GROUP} distinct images, got {group}"
        if pair.reference not in pair.members:
            yield pair, f"the reference {pair.reference!r} is not in its group: {group}"
        if pair.target == pair.reference:
            yield pair, f"the target is the reference, {pair.target!r}"
        elif pair.target is not None and pair.target not in pair.members:
            yield pair, f"the target {pair.target!r} is not in its group: {group}"
