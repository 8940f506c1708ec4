import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from fusecomp._core.checks import (
    as_path,
    as_text,
    flag,
    is_blank,
    ordered,
    require_choice,
    whole_number,
)
from fusecomp.datasets._alike import warn_of_missing_words
from fusecomp.datasets._entries import Entry, raise_first, require_listed, warn_of
from fusecomp.datasets._fashioniq_files import (
    CATEGORIES,
    SPLITS,
    FashionIQImages,
    annotation_files,
    clean,
    inspect,
    read_pairs,
    read_split,
)
from fusecomp.datasets._verify import make_report
from fusecomp.datasets._verify_report import VerifyReport
from fusecomp.types import Task, Triplet

_GALLERIES = ("original", "val")

# The texts that published systems make of the two captions of a pair.
_Texts = tuple[str, ...]


def _joined(first: str, second: str) -> str:
    # str.capitalize also lowers the rest of the first caption; the published texts have that.
    return f"{clean(first).capitalize()} and {clean(second)}"


def _alone(caption: str) -> str:
    return clean(caption).capitalize()


_RANDOM = "random"

# name -> the texts of each query that a pair gives; "random" draws one of these.
_CAPTIONS: dict[str, Callable[[str, str], tuple[_Texts, ...]]] = {
    _RANDOM: lambda c1, c2: ((_joined(c1, c2),), (_joined(c2, c1),), (_alone(c1),), (_alone(c2),)),
    "both": lambda c1, c2: ((_joined(c1, c2),),),
    "reversed": lambda c1, c2: ((_joined(c2, c1),),),
    "averaged": lambda c1, c2: ((_joined(c1, c2), _joined(c2, c1)),),
    "alone": lambda c1, c2: ((_alone(c1),), (_alone(c2),)),
    "both-orders": lambda c1, c2: ((_joined(c1, c2),), (_joined(c2, c1),)),
}


