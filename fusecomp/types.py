"""The records that pass between the parts, and what each part must offer.

Nothing needs a base class: a module, a function and a lambda all pass.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fusecomp._core.batch import Batch
from fusecomp._core.index import ChangingIndex, Index, QueryModel, SearchModel
from fusecomp._core.metrics import Metric
from fusecomp._core.task import Task
from fusecomp._core.tensors import check_tensor
from fusecomp._core.tokens import Tokens
from fusecomp._core.triplet import Triplet

__all__ = [
    "FUSION_KEYWORDS",
    "LOSS_KEYWORDS",
    "SIDES",
    "Batch",
    "ChangingIndex",
    "Dataset",
    "Encode",
    "EncodeTokens",
    "Encoder",
    "Find",
    "Fingerprinted",
    "Fusion",
    "GivesTokens",
    "HasHeads",
    "HasSimilarity",
    "HasTowers",
    "Index",
    "LoadImage",
    "LoadsImages",
    "LooksUp",
    "Loss",
    "Metric",
    "NamesKeywords",
    "QueryModel",
    "SearchModel",
    "Similarity",
    "Task",
    "TaskRanking",
    "Tokens",
    "Triplet",
]


@dataclass(frozen=True, slots=True, eq=False)
class TaskRanking:
    """Ranking of one task's queries; metrics are computed from it.

    Args:
        task: the queries (reference, texts, target) and the gallery.
        indices: int64 [Q, k], positions in ``task.gallery``, best first; -1 where none is left.
        scores: [Q, k], cosines or scores of the fusion's own similarity, for display only.
        ranks: int64 [Q], the target's rank in the whole gallery, from 1; -1 where it cannot be
            found; None if the task has no targets.
        subset_indices: int64 [Q, M], the members of each query's subset, best first, or None.
        subset_ranks: int64 [Q], the target's rank among them, or None.
        relevant_ranks: int64 [Q, M], the ranks of the right answers ``task.relevant``, in that
            order; -1 is padding too. None if the task has none, or no targets.
    """

    task: Task
    indices: Tensor
    scores: Tensor
    ranks: Tensor | None
    subset_indices: Tensor | None = None
    subset_ranks: Tensor | None = None
    relevant_ranks: Tensor | None = None

    def select(self, rows: Sequence[int]) -> "TaskRanking":
        """Return the ranking of the queries at some positions; ValueError on one that none has."""
        task, rows = self.task.select(rows), list(rows)
        ranks, relevant_ranks, subset_indices, subset_ranks = (
            None if part is None else part[rows]
            for part in (self.ranks, self.relevant_ranks, self.subset_indices, self.subset_ranks)
        )
        return replace(
            self,
            task=task,
            indices=self.indices[rows],
            scores=self.scores[rows],
            ranks=ranks,
            subset_indices=subset_indices,
            subset_ranks=subset_ranks,
            relevant_ranks=relevant_ranks,
        )

    def top_ids(self) -> list[list[str]]:
        """Return the image ids that each query found, best first."""
        return self._ids(self.indices)

    def subset_ids(self) -> list[list[str]] | None:
        """Return the image ids of each query's subset, best first; None if the task has none."""
        return None if self.subset_indices is None else self._ids(self.subset_indices)

    def _ids(self, indices: Tensor) -> list[list[str]]:
        gallery = self.task.gallery
        return [[gallery[i] for i in row if i >= 0] for row in indices.tolist()]

    def metric_values(self) -> dict[str, Tensor]:
        """Compute the task's metrics of each query, by name: bool or float64 [Q].

        Raises:
            TypeError: if a metric gives no tensor.
            ValueError: if a target is unknown, or a metric gives other values than one finite
                number or bool for each query.
        """
        if self.ranks is None:
            name = self.task.name
            raise ValueError(f"task {name!r} has no targets, so there is nothing to score")
        self.task.require_targets()
        return {metric.name: self._values_of(metric) for metric in self.task.metrics}

    def _values_of(self, metric: Metric) -> Tensor:
        name, queries = f"the metric {metric.name!r}", len(self.task.queries)
        values = check_tensor(metric(self), name)
        hits = values.dtype == torch.bool
        if values.shape != (queries,) or not (hits or values.is_floating_point()):
            raise ValueError(
                f"{name} must give bool or floating [{queries}], one value for each query, got "
                f"{values.dtype} {list(values.shape)}"
            )
        for row in (~values.isfinite()).nonzero()[:1].flatten().tolist():
            query_id = self.task.queries[row].query_id
            raise ValueError(f"{name} of query {query_id!r} must be finite, got {values[row]}")
        return values.detach().to("cpu", torch.bool if hits else torch.float64)

    def __repr__(self) -> str:
        targets = "unknown" if self.ranks is None else "known"
        return f"TaskRanking({self.task}; the best {self.indices.shape[1]}, targets {targets})"


