"""Picture files that are missing, empty, cut off or no pictures, without decoding each."""

import hashlib
import os
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from fusecomp.data._verify_report import Finding
from fusecomp.pictures import open_picture, require_pillow, why_unreadable
from fusecomp.progress import progress

__all__ = ["check_pictures"]

_CHUNK = 64
_TAIL_BYTES = 1024
_MOST_WORKERS = 16

_In = TypeVar("_In")
_Out = TypeVar("_Out")

# kind -> what to say of the pictures, how many they are standing before it.
_FAULTS = {
    "missing": "not there; fetch them, or leave out the queries and gallery entries that need them",
    "empty": "files of 0 bytes; fetch them again",
    "truncated": "cut off: the file ends before the picture does; fetch them again",
    "placeholder": "one pixel wide or high, as shops answer for pictures that are gone",
    "unreadable": "files that are no pictures, or cannot be read; replace them",
}


class _Checked(NamedTuple):
    """The fault of one file, if any, and a key that equal files share."""

    kind: str | None
    reason: str = ""
    key: tuple[int, int] = (0, 0)


def check_pictures(
    pictures: Mapping[str, Path], root: Path, decode: bool, workers: int | None
) -> list[Finding]:
    """Open every picture and say which are faulty, and which are equal byte for byte.

    Threads, not processes: reading and decoding leave Python's lock, and a process would first
    have to import torch, and the caller's script where the system cannot fork.

    Args:
        pictures: the files by image id.
        root: reasons name the files below it.
        decode: read every pixel, not only headers and ends.
        workers: threads; None chooses.

    Raises:
        ImportError: if Pillow is missing.
    """
    require_pillow()
    from PIL import Image

    # All formats at once: loaded by several threads, some could look unknown to one of them.
    Image.init()
    ids, paths = list(pictures), list(pictures.values())
    with warnings.catch_warnings():
        # What Pillow warns of is found here, or harms nobody.
        warnings.filterwarnings("ignore", module="PIL")
        check = partial(_check, decode=decode)
        checked = _in_threads(check, paths, workers, "checking pictures", "pictures")
    findings = []
    for kind, sentence in _FAULTS.items():
        faulty = [row for row, result in enumerate(checked) if result.kind == kind]
        if faulty:
            message = f"{len(faulty):,} of {len(ids):,} pictures are {sentence}"
            reasons = (f"{_below(root, paths[row])}{checked[row].reason}" for row in faulty)
            findings.append(
                Finding(kind, message, tuple(ids[row] for row in faulty), tuple(reasons))
            )
    whole = {ids[row]: result.key for row, result in enumerate(checked) if result.kind is None}
    return findings + _duplicates(pictures, whole, workers)


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _in_threads(
    work: Callable[[_In], _Out], items: Sequence[_In], workers: int | None, label: str, unit: str
) -> list[_Out]:
    if workers is None:
        workers = min(os.cpu_count() or 1, _MOST_WORKERS)
    chunks = (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
    pool = ThreadPoolExecutor(workers)
    try:
        done = pool.map(lambda chunk: [work(item) for item in chunk], chunks)
        return list(progress(chain.from_iterable(done), len(items), label, unit))
    finally:
        # On Ctrl-C the chunks that wait are dropped.
        pool.shutdown(cancel_futures=True)


def _check(path: Path, decode: bool) -> _Checked:
    try:
        with path.open("rb") as file:
            return _check_open(file, decode)
    except FileNotFoundError:
        return _Checked("missing")
    except OSError as error:
        return _Checked("unreadable", f": {error.strerror or error}")


def _check_open(file: BinaryIO, decode: bool) -> _Checked:
    size = os.fstat(file.fileno()).st_size
    if not size:
        return _Checked("empty")
    try:
        picture = open_picture(file)
        if min(picture.size) < 2:
            width, height = picture.size
            return _Checked("placeholder", f": {width} x {height}")
        file.seek(max(size - _TAIL_BYTES, 0))
        tail = file.read()
        ends = _ENDS.get(picture.format or "")
        if ends is not None and not ends(file, tail, size):
            return _Checked("truncated")
        if decode or ends is None:
            file.seek(0)
            open_picture(file).load()
    except MemoryError:
        raise
    except Exception as error:
        kind = "truncated" if "truncated" in str(error) else "unreadable"
        return _Checked(kind, f": {why_unreadable(file, error)}")
    return _Checked(None, key=(size, zlib.crc32(tail)))


def _jpeg_ends(file: BinaryIO, tail: bytes, size: int) -> bool:
    if tail.endswith(b"\xff\xd9"):
        return True
    # Bytes after the end harm nobody. Before the scan, a thumbnail has an end of its own; in the
    # scan the marker cannot occur, as 0xff is escaped there.
    file.seek(0)
    content = file.read()
    return content.find(b"\xff\xd9", _scan_start(content)) >= 0


def _scan_start(content: bytes) -> int:
    """Where the first scan of a JPEG file begins; its end if there is none."""
    place = 2
    while place + 4 <= len(content):
        if content[place] != 0xFF:
            return len(content)
        marker = content[place + 1]
        if marker == 0xDA:
            return place
        # Fill bytes and markers that stand alone have no length.
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD7:
            place += 1 if marker == 0xFF else 2
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4])
    return len(content)


def _png_ends(file: BinaryIO, tail: bytes, size: int) -> bool:
    end = b"IEND\xae\x42\x60\x82"
    if end in tail:
        return True
    file.seek(0)
    return end in file.read()


def _webp_ends(file: BinaryIO, tail: bytes, size: int) -> bool:
    file.seek(4)
    return size >= 8 + int.from_bytes(file.read(4), "little")


# Formats whose end can be told without decoding; pictures of any other are decoded.
_ENDS: dict[str, Callable[[BinaryIO, bytes, int], bool]] = {
    "JPEG": _jpeg_ends,
    "MPO": _jpeg_ends,
    "PNG": _png_ends,
    "WEBP": _webp_ends,
}


def _duplicates(
    pictures: Mapping[str, Path], keys: Mapping[str, tuple[int, int]], workers: int | None
) -> list[Finding]:
    # Only files that agree in size and tail are read in full.
    alike = [image_id for ids in _grouped(keys) for image_id in ids]
    paths = [pictures[image_id] for image_id in alike]
    digests = _in_threads(_digest, paths, workers, "comparing pictures", "pictures")
    groups = list(_grouped(dict(zip(alike, digests, strict=True))))
    if not groups:
        return []
    groups.sort(key=len, reverse=True)
    message = (
        f"{sum(map(len, groups)):,} pictures are {len(groups):,}, byte for byte; the largest group "
        f"has {len(groups[0]):,} (many may be a placeholder that a shop gave for lost pictures)"
    )
    return [Finding("duplicate", message, tuple(" = ".join(ids) for ids in groups), fault=False)]


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        # Gone since it was opened; no picture is equal to it.
        return f"{path}: {error}"


def _grouped(values: Mapping[str, object]) -> Iterator[list[str]]:
    """The ids that share a value with another one, in order."""
    groups: dict[object, list[str]] = {}
    for image_id, value in values.items():
        groups.setdefault(value, []).append(image_id)
    return (ids for ids in groups.values() if len(ids) > 1)
