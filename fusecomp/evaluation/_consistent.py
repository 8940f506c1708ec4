"""Whether the parts of one task's ranking agree with one another."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fusecomp.evaluation._ranking import TaskRanking
from fusecomp.types import Triplet

__all__ = ["check_found"]


def check_found(found: TaskRanking) -> None:
    """Raise ValueError, naming task and query, where a ranking refutes itself.

    A query finds each image once and none that is excluded for it, by falling finite scores. The
    rank of its target is the target's place among them, or a later one where it is not there. The
    members of its subset are those of the task, in the same order.
    """
    name, scores = found.task.name, found.scores
    finite = scores.isfinite() & (found.indices >= 0)
    padding = (scores == -torch.inf) & (found.indices < 0)
    if not (finite | padding).all() or not (scores[:, 1:] <= scores[:, :-1]).all():
        raise ValueError(f"task {name!r} has scores that are not finite, or do not fall")
    for query, problem in _problems(found):
        raise ValueError(f"query {query.query_id!r} of task {name!r} has {problem}")


def _problems(found: TaskRanking) -> Iterator[tuple[Triplet, str]]:
    task, size = found.task, len(found.task.gallery)
    place = {image_id: index for index, image_id in enumerate(task.gallery)}
    rows = zip(
        task.queries,
        found.indices.tolist(),
        *(_rows(part, task.queries) for part in (found.ranks, found.subset_indices)),
        *(_rows(part, task.queries) for part in (found.subset_ranks, task.exclude, task.subsets)),
        strict=True,
    )
    for query, top, rank, subset, subset_rank, exclude, members in rows:
        excluded = {place[image_id] for image_id in exclude or ()}
        target = None if query.target_id is None else place[query.target_id]
        target = None if target in excluded else target
        if not _is_ranking(top, excluded):
            yield query, "indices that stand twice, are excluded, or come after padding"
        left = size - len(excluded)
        if sum(index >= 0 for index in top) != min(left, len(top)):
            yield query, "other indices than its gallery has left for it"
        if rank is not None and not _fits(rank, target, top, left):
            yield query, f"the rank {rank}, which its indices refute"
        if subset is None:
            continue
        inside = {place[image_id] for image_id in members} - excluded
        first = [index for index in top if index in inside]
        if not _is_ranking(subset, excluded) or {*subset} - {-1} != inside:
            yield query, "subset indices that are not the members of its subset"
        if subset[: len(first)] != first:
            yield query, "subset indices in another order than its indices"
        if subset_rank is not None and subset_rank != _place(target, subset):
            yield query, f"the subset rank {subset_rank}, which its subset indices refute"


def _rows(part: Tensor | Sequence[Any] | None, queries: Sequence[Triplet]) -> Sequence[Any]:
    if part is None:
        return [None] * len(queries)
    return part.tolist() if isinstance(part, Tensor) else part


def _is_ranking(row: list[int], excluded: set[int]) -> bool:
    found = [index for index in row if index >= 0]
    different = len({*found}) == len(found)
    return different and row[: len(found)] == found and excluded.isdisjoint(found)


def _fits(rank: int, target: int | None, top: list[int], last: int) -> bool:
    if target is None or target in top:
        return rank == _place(target, top)
    return len(top) < rank <= last


def _place(target: int | None, row: list[int]) -> int:
    return row.index(target) + 1 if target is not None and target in row else -1
