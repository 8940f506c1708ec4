"""The plain records that pass between the floors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusecomp.similarity import check_tensor, check_values

__all__ = ["Batch", "Task", "Triplet"]


@dataclass(frozen=True, slots=True)
class Triplet:
    """One composed query: a reference image, one or more texts, and the target if it is known.

    Args:
        query_id: names the query; unique within a dataset.
        reference_id: the image that the texts modify.
        texts: what is different; the features of several texts are averaged.
        target_id: the wanted image, or None where it is not public.
        group: the members of the query's subset (CIRR), or None.

    Raises:
        ValueError: without a text, or with a plain string in place of a sequence of texts.

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
        if isinstance(self.texts, str) or not self.texts:
            raise ValueError(
                f"query {self.query_id!r}: texts must be a non-empty tuple of strings, "
                f"got {self.texts!r}"
            )

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The reference, and the target if it is known."""
        return (
            (self.reference_id,) if self.target_id is None else (self.reference_id, self.target_id)
        )


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
        missing_queries: ids of queries left out because a picture is missing.
        missing_images: ids of gallery pictures left out because they are missing.
    """

    name: str
    queries: Sequence[Triplet]
    gallery: Sequence[str]
    exclude: Sequence[Sequence[str]] | None = None
    subsets: Sequence[Sequence[str]] | None = None
    ks: tuple[int, ...] = (10, 50)
    missing_queries: tuple[str, ...] = ()
    missing_images: tuple[str, ...] = ()

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
        return f"{text} (missing: {lost} queries, {gone} pictures)" if lost or gone else text

    def __repr__(self) -> str:
        return f"Task({self})"


@dataclass(frozen=True, slots=True)
class Batch:
    """One training batch of B triplets, as the inputs that an encoder takes.

    Args:
        reference: input of ``encode_image``: loaded pictures [B, ...], or row numbers [B] where
            the encoder looks images up.
        texts: input of ``encode_text``: T >= B strings, or row numbers [T].
        target: as ``reference``.
        text_counts: int64 [B]; how many of the T texts belong to each row, in order.
        target_ids: int64 [B]; positions in ``dataset.image_ids``.
        reference_ids: int64 [B]; the same.
        query_ids: B strings, to name rows in messages.

    Raises:
        TypeError: if ids or counts are no torch tensors.
        ValueError: without rows, or if the ids or counts do not fit them.
    """

    reference: Any
    texts: Any
    target: Any
    text_counts: Tensor
    target_ids: Tensor
    reference_ids: Tensor
    query_ids: Sequence[str]

    def __post_init__(self) -> None:
        rows = len(self.query_ids)
        if rows == 0:
            raise ValueError("a batch needs a row at least, on every process")
        for name in ("text_counts", "target_ids", "reference_ids"):
            _check_int64(name, getattr(self, name), rows, "query_ids")
        check_text_counts(self.text_counts, rows, len(self.texts))

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
