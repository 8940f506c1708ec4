"""The protocols of an index, and of a model whose queries it takes."""

import inspect
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from fusecomp._core.checks import require

if TYPE_CHECKING:
    from fusecomp.types import Encoder, Fusion, Similarity, Tokens


@runtime_checkable
class Index(Protocol):
    """Finds the nearest rows of a gallery that was prepared once.

    Rows are told by position, from 0; no position is ever used again. A gallery gives more to an
    index that names it as a keyword: ``image_ids`` and ``attributes`` of the rows where it is made
    and in ``add``; ``where``, the wanted values of each attribute, in ``search`` in place of
    ``within``.
    """

    def search(
        self, query: Tensor, k: int, *, exclude: Tensor | None = None, within: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the scores and positions of the k best rows of each query.

        Args:
            query: [Q, E], of any floating dtype, on the features' device.
            k: the number of positions; may exceed N.
            exclude: int64 [Q] or [Q, M], positions that a query must not find; -1 is padding.
            within: int64 [Q] or [Q, M], the only positions that a query may find; -1 is padding.
                Where all queries share a row, it is one row that was expanded.

        Shape:
            Scores [Q, k] and positions int64 [Q, k], best first; score -inf and position -1 where
            fewer than k are left.
        """
        ...


@runtime_checkable
class ChangingIndex(Index, Protocol):
    """An index whose rows come and go; a row that is removed leaves a gap."""

    def add(self, features: Tensor) -> None:
        """Append features [M, D], which get the next positions."""
        ...

    def remove(self, positions: Tensor) -> None:
        """Find the rows of these positions, int64 [M], no more."""
        ...


class SearchModel(Protocol):
    """A model as galleries know it, such as ``ComposedEncoder``."""

    encoder: "Encoder"

    @property
    def similarity(self) -> "Similarity | None":
        """The comparison of queries [Q, E] with image features [N, D]; None is the cosine."""
        ...


class QueryModel(SearchModel, Protocol):
    """A model as sessions know it, such as ``ComposedEncoder``: it composes queries of features."""

    fusion: "Fusion"
    # Those of ``types.FUSION_KEYWORDS`` that the fusion names.
    fusion_keywords: tuple[str, ...]

    def compose(
        self, image: Tensor, text: Tensor, *, text_tokens: "Tokens | None" = None
    ) -> Tensor:
        """Return queries [B, E] of image features [B, D] and text features [B, T]."""
        ...


def check_index(index: Index) -> Index:
    """Return the index; TypeError unless its ``search`` takes what a gallery passes."""
    require("index", index, "search", "an index, see types.Index")
    try:
        inspect.signature(index.search).bind(None, 1, exclude=None, within=None)
    except TypeError as error:
        raise TypeError(
            f"{type(index).__name__}.search must take (query, k, *, exclude=None, within=None), "
            f"see types.Index: {error}"
        ) from error
    return index
