"""The files of FashionIQ: what must stand in them, and how pictures are called."""

from pathlib import Path
from typing import Any

from fusecomp.data._names import require_below
from fusecomp.files import read_list

__all__ = ["CATEGORIES", "SPLITS", "parse_row", "picture_files", "read_split"]

SPLITS = ("train", "val", "test")
CATEGORIES = ("dress", "shirt", "toptee")
_SUFFIXES = (".png", ".jpg", ".jpeg")


def picture_files(folder: Path) -> dict[str, str]:
    """The name of each picture's file by image id; .png goes before .jpg before .jpeg."""
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    # Sorted in the order of preference, last one wins.
    found: dict[str, str] = {}
    for suffix in reversed(_SUFFIXES):
        found.update({n.removesuffix(suffix): n for n in names if n.endswith(suffix)})
    return found


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
    reference, target = row["candidate"], row.get("target")
    if not isinstance(reference, str) or not isinstance(target, str if has_target else str | None):
        raise ValueError(f"{where}: candidate and target must be image ids, got {row!r}")
    return reference, target, (captions[0], captions[1])
