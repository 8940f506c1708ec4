"""Results of one query and small images, as sheets and pages show them. Needs Pillow."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from fusecomp._core.checks import number, ordered, require
from fusecomp._core.files import open_regular
from fusecomp.evaluation import TaskRanking
from fusecomp.images import open_image, rgb
from fusecomp.types import Dataset, Task, Triplet

if TYPE_CHECKING:
    from PIL.Image import Image

Gates = Sequence[float] | Tensor


class Result(NamedTuple):
    """An image, its rank and its score."""

    rank: int
    score: float
    image_id: str
    is_target: bool
    is_right: bool


class QueryResults(NamedTuple):
    """The results of a query, best first, and its target's rank, or None if it is not known.

    ``answers`` is the number of its right answers, of which the target is one.
    """

    query: Triplet
    results: Sequence[Result]
    target_rank: int | None
    gate: float | None
    answers: int

    @property
    def shows_target(self) -> bool:
        """Whether the target is among the results."""
        return any(result.is_target for result in self.results)

    @property
    def target_text(self) -> str:
        """The target's rank in words; empty if it is not known."""
        if self.target_rank is None:
            return ""
        found = self.target_rank >= 1
        return f"target at rank {self.target_rank:,}" if found else "target left out of the ranking"

    @property
    def answers_text(self) -> str:
        """How many of several right answers are among the results; empty if there is but one."""
        shown = sum(result.is_right for result in self.results)
        return f"{shown} of {self.answers} right answers shown" if self.answers > 1 else ""


def query_results(
    ranking: TaskRanking, position: int, top: int, gates: Sequence[float] | None
) -> QueryResults:
    """Return the first results of the query at a position of the task."""
    task, query = ranking.task, ranking.task.queries[position]
    target = query.target_id
    # Without a target the answers are unknown.
    known = (
        () if target is None else (target,) if task.relevant is None else task.relevant[position]
    )
    indices, scores = ranking.indices[position, :top], ranking.scores[position, :top]
    found = enumerate(zip(indices.tolist(), scores.tolist(), strict=True), 1)
    results = [
        Result(rank, score, image_id, image_id == target, image_id in known)
        for rank, (index, score) in found
        if index >= 0
        for image_id in (task.gallery[index],)
    ]
    ranks = None if query.target_id is None else ranking.ranks
    target_rank = None if ranks is None else int(ranks[position])
    gate = None if gates is None else gates[position]
    return QueryResults(query, results, target_rank, gate, len(known))


def checked_gates(task: Task, gates: Gates | None) -> list[float] | None:
    """Return the gates as numbers; ValueError unless they are one finite number a query."""
    if gates is None:
        return None
    listed = gates.flatten().tolist() if isinstance(gates, Tensor | np.ndarray) else gates
    numbers = [number("a gate", gate) for gate in ordered("gates", listed, "numbers")]
    if len(numbers) != len(task.queries):
        raise ValueError(
            f"{len(numbers)} gates for the {len(task.queries)} queries of task {task.name!r}"
        )
    return numbers


def require_dataset(dataset: Dataset) -> None:
    """Raise TypeError unless this is a dataset, which knows where the images are."""
    require("dataset", dataset, "path", "a Dataset", "what is drawn, dataset, path")


def small_image(dataset: Dataset, image_id: str, side: int) -> "Image | None":
    """Read an image, at most ``side`` pixels wide and high; None if it cannot be read."""
    path = dataset.path(image_id)
    try:
        with open_regular(path) as file:
            image = rgb(open_image(file))
            image.thumbnail((side, side))
            image.load()  # a small image is not decoded before
    except (MemoryError, ImportError):  # not about the file
        raise
    except Exception:
        return None
    return image
