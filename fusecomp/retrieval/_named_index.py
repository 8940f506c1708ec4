"""Keywords of an index: image_ids, attributes and where, which its gallery gives if named."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fusecomp._core.keywords import taken_keywords
from fusecomp.retrieval._attributes import Value, check_where, positions_where
from fusecomp.types import ChangingIndex, Index, Similarity

# features [N, D], similarity or None, and what it names -> index
MakeIndex = Callable[..., Index]
Columns = Mapping[str, Sequence[Value]]


def make_index(
    make: MakeIndex,
    features: Tensor,
    similarity: Similarity | None,
    image_ids: Sequence[str | None],
    attributes: Columns,
) -> Index:
    """Make an index, with the ids and attributes of the images if it names them."""
    return make(features, similarity, **_named(make, image_ids=image_ids, attributes=attributes))


def add_rows(
    index: ChangingIndex, features: Tensor, image_ids: Sequence[str], attributes: Columns
) -> None:
    """Add rows, with the ids and attributes of the images if ``add`` names them."""
    add: Callable[..., None] = index.add
    add(features, **_named(add, image_ids=image_ids, attributes=attributes))


def narrow(
    index: Index,
    attributes: Columns,
    where: Mapping[str, Value | Collection[Value]],
    positions: Iterable[int],
    queries: int,
) -> dict[str, Any]:
    """Return ``where`` if ``search`` names it, else the positions that all queries search."""
    wanted = check_where(attributes, where)
    if named := _named(index.search, where=wanted):
        return named
    found = positions_where(attributes, wanted, positions)
    return {"within": torch.tensor(found or [-1]).expand(queries, -1)}


def changing(index: Index) -> ChangingIndex:
    """Return the index; ValueError unless its rows can come and go."""
    if not isinstance(index, ChangingIndex):
        kind = type(index).__name__
        raise ValueError(f"{kind} has no add and remove: build the gallery anew")
    return index


def _named(part: Callable[..., object], **offered: object) -> dict[str, Any]:
    return {name: offered[name] for name in taken_keywords(part, (*offered,))}
