"""The records that pass between the parts, and what each part must offer.

Nothing needs a base class: a module, a function and a lambda all pass.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from fusecomp._core.checks import can_be_listed, ordered, require_strings, shown, strings
from fusecomp._core.similarity import check_tensor, check_values

__all__ = [
    "LOSS_KEYWORDS",
    "SIDES",
    "Batch",
    "Dataset",
    "Encode",
    "Encoder",
    "Find",
    "Fingerprinted",
    "Fusion",
    "HasHeads",
    "HasTowers",
    "LoadImage",
    "LoadsImages",
    "LooksUp",
    "Loss",
    "NamesKeywords",
    "Task",
    "Triplet",
    "are_ks",
    "check_text_counts",
]


@dataclass(frozen=True, slots=True)
class Triplet:
    """One composed query: a reference image, one or more texts, and the target if it is known.

    Args:
        query_id: names the query; unique within a dataset.
        reference_id: the image that the texts modify.
        texts: what is different; the features of several texts are averaged. A list becomes a
            tuple, as any other list or array of strings does.
        target_id: the wanted image, or None where it is not public.
        group: the members of the query's subset (CIRR), each once, or None. A list becomes a tuple.

    Raises:
        TypeError: if an id is no string.
        ValueError: if texts or group hold nothing, or anything but strings, such as lists of
            texts, or are a plain string; or if the group names an image twice.

    Example:
        >>> Triplet("dress/0", "B003FGW7MK", ("is solid black",), target_id="B008BHCT58").texts
        ('is solid black',)
    """

    query_id: str
    reference_id: str
    texts: tuple[str, ...]
    target_id: str | None = None
    group: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        texts, group, target_id = self.texts, self.group, self.target_id
        if type(texts) is not tuple:
            texts = self._tuple("texts", texts)
        if group is not None:
            if type(group) is not tuple:
                group = self._tuple("group", group)
            self._require_strings("group", group)
            if len({*group}) < len(group):
                twice = next(i for i in group if group.count(i) > 1)
                raise ValueError(f"query {self.query_id!r}: group names an image twice: {twice!r}")
        self._require_strings("texts", texts)
        if not (
            isinstance(self.query_id, str)
            and isinstance(self.reference_id, str)
            and (target_id is None or isinstance(target_id, str))
        ):
            raise TypeError(f"the ids of a triplet must be strings, got {self!r:.300}")

    def _tuple(self, name: str, values: Any) -> tuple[str, ...]:
        """A list becomes a tuple, so that equal triplets are one key."""
        if not can_be_listed(values):
            self._refuse(name, values)
        listed = tuple(ordered(name, values, "strings"))
        object.__setattr__(self, name, listed)
        return listed

    def _require_strings(self, name: str, values: tuple[str, ...]) -> None:
        if not values:
            self._refuse(name, values)
        try:
            # Quicker than a look at each: there may be hundreds of thousands of triplets.
            "".join(values)
        except TypeError:
            self._refuse(name, values)

    def _refuse(self, name: str, values: Any) -> NoReturn:
        raise ValueError(
            f"query {self.query_id!r}: {name} must be a non-empty tuple of strings, "
            f"got {shown(values)}"
        )

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The reference, and the target if it is known."""
        return (
            (self.reference_id,) if self.target_id is None else (self.reference_id, self.target_id)
        )


def are_ks(ks: Collection[Any]) -> bool:
    """Whether these can be the k of recall@k: distinct whole numbers above 0, at least one."""
    whole = all(isinstance(k, Integral) and not isinstance(k, bool) and int(k) > 0 for k in ks)
    return whole and 0 < len(ks) == len({*ks})


