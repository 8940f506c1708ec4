import torch
from torch import Tensor

from fusecomp._core.indices import as_columns, check_indices, check_query
from fusecomp._core.tensors import Array, as_tensor, check_features
from fusecomp.retrieval._exact_index import ExactIndex, measure_lengths
from fusecomp.types import Similarity

# Queries whose shortlists are scored together, and the values of these at most.
_QUERIES, _VALUES = 64, 2**24


def rerank(
    query: Array, features: Array, positions: Array, similarity: Similarity | None, k: int
) -> tuple[Tensor, Tensor]:
    """Score a shortlist exactly, such as that of an index that knows inner products only.

    It knows features alone. ``Gallery.rerank`` leaves out the images that were removed.

    Args:
        query: [Q, D], or [Q, E] of a similarity.
        features: [N, D], as the encoder gave them; only the rows of the shortlist are read.
        positions: int64 [Q, M], rows of the features; -1 is padding.
        similarity: ``similarity(query [Q, E], features [N, D]) -> [Q, N]``, such as
            ``model.similarity``; None for the cosine.
        k: the number of positions; may exceed M.

    Shape:
        Scores [Q, k] and positions int64 [Q, k], best first; score -inf and position -1 where
        fewer than k remain.

    Raises:
        TypeError: if query, features or positions are neither tensors nor NumPy arrays.
        ValueError: if they do not fit each other, are not finite, or k is no whole number of at
            least 1.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]])
        >>> rerank(torch.tensor([[0.0, 1.0]]), features, torch.tensor([[0, 2]]), None, k=1)[1]
        tensor([[2]])
    """
    query, features = as_tensor(query), check_features(as_tensor(features), "features", "[N, D]")
    k = check_query(query, features, k, one_width=similarity is None)
    listed = as_columns(check_indices("positions", positions, query, features))
    dtype = torch.promote_types(features.dtype, torch.float32)
    scores = torch.full((len(query), k), -torch.inf, dtype=dtype, device=query.device)
    found = torch.full_like(scores, -1, dtype=torch.int64)
    step = max(1, min(_QUERIES, _VALUES // (listed.shape[1] * features.shape[1] + 1)))
    for start in range(0, len(query), step):
        some = slice(start, start + step)
        chosen, places = listed[some].unique(return_inverse=True)
        padding = int((chosen[:1] < 0).sum())
        chosen = chosen[padding:]
        if count := min(k, len(chosen)):
            shortlist = features[chosen]
            lengths = measure_lengths(shortlist, chosen)
            index = ExactIndex(shortlist, similarity, lengths=lengths)
            best, rows = index.search(query[some], count, within=places - padding)
            scores[some, :count] = best
            found[some, :count] = chosen[rows].masked_fill(rows < 0, -1)
    return scores, found
