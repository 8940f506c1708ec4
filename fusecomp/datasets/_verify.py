"""Checks of a whole dataset: what its annotations hold, and image files that are broken.

Images are missing, empty, cut off or no images; few of them have to be decoded for that.
"""

import hashlib
import os
import time
import warnings
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from fusecomp._core.checks import flag, whole_number
from fusecomp._core.files import open_regular
from fusecomp._core.progress import progress
from fusecomp.datasets._entries import Entry
from fusecomp.datasets._verify_report import IMAGE_FAULTS, Count, Finding, VerifyReport
from fusecomp.images import open_image, require_pillow, why_unreadable

_CHUNK = 16
_HEAD_BYTES, _TAIL_BYTES = 12, 1024
_JPEG_SCAN, _JPEG_END = 0xDA, b"\xff\xd9"
_PNG_END = b"IEND\xae\x42\x60\x82"
_MAX_WORKERS = 16

_Result = TypeVar("_Result")
_Ids = TypeVar("_Ids", bound=Collection[str])


@dataclass(slots=True)
class Annotations:
    """The content of a dataset and what is wrong with it; reasons name images below ``folder``."""

    dataset: str
    folder: Path
    counts: list[Count] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    images: dict[str, Path] = field(default_factory=dict)
    # Annotation files that are not there.
    absent: list[str] = field(default_factory=list)

    def add(
        self, kind: str, sentence: str, problems: Iterable[tuple[str, str]], fault: bool = True
    ) -> None:
        """Add a finding on all problems, pairs of a name and a reason, whose number is ``{}``."""
        if found := list(problems):
            names, reasons = zip(*found, strict=True)
            # Not ``format``: a folder's name may have braces.
            message = sentence.replace("{}", f"{len(found):,}", 1)
            reasons = reasons if any(reasons) else ()
            self.findings.append(Finding(kind, message, names, reasons, fault))

    def read_split(
        self,
        name: str,
        files: tuple[Path, Path],
        published: tuple[int, int],
        read_ids: Callable[[Path], _Ids],
        read_pairs: Callable[[Path], list[Entry]],
    ) -> tuple[_Ids | None, list[Entry]]:
        """Read a split file and a caption file, as far as they are there; count what they hold."""
        absent = [path for path in files if not path.exists()]
        self.absent += [path.relative_to(self.folder).as_posix() for path in absent]
        (split_path, captions), image_ids, pairs = files, None, []
        if split_path not in absent:
            image_ids = read_ids(split_path)
            self.counts.append(Count(f"{name} images", len(image_ids), published[0]))
        if captions not in absent:
            pairs = read_pairs(captions)
            self.counts.append(Count(f"{name} queries", len(pairs), published[1]))
            if image_ids is not None:
                known = frozenset(image_ids)
                named = dict.fromkeys(i for pair in pairs for i in pair.image_ids)
                sentence = f"{captions.name} names {{}} images that its split file does not; "
                unlisted = ((i, "") for i in named if i not in known)
                self.add("unlisted", f"{sentence}fetch both", unlisted)
        return image_ids, pairs

    def compare(self, source: str) -> None:
        """Add findings on absent files, and on the counts that are not the published ones."""
        sentence = f"{{}} annotation files are missing; fetch them from {source}"
        self.add("annotation", sentence, ((name, "") for name in self.absent))
        wrong = [c for c in self.counts if c.differs]
        reasons = ((c.name, f"{c.found:,} in place of {c.published:,}") for c in wrong)
        sentence = "{} counts of the annotations are not the published ones; fetch them again from "
        self.add("counts", sentence + source, reasons)


def make_report(
    root: Path, read: Callable[[Path], Annotations], decode: bool, num_workers: int | None
) -> VerifyReport:
    """Read the annotations, check every image, and report on both."""
    decode = flag("decode", decode)
    num_workers = None if num_workers is None else whole_number("num_workers", num_workers, 1)
    began = time.monotonic()
    found = read(root)
    image_findings = check_images(found.images, found.folder, decode, num_workers)
    missing = sum(len(finding.names) for finding in image_findings if finding.kind == "missing")
    return VerifyReport(
        dataset=found.dataset,
        root=root,
        counts=tuple(found.counts),
        findings=(*found.findings, *image_findings),
        images=len(found.images) - missing,
        decoded=decode,
        seconds=time.monotonic() - began,
    )


class _Checked(NamedTuple):
    """The fault of one file, if any, and a key that equal files share."""

    kind: str | None
    reason: str = ""
    key: tuple[int, int] = (0, 0)