class FashionIQ:
    """FashionIQ in its published folder layout; opens no image.

    ``root`` holds ``captions/cap.CATEGORY.SPLIT.json``, ``image_splits/split.CATEGORY.SPLIT.json``
    and ``images/ID.png`` (or .jpg, .jpeg), or a folder for each category, such as
    ``images/dress/ID.jpg``. Each category is one task with R@10 and R@50.

    Reference:
        Wu, Gao, Guo, Al-Halah, Rennie, Grauman, Feris, "Fashion IQ: A new dataset towards
        retrieving images by natural language feedback", CVPR 2021.

    Args:
        root: the folder.
        split: ``"train"``, ``"val"`` or ``"test"`` (whose targets are not public).
        categories: some of ``"dress"``, ``"shirt"``, ``"toptee"``.
        captions: how the two captions of a pair become texts:

            - ``"random"`` (train by default): one of "C1 and c2", "C2 and c1", "C1", "C2", a
              quarter each, a pure function of seed, epoch and row;
            - ``"both"`` (val and test by default): "C1 and c2", as CLIP4Cir evaluates;
            - ``"reversed"``: "C2 and c1";
            - ``"averaged"``: both orders, their features averaged (SEARLE, LinCIR);
            - ``"alone"``: each caption is a query of its own;
            - ``"both-orders"``: both orders, each a query of its own.
        gallery: ``"original"``, the split file (CLIP4Cir and most since), or ``"val"``, only
            the references and targets of the queries (VAL, CoSMo; easier by several points).
        exclude_reference: leave each query's reference out of its ranking (TIRG, VAL, ARTEMIS).
        name: the dataset's name in the protocol, for other datasets of this layout.

    Raises:
        TypeError: if root is no path, or name no string.
        FileNotFoundError: if an annotation file is missing.
        ValueError: on an unknown split, category or option, a broken annotation file, or a target
            that ``exclude_reference`` leaves out.

    Warns:
        UserWarning: if captions are words such as ``"nan"``, which programs print for missing ones,
            or if both captions of a pair say nothing.

    Example:
        >>> import tempfile
        >>> from fusecomp._core.strict_json import write_json
        >>> root = Path(tempfile.mkdtemp())
        >>> write_json(root / "image_splits/split.dress.val.json", ["B1", "B2"])
        >>> pair = {"candidate": "B1", "target": "B2", "captions": ["is blue", "has no sleeves."]}
        >>> write_json(root / "captions/cap.dress.val.json", [pair])
        >>> FashionIQ(root, split="val", categories=["dress"]).triplets()[0].texts
        ('Is blue and has no sleeves',)
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        categories: Sequence[str] = CATEGORIES,
        captions: str | None = None,
        gallery: str = "original",
        exclude_reference: bool = False,
        name: str = "FashionIQ",
    ) -> None:
        if captions is None:
            captions = _RANDOM if split == "train" else "both"
        self.split = require_choice("split", split, SPLITS)
        self.categories = checked_categories(categories)
        self.root = as_path("root", root)
        self.captions = require_choice("captions", captions, _CAPTIONS)
        self.gallery = require_choice("gallery", gallery, _GALLERIES)
        self.exclude_reference = flag("exclude_reference", exclude_reference)
        self.name = as_text("name", name)
        self._galleries: dict[str, tuple[str, ...]] = {}
        # The queries that each row may give: all of them, or one drawn for "random".
        self._rows: dict[str, list[tuple[Triplet, ...]]] = {}
        pairs = [pair for category in self.categories for pair in self._read(category)]
        # Every image of the galleries, once, in the order of the split files.
        self.image_ids = tuple(dict.fromkeys(chain.from_iterable(self._galleries.values())))
        self._known = frozenset(self.image_ids)
        warn_of_missing_words(
            (f"{where}: a caption", caption) for where, captions in pairs for caption in captions
        )
        warn_of(
            [where for where, captions in pairs if all(is_blank(clean(c)) for c in captions)],
            ": nothing can be read in the captions but blanks, dots and commas; there are {} such "
            "entries, whose queries say nothing: remove them",
        )

    def _read(self, category: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Read the files of a category; return the captions of each entry after its place."""
        split_path, path = annotation_files(self.root, category, self.split)
        image_ids = read_split(split_path)
        pairs = read_pairs(path, category, self.split)
        require_listed(path, pairs, image_ids, f"is not in {split_path}")
        if self.exclude_reference:
            problem = (
                "the target is the candidate, {!r}, which exclude_reference leaves out of its "
                "ranking; remove the entry, or keep the references"
            )
            same = (pair for pair in pairs if pair.target == pair.reference)
            raise_first(path, ((pair.where, problem.format(pair.target)) for pair in same))
        self._rows[category] = [tuple(self._queries(pair)) for pair in pairs]
        if self.gallery == "val":
            image_ids = [image_id for pair in pairs for image_id in pair.image_ids]
        self._galleries[category] = tuple(dict.fromkeys(image_ids))
        return ((f"{path}, {pair.where}", pair.texts) for pair in pairs)

    def _queries(self, pair: Entry) -> Iterator[Triplet]:
        forms = _CAPTIONS[self.captions](*pair.texts)
        numbered = self.captions != _RANDOM and len(forms) > 1
        for number, texts in enumerate(forms):
            query_id = f"{pair.query_id}/{number}" if numbered else pair.query_id
            yield Triplet(query_id, pair.reference, texts, pair.target)

    @classmethod
    def verify(
        cls, root: str | Path, *, decode: bool = False, num_workers: int | None = None
    ) -> VerifyReport:
        """List all that is wrong with a folder; reading a split raises the first of it.

        The annotations are compared with the published counts. Of each image the header and end
        are read, which finds files that are missing, empty, cut off, no images, or equal. Faults
        make the report not ``ok``; notes do not, such as images that two splits share.

        Args:
            root: the folder.
            decode: read every pixel too, which finds damage inside of files; many times slower.
            num_workers: threads; None chooses by the number of cores.

        Raises:
            FileNotFoundError: if the dataset is not there.
            ValueError: if its annotations cannot be read, or on a wrong option.
            ImportError: if Pillow is missing.
        """
        return make_report(as_path("root", root), inspect, decode, num_workers)

    @cached_property
    def triplet_image_ids(self) -> tuple[str, ...]:
        """The references and targets of all triplets, once."""
        rows = chain.from_iterable(self._rows.values())
        return tuple(dict.fromkeys(i for first, *_ in rows for i in first.image_ids))

    @property
    def protocol(self) -> Mapping[str, str]:
        """The options that make scores comparable or not."""
        return {
            "dataset": self.name,
            "split": self.split,
            "gallery": self.gallery,
            "reference": "excluded" if self.exclude_reference else "kept",
            "captions": self.captions,
        }

    def path(self, image_id: str) -> Path:
        """Return where the image is, or would be.

        Raises:
            ValueError: if the dataset does not know the image, two folders have different files
                of it, or its only file has a suffix that is not read, such as .webp.
        """
        if image_id not in self._known:
            raise ValueError(f"unknown image {image_id!r}: not in split {self.split!r}")
        return self._images.path(image_id)

    @cached_property
    def _images(self) -> FashionIQImages:
        return FashionIQImages(self.root)

    def triplets(self, epoch: int = 0, seed: int = 0) -> list[Triplet]:
        """Return the triplets in the order of the caption files; the texts of "random" by epoch.

        Raises:
            ValueError: if epoch or seed is no whole number of at least 0.
        """
        epoch = whole_number("epoch", epoch, 0, math.inf)
        seed = whole_number("seed", seed, 0, math.inf)
        return [t for category in self.categories for t in self._drawn(category, epoch, seed)]

    def _drawn(self, category: str, epoch: int = 0, seed: int = 0) -> list[Triplet]:
        rows = self._rows[category]
        if self.captions != _RANDOM:
            return list(chain.from_iterable(rows))
        # The category's own stream: a row's text does not depend on which others are loaded.
        rng = np.random.default_rng([seed, epoch, CATEGORIES.index(category)])
        draws = rng.integers(len(rows[0]) if rows else 1, size=len(rows)).tolist()
        return [row[draw] for row, draw in zip(rows, draws, strict=True)]

    def texts(self) -> list[str]:
        """Return every text that can occur, once."""
        rows = (row for category in self.categories for row in self._rows[category])
        return list(dict.fromkeys(text for row in rows for t in row for text in t.texts))

    def tasks(self) -> list[Task]:
        """Return one task a category: R@10 and R@50 over its gallery."""
        tasks = []
        for category in self.categories:
            queries, exclude = self._drawn(category), None
            if self.exclude_reference:
                exclude = [(query.reference_id,) for query in queries]
            tasks.append(Task(category, queries, self._galleries[category], exclude))
        return tasks

    def __len__(self) -> int:
        rows = chain.from_iterable(self._rows.values())
        return sum(1 if self.captions == _RANDOM else len(row) for row in rows)

    def __repr__(self) -> str:
        return f"FashionIQ({str(self.root)!r}, {self.split!r}, {len(self)} triplets)"


def checked_categories(categories: Sequence[str]) -> tuple[str, ...]:
    """Return the categories; ValueError unless they are known, distinct, and at least one."""
    given = [categories] if isinstance(categories, str) else categories
    listed = ordered("categories", given, "names")
    chosen = tuple(require_choice("category", category, CATEGORIES) for category in listed)
    if not chosen or len(set(chosen)) != len(chosen):
        raise ValueError(f"categories must be distinct, at least one; got {list(chosen)!r}")
    return chosen
