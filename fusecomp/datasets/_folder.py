"""Names of images, in any Unicode form, and the images of a folder by them; opens none."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NoReturn
from unicodedata import normalize

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def require_below(where: str, field: str, name: str) -> None:
    """Raise ValueError unless a name, read as a path, stays below the folder that it belongs to."""
    # Annotations may come from elsewhere, and what they name is opened and shown. Links in the
    # user's own folder may lead anywhere. Names are read as Windows does, where both slashes part a
    # path, so that every system says the same.
    first, *rest = parts = name.replace("\\", "/").split("/")
    has_drive = first[1:2] == ":" and (bool(rest) or os.name == "nt")
    below = first and not has_drive and ".." not in parts and {*parts} - {"", "."}
    if not below or not _is_possible(name):
        raise ValueError(
            f"{where}: {field} must be a path below the folder of the images, got {name!r:.80}; "
            "write it without a leading slash, a drive, '..' and NUL"
        )


def _is_possible(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


class NamedFiles:
    """Files, given as pairs of a name and a file, that are found by name in any Unicode form.

    Some systems store "é" as one character, others as two. A name of exactly the same form goes
    before others.
    """

    def __init__(self, files: Iterable[tuple[str, str]]) -> None:
        self._files: dict[str, list[tuple[str, str]]] = {}
        for name, file in files:
            self._files.setdefault(normalize("NFC", name), []).append((name, file))

    def find(self, name: str) -> list[str]:
        """Return the files of a name."""
        found = self._files.get(normalize("NFC", name), [])
        return [file for other, file in found if other == name] or [file for _, file in found]


def look_the_same(names: Sequence[str]) -> bool:
    """Return whether two of the names differ in their Unicode form alone."""
    return len({normalize("NFC", name) for name in names}) < len(names)


def told_apart(names: Sequence[str]) -> list[str]:
    """Return the names for an error; escaped where two of them look the same."""
    written = ascii if look_the_same(names) else repr
    return [written(name)[1:-1] for name in names]


class ImageFolder:
    """Every image of a folder and of the folders in it, linked ones too, hidden ones left out."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FileNotFoundError(f"no folder {root}; images must be the folder of the images")
        self.root = root
        self.names = sorted(filter(_is_read, _files(root)))
        if not self.names:
            raise FileNotFoundError(
                f"{root} has no images; it must hold files that end in {', '.join(IMAGE_SUFFIXES)}"
            )
        self._files = _PathsAndStems(self.names)
        self._found: dict[str, Sequence[str]] = {}

    def named(self, image_id: str) -> Sequence[str]:
        """Return the files that an id may mean: its own path, or all that differ in the suffix."""
        if image_id not in self._found:
            self._found[image_id] = self._files.find(image_id)
        return self._found[image_id]

    def files(self, image_ids: Collection[str], where: Callable[[str], str]) -> dict[str, str]:
        """Return the file of each image id; an error begins with ``where`` it is named."""
        missing = [image_id for image_id in image_ids if not self.named(image_id)]
        if missing:
            first = missing[0]
            why = self.why_not_read(first)
            raise FileNotFoundError(
                f"{where(first)}: no image {first!r} in {self.root}{f' ({why})' if why else ''}; "
                f"{len(missing)} of the {len(image_ids)} images that are named have none. An id is "
                f"a path below that folder, with or without suffix, such as {self.names[0]!r}; put "
                "the file there, or leave out the rows that name it"
            )
        for image_id, problem, way_out in self.spelling_problems(image_ids):
            raise ValueError(f"{where(image_id)}: {image_id!r}: {problem}; {way_out}")
        return {image_id: self.named(image_id)[0] for image_id in image_ids}

    def spelling_problems(self, image_ids: Iterable[str]) -> Iterator[tuple[str, str, str]]:
        """Yield each id that is not the only one of one file, what is wrong, and the way out."""
        first: dict[str, str] = {}
        for image_id in image_ids:
            names = self.named(image_id)
            if len(names) > 1:
                way_out = "rename one" if look_the_same(names) else "write the suffix too"
                yield image_id, f"may be {' or '.join(told_apart(names))}", way_out
            elif names and first.setdefault(names[0], image_id) != image_id:
                _, other = told_apart([image_id, first[names[0]]])
                yield image_id, f"the same image as {other}", "write it in one way"

    def why_not_read(self, image_id: str) -> str:
        """Return a sentence on the file that an id without an image may mean; "" without one."""
        names = self._unread.find(image_id)
        if not names:
            return ""
        reason = f"its suffix is none of {', '.join(IMAGE_SUFFIXES)}"
        if _is_hidden(names[0]):
            reason = "hidden, as its path has a name that begins with a dot"
        return f"{names[0]!r} is there, but {reason}"

    @cached_property
    def _unread(self) -> "_PathsAndStems":
        return _PathsAndStems(name for name in _files(self.root, hidden=True) if not _is_read(name))


class _PathsAndStems:
    """Files that are found by their path, or else by their path without its suffix."""

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self._by_path = NamedFiles((name, name) for name in names)
        self._by_stem = NamedFiles(
            (str(PurePosixPath(name).with_suffix("")), name) for name in names
        )

    def find(self, image_id: str) -> Sequence[str]:
        name = str(PurePosixPath(image_id))
        return self._by_path.find(name) or self._by_stem.find(name)


def _is_read(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not _is_hidden(name)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _files(root: Path, hidden: bool = False) -> Iterator[str]:
    seen: set[str] = set()
    fail = None if hidden else _fail
    for folder, folders, files in os.walk(root, onerror=fail, followlinks=True):
        # A link may lead back to a folder above it.
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if hidden or not name.startswith("."))
        below = Path(folder).relative_to(root)
        yield from ((below / name).as_posix() for name in files)


def _fail(error: OSError) -> NoReturn:
    raise error
