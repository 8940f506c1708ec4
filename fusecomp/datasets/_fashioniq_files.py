"""The files of FashionIQ: what they must hold, and where the images are."""

import filecmp
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fusecomp._core.strict_json import read_list
from fusecomp.datasets._alike import require_text
from fusecomp.datasets._entries import Entry, field, read_objects
from fusecomp.datasets._names import NamedFiles, require_below, told_apart

SPLITS = ("train", "val", "test")
CATEGORIES = ("dress", "shirt", "toptee")
_SUFFIXES = (".png", ".jpg", ".jpeg")
# Suffixes of images too, but not read.
_OTHER_SUFFIXES = (".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".avif")


class FashionIQImages:
    """The images of a FashionIQ folder: in ``images``, or there in a folder for each category.

    An image of two categories may be in both folders, as 3,302 of the published ones are, if the
    files are equal. Within a folder .png goes before .jpg before .jpeg.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "images"
        files = [path for below in (".", *CATEGORIES) for path in _files(self.folder, below)]
        # The name without suffix of each file, by its path below ``images``.
        self.stems = {str(path): path.stem for path in files}
        self._files, self._unread = (
            NamedFiles(
                (path.stem, str(path))
                for preferred in suffixes
                for path in files
                if path.suffix.lower() == preferred
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
        """Return where the image is, or would be; ValueError if it has no single file."""
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
        first, *others = (self.folder / name for name in names or [f"{image_id}.png"])
        for other in others:
            if not filecmp.cmp(first, other, shallow=False):
                paths = " and ".join(told_apart([str(first), str(other)]))
                raise ValueError(f"image {image_id!r} has two files that differ: {paths}; keep one")
        return first


def _files(folder: Path, below: str) -> Iterator[PurePosixPath]:
    if (folder / below).is_dir():
        for name in sorted(path.name for path in (folder / below).iterdir()):
            if not name.startswith(".") and name not in CATEGORIES:
                yield PurePosixPath(below) / name


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
    """Return the entries of a caption file, with two captions each; test may lack targets."""
    pairs = []
    for number, (where, row) in enumerate(read_objects(path)):
        known = split != "test" or row.get("target") is not None
        captions = field(row, "captions", list, where)
        if len(captions) != 2 or not all(isinstance(caption, str) for caption in captions):
            raise ValueError(f"{where}: captions must be two strings, got {captions!r}")
        for caption in captions:
            require_text(where, "a caption", caption, "write the captions themselves")
        pair = Entry(
            where=f"entry {number}",
            query_id=f"{category}/{number}",
            reference=field(row, "candidate", str, where),
            texts=tuple(captions),
            target=field(row, "target", str, where) if known else None,
        )
        pairs.append(pair)
    return pairs
