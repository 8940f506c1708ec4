import time
from pathlib import Path
from typing import TYPE_CHECKING

from fusecomp._core.checks import as_path, as_text, flag, require_choice, whole_number
from fusecomp.datasets._verify_report import VerifyReport

if TYPE_CHECKING:
    from fusecomp.datasets._verify_annotations import Annotations

__all__ = ["verify"]

_DATASETS = ("fashioniq", "cirr", "table")


def verify(
    dataset: str,
    root: str | Path,
    *,
    images: str | Path | None = None,
    split: str | None = None,
    decode: bool = False,
    num_workers: int | None = None,
) -> VerifyReport:
    """Check the files of a dataset before hours of training depend on them.

    Annotations are counted and compared with the published ones; each image's header and end
    are read, which finds files that are missing, empty, cut off, or no images at all; equal
    images are found by size, last bytes and then content. Faults make the report not ``ok``;
    notes are worth knowing, such as images that two splits share.

    Args:
        dataset: ``"fashioniq"`` (in CLIP4Cir's layout: captions, image_splits, images),
            ``"cirr"`` (what ``CIRR`` reads; or the annotations alone) or ``"table"`` (what
            ``TripletTable`` reads).
        root: the folder of the dataset; for a table, the .csv or .jsonl file.
        images: for a table, the folder of its images.
        split: for a table, the split whose rows are checked; None checks all.
        decode: read every pixel too, which also finds damage inside of files; many times slower.
        num_workers: threads; None chooses by the number of cores.

    Returns:
        A ``VerifyReport``: prints as a table, ``ok`` says whether there is no fault,
        ``findings`` holds every name, ``to_dict()`` is for JSON.

    Raises:
        TypeError: if root or images is no path, or split no string.
        FileNotFoundError: if the dataset is not there.
        ValueError: on an unknown dataset or option, or an annotation file that cannot be read.
        ImportError: if Pillow is missing.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (8, 8)).save(folder / "red.png")
        >>> _ = (folder / "blue.png").write_bytes(b"")
        >>> _ = (folder / "mine.csv").write_text("reference,text,target\\nred,is blue,blue\\n")
        >>> report = verify("table", folder / "mine.csv", images=folder)
        >>> report.ok, report.findings[0].kind, report.findings[0].names
        (False, 'empty', ('blue.png',))
    """
    dataset = require_choice("dataset", dataset, _DATASETS)
    root = as_path("root", root)
    images = None if images is None else as_path("images", images)
    split = None if split is None else as_text("split", split)
    decode = flag("decode", decode)
    num_workers = None if num_workers is None else whole_number("num_workers", num_workers, 1)
    # Imported here, as importing fusecomp should not wait for what training does not need.
    from fusecomp.datasets._verify_images import check_images

    began = time.monotonic()
    found = _annotations(dataset, root, images, split)
    folder = root if images is None else images
    findings = [*found.findings, *check_images(found.images, folder, decode, num_workers)]
    missing = sum(len(finding.names) for finding in findings if finding.kind == "missing")
    return VerifyReport(
        dataset=found.dataset,
        root=root,
        counts=tuple(found.counts),
        findings=tuple(findings),
        images=len(found.images) - missing,
        decoded=decode,
        seconds=time.monotonic() - began,
    )


def _annotations(dataset: str, root: Path, images: Path | None, split: str | None) -> "Annotations":
    if dataset == "table":
        from fusecomp.datasets._verify_table import table

        if images is None:
            raise ValueError("images must be the folder of the table's images, got None")
        return table(root, images, split)
    for name, value in (("images", images), ("split", split)):
        if value is not None:
            raise ValueError(f"{name} is for tables; {dataset} has its own, got {value!r}")
    if dataset == "cirr":
        from fusecomp.datasets._verify_cirr import cirr

        return cirr(root)
    from fusecomp.datasets._verify_fashioniq import fashioniq

    return fashioniq(root)
