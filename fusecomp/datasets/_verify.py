"""Reports on annotations and their images, with the findings that several datasets share."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fusecomp._core.checks import flag, whole_number
from fusecomp.datasets._entries import Entry, unlisted
from fusecomp.datasets._verify_images import check_images
from fusecomp.datasets._verify_report import Count, Finding, VerifyReport, listed


class Annotations(NamedTuple):
    """The content of a dataset, before an image is opened; reasons name images below a folder."""

    dataset: str
    counts: Sequence[Count]
    findings: Sequence[Finding]
    images: Mapping[str, Path]
    folder: Path


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


def count_findings(counts: Iterable[Count], source: str) -> list[Finding]:
    """Return a finding on the counts that are not the published ones."""
    wrong = ((c.name, f"{c.found:,} in place of {c.published:,}") for c in counts if c.differs)
    sentence = "{} counts of the annotations are not the published ones; fetch them again from "
    return listed("counts", sentence + source, wrong)


def unlisted_findings(
    path: Path, entries: Iterable[Entry], known: Collection[str]
) -> list[Finding]:
    """Return a finding on all images of a caption file that its split file lacks."""
    names = dict.fromkeys(image_id for _, image_id in unlisted(entries, known))
    sentence = f"{path.name} names {{}} images that its split file does not; fetch both"
    return listed("unlisted", sentence, ((name, "") for name in names))
