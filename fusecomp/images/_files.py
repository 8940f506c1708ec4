"""The files behind image ids, and whether they are still those that features were made of."""

import filecmp
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fusecomp._core.checks import strings
from fusecomp._core.foreign import optional
from fusecomp.types import Dataset

# The mark of an image without a file.
ABSENT = -1
By = Literal["size", "content"]


def image_paths(datasets: Iterable[Dataset]) -> dict[str, Path | None]:
    """Find the file of every image of some datasets; None where the dataset has none."""
    paths: dict[str, Path | None] = {}
    for data in datasets:
        # Where features are looked up, a dataset needs no files.
        locate = optional(data, "path")
        for image_id in strings("image_ids of a dataset", data.image_ids):
            path = None if locate is None else _path(locate, image_id)
            known = paths.get(image_id)
            if path is not None and known is not None and not _is_same(path, known):
                raise ValueError(
                    f"the image id {image_id!r} means two files: {known} and {path}. Features are "
                    "kept by id, so one file's would serve both: give the images ids of their own, "
                    "such as train/NAME and val/NAME"
                )
            paths[image_id] = path if known is None else known
    return paths


def _path(locate: Callable[[str], Path], image_id: str) -> Path | None:
    try:
        path = locate(image_id)
    except FileNotFoundError:
        return None
    return path if isinstance(path, Path | None) else Path(path)


def _is_same(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one file, or to two of equal content."""
    if one == other:
        return True
    try:
        return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
    except OSError:  # what is not there counts as unchanged
        return not (one.exists() or other.exists())


def file_marks(paths: Sequence[Path | None], by: By) -> NDArray[np.int64]:
    """Mark each image file by its size in bytes, or by a hash of its content."""
    mark = _size if by == "size" else _content
    return np.fromiter((ABSENT if path is None else mark(path) for path in paths), np.int64)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # a name that no file can have
        return ABSENT


def _content(path: Path) -> int:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8))
    except (OSError, ValueError):
        return ABSENT
    return int.from_bytes(digest.digest()) >> 1


def changed_image(
    old: Mapping[str, object], new: Mapping[str, object], skipped: Iterable[str] = ()
) -> str | None:
    """Name the first image whose file is another than it was; None if all are the same."""
    missed = set(skipped)
    for image_id, mark in new.items():
        before = old.get(image_id, ABSENT)
        if mark in (before, ABSENT) or (before == ABSENT and image_id not in missed):
            continue
        return image_id
    return None
