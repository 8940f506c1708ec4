from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fusecomp._core.checks import whole_number
from fusecomp._core.indices import (
    MAX_PADDED,
    as_columns,
    check_indices,
    check_search,
    check_targets,
    index_pairs,
)
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import Array, as_tensor, widen
from fusecomp._core.tiles import compare_in_tiles, pad_rows
from fusecomp.retrieval._metrics import target_rank
from fusecomp.retrieval._top import best_columns, fill_up, sort_best
from fusecomp.types import Similarity

# The largest count that float32 holds exactly with every smaller one.
_EXACT = 2**24


class TargetRanks(NamedTuple):
    """Result of ``search_targets``; the subsets' are None without these, as the last without it."""

    scores: Tensor
    indices: Tensor
    ranks: Tensor
    subset_indices: Tensor | None = None
    subset_ranks: Tensor | None = None
    relevant_ranks: Tensor | None = None


def search(
    query: Array,
    gallery: Array,
    k: int,
    exclude: Array | None = None,
    candidates: Array | None = None,
    *,
    similarity: Similarity | None = None,
    chunk: int = 512,
) -> tuple[Tensor, Tensor]:
    """Return the k gallery rows with the highest cosine to each query, exactly.

    Equal scores are ordered by gallery index. Neither ``chunk`` nor searching one query at a time
    changes the result, but for the last bits of float64 scores.

    Args:
        query: [Q, D], of float16, bfloat16, float32 or float64, a tensor or a NumPy array, as all
            that follow; need not be normalised.
        gallery: [N, D], the same device and dtype; need not be normalised.
        k: the number of rows; may exceed N, up to 1,048,576.
        exclude: int64 [Q] or [Q, M], gallery indices that a query must not find; -1 is padding.
            Indices may be on another device.
        candidates: int64 [Q] or [Q, M], the only indices that a query may find; -1 is padding.
        similarity: ``similarity(query [Q, E], gallery [N, D]) -> [Q, N]`` in place of the cosine,
            such as that of a fusion; E may differ from D. It is called with some queries and some
            images at a time, 64 to 1,024 of these, where rows may be repeated.
        chunk: queries scored at once; memory grows with chunk x N.

    Shape:
        Scores [Q, k] (cosine or similarity, float32 at least) and indices int64 [Q, k], best
        first. Where fewer than k remain, the rest is index -1 with score -inf.

    Raises:
        TypeError: if an argument is neither tensor nor array.
        ValueError: if tensors or numbers are not as above, or features are empty or not finite.

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> search(torch.tensor([[2.0, 0.1]]), gallery, k=2)[1]
        tensor([[0, 2]])
    """
    query, gallery = as_tensor(query), as_tensor(gallery)
    k, chunk = _check(query, gallery, k, chunk, similarity)
    blocks = [
        _top(scores, k)
        for _, scores in _score_blocks(query, gallery, exclude, candidates, chunk, similarity)
    ]
    scores, indices = zip(*blocks, strict=True)
    return torch.cat(scores), torch.cat(indices)


def search_targets(
    query: Array,
    gallery: Array,
    targets: Array,
    k: int,
    exclude: Array | None = None,
    subsets: Array | None = None,
    relevant: Array | None = None,
    *,
    similarity: Similarity | None = None,
    chunk: int = 512,
) -> TargetRanks:
    """Search as ``search`` does, and rank each query's target in the whole gallery, in one pass.

    Args:
        query: as in ``search``.
        gallery: as in ``search``.
        targets: int64 [Q], gallery indices; -1 where a query has none.
        k: as in ``search``.
        exclude: as in ``search``; holds for the subset too.
        subsets: int64 [Q] or [Q, M], gallery indices that are also ranked among themselves; -1 is
            padding.
        relevant: int64 [Q] or [Q, M], gallery indices of all right answers, which are ranked as the
            target is; -1 is padding.
        similarity: as in ``search``.
        chunk: as in ``search``.

    Shape:
        Scores [Q, k], indices int64 [Q, k], ranks int64 [Q] from 1, or -1 where the target cannot
        be found; subset indices int64 [Q, M], best first, and subset ranks int64 [Q]; relevant
        ranks int64, of the shape of relevant.

    Raises:
        TypeError: if an argument is neither tensor nor array.
        ValueError: if tensors do not fit each other, or for any reason of ``search``.

    Example:
        >>> gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> search_targets(torch.tensor([[2.0, 0.1]]), gallery, torch.tensor([1]), k=1).ranks
        tensor([3])
    """
    query, gallery = as_tensor(query), as_tensor(gallery)
    k, chunk = _check(query, gallery, k, chunk, similarity)
    targets = check_targets(targets, query, gallery)
    if subsets is not None:
        subsets = check_indices("subsets", subsets, query, gallery)
    if relevant is not None:
        relevant = check_indices("relevant", relevant, query, gallery)
    blocks: list[tuple[Tensor | None, ...]] = []
    for rows, scores in _score_blocks(query, gallery, exclude, None, chunk, similarity):
        members = None if subsets is None else _ordered(scores, subsets[rows])
        member_ranks = None if members is None else target_rank(members, targets[rows])
        relevant_ranks = None if relevant is None else _ranks_of_many(scores, relevant[rows])
        ranks = _ranks(scores, targets[rows])
        blocks.append((*_top(scores, k), ranks, members, member_ranks, relevant_ranks))
    parts = ([part for part in parts if part is not None] for parts in zip(*blocks, strict=True))
    return TargetRanks(*(torch.cat(part) if part else None for part in parts))  # type: ignore[arg-type]


