"""What one query found, as sheets and pages show it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from fusecomp._core.checks import number, ordered
from fusecomp.evaluation import TaskRanking
from fusecomp.types import Task, Triplet

__all__ = ["Found", "Gates", "Result", "checked_gates", "what_it_found"]

Gates = Sequence[float] | Tensor


class Result(NamedTuple):
    """An image, its place in the ranking and its cosine with the query."""

    place: int
    score: float
    image_id: str
    is_target: bool


class Found(NamedTuple):
    """The results of a query, best first, and the rank of its target: None if it is not known."""

    query: Triplet
    results: Sequence[Result]
    rank: int | None
    gate: float | None

    @property
    def shows_target(self) -> bool:
        """Whether it is among the results."""
        return any(result.is_target for result in self.results)

    @property
    def target(self) -> str:
        """Where the target stands, in words; empty if it is not known."""
        if self.rank is None:
            return ""
        return (
            f"target at rank {self.rank:,}" if self.rank >= 1 else "target left out of the ranking"
        )


def what_it_found(
    ranking: TaskRanking, position: int, top: int, gates: Sequence[float] | None
) -> Found:
    """The first results of the query at a position of the task."""
    query, results = ranking.task.queries[position], []
    indices, scores = ranking.indices[position, :top], ranking.scores[position, :top]
    pairs = zip(indices.tolist(), scores.tolist(), strict=True)
    for place, (index, score) in enumerate(pairs, start=1):
        if index >= 0:
            image_id = ranking.task.gallery[index]
            results.append(Result(place, score, image_id, image_id == query.target_id))
    rank = None
    if ranking.ranks is not None and query.target_id is not None:
        rank = int(ranking.ranks[position])
    return Found(query, results, rank, None if gates is None else gates[position])


def checked_gates(task: Task, gates: Gates | None) -> list[float] | None:
    """The gates as numbers; raises ValueError if they are not one finite one for each query."""
    if gates is None:
        return None
    given = gates.flatten().tolist() if isinstance(gates, Tensor | np.ndarray) else gates
    numbers = [number("a gate", gate) for gate in ordered("gates", given, "numbers")]
    if len(numbers) != len(task.queries):
        raise ValueError(
            f"{len(numbers)} gates for the {len(task.queries)} queries of task {task.name!r}"
        )
    return numbers
