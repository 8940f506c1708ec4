"""Reports of a check of a dataset: the records, and how they print."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# kind -> what is said of such images, behind their number
IMAGE_FAULTS = {
    "missing": "not there; fetch them, or leave out the queries and gallery entries that need them",
    "empty": "files of 0 bytes; fetch them again",
    "truncated": "cut off: the file ends before the image does; fetch them again",
    "placeholder": "one pixel wide or high, as shops answer for images that are gone",
    "unreadable": "files that are no images, or cannot be read; replace them",
}

_SHOWN, _SHOWN_OF_NOTE = 10, 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Args:
        kind: a word for it, such as ``"missing"`` or ``"truncated"``.
        message: a sentence that says what it is, and what to do.
        names: whom it concerns: image ids, files or lines.
        reasons: for each name what is the matter, or empty.
        fault: whether it keeps the dataset from being used as it is meant; else it is a note.
    """

    kind: str
    message: str
    names: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    fault: bool = True

    def __str__(self) -> str:
        mark = "FAULT" if self.fault else "note"
        lines = [f"{mark:<6} {self.kind}: {self.message}"]
        reasons = [reason and f" ({reason})" for reason in self.reasons] or [""] * len(self.names)
        limit = _SHOWN if self.fault else _SHOWN_OF_NOTE
        shown = list(zip(self.names, reasons, strict=True))[:limit]
        lines += [f"       - {name}{reason}" for name, reason in shown]
        if len(self.names) > limit:
            lines.append(f"       and {len(self.names) - limit:,} more")
        return "\n".join(lines)


def listed(
    kind: str, sentence: str, problems: Iterable[tuple[str, str]], fault: bool = True
) -> list[Finding]:
    """Return one finding on all problems, pairs of a name and a reason; none without problems.

    Args:
        kind: the finding's.
        sentence: its message, with ``{}`` for the number of problems.
        problems: what is wrong; reasons are left out where all are "".
        fault: the finding's.
    """
    found = list(problems)
    if not found:
        return []
    names, reasons = zip(*found, strict=True)
    message = sentence.format(f"{len(found):,}")
    return [Finding(kind, message, names, reasons if any(reasons) else (), fault)]


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are of something, and how many there must be, where that is published."""

    name: str
    found: int
    published: int | None = None

    @property
    def differs(self) -> bool:
        """Whether another number is published."""
        return self.published is not None and self.found != self.published


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """A report of ``verify``; prints as a table.

    The table shows the first names of each finding, at most ten; ``findings`` and ``to_dict``
    have all.

    Args:
        dataset: what was checked.
        root: where it lies.
        counts: how many there are (``found``) of what (``name``), and the number ``published``.
        findings: what was found: ``kind`` (``"missing"``, ``"empty"``, ``"truncated"``,
            ``"unreadable"``, ``"duplicate"``, ...), a ``message``, the ``names`` that it concerns,
            ``reasons`` for them, and ``fault``, which is False for mere notes.
        images: how many files were opened.
        decoded: whether every pixel was read, or only headers and ends.
        seconds: how long it took.
    """

    dataset: str
    root: Path
    counts: Sequence[Count]
    findings: Sequence[Finding]
    images: int
    decoded: bool
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether no finding is a fault; notes are fine."""
        return not any(finding.fault for finding in self.findings)

    @property
    def bad_images(self) -> tuple[str, ...]:
        """The ids of the images that are missing or cannot be used, for ``drop_images``."""
        return tuple(i for f in self.findings if f.kind in IMAGE_FAULTS for i in f.names)

    def to_dict(self) -> dict[str, object]:
        """Return the whole report as values that JSON has."""
        return {
            "dataset": self.dataset,
            "root": str(self.root),
            "ok": self.ok,
            "images": self.images,
            "decoded": self.decoded,
            "seconds": round(self.seconds, 3),
            "counts": [asdict(count) for count in self.counts],
            "findings": [asdict(finding) for finding in self.findings],
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.dataset} in {self.root}"
        depth = "every pixel read" if self.decoded else "headers and ends read, pixels not"
        yield f"{self.images:,} images opened in {self.seconds:.1f} s; {depth}"
        if self.counts:
            yield ""
            yield from _table(self.counts)
        yield ""
        yield from (str(f) for f in sorted(self.findings, key=lambda f: not f.fault))
        kinds = len({finding.kind for finding in self.findings if finding.fault})
        yield f"{kinds} kind{'s' if kinds > 1 else ''} of fault" if kinds else "no fault"


def _table(counts: Sequence[Count]) -> Iterator[str]:
    width = max(len(count.name) for count in counts)
    published = any(count.published is not None for count in counts)
    yield f"{'':<{width}} {'found':>9} {'published' if published else ''}".rstrip()
    for count in counts:
        wanted = "" if count.published is None else f"{count.published:>9,}"
        mark = "  <- differs" if count.differs else ""
        yield f"{count.name:<{width}} {count.found:>9,} {wanted}{mark}".rstrip()
