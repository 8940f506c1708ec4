"""The files of FashionIQ: what must stand in them, and where the images lie."""

import filecmp
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fusecomp._core.strict_json import read_list
from fusecomp.datasets._alike import require_text
from fusecomp.datasets._names import NamedFiles, require_below, told_apart

__all__ = ["CATEGORIES", "SPLITS", "FashionIQImages", "parse_row", "read_split"]

SPLITS = ("train", "val", "test")
CATEGORIES = ("dress", "shirt", "toptee")
_SUFFIXES = (".png", ".jpg", ".jpeg")
# Of images too, but not read.
_OTHER_SUFFIXES = (".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".avif")


class FashionIQImages:
    """The images of a FashionIQ folder: in ``images``, or there in a folder for each category.

    An image of two categories may lie in both folders, as 3,302 of the published ones do, if the
    files are equal. Within a folder .png goes before .jpg before .jpeg.

    Args:
        root: the folder that holds ``images``.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "images"
        places = [_names(self.folder, place) for place in (".", *CATEGORIES)]
        # All that lies there, as paths below ``images``.
        self.names = [name for names in places for name in names]
        self._files, self._unread = (
            NamedFiles(pair for names in places for pair in _preferred(names, suffixes))
            for suffixes in (_SUFFIXES, _OTHER_SUFFIXES)
        )
        self._chosen: dict[str, Path] = {}

    def find(self, image_id: str) -> list[str]:
        """The files of an image below ``images``, at most one of each folder."""
        return self._files.find(image_id)

    def path(self, image_id: str) -> Path:
        """Where the image lies, or would lie.

        Raises:
            ValueError: if it has files that differ, or one of a suffix that is not read alone.
        """
        if image_id not in self._chosen:
            self._chosen[image_id] = self._choose(image_id)
        return self._chosen[image_id]

    def _choose(self, image_id: str) -> Path:
        names = self.find(image_id)
        if not names and (unread := self._unread.find(image_id)):
            raise ValueError(
                f"image {image_id!r} has only the file {self.folder / unread[0]}, whose suffix is "
                f"none of {', '.join(_SUFFIXES)}: rename it to .png or .jpg, whatever its format"
            )
        names = names or [f"{image_id}.png"]
        first, *others = (self.folder / name for name in names)
        for other in others:
            if not filecmp.cmp(first, other, shallow=False):
                paths = " and ".join(told_apart([str(first), str(other)]))
                raise ValueError(f"image {image_id!r} has two files that differ: {paths}; keep one")
        return first


def _names(folder: Path, place: str) -> list[str]:
    below = PurePosixPath(place)
    if not (folder / place).is_dir():
        return []
    names = (path.name for path in (folder / place).iterdir())
    return sorted(
        (below / name).as_posix()
        for name in names
        if not name.startswith(".") and name not in CATEGORIES
    )


def _preferred(names: Iterable[str], suffixes: Sequence[str]) -> Iterable[tuple[str, str]]:
    """The images of one folder and their files of these suffixes."""
    found: dict[str, str] = {}
    # In turn of preference, the last one wins.
    for suffix in reversed(suffixes):
        for name in names:
            if name.lower().endswith(suffix):
                found[name[: -len(suffix)].rpartition("/")[2]] = name
    return found.items()


def read_split(path: Path) -> list[str]:
    """The image ids of a split file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds anything else, or a name that leads out of the folder of the
            images; the message names the entry.
    """
    ids = read_list(path)
    for number, image_id in enumerate(ids):
        if not isinstance(image_id, str) or not image_id:
            raise ValueError(f"{path}, entry {number}: expected an image id, got {image_id!r}")
        require_below(f"{path}, entry {number}", "image id", image_id)
    return ids


def parse_row(row: Any, where: str, has_target: bool) -> tuple[str, str | None, tuple[str, str]]:
    """Candidate, target and both captions of an entry of a caption file.

    Raises:
        ValueError: if a field is missing or of another type; the message begins with ``where``.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object, got {row!r}")
    for field in ("candidate", "captions", *(("target",) if has_target else ())):
        if field not in row:
            raise ValueError(f"{where}: the field {field!r} is missing")
    captions = row["captions"]
    if not (
        isinstance(captions, list)
        and len(captions) == 2
        and all(isinstance(caption, str) for caption in captions)
    ):
        raise ValueError(f"{where}: captions must be two strings, got {captions!r}")
    for caption in captions:
        require_text(where, "a caption", caption, "write the captions themselves")
    reference, target = row["candidate"], row.get("target")
    if not isinstance(reference, str) or not isinstance(target, str if has_target else str | None):
        raise ValueError(f"{where}: candidate and target must be image ids, got {row!r}")
    return reference, target, (captions[0], captions[1])
