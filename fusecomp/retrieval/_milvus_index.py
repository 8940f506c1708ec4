import json
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusecomp._core.checks import as_text, has_half_character, ordered, require_kind
from fusecomp._core.indices import check_positions, check_query
from fusecomp._core.tensors import (
    Array,
    as_tensor,
    check_features,
    check_finite,
    check_tensor,
    check_widths,
)
from fusecomp.retrieval._attributes import Value, check_images, listed, plain_columns
from fusecomp.retrieval._inner_products import Floats, check_chosen, find_best, refuse_similarity
from fusecomp.retrieval._milvus_collection import Images, MilvusCollection, field
from fusecomp.types import Similarity

# What Milvus finds at most for one query, and what is found by one call.
_MOST, _HITS = 16_384, 2**17
# Rows that are removed by one call.
_REMOVED = 10_000


class MilvusIndex:
    """A gallery searched by Milvus (extra ``milvus``): in an embedded file, or on a cluster.

    The engine keeps rows of unit length, so that its inner products are cosines, with the ids of
    the images as its own and with their attributes. Making the index fills its collection: what is
    there is compared with the gallery and stays, all else is written. So to go on after a kill is
    to make it again. The features themselves are not kept. Which of several images with the same
    score take the last places of k is up to Milvus.

    Wang et al., Milvus: A Purpose-Built Vector Data Management System, SIGMOD 2021,
    https://doi.org/10.1145/3448016.3457550.

    Args:
        features: [N, D], as for ``ExactIndex``.
        similarity: None; an index of inner products cannot compare by another one.
        client: a ``pymilvus.MilvusClient``, of a file (``MilvusClient("images.db")``) or of a
            server (``MilvusClient("http://host:19530", token=...)``).
        collection: its name; made where there is none.
        image_ids: N strings, None where an image was removed; a gallery gives its own.
        attributes: by name, a value for each image; a gallery gives its own.
        index_type: as Milvus names it, such as ``"HNSW"``; ``"FLAT"`` is exact.
        params: of an index that is made, such as ``{"M": 32, "efConstruction": 200}``.
        search_params: of each search, such as ``{"ef": 256}``.

    Raises:
        ImportError: if pymilvus is missing.
        TypeError: if features are no torch tensor, the client is none, or a name is no string.
        ValueError: if a similarity is given; ids, features and attributes do not fit each other;
            the collection has another index or holds other images; or an embedded Milvus does
            not know the index type.
        RuntimeError: if Milvus refuses or loses something.

    Example:
        >>> client = pymilvus.MilvusClient("images.db")  # doctest: +SKIP
        >>> make = partial(MilvusIndex, client=client, collection="dresses")  # doctest: +SKIP
        >>> gallery = Gallery.build(model, image_ids, path, index=make)  # doctest: +SKIP
    """

    def __init__(
        self,
        features: Tensor,
        similarity: Similarity | None = None,
        *,
        client: Any,
        collection: str,
        image_ids: Sequence[str | None],
        attributes: Mapping[str, Sequence[Value]] | None = None,
        index_type: str = "FLAT",
        params: Mapping[str, object] | None = None,
        search_params: Mapping[str, object] | None = None,
    ) -> None:
        refuse_similarity("MilvusIndex", similarity)
        for name, given in (("params", params), ("search_params", search_params)):
            require_kind(name, given or {}, Mapping, "a mapping such as {'ef': 256}")
        self.collection = MilvusCollection(client, as_text("collection", collection))
        self.search_params = dict(search_params or {})
        self._size, self._width = 0, check_features(features, "features", "[N, D]").shape[1]
        self._attributes = sorted(() if attributes is None else attributes)
        images = self._images(features, image_ids, attributes)
        made_as = as_text("index_type", index_type)
        index = {"index_type": made_as, "params": dict(params or {})}
        self.collection.open(self._width, self._attributes, index)
        self.collection.fill(images)
        self._size = len(features)

    def __len__(self) -> int:
        return self._size

    def _images(
        self,
        features: Tensor,
        image_ids: Sequence[str | None],
        attributes: Mapping[str, Sequence[Value]] | None,
    ) -> Images:
        """Return images for the next positions, checked."""
        check_finite(features, "features")
        known = (name for name in ordered("image_ids", image_ids, "strings") if name is not None)
        names, _ = check_images([*known], None)
        if len(image_ids) != len(features):
            raise ValueError(f"{len(image_ids)} image_ids but {len(features)} rows of features")
        for name in filter(has_half_character, names):
            raise ValueError(f"the image {name!r} is not in UTF-8, which Milvus needs")
        columns = plain_columns(attributes, len(features))
        if sorted(columns) != self._attributes:
            raise ValueError(f"attributes are {[*columns]}, the collection's {self._attributes}")
        values = {name: [*map(_encoded, columns[name])] for name in self._attributes}
        return Images(self._size, image_ids, features.detach(), values)

    def add(
        self,
        features: Tensor,
        *,
        image_ids: Sequence[str | None],
        attributes: Mapping[str, Sequence[Value]] | None = None,
    ) -> None:
        """Write images, which get the next positions; after an interruption, add the same again.

        Raises:
            TypeError: if features are no torch tensor.
            ValueError: if they do not fit, or as when the index is made.
        """
        check_features(features, "features", "[M, D]")
        check_widths(features, self._like(features), ("features", "the index"))
        images = self._images(features, image_ids, attributes)
        self.collection.fill(images)
        self._size += len(features)

    def remove(self, positions: Tensor) -> None:
        """Delete the images at these positions.

        Raises:
            TypeError: if positions are no torch tensor.
            ValueError: if they are not int64 [M] in [0, N).
        """
        gone = check_positions(positions, len(self)).tolist()
        for start in range(0, len(gone), _REMOVED):
            self.collection.delete(f"position in {gone[start : start + _REMOVED]}")

    def search(
        self,
        query: Array,
        k: int,
        *,
        exclude: Array | None = None,
        within: Array | None = None,
        where: Mapping[str, Collection[Value]] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the k best rows that Milvus finds for each query; see ``types.Index``.

        Scores are float32, as Milvus gives them. ``where`` maps attributes to the values of which
        an image must have one. k and what is excluded are 16,384 at most together.

        Raises:
            RuntimeError: if Milvus refuses, or finds fewer images than there are.
        """
        query = as_tensor(query)
        like = self._like(check_tensor(query, "query"))
        k = check_query(query, like, k, one_width=True)
        chosen = check_chosen(query, like, exclude=exclude, within=within)
        fetch = partial(self._fetch, self._clauses(where or {}))
        return find_best(fetch, query, k, len(self), chosen)

    def _like(self, features: Tensor) -> Tensor:
        """Return what stands for the features [N, D] in checks of shapes."""
        return features.new_empty(1).expand(max(1, self._size), self._width)

    def _clauses(self, where: Mapping[str, Collection[Value]]) -> list[str]:
        if unknown := where.keys() - {*self._attributes}:
            raise ValueError(f"unknown attributes {sorted(unknown)}; valid: {self._attributes}")
        # An encoded value is ASCII, so that JSON escapes it as Milvus reads it; none is empty.
        listings = {name: [*map(_encoded, listed(some))] for name, some in where.items()}
        wanted = {name: json.dumps(some or [""]) for name, some in listings.items()}
        return [f"{field(self._attributes.index(name))} in {some}" for name, some in wanted.items()]

    def _fetch(
        self, clauses: Sequence[str], count: int, unit: Floats, within: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return what Milvus finds; position -1 where that is nothing."""
        if count > _MOST:
            raise ValueError(f"Milvus finds {_MOST} images at most, got {count} with the excluded")
        if within is not None:
            clauses = [*clauses, f"position in {within[within >= 0].tolist() or [-1]}"]
        expression, step = " and ".join(clauses), max(1, _HITS // count)
        scores = torch.full((len(unit), count), -torch.inf)
        found = torch.full((len(unit), count), -1)
        for start in range(0, len(unit), step):
            some = unit[start : start + step]
            answers = self.collection.search(some, count, expression, self.search_params)
            for row, hits in enumerate(answers, start):
                for column, (position, score) in enumerate(hits):
                    found[row, column], scores[row, column] = position, score
        if (found >= len(self)).any():
            raise RuntimeError(
                f"the collection {self.collection.name!r} holds images that this index does not "
                "know, as an add was interrupted or another one writes there: add them here"
            )
        fewest = int((found >= 0).sum(1).min())
        if fewest < count and fewest < (there := self.collection.count(expression)):
            raise RuntimeError(
                f"Milvus found {fewest} images where there are {there}: raise what search_params "
                "say, or take the index type FLAT"
            )
        return scores, found


def _encoded(value: Value) -> str:
    """Return a value as JSON, so that numbers equal numbers, and True is not 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)
