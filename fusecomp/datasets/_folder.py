"""The pictures of a folder by their paths below it; opens none."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn

from fusecomp.datasets._names import NamedFiles

__all__ = ["PICTURE_SUFFIXES", "PictureFolder"]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class PictureFolder:
    """Every picture of a folder and of the folders in it, hidden ones left out.

    Args:
        root: the folder; links to other folders are followed.

    Raises:
        FileNotFoundError: if there is no such folder, or no picture in it.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FileNotFoundError(f"no folder {root}; images must be the folder of the pictures")
        self.root = root
        self.names = sorted(_names(root))
        if not self.names:
            raise FileNotFoundError(
                f"{root} has no pictures; it must hold files that end in "
                f"{', '.join(PICTURE_SUFFIXES)}"
            )
        self._by_path = NamedFiles((name, name) for name in self.names)
        self._by_stem = NamedFiles((name[: name.rindex(".")], name) for name in self.names)

    def named(self, image_id: str) -> Sequence[str]:
        """The files that an id may mean: its own path, or else all that differ in the suffix.

        Its Unicode form does not matter, unless two files differ in nothing else.
        """
        name = str(PurePosixPath(image_id))
        return self._by_path.find(name) or self._by_stem.find(name)


def _names(root: Path) -> Iterator[str]:
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, onerror=_fail, followlinks=True):
        # A link may lead back to a folder above it.
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(folder).relative_to(root)
        for name in files:
            if name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith("."):
                yield (below / name).as_posix()


def _fail(error: OSError) -> NoReturn:
    raise error
