from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from fusecomp._core.strict_json import read_list
from fusecomp.datasets._captions import clean
from fusecomp.datasets._fashioniq_files import (
    CATEGORIES,
    SPLITS,
    FashionIQImages,
    parse_row,
    read_split,
)
from fusecomp.datasets._verify_annotations import Annotations, count_findings, unlisted
from fusecomp.datasets._verify_report import Count, Finding

__all__ = ["fashioniq"]

_SOURCE = "https://github.com/XiaoxiaoGuo/fashion-iq"
# train, val, test
_QUERIES = {
    "dress": (5985, 2017, 2024),
    "shirt": (5988, 2038, 2038),
    "toptee": (6027, 1961, 2056),
}
_IMAGES = {
    "dress": (11_452, 3_817, 3_818),
    "shirt": (19_036, 6_346, 6_346),
    "toptee": (16_121, 5_373, 5_374),
}
_ENTRIES, _DISTINCT, _OVERLAP = 77_683, 74_381, 811

_Key = tuple[str, str]


def fashioniq(root: Path) -> Annotations:
    """What the eighteen annotation files and the folder of images of FashionIQ hold."""
    if not (root / "image_splits").is_dir():
        raise FileNotFoundError(
            f"no FashionIQ in {root}: the folder {root / 'image_splits'} is missing; give the "
            f"folder that holds it, or fetch the annotations from {_SOURCE}"
        )
    found = _Reader(root)
    distinct = frozenset(i for ids in found.images.values() for i in ids)
    counts = [*found.counts, *_totals(found.images, len(distinct))]
    images, strays = _images(root, distinct)
    findings = [
        *found.findings,
        *count_findings(counts, _SOURCE),
        *_notes(found, len(distinct)),
        *strays,
    ]
    return Annotations("FashionIQ", counts, findings, images)


class _Reader:
    """Reads every annotation file that is there, and says which are not."""

    def __init__(self, root: Path) -> None:
        self.images: dict[_Key, list[str]] = {}
        self.targets: dict[str, list[str]] = {}
        self.blank = 0
        self.counts: list[Count] = []
        self.findings: list[Finding] = []
        self._missing: list[str] = []
        for category in CATEGORIES:
            for place, split in enumerate(SPLITS):
                self._read(root, category, split, place)
        if self._missing:
            message = f"{len(self._missing)} annotation files are missing; fetch them from "
            self.findings.append(Finding("annotation", message + _SOURCE, tuple(self._missing)))

    def _read(self, root: Path, category: str, split: str, place: int) -> None:
        name = f"{category}.{split}"
        split_path = root / "image_splits" / f"split.{name}.json"
        caption_path = root / "captions" / f"cap.{name}.json"
        for path in (split_path, caption_path):
            if not path.exists():
                self._missing.append(path.relative_to(root).as_posix())
        if split_path.exists():
            self.images[category, split] = ids = read_split(split_path)
            self.counts.append(Count(f"{name} images", len(ids), _IMAGES[category][place]))
        if caption_path.exists():
            queries = self._read_captions(caption_path, category, split)
            self.counts.append(Count(f"{name} queries", queries, _QUERIES[category][place]))

    def _read_captions(self, path: Path, category: str, split: str) -> int:
        used, targets = [], []
        for number, row in enumerate(read_list(path)):
            where = f"{path}, entry {number}"
            reference, target, pair = parse_row(row, where, has_target=split != "test")
            self.blank += sum(not clean(caption) for caption in pair)
            used.append(reference)
            if target is not None:
                targets.append(target)
        if split == "val":
            self.targets[category] = targets
        known = self.images.get((category, split))
        if known is not None:
            self.findings += unlisted(path, [*used, *targets], known)
        return len(used)

    def of_split(self, split: str) -> frozenset[str]:
        """The images of a split, all categories together."""
        return frozenset(i for (_, own), ids in self.images.items() if own == split for i in ids)


def _totals(images: Mapping[_Key, list[str]], distinct: int) -> list[Count]:
    if len(images) < len(CATEGORIES) * len(SPLITS):
        return [Count("distinct images", distinct)]
    entries = sum(map(len, images.values()))
    return [
        Count("entries of all split files", entries, _ENTRIES),
        Count("distinct images", distinct, _DISTINCT),
    ]


def _notes(found: _Reader, distinct: int) -> list[Finding]:
    notes = []
    entries = sum(map(len, found.images.values()))
    if (entries, distinct) == (_ENTRIES, _DISTINCT):
        complete = (
            f"{_DISTINCT:,} images are all of FashionIQ: its nine split files hold {_ENTRIES:,} "
            f"entries, of which {_DISTINCT:,} are distinct."
        )
        notes.append(Finding("complete", complete, fault=False))
    train = found.of_split("train")
    shared = train & found.of_split("val")
    if shared:
        targets = {
            category: sum(target in train for target in ids)
            for category, ids in found.targets.items()
        }
        known = " and ".join(f"{count} {category}" for category, count in targets.items() if count)
        message = f"{len(shared):,} images stand in a train and in a validation split" + (
            f", among them the targets of {known} validation queries" if known else ""
        )
        published = ", as published" if len(shared) == _OVERLAP else ""
        notes.append(Finding("overlap", message + published, tuple(sorted(shared)), fault=False))
    if found.blank:
        message = f"{found.blank} captions are empty without their dots and commas"
        notes.append(Finding("blank", message, fault=False))
    return notes


def _images(root: Path, ids: frozenset[str]) -> tuple[dict[str, Path], list[Finding]]:
    """Where each image lies or would lie, and the files that belong to none."""
    folder = FashionIQImages(root)
    images, differing = {}, {}
    for image_id in sorted(ids):
        try:
            # One of another suffix is missing, and named among the strays.
            lost = folder.folder / f"{image_id}.png"
            images[image_id] = folder.path(image_id) if folder.find(image_id) else lost
        except ValueError as error:
            differing[image_id] = str(error)
    findings = []
    if differing:
        message = f"{len(differing):,} images have files that differ; FashionIQ refuses them"
        reasons = tuple(differing.values())
        findings.append(Finding("ambiguous", message, tuple(differing), reasons))
    return images, findings + _strays(folder, ids)


def _strays(folder: FashionIQImages, ids: frozenset[str]) -> list[Finding]:
    known = {normalize("NFC", image_id) for image_id in ids}
    stems = {name: normalize("NFC", PurePosixPath(name).stem) for name in folder.names}
    misnamed = [n for n, stem in stems.items() if stem in known and not folder.find(stem)]
    unknown = [n for n, stem in stems.items() if stem not in known]
    findings = []
    if misnamed:
        message = (
            f"{len(misnamed):,} images of images that are missing have a suffix that is not "
            "read; rename them to .png or .jpg, whatever their format"
        )
        findings.append(Finding("misnamed", message, tuple(misnamed)))
    if unknown:
        message = f"{len(unknown):,} entries of {folder.folder} belong to no image of a split file"
        findings.append(Finding("unknown", message, tuple(unknown), fault=False))
    return findings
