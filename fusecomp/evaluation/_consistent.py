"""Whether the parts of one task's ranking agree with one another."""

from collections.abc import Iterator

import torch

from fusecomp.evaluation._positions import task_positions
from fusecomp.types import TaskRanking, Triplet


def check_found(found: TaskRanking) -> None:
    """Raise ValueError, naming task and query, where a ranking refutes itself."""
    name, scores = found.task.name, found.scores
    finite = scores.isfinite() & (found.indices >= 0)
    padding = (scores == -torch.inf) & (found.indices < 0)
    if not (finite | padding).all() or not (scores[:, 1:] <= scores[:, :-1]).all():
        raise ValueError(f"task {name!r} has scores that are not finite, or do not fall")
    for query, problem in _problems(found):
        raise ValueError(f"query {query.query_id!r} of task {name!r} has {problem}")


def _problems(found: TaskRanking) -> Iterator[tuple[Triplet, str]]:
    task, size = found.task, len(found.task.gallery)
    targets, exclude, subsets = task_positions(task)
    parts = found.ranks, found.subset_ranks, found.indices, found.subset_indices, exclude, subsets
    # A list that a task does not have is padding alone.
    none = torch.full((len(targets), 1), -1)
    lists = [(none if part is None else part.view(len(targets), -1)).tolist() for part in parts]
    for query, target, (rank,), (subset_rank,), top, subset, excluded, members in zip(
        task.queries, targets.tolist(), *lists, strict=True
    ):
        out, left = {*excluded} - {-1}, size - len({*excluded} - {-1})
        inside = {*members} - {-1} - out
        if not _is_ranking(top, out):
            yield query, "indices that are there twice, are excluded, or come after padding"
        if sum(index >= 0 for index in top) != min(left, len(top)):
            yield query, "other indices than its gallery has left for it"
        if not (rank == _rank_in(target, top) if target in top else len(top) < rank <= left):
            yield query, f"the rank {rank}, which its indices refute"
        if not _is_ranking(subset, out) or {*subset} - {-1} != inside:
            yield query, "subset indices that are not the members of its subset"
        first = [index for index in top if index in inside]
        if subset[: len(first)] != first:
            yield query, "subset indices in another order than its indices"
        if found.subset_ranks is not None and subset_rank != _rank_in(target, subset):
            yield query, f"the subset rank {subset_rank}, which its subset indices refute"


def _is_ranking(row: list[int], excluded: set[int]) -> bool:
    """Whether a row finds each image once, none that is excluded, before its padding."""
    found = [index for index in row if index >= 0]
    different = len({*found}) == len(found)
    return different and row[: len(found)] == found and excluded.isdisjoint(found)


def _rank_in(target: int, row: list[int]) -> int:
    return row.index(target) + 1 if target in row else -1
