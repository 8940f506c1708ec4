from collections.abc import Iterable
from pathlib import Path

from fusecomp.datasets._cirr_files import (
    SOURCE,
    CirrFolder,
    CirrPair,
    pair_problems,
    read_files,
    read_pairs,
)
from fusecomp.datasets._verify_annotations import Annotations, count_findings, unlisted
from fusecomp.datasets._verify_report import Count, Finding

__all__ = ["cirr"]

# split -> images, queries
_PUBLISHED = {"train": (16_939, 28_225), "val": (2_297, 4_181), "test1": (2_315, 4_148)}


def cirr(root: Path) -> Annotations:
    """What the annotations (rc2) and the folders of images of CIRR hold."""
    folder = CirrFolder(root)
    counts: list[Count] = []
    findings: list[Finding] = []
    images: dict[str, Path] = {}
    for split, (image_count, queries) in _PUBLISHED.items():
        split_path, caption_path = folder.images(split), folder.captions(split)
        missing = [path for path in (split_path, caption_path) if not path.exists()]
        findings += [_missing(path, split) for path in missing]
        files = {} if split_path in missing else read_files(split_path)
        images |= {name: folder.image_folder / path for name, path in files.items()}
        if split_path not in missing:
            counts.append(Count(f"{split} images", len(files), image_count))
        if caption_path not in missing:
            pairs = read_pairs(caption_path, split)
            counts.append(Count(f"{split} queries", len(pairs), queries))
            findings += _problems(caption_path, pairs)
            if files:
                findings += unlisted(caption_path, (i for p in pairs for i in p.image_ids), files)
    return Annotations("CIRR", counts, findings + count_findings(counts, SOURCE), images)


def _missing(path: Path, split: str) -> Finding:
    needs = "training" if split == "train" else f"evaluation on {split}"
    message = f"{path.name} is missing, which {needs} needs; fetch it from {SOURCE}"
    return Finding("annotation", message, (path.name,))


def _problems(path: Path, pairs: Iterable[CirrPair]) -> list[Finding]:
    found = list(pair_problems(pairs))
    if not found:
        return []
    message = f"{path.name} has {len(found):,} faults in its pairs; CIRR refuses the file"
    names = tuple(f"pair {pair.pair_id}" for pair, _ in found)
    return [Finding("pair", message, names, tuple(problem for _, problem in found))]
