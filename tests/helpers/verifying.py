"""Images to verify, and what a report says of them."""

import io
import random
from pathlib import Path
from typing import Any

from PIL import Image

from fusecomp.datasets import TripletTable, VerifyReport


def image(seed: int, kind: str = "JPEG", size: tuple[int, int] = (24, 36), **options: Any) -> bytes:
    """The bytes of an image of noise, which fills a file and differs for each seed."""
    pixels = random.Random(seed).randbytes(3 * size[0] * size[1])
    file = io.BytesIO()
    Image.frombytes("RGB", size, pixels).save(file, kind, **options)
    return file.getvalue()


def named(report: VerifyReport, kind: str) -> tuple[str, ...]:
    return next((f.names for f in report.findings if f.kind == kind), ())


def reasons(report: VerifyReport, kind: str) -> str:
    return " ".join(next(f.reasons for f in report.findings if f.kind == kind))


def kinds(report: VerifyReport) -> list[str]:
    return [finding.kind for finding in report.findings]


def beyond_counts(report: VerifyReport) -> list[str]:
    """What was found but that the tiny dataset does not have the published size."""
    return [kind for kind in kinds(report) if kind != "counts"]


def check(folder: Path, suffix: str = "csv", **options: Any) -> VerifyReport:
    return TripletTable.verify(folder.parent / f"mine.{suffix}", images=folder, **options)