@dataclass(frozen=True, slots=True)
class Task:
    """One ranking problem of a dataset, such as a category of FashionIQ.

    Args:
        name: stands before its metrics, as in ``dress/recall@10``; may be empty.
        queries: Q triplets.
        gallery: the image ids that every query is compared with.
        exclude: for each query the image ids that are left out of its ranking, or None; never its
            target.
        subsets: for each query the image ids that are also ranked among themselves, or None;
            with its target, if that is known.
        ks: the k of recall@k.
        missing_queries: ids of queries left out because an image is missing.
        missing_images: ids of gallery images left out because they are missing.

    Raises:
        ValueError: if the name is no string, the queries are no triplets, the gallery holds
            anything but strings, or one of queries, gallery, exclude, subsets and ks is a string,
            has no order, such as a set, or can be read only once; also if a row of exclude or
            subsets is a plain string.
    """

    name: str
    queries: Sequence[Triplet]
    gallery: Sequence[str]
    exclude: Sequence[Sequence[str]] | None = None
    subsets: Sequence[Sequence[str]] | None = None
    ks: tuple[int, ...] = (10, 50)
    missing_queries: tuple[str, ...] = ()
    missing_images: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"the name of a task must be a string, got {shown(self.name)}")
        queries = ordered("queries", self.queries, "triplets")
        for query in queries:
            if not isinstance(query, Triplet):
                raise ValueError(f"queries must be a list of triplets, got {shown(query)} in it")
        lists = {"queries": queries, "gallery": strings("gallery", self.gallery)}
        for name, listed in lists.items():
            if not isinstance(getattr(self, name), Sequence):
                object.__setattr__(self, name, listed)
        object.__setattr__(self, "ks", tuple(ordered("ks", self.ks, "whole numbers")))
        for name in ("exclude", "subsets"):
            rows = getattr(self, name)
            for row in () if rows is None else ordered(name, rows, "lists of image ids"):
                if isinstance(row, str) or not isinstance(row, Collection):
                    raise ValueError(
                        f"{name} must be a list of lists of image ids, got {row!r} in it"
                    )

    def require_targets(self) -> None:
        """Raise ValueError that names the first query without a target."""
        for query in self.queries:
            if query.target_id is None:
                raise ValueError(
                    f"query {query.query_id!r} has no target, so there is nothing to score; "
                    "rank(model, dataset) gives the ranking alone"
                )

    def __str__(self) -> str:
        text = f"{self.name or 'all'}: {len(self.queries)} queries in {len(self.gallery)}"
        lost, gone = len(self.missing_queries), len(self.missing_images)
        return f"{text} (missing: {lost} queries, {gone} images)" if lost or gone else text

    def __repr__(self) -> str:
        return f"Task({self})"


@dataclass(frozen=True, slots=True)
class Batch:
    """One training batch of B triplets, as the inputs that an encoder takes.

    Args:
        reference: input of ``encode_image``: loaded images [B, ...], or row numbers [B] where
            the encoder looks images up.
        texts: input of ``encode_text``: T >= B strings, or row numbers [T].
        target: as ``reference``.
        text_counts: int64 [B]; how many of the T texts belong to each row, in order.
        target_ids: int64 [B]; positions in ``dataset.image_ids``.
        reference_ids: int64 [B]; the same.
        query_ids: B strings, to name rows in messages.

    Raises:
        TypeError: if ids or counts are no torch tensors.
        ValueError: without rows, if ids, counts, references or targets do not fit them, or if
            texts or query_ids are no list of strings (a set or a dict is none).
    """

    reference: Any
    texts: Any
    target: Any
    text_counts: Tensor
    target_ids: Tensor
    reference_ids: Tensor
    query_ids: Sequence[str]

    def __post_init__(self) -> None:
        require_strings("texts", self.texts)
        require_strings("query_ids", self.query_ids)
        rows = len(self.query_ids)
        if rows == 0:
            raise ValueError("a batch needs a row at least, on every process")
        for name in ("text_counts", "target_ids", "reference_ids"):
            _check_int64(name, getattr(self, name), rows, "query_ids")
        check_text_counts(self.text_counts, rows, len(self.texts))
        for name in ("reference", "target"):
            value = getattr(self, name)
            if not isinstance(value, Tensor | np.ndarray | list | tuple):
                continue  # another input of an encoder of one's own
            shape = [len(value)] if isinstance(value, list | tuple) else list(value.shape)
            if shape[:1] != [rows]:
                raise ValueError(
                    f"{name} must have {rows} rows, as there are {rows} query_ids, got {shape}"
                )

    def __len__(self) -> int:
        return len(self.query_ids)

    def rows(self, start: int, stop: int) -> "Batch":
        """The rows from start to stop as a batch of their own."""
        before = int(self.text_counts[:start].sum())
        after = before + int(self.text_counts[start:stop].sum())
        at = slice(start, stop)
        return Batch(
            reference=self.reference[at],
            texts=self.texts[before:after],
            target=self.target[at],
            text_counts=self.text_counts[at],
            target_ids=self.target_ids[at],
            reference_ids=self.reference_ids[at],
            query_ids=self.query_ids[at],
        )

    def __repr__(self) -> str:
        shape = list(getattr(self.reference, "shape", [len(self)]))
        return f"Batch({len(self)} triplets, reference {shape}, {len(self.texts)} texts)"


def check_text_counts(counts: Any, rows: int, texts: int) -> None:
    """Raise ValueError unless these are int64 [rows], each 1 at least, and sum to the texts."""
    _check_int64("text_counts", counts, rows, "rows")
    check_values(counts, "text_counts")
    given = counts.tolist()
    if min(given) < 1:
        raise ValueError(f"text_counts must be 1 at least, as every row has a text; got {given}")
    if sum(given) != texts:
        raise ValueError(f"text_counts sum to {sum(given)}, but there are {texts} texts")


