"""The files behind image ids, and whether they are still those that features were made of."""

import filecmp
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fusecomp._core.abilities import image_path
from fusecomp._core.checks import strings
from fusecomp.types import Dataset

# The mark of an image without a file.
ABSENT = -1
By = Literal["size", "content"]


def image_paths(datasets: Iterable[Dataset]) -> dict[str, Path | None]:
    """Return the file of every image; None where its dataset has none. One id means one file."""
    paths: dict[str, Path | None] = {}
    for data in datasets:
        for image_id in strings("image_ids of a dataset", data.image_ids):
            path, known = image_path(data, image_id), paths.get(image_id)
            if path is not None and known is not None and not _is_same(path, known):
                raise ValueError(
                    f"the image id {image_id!r} means two files: {known} and {path}. Features are "
                    "kept by id, so one file's would serve both: give the images ids of their own, "
                    "such as train/NAME and val/NAME"
                )
            paths[image_id] = path if known is None else known
    return paths


def _is_same(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one file, or to two of equal content."""
    if one == other:
        return True
    try:
        return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
    except OSError:  # what is not there counts as unchanged
        return not (one.exists() or other.exists())


def file_marks(paths: Sequence[Path | None], by: By) -> NDArray[np.int64]:
    """Mark each image file, int64 [N], by its size in bytes or a hash; ABSENT if there is none.

    Modification times are no mark, as they change when a folder is copied.
    """
    return np.fromiter((_mark(path, by) for path in paths), np.int64)


def _mark(path: Path | None, by: By) -> int:
    if path is None:
        return ABSENT
    try:
        if by == "size":
            return path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8))
    except (OSError, ValueError):  # the latter on a name that no file can have
        return ABSENT
    return int.from_bytes(digest.digest()) >> 1


def changed_image(
    old: Mapping[str, object], new: Mapping[str, object], skipped: Collection[str] = ()
) -> str | None:
    """Return the first image whose mark has changed, or None.

    Where there is no file, or was none, nothing is said, unless the image was ``skipped`` for that.
    """
    for image_id, mark in new.items():
        before = old.get(image_id, ABSENT)
        if mark not in (before, ABSENT) and (before != ABSENT or image_id in skipped):
            return image_id
    return None
