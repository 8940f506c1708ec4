"""Names that annotations give to images: below their folder, and in any Unicode form."""

import os
from collections.abc import Iterable, Sequence
from unicodedata import normalize


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
