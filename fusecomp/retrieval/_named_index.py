"""Keywords of an index: image_ids, attributes and where, which its gallery gives if named."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch

from fusecomp._core.keywords import taken_keywords
from fusecomp.retrieval._attributes import Value, check_where
from fusecomp.types import ChangingIndex, Index

# features [N, D], similarity or None, and what it names -> index
MakeIndex = Callable[..., Index]


def named(part: Callable[..., object], **offered: object) -> dict[str, Any]:
    """Return what is offered under the keywords that a callable names."""
    return {name: offered[name] for name in taken_keywords(part, (*offered,))}


def narrow(
    index: Index,
    attributes: Mapping[str, Sequence[Value]],
    where: Mapping[str, Value | Collection[Value]] | None,
    positions: Iterable[int],
    queries: int,
) -> dict[str, Any]:
    """Return ``where`` if ``search`` names it, else the positions that all queries search."""
    if where is None:
        return {}
    wanted = check_where(attributes, where)
    if passed := named(index.search, where=wanted):
        return passed
    found = list(positions)
    for name, values in wanted.items():
        # True is told from 1.
        column, those = attributes[name], {(isinstance(value, bool), value) for value in values}
        found = [p for p in found if (isinstance(column[p], bool), column[p]) in those]
    return {"within": torch.tensor(found or [-1]).expand(queries, -1)}


def changing(index: Index) -> ChangingIndex:
    """Return the index; ValueError unless its rows can come and go."""
    if not isinstance(index, ChangingIndex):
        kind = type(index).__name__
        raise ValueError(f"{kind} has no add and remove: build the gallery anew")
    return index
