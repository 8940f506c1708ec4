"""Parts that indexes of inner products share: unit rows, and the rows that a query may find."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusecomp._core.indices import as_columns, check_indices
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import Array, widen
from fusecomp.retrieval._top import fill_up, sort_best
from fusecomp.types import Similarity

Floats = NDArray[np.float32]


def refuse_similarity(kind: str, similarity: Similarity | None) -> None:
    """Raise ValueError on a similarity, which an index of inner products cannot compare by."""
    if similarity is not None:
        raise ValueError(
            f"{kind} knows inner products only, but this fusion has a similarity of its own: use "
            "ExactIndex, or rerank(query, features, positions, similarity, k) on the results of "
            "an index without it"
        )


def unit_array(features: Tensor) -> Floats:
    """Return rows of unit length, as engines take them."""
    unit: Floats = normalize(widen(features.detach())).float().cpu().numpy()
    return np.ascontiguousarray(unit)


def check_chosen(query: Tensor, features: Tensor, **given: Array | None) -> dict[str, Tensor]:
    """Return those of exclude and within that are given, [Q, M] on the CPU."""
    return {
        name: as_columns(check_indices(name, positions, query, features)).cpu()
        for name, positions in given.items()
        if positions is not None
    }


def find_best(
    fetch: Callable[[int, Floats, Tensor | None], tuple[Tensor, Tensor]],
    query: Tensor,
    k: int,
    size: int,
    chosen: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Return the k best of N rows, -1 for nothing.

    ``fetch`` gets how many to find, rows of unit length and all that these may find. It is called
    for all queries at once where they may find the same rows, or else one by one.
    """
    banned, within, unit = chosen.get("exclude"), chosen.get("within"), unit_array(query)
    count = min(k + (0 if banned is None else banned.shape[1]), size)
    if within is None or within.stride(0) == 0 or (within == within[:1]).all():
        scores, found = fetch(count, unit, None if within is None else within[0])
    else:
        alone = [fetch(count, unit[row : row + 1], some) for row, some in enumerate(within)]
        scores, found = map(torch.cat, zip(*alone, strict=True))
    if banned is not None:
        first = torch.arange(len(found)).unsqueeze(1) * size
        gone = torch.isin(found + first, (banned + first)[banned >= 0])
        found = found.masked_fill(gone, -1)
    scores, found = fill_up(*sort_best(scores.masked_fill(found < 0, -torch.inf), found), k)
    return scores.to(query.device), found.to(query.device)
