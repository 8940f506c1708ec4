"""The files of FashionIQ: what must stand in them, and where the images lie."""

import filecmp
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fusecomp._core.strict_json import read_list
from fusecomp.datasets._alike import require_text
from fusecomp.datasets._entries import Entry
from fusecomp.datasets._names import NamedFiles, require_below, told_apart

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
        places = (".", *CATEGORIES)
        files = [_parts(path) for place in places for path in _entries(self.folder, place)]
        # The name without suffix of all that lies there, by its path below ``images``.
        self.stems = {name: stem for name, stem, _ in files}
        # Of each image, in order of preference.
        self._files, self._unread = (
            NamedFiles(
                (stem, name)
                for preferred in suffixes
                for name, stem, suffix in files
                if suffix == preferred
            )
            for suffixes in (_SUFFIXES, _OTHER_SUFFIXES)
        )
        self._chosen: dict[str, Path] = {}

    def find(self, image_id: str) -> list[str]:
        """Return the files of an image below ``images``, at most one of each folder."""
        best: dict[str, str] = {}
        for name in self._files.find(image_id):
            best.setdefault(name.rpartition("/")[0], name)
        return [best[folder] for folder in sorted(best)]

    def path(self, image_id: str) -> Path:
        """Return where the image lies, or would lie.

        ValueError on files that differ, or where its only file has a suffix that is not read.
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


def _entries(folder: Path, place: str) -> Iterator[PurePosixPath]:
    if (folder / place).is_dir():
        for name in sorted(path.name for path in (folder / place).iterdir()):
            if not name.startswith(".") and name not in CATEGORIES:
                yield PurePosixPath(place) / name


def _parts(path: PurePosixPath) -> tuple[str, str, str]:
    """Return the path as a string, its name without suffix, and the suffix."""
    return str(path), path.stem, path.suffix.lower()


def annotation_files(root: Path, category: str, split: str) -> tuple[Path, Path]:
    """Return the split file and the caption file."""
    return (
        root / "image_splits" / f"split.{category}.{split}.json",
        root / "captions" / f"cap.{category}.{split}.json",
    )


def read_split(path: Path) -> list[str]:
    """Return the image ids of a split file; ValueError names an entry that is none."""
    ids = read_list(path)
    for number, image_id in enumerate(ids):
        if not isinstance(image_id, str) or not image_id:
            raise ValueError(f"{path}, entry {number}: expected an image id, got {image_id!r}")
        require_below(f"{path}, entry {number}", "image id", image_id)
    return ids


def read_pairs(path: Path, category: str, split: str) -> list[Entry]:
    """Return the entries of a caption file; their texts are the two captions.

    Targets may be absent in test.
    """
    has_target = split != "test"
    return [
        _pair(row, path, f"{category}/{number}", f"entry {number}", has_target)
        for number, row in enumerate(read_list(path))
    ]


def _pair(row: object, path: Path, query_id: str, place: str, has_target: bool) -> Entry:
    where = f"{path}, {place}"
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
    return Entry(place, query_id, reference, tuple(captions), target)