def _check(
    query: Tensor, gallery: Tensor, k: int, chunk: int, similarity: Similarity | None
) -> tuple[int, int]:
    check_search(query, gallery, one_width=similarity is None)
    largest = max(len(gallery), MAX_PADDED)
    return whole_number("k", k, 1, largest), whole_number("chunk", chunk, 1)


def _score_blocks(
    query: Tensor,
    gallery: Tensor,
    exclude: Array | None,
    candidates: Array | None,
    chunk: int,
    similarity: Similarity | None,
) -> Iterator[tuple[slice, Tensor]]:
    if exclude is not None:
        exclude = check_indices("exclude", exclude, query, gallery)
    if candidates is not None:
        candidates = check_indices("candidates", candidates, query, gallery)
    # Scores are compared, not learned from: a graph would only hold memory.
    query, gallery = widen(query.detach()), widen(gallery.detach())
    if similarity is None:
        query, gallery = normalize(query), normalize(gallery)
    for start in range(0, len(query), chunk):
        rows = slice(start, min(start + chunk, len(query)))
        scores = _scores(query[rows], gallery, similarity)
        if candidates is not None:
            pairs = index_pairs(candidates[rows])
            kept = torch.full_like(scores, -torch.inf)
            kept[pairs] = scores[pairs]
            scores = kept
        if exclude is not None:
            scores[index_pairs(exclude[rows])] = -torch.inf
        yield rows, scores


def _scores(query: Tensor, gallery: Tensor, similarity: Similarity | None) -> Tensor:
    if similarity is not None:
        return compare_in_tiles(query, gallery, similarity)
    rows, size = len(query), len(gallery)
    with torch.autocast(query.device.type, enabled=False):
        return (pad_rows(query) @ pad_rows(gallery).T)[:rows, :size].contiguous()


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best of each row, equal scores by index, padded to k."""
    # One more than asked shows whether a tie crosses the border.
    values, indices = best_columns(scores, k + 1)
    if (values[:, 1:] == values[:, :-1]).any():
        values, indices = sort_best(values, indices)
    if scores.shape[1] > k:
        crossed = (values[:, k - 1] == values[:, k]) & values[:, k].isfinite()
        values, indices = values[:, :k].contiguous(), indices[:, :k].contiguous()
        if crossed.any():
            ordered = scores[crossed].sort(dim=1, descending=True, stable=True)
            values[crossed], indices[crossed] = ordered.values[:, :k], ordered.indices[:, :k]
    return fill_up(values, indices, k)


def _ordered(scores: Tensor, members: Tensor) -> Tensor:
    """Sort each row's members by score, equal scores by index, then padding."""
    members = as_columns(members).sort(dim=1).values
    found = scores.gather(1, members.clamp_min(0)).masked_fill(members < 0, -torch.inf)
    twice = members[:, 1:] == members[:, :-1]
    found[:, 1:].masked_fill_(twice, -torch.inf)
    values, order = found.sort(dim=1, descending=True, stable=True)
    return members.gather(1, order).masked_fill(values == -torch.inf, -1)


def _ranks_of_many(scores: Tensor, relevant: Tensor) -> Tensor:
    """Return the rank of each of the images [Q] or [Q, M], as ``_ranks`` does."""
    ranks = torch.full_like(relevant, -1)
    for column, place in zip(as_columns(relevant).T, as_columns(ranks).T, strict=True):
        given = column >= 0  # most queries have fewer right answers than the one with the most
        place[given] = _ranks(scores[given], column[given])
    return ranks


def _ranks(scores: Tensor, targets: Tensor) -> Tensor:
    """Return 1 + the number of entries ahead of the target; -1 where its score is not finite."""
    score = scores.gather(1, targets.clamp_min(0).unsqueeze(1))
    # Comparing into floats and summing these is several times faster than counting booleans;
    # float32 counts exactly as far as _EXACT.
    marks = torch.empty_like(scores)
    counted = scores.dtype if scores.shape[1] <= _EXACT else torch.float64
    ahead = torch.gt(scores, score, out=marks).sum(1, dtype=counted).long()
    tied = torch.eq(scores, score, out=marks).sum(1) > 1
    if tied.any():
        columns = torch.arange(scores.shape[1], device=scores.device)
        earlier = columns < targets[tied].unsqueeze(1)
        ahead[tied] += ((scores[tied] == score[tied]) & earlier).sum(1)
    found = (targets >= 0) & score.squeeze(1).isfinite()
    return torch.where(found, ahead + 1, -1)