def check_images(
    images: Mapping[str, Path], root: Path, decode: bool, num_workers: int | None
) -> list[Finding]:
    """Open every image and say which are faulty, and which are equal byte for byte."""
    require_pillow()
    from PIL import Image

    # All formats at once: loaded by several threads, some could look unknown to one of them.
    Image.init()
    with warnings.catch_warnings():
        # Faults that Pillow warns of are found here, other warnings do not matter.
        warnings.filterwarnings("ignore", module="PIL")
        check = partial(_check, decode=decode)
        results = _in_threads(check, list(images.values()), num_workers, "checking images")
    checked = dict(zip(images, results, strict=True))
    findings = []
    for kind, sentence in IMAGE_FAULTS.items():
        faulty = {i: found.reason for i, found in checked.items() if found.kind == kind}
        if faulty:
            message = f"{len(faulty):,} of {len(images):,} images are {sentence}"
            reasons = tuple(_reason(root, i, images[i], why) for i, why in faulty.items())
            findings.append(Finding(kind, message, tuple(faulty), reasons))
    whole = {i: found.key for i, found in checked.items() if found.kind is None}
    return findings + _duplicates(images, whole, num_workers)


def _reason(root: Path, image_id: str, path: Path, reason: str) -> str:
    """The file below the root, unless the id says it, and the reason, if there is one."""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    return ": ".join(part for part in (name, reason) if part and part != image_id)


def _in_threads(
    work: Callable[[Path], _Result], paths: Sequence[Path], num_workers: int | None, label: str
) -> list[_Result]:
    # Threads, not processes: reading and decoding leave Python's lock, and a process would first
    # have to import torch, and the caller's script where the system cannot fork.
    if num_workers is None:
        num_workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    chunks = (paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK))
    pool = ThreadPoolExecutor(num_workers)
    try:
        done = pool.map(lambda chunk: list(map(work, chunk)), chunks)
        return list(progress(chain.from_iterable(done), len(paths), label, "images"))
    finally:
        # On Ctrl-C the chunks that wait are dropped.
        pool.shutdown(cancel_futures=True)


def _check(path: Path, decode: bool) -> _Checked:
    try:
        with open_regular(path) as file:
            return _check_open(file, decode)
    except FileNotFoundError:
        return _Checked("missing")
    except OSError as error:
        return _Checked("unreadable", f"{error.strerror or error}")


def _check_open(file: BinaryIO, decode: bool) -> _Checked:
    size = os.fstat(file.fileno()).st_size
    if not size:
        return _Checked("empty")
    head = file.read(_HEAD_BYTES)
    file.seek(max(size - _TAIL_BYTES, 0))
    tail = file.read()
    whole = _is_whole(file, size, head, tail)
    if whole is False:
        return _Checked("truncated")
    file.seek(0)
    try:
        image = open_image(file)
        if min(image.size) < 2:
            width, height = image.size
            return _Checked("placeholder", f"{width} x {height}")
        if decode or whole is None:
            image.load()
    except MemoryError:
        raise
    except Exception as error:
        kind = "truncated" if "truncated" in str(error) else "unreadable"
        return _Checked(kind, why_unreadable(file, error))
    return _Checked(None, key=(size, zlib.crc32(tail)))


def _is_whole(file: BinaryIO, size: int, head: bytes, tail: bytes) -> bool | None:
    """Whether the end of the image is there, if not at the file's; None if decoding must tell."""
    if head.startswith(b"\xff\xd8\xff"):
        return tail.endswith(_JPEG_END) or _jpeg_ends(_content(file))
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _PNG_END in tail or _PNG_END in _content(file)
    if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        return size >= 8 + int.from_bytes(head[4:8], "little")
    return None


def _content(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _jpeg_ends(content: bytes) -> bool:
    # Before the scan, a thumbnail has an end of its own; in the scan, 0xff is escaped.
    position = content.find(b"\xff", 2)
    while 0 <= position < len(content) - 3:
        marker = content[position + 1]
        if marker == _JPEG_SCAN:
            return _JPEG_END in content[position:]
        # No marker: a fill byte, or junk between two segments.
        filled = marker in (0x00, 0xFF)
        length = 0 if filled else 1 + int.from_bytes(content[position + 2 : position + 4])
        position = content.find(b"\xff", position + 1 + length)
    return False


def _duplicates(
    images: Mapping[str, Path], keys: Mapping[str, tuple[int, int]], num_workers: int | None
) -> list[Finding]:
    # Only files that agree in size and tail are read in full.
    alike = [image_id for ids in _grouped(keys) for image_id in ids]
    paths = [images[image_id] for image_id in alike]
    digests = _in_threads(_digest, paths, num_workers, "comparing images")
    groups = list(_grouped(dict(zip(alike, digests, strict=True))))
    if not groups:
        return []
    groups.sort(key=len, reverse=True)
    message = (
        f"{sum(map(len, groups)):,} images are {len(groups):,}, byte for byte; the largest group "
        f"has {len(groups[0]):,} (many may be a placeholder that a shop gave for lost images)"
    )
    return [Finding("duplicate", message, tuple(" = ".join(ids) for ids in groups), fault=False)]


def _digest(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        # Gone since it was opened; no image is equal to it.
        return f"{path}: {error}"


def _grouped(values: Mapping[str, object]) -> Iterator[list[str]]:
    """The ids that share a value with another one, in order."""
    groups: dict[object, list[str]] = {}
    for image_id, value in values.items():
        groups.setdefault(value, []).append(image_id)
    return (ids for ids in groups.values() if len(ids) > 1)
