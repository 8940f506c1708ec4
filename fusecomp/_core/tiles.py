"""Scores of queries and images that no way to split them changes, to the bit in float32."""

import torch
from torch import Tensor

from fusecomp._core.indices import compare
from fusecomp._core.tensors import non_finite_rows, widen
from fusecomp.types import Similarity

# Matrix products of fewer rows or columns may sum in another order; with this many, a query's
# scores do not depend on its neighbours, and equal gallery rows get equal scores.
_MIN_ROWS = 64
# Gallery rows that a similarity compares at once: it may hold much for each pair.
_TILE_ROWS = 1024


def pad_rows(features: Tensor) -> Tensor:
    """Repeat the last of few rows."""
    missing = max(0, _MIN_ROWS - len(features))
    return torch.cat([features, features[-1:].expand(missing, -1)]) if missing else features


@torch.no_grad()
def compare_in_tiles(query: Tensor, gallery: Tensor, similarity: Similarity) -> Tensor:
    """Return a similarity's scores [Q, N], all finite, in a tensor of their own."""
    rows = pad_rows(query)

    def scores(tile: Tensor) -> Tensor:
        return compare(similarity, rows, widen(pad_rows(tile)))[: len(query), : len(tile)]

    with torch.autocast(query.device.type, enabled=False):
        found = torch.cat([scores(tile) for tile in gallery.split(_TILE_ROWS)], dim=1)
    if non_finite_rows(found):
        raise ValueError("the similarity returned NaN or infinity for finite queries and images")
    return found
