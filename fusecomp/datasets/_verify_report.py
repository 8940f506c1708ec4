"""Reports of a check of a dataset: the records, and how they print."""

from collections.abc import Iterator, Sequence
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
    """A fault or note of ``verify``.

    Args:
        kind: a word for it, such as ``"missing"``, ``"truncated"`` or ``"duplicate"``.
        message: a sentence that says what was found, and what to do.
        names: the image ids, files or lines that it concerns.
        reasons: for each name what is wrong with it, or empty.
        fault: whether the dataset cannot be used as it is meant; False for a note.
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


@dataclass(frozen=True, slots=True)
class Count:
    """The number found of something, and the published number, if there is one."""

    name: str
    found: int
    published: int | None = None

    @property
    def differs(self) -> bool:
        """Whether another number is published."""
        return self.published is not None and self.found != self.published


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Report of ``verify``; prints as a table, with the first ten names of each finding at most.

    Args:
        dataset: the name of the dataset.
        root: its folder or table.
        counts: the number ``found`` of each ``name``, and the number ``published``.
        findings: the faults and notes.
        images: the number of files that were opened.
        decoded: whether every pixel was read, or only headers and ends.
        seconds: the time that it took.
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
        """The ids of images that are missing or cannot be used, for ``drop_images``."""
        return tuple(i for f in self.findings if f.kind in IMAGE_FAULTS for i in f.names)

    def to_dict(self) -> dict[str, object]:
        """Return the whole report as values that JSON has."""
        about = {"root": str(self.root), "ok": self.ok, "seconds": round(self.seconds, 3)}
        return asdict(self) | about

    def __str__(self) -> str:
        depth = "every pixel read" if self.decoded else "headers and ends read, pixels not"
        kinds = len({finding.kind for finding in self.findings if finding.fault})
        lines = (
            f"{self.dataset} in {self.root}",
            f"{self.images:,} images opened in {self.seconds:.1f} s; {depth}",
            *(("", *_table(self.counts)) if self.counts else ()),
            "",
            *(str(finding) for finding in sorted(self.findings, key=lambda f: not f.fault)),
            f"{kinds} kind{'s' if kinds > 1 else ''} of fault" if kinds else "no fault",
        )
        return "\n".join(lines)


def _table(counts: Sequence[Count]) -> Iterator[str]:
    width = max(len(count.name) for count in counts)
    published = any(count.published is not None for count in counts)
    yield f"{'':<{width}} {'found':>9} {'published' if published else ''}".rstrip()
    for count in counts:
        number = "" if count.published is None else f"{count.published:>9,}"
        mark = "  <- differs" if count.differs else ""
        yield f"{count.name:<{width}} {count.found:>9,} {number}{mark}".rstrip()
