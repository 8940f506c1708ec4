"""The files of FashionIQ, and a whole folder against what is published."""

import filecmp
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain, product
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from fusecomp._core.strict_json import read_list
from fusecomp.datasets._alike import require_text
from fusecomp.datasets._entries import Entry, field, read_objects
from fusecomp.datasets._folder import NamedFiles, require_below, told_apart
from fusecomp.datasets._verify import Annotations
from fusecomp.datasets._verify_report import Count, Finding

SPLITS = ("train", "val", "test")
CATEGORIES = ("dress", "shirt", "toptee")
_SUFFIXES = (".png", ".jpg", ".jpeg")
# Suffixes of images too, but not read.
_OTHER_SUFFIXES = (".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".avif")

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


def clean(caption: str) -> str:
    """Strip dots, question marks, commas and blanks from both ends of a caption."""
    return caption.strip(".?, ")


class FashionIQImages:
    """The images of a FashionIQ folder: in ``images``, or there in a folder for each category.

    An image of two categories may be in both folders, as 3,302 of the published ones are, if the
    files are equal. Within a folder .png goes before .jpg before .jpeg.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "images"
        files = [path for below in (".", *CATEGORIES) for path in _files(self.folder, below)]
        # The name without suffix of each file, by its path below ``images``.
        self.stems = {str(path): path.stem for path in files}
        self._files, self._unread = (
            NamedFiles(
                (path.stem, str(path))
                for preferred in suffixes
                for path in files
                if path.suffix.lower() == preferred
            )
            for suffixes in (_SUFFIXES, _OTHER_SUFFIXES)
        )

    def find(self, image_id: str) -> list[str]:
        """Return the files of an image below ``images``, at most one of each folder."""
        best: dict[str, str] = {}
        for name in self._files.find(image_id):
            best.setdefault(name.rpartition("/")[0], name)
        return [best[folder] for folder in sorted(best)]

    def path(self, image_id: str) -> Path:
        """Return where the image is, or would be; ValueError if it has no single file."""
        names = self.find(image_id)
        if not names and (unread := self._unread.find(image_id)):
            raise ValueError(
                f"image {image_id!r} has only the file {self.folder / unread[0]}, whose suffix is "
                f"none of {', '.join(_SUFFIXES)}: rename it to .png or .jpg, whatever its format"
            )
        first, *others = (self.folder / name for name in names or [f"{image_id}.png"])
        for other in others:
            if not filecmp.cmp(first, other, shallow=False):
                paths = " and ".join(told_apart([str(first), str(other)]))
                raise ValueError(f"image {image_id!r} has two files that differ: {paths}; keep one")
        return first


def _files(folder: Path, below: str) -> Iterator[PurePosixPath]:
    if (folder / below).is_dir():
        for name in sorted(path.name for path in (folder / below).iterdir()):
            if not name.startswith(".") and name not in CATEGORIES:
                yield PurePosixPath(below) / name


def annotation_files(root: Path, category: str, split: str) -> tuple[Path, Path]:
    """Return the split file and the caption file."""
    return (
        root / "image_splits" / f"split.{category}.{split}.json",
        root / "captions" / f"cap.{category}.{split}.json",
    )


def read_split(path: Path) -> list[str]:
    """Return the image ids of a split file; ValueError names an entry that is none."""
    ids = read_list(path)
    for number, image_id in enumerate(ids):
        if not isinstance(image_id, str) or not image_id:
            raise ValueError(f"{path}, entry {number}: expected an image id, got {image_id!r}")
        require_below(f"{path}, entry {number}", "image id", image_id)
    return ids


def read_pairs(path: Path, category: str, split: str) -> list[Entry]:
    """Return the entries of a caption file, with two captions each; test may lack targets."""
    pairs = []
    for number, (where, row) in enumerate(read_objects(path)):
        known = split != "test" or row.get("target") is not None
        captions = field(row, "captions", list, where)
        if len(captions) != 2 or not all(isinstance(caption, str) for caption in captions):
            raise ValueError(f"{where}: captions must be two strings, got {captions!r}")
        for caption in captions:
            require_text(where, "a caption", caption, "write the captions themselves")
        pair = Entry(
            where=f"entry {number}",
            query_id=f"{category}/{number}",
            reference=field(row, "candidate", str, where),
            texts=tuple(captions),
            targets=(field(row, "target", str, where),) if known else (),
        )
        pairs.append(pair)
    return pairs


def inspect(root: Path) -> Annotations:
    """Return all that the eighteen annotation files and the images hold, and what is wrong."""
    if not (root / "image_splits").is_dir():
        raise FileNotFoundError(
            f"no FashionIQ in {root}: the folder {root / 'image_splits'} is missing; give the "
            f"folder that holds it, or fetch the annotations from {_SOURCE}"
        )
    found = Annotations("FashionIQ", root)
    ids: dict[str, list[str]] = {split: [] for split in SPLITS}
    pairs: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for category, (number, split) in product(CATEGORIES, enumerate(SPLITS)):
        files = annotation_files(root, category, split)
        published = _IMAGES[category][number], _QUERIES[category][number]
        read = partial(read_pairs, category=category, split=split)
        known, rows = found.read_split(f"{category}.{split}", files, published, read_split, read)
        ids[split] += known or []
        pairs[split] += rows
    images = [*chain.from_iterable(ids.values())]
    count, distinct = len(images), len({*images})
    all_there = not any(name.startswith("image_splits") for name in found.absent)
    if all_there:
        found.counts.append(Count("entries of all split files", count, _ENTRIES))
    found.counts.append(Count("distinct images", distinct, _DISTINCT if all_there else None))
    found.compare(_SOURCE)
    if (count, distinct) == (_ENTRIES, _DISTINCT):
        message = (
            f"{distinct:,} images are all of FashionIQ: its nine split files hold {count:,} "
            f"entries, of which {distinct:,} are distinct."
        )
        found.findings.append(Finding("complete", message, fault=False))
    _add_overlap({*ids["train"]}, {*ids["val"]}, pairs["val"], found)
    texts = (text for rows in pairs.values() for pair in rows for text in pair.texts)
    if blank := sum(not clean(text) for text in texts):
        message = f"{blank} captions are empty without their dots and commas"
        found.findings.append(Finding("blank", message, fault=False))
    _add_images({*images}, found)
    return found


def _add_overlap(train: set[str], val: set[str], pairs: list[Entry], found: Annotations) -> None:
    shared = sorted(train & val)
    targets = Counter(pair.query_id.partition("/")[0] for pair in pairs if pair.target in train)
    known = " and ".join(f"{count} {category}" for category, count in targets.items())
    sentence = (
        "{} images are in a train and in a validation split"
        + (f", among them the targets of {known} validation queries" if known else "")
        + (", as published" if len(shared) == _OVERLAP else "")
    )
    found.add("overlap", sentence, ((name, "") for name in shared), fault=False)


def _add_images(ids: set[str], found: Annotations) -> None:
    """Add where each image is or would be, and findings on files."""
    folder, differing = FashionIQImages(found.folder), {}
    for image_id in sorted(ids):
        try:
            # A file of another suffix counts as missing, and is named among the misnamed.
            absent = folder.folder / f"{image_id}.png"
            found.images[image_id] = folder.path(image_id) if folder.find(image_id) else absent
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
    found.add("ambiguous", refused, differing.items())
    found.add("misnamed", rename, ((name, "") for name in misnamed))
    found.add("unknown", foreign, ((name, "") for name in unknown), fault=False)
