"""A whole FashionIQ folder against what is published: every file that is wrong or missing."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from unicodedata import normalize

from fusecomp.datasets._captions import clean
from fusecomp.datasets._entries import Entry
from fusecomp.datasets._fashioniq_files import (
    CATEGORIES,
    SPLITS,
    FashionIQImages,
    annotation_files,
    read_pairs,
    read_split,
)
from fusecomp.datasets._verify import Annotations, count_findings, unlisted_findings
from fusecomp.datasets._verify_report import Count, Finding, listed

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

_Part = tuple[str, str]  # category and split


def inspect(root: Path) -> Annotations:
    """Return all that the eighteen annotation files and the images hold, and what is wrong."""
    if not (root / "image_splits").is_dir():
        raise FileNotFoundError(
            f"no FashionIQ in {root}: the folder {root / 'image_splits'} is missing; give the "
            f"folder that holds it, or fetch the annotations from {_SOURCE}"
        )
    splits: dict[_Part, list[str]] = {}
    pairs: dict[_Part, list[Entry]] = {}
    counts: list[Count] = []
    findings: list[Finding] = []
    missing: list[str] = []
    for category, (number, split) in product(CATEGORIES, enumerate(SPLITS)):
        part, name = (category, split), f"{category}.{split}"
        paths = split_path, captions = annotation_files(root, category, split)
        missing += [path.relative_to(root).as_posix() for path in paths if not path.exists()]
        if split_path.exists():
            splits[part] = read_split(split_path)
            published = _IMAGES[category][number]
            counts.append(Count(f"{name} images", len(splits[part]), published))
        if captions.exists():
            pairs[part] = read_pairs(captions, category, split)
            published = _QUERIES[category][number]
            counts.append(Count(f"{name} queries", len(pairs[part]), published))
            if part in splits:
                findings += unlisted_findings(captions, pairs[part], splits[part])
    sentence = f"{{}} annotation files are missing; fetch them from {_SOURCE}"
    findings += listed("annotation", sentence, ((name, "") for name in missing))
    ids = frozenset(chain.from_iterable(splits.values()))
    if len(splits) == len(CATEGORIES) * len(SPLITS):
        total = sum(map(len, splits.values()))
        counts.append(Count("entries of all split files", total, _ENTRIES))
        counts.append(Count("distinct images", len(ids), _DISTINCT))
    else:
        counts.append(Count("distinct images", len(ids)))
    images, image_findings = _images(FashionIQImages(root), ids)
    findings += [*count_findings(counts, _SOURCE), *_notes(splits, pairs), *image_findings]
    return Annotations("FashionIQ", counts, findings, images, folder=root)


def _notes(
    splits: Mapping[_Part, Sequence[str]], pairs: Mapping[_Part, Sequence[Entry]]
) -> Iterator[Finding]:
    by_split = {
        name: {i for (_, split), ids in splits.items() if split == name for i in ids}
        for name in SPLITS
    }
    distinct = len(set().union(*by_split.values()))
    if (sum(map(len, splits.values())), distinct) == (_ENTRIES, _DISTINCT):
        message = (
            f"{_DISTINCT:,} images are all of FashionIQ: its nine split files hold {_ENTRIES:,} "
            f"entries, of which {_DISTINCT:,} are distinct."
        )
        yield Finding("complete", message, fault=False)
    shared = by_split["train"] & by_split["val"]
    if shared:
        targets = (
            (sum(pair.target in by_split["train"] for pair in rows), category)
            for (category, split), rows in pairs.items()
            if split == "val"
        )
        known = " and ".join(f"{count} {category}" for count, category in targets if count)
        yield Finding(
            "overlap",
            f"{len(shared):,} images are in a train and in a validation split"
            + (f", among them the targets of {known} validation queries" if known else "")
            + (", as published" if len(shared) == _OVERLAP else ""),
            tuple(sorted(shared)),
            fault=False,
        )
    captions = (caption for rows in pairs.values() for pair in rows for caption in pair.texts)
    blank = sum(not clean(caption) for caption in captions)
    if blank:
        message = f"{blank} captions are empty without their dots and commas"
        yield Finding("blank", message, fault=False)


def _images(folder: FashionIQImages, ids: frozenset[str]) -> tuple[dict[str, Path], list[Finding]]:
    """Where each image is or would be, and findings on files."""
    images, differing = {}, {}
    for image_id in sorted(ids):
        try:
            # A file of another suffix counts as missing, and is named among the misnamed.
            absent = folder.folder / f"{image_id}.png"
            images[image_id] = folder.path(image_id) if folder.find(image_id) else absent
        except ValueError as error:
            differing[image_id] = str(error)
    known = {normalize("NFC", image_id) for image_id in ids}
    stems = {name: normalize("NFC", stem) for name, stem in folder.stems.items()}
    misnamed = [n for n, stem in stems.items() if stem in known and not folder.find(stem)]
    unknown = [n for n, stem in stems.items() if stem not in known]
    refused = "{} images have files that differ; FashionIQ refuses them"
    rename = (
        "{} images of images that are missing have a suffix that is not read; rename them to "
        ".png or .jpg, whatever their format"
    )
    foreign = f"{{}} entries of {folder.folder} belong to no image of a split file"
    return images, [
        *listed("ambiguous", refused, differing.items()),
        *listed("misnamed", rename, ((name, "") for name in misnamed)),
        *listed("unknown", foreign, ((name, "") for name in unknown), fault=False),
    ]