def _check_int64(name: str, value: Any, rows: int, what: str) -> None:
    check_tensor(value, name)
    if value.dtype != torch.int64 or value.shape != (rows,):
        raise ValueError(
            f"{name} must be int64 [{rows}], as there are {rows} {what}, "
            f"got {value.dtype} {list(value.shape)}"
        )


# What each part must offer

# The two sides of an encoder, wherever one is named.
SIDES = ("image", "text")
# What a loss gets if it names it: fields of ``Batch``.
LOSS_KEYWORDS = ("target_ids", "reference_ids")


# path -> one loaded image, as ``encode_image`` takes them without the batch dimension
LoadImage = Callable[[Path], Tensor]
# ids or texts -> row numbers int64 [B]
Find = Callable[[Sequence[str]], Tensor]
# inputs of one side -> features [B, D]
Encode = Callable[[Any], Tensor]


@runtime_checkable
class Encoder(Protocol):
    """Turns images and texts into features of one width D, on one device.

    More abilities are optional, each a protocol of its own: ``LoadsImages``, ``LooksUp``,
    ``HasTowers``, ``HasHeads`` and ``Fingerprinted``. An encoder that is no module looks after
    its own device and evaluation mode.
    """

    def encode_image(self, images: Any, /) -> Tensor:
        """Return features [B, D] of B loaded images, not scaled to unit length."""
        ...

    def encode_text(self, texts: Any, /) -> Tensor:
        """Return features [B, D] of B strings."""
        ...


class LoadsImages(Protocol):
    """An encoder that opens image files."""

    @property
    def load_image(self) -> LoadImage | None:
        """The picklable callable, path -> tensor, that opens one image; None if there is none."""
        ...


class LooksUp(Protocol):
    """An encoder with sides whose features are looked up, as ``CachedEncoder``."""

    @property
    def lookup(self) -> Mapping[str, Find]:
        """By side (``"image"``, ``"text"``): ids or texts -> the row numbers that it then takes."""
        ...


class HasTowers(Protocol):
    """An encoder whose sides can be trained one by one: ``StageConfig(trainable="text")``."""

    @property
    def towers(self) -> Mapping[str, Sequence[str]]:
        """By side, and ``"heads"``: name patterns of its parameters."""
        ...


class HasHeads(HasTowers, Protocol):
    """An encoder with heads whose features below the head can be cached while the head learns."""

    @property
    def heads(self) -> Mapping[str, nn.Module]:
        """By side: the module that its features go through last."""
        ...

    def encode_tower(self, side: str, inputs: Any, /) -> Tensor:
        """Return the features of a side below its head."""
        ...


class Fingerprinted(Protocol):
    """A part that names its state, so that what was computed with it can be told apart."""

    def fingerprint(self) -> str:
        """Name all weights and settings; ValueError where that is not possible."""
        ...


@runtime_checkable
class Fusion(Protocol):
    """Turns image features [B, D] and text features [B, D] into queries [B, D]."""

    def __call__(self, image: Tensor, text: Tensor, /) -> Tensor:
        """Queries [B, D]."""
        ...


@runtime_checkable
class Loss(Protocol):
    """Compares queries [B, D] with their targets [B, D] (row i belongs to row i)."""

    def __call__(self, query: Tensor, target: Tensor, /) -> Tensor:
        """A scalar."""
        ...


@runtime_checkable
class NamesKeywords(Protocol):
    """A loss or fusion made of others, which gets the keywords that these name."""

    @property
    def named_keywords(self) -> Collection[str]:
        """The keywords that its parts name, such as ``"target_ids"``."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """Knows ids, texts, paths and its protocol; opens no image.

    Two attributes are optional: ``protocol`` (a mapping of strings), which evaluation prints
    beside each score, and ``triplet_image_ids``, the images that triplets can name, where the
    galleries hold more: only these are cached for training.
    """

    @property
    def image_ids(self) -> Sequence[str]:
        """Every image that a triplet or a task names, once."""
        ...

    def path(self, image_id: str, /) -> Path:
        """Where the image lies."""
        ...

    def triplets(self, epoch: int = 0, seed: int = 0) -> Sequence[Triplet]:
        """The triplets of one epoch, always in the same order."""
        ...

    def texts(self) -> Sequence[str]:
        """Every text that can occur in a triplet or a task, once."""
        ...

    def tasks(self) -> Sequence[Task]:
        """What evaluation ranks."""
        ...

    def __len__(self) -> int:
        """The number of triplets."""
        ...
