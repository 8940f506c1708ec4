"""What the annotation files of a dataset say, against what is published."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusecomp.datasets._verify_report import Count, Finding

__all__ = ["Annotations", "count_findings", "unlisted"]


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a dataset should hold.

    Args:
        dataset: its name.
        counts: how many there are of what.
        findings: what is wrong or worth knowing before an image is opened.
        images: where each image lies, or would lie, by image id.
    """

    dataset: str
    counts: Sequence[Count]
    findings: Sequence[Finding]
    images: Mapping[str, Path]


def count_findings(counts: Iterable[Count], source: str) -> list[Finding]:
    """A finding that lists the counts which are not the published ones, if there are any."""
    wrong = [count for count in counts if count.differs]
    if not wrong:
        return []
    return [
        Finding(
            "counts",
            f"{len(wrong)} counts of the annotations are not the published ones; fetch them "
            f"again from {source}",
            tuple(count.name for count in wrong),
            tuple(f"{count.found:,} in place of {count.published:,}" for count in wrong),
        )
    ]


def unlisted(path: Path, used: Iterable[str], known: Iterable[str]) -> list[Finding]:
    """A finding that names the images of a caption file which its split file lacks."""
    known = frozenset(known)
    names = tuple(dict.fromkeys(name for name in used if name not in known))
    if not names:
        return []
    message = f"{path.name} names {len(names):,} images that its split file does not; fetch both"
    return [Finding("unlisted", message, names)]