# The two sides of an encoder, wherever one is named.
SIDES = ("image", "text")
# What a loss gets if it names it: fields of ``Batch``, the features [B, D] of the reference images,
# and the fusion's similarity or None.
LOSS_KEYWORDS = ("target_ids", "reference_ids", "reference", "similarity")
# What a fusion gets if it names it: ``Tokens`` of a side whose encoder ``GivesTokens``, and text
# features [B, T] of a prompt for each reference, where the dataset has ``reference_texts``.
FUSION_KEYWORDS = ("image_tokens", "text_tokens", "reference_text")

# queries [Q, E], image features [N, D] -> scores [Q, N]
Similarity = Callable[[Tensor, Tensor], Tensor]
# path -> one loaded image, as ``encode_image`` takes them without the batch dimension
LoadImage = Callable[[Path], Tensor]
# ids or texts -> row numbers int64 [B]
Find = Callable[[Sequence[str]], Tensor]
# inputs of one side -> features [B, D]
Encode = Callable[[Any], Tensor]
# inputs of one side -> features [B, D], and features of each token
EncodeTokens = Callable[[Any], tuple[Tensor, Tokens]]


@runtime_checkable
class Encoder(Protocol):
    """Turns images into features [B, D] and texts into features [B, T], on one device.

    Optional abilities have protocols of their own: ``LoadsImages``, ``LooksUp``, ``HasTowers``,
    ``HasHeads``, ``GivesTokens`` and ``Fingerprinted``. An encoder that is no module looks after
    its own device and evaluation mode.
    """

    def encode_image(self, images: Any, /) -> Tensor:
        """Return features [B, D] of B loaded images, not scaled to unit length."""
        ...

    def encode_text(self, texts: Any, /) -> Tensor:
        """Return features [B, T] of B strings; T may differ from the images' width D."""
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


class GivesTokens(Protocol):
    """An encoder that gives features of each token too, for the fusions that name them.

    One of the two methods may be missing. If an attribute ``token_sides`` lists sides, only these
    have tokens. Tokens are computed below a head, in a width of their own, with the padding last.
    """

    def encode_image_tokens(self, images: Any, /) -> tuple[Tensor, Tokens]:
        """Return the features [B, D] of ``encode_image``, and tokens of the same pass."""
        ...

    def encode_text_tokens(self, texts: Any, /) -> tuple[Tensor, Tokens]:
        """Return the features [B, T] of ``encode_text``, and tokens of the same pass."""
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """A part that names its state, so that what was computed with it can be told apart."""

    def fingerprint(self) -> str:
        """Name all weights and settings; ValueError where that is not possible."""
        ...


@runtime_checkable
class Fusion(Protocol):
    """Turns image features [B, D] and text features [B, T] into queries.

    They are [B, D] and compared by the cosine, or [B, E] where the fusion ``HasSimilarity``. Those
    of ``FUSION_KEYWORDS`` that it names are passed by keyword, where there are any.
    """

    def __call__(self, image: Tensor, text: Tensor, /) -> Tensor:
        """Return queries [B, D] or [B, E]."""
        ...


class HasSimilarity(Fusion, Protocol):
    """A fusion whose queries are compared by a similarity of its own (late interaction).

    Its queries are used as it returns them. A similarity depends on the pair alone, not on the
    rest of the gallery, and has no parameters; targets are the encoder's rows, not normalised.
    """

    def similarity(self, query: Tensor, target: Tensor, /) -> Tensor:
        """Return scores [Q, N] of queries [Q, E] and image features [N, D]."""
        ...


@runtime_checkable
class Loss(Protocol):
    """Compares queries [B, D] with their targets [B, D] (row i belongs to row i)."""

    def __call__(self, query: Tensor, target: Tensor, /) -> Tensor:
        """Return a scalar."""
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

    Three attributes are optional: ``protocol`` (a mapping of strings), which evaluation prints with
    its scores; ``triplet_image_ids``, the images that triplets name, where the galleries hold
    more: only these are cached for training; and ``reference_texts``, a mapping from the id of
    each reference to a prompt that describes it, for fusions that name ``reference_text``.
    """

    @property
    def image_ids(self) -> Sequence[str]:
        """Every image that a triplet or a task names, once."""
        ...

    def path(self, image_id: str, /) -> Path:
        """Return the path of an image."""
        ...

    def triplets(self, epoch: int = 0, seed: int = 0) -> Sequence[Triplet]:
        """Return the triplets of one epoch, always in the same order."""
        ...

    def texts(self) -> Sequence[str]:
        """Return every text that can occur in a triplet or a task, once."""
        ...

    def tasks(self) -> Sequence[Task]:
        """Return what evaluation ranks."""
        ...

    def __len__(self) -> int:
        """Return the number of triplets."""
        ...
