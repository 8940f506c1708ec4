from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Hits(NamedTuple):
    """Result of one query, best first: ids, scores [k] and positions int64 [k]."""

    ids: list[str]
    scores: Tensor
    positions: Tensor


def named_hits(names: Sequence[str | None], scores: Tensor, positions: Tensor) -> list[Hits]:
    """Return the hits of each query, without padding."""
    hits = []
    for values, places in zip(scores, positions, strict=True):
        found = places >= 0
        ids = [str(names[position]) for position in places[found].tolist()]
        hits.append(Hits(ids, values[found], places[found]))
    return hits
