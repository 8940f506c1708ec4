"""The records of a ranking; what reports and metrics are made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fusecomp.evaluation._metrics import SUBSET_KS
from fusecomp.evaluation._protocol import describe_protocol
from fusecomp.retrieval import hits_at_k
from fusecomp.types import Task

__all__ = ["Ranking", "TaskRanking"]


@dataclass(frozen=True, slots=True, eq=False)
class TaskRanking:
    """What every query of one task found.

    Args:
        task: the queries (reference, texts, target) and the gallery.
        indices: int64 [Q, k], positions in ``task.gallery``, best first; -1 where none is left.
        scores: [Q, k], cosines, for display only.
        ranks: int64 [Q], the target's place in the whole gallery, from 1; -1 where it cannot be
            found; None if the task has no targets.
        subset_indices: int64 [Q, M], the members of each query's subset, best first, or None.
        subset_ranks: int64 [Q], the target's place among them, or None.
    """

    task: Task
    indices: Tensor
    scores: Tensor
    ranks: Tensor | None
    subset_indices: Tensor | None = None
    subset_ranks: Tensor | None = None

    def top_ids(self) -> list[list[str]]:
        """The image ids that each query found, best first."""
        return self._ids(self.indices)

    def subset_ids(self) -> list[list[str]] | None:
        """The image ids of each query's subset, best first; None if the task has none."""
        return None if self.subset_indices is None else self._ids(self.subset_indices)

    def _ids(self, indices: Tensor) -> list[list[str]]:
        gallery = self.task.gallery
        return [[gallery[i] for i in row if i >= 0] for row in indices.tolist()]

    def hits(self) -> dict[str, Tensor]:
        """Which queries count for each metric, ``recall@k`` and ``recall_subset@k``: bool [Q].

        Empty if the task has no targets.
        """
        found = {}
        if self.ranks is not None:
            found = {f"recall@{k}": hits_at_k(self.ranks, k) for k in self.task.ks}
        if self.subset_ranks is not None:
            ranks = self.subset_ranks
            found |= {f"recall_subset@{k}": hits_at_k(ranks, k) for k in SUBSET_KS}
        return found

    def __repr__(self) -> str:
        targets = "unknown" if self.ranks is None else "known"
        return f"TaskRanking({self.task}; the best {self.indices.shape[1]}, targets {targets})"


@dataclass(frozen=True, slots=True, eq=False)
class Ranking(Mapping[str, TaskRanking]):
    """The rankings of a dataset's tasks by name; what reports and metrics are made of.

    Args:
        tasks: one for each task.
        protocol: the options of the dataset that make scores comparable or not.
    """

    tasks: Sequence[TaskRanking]
    protocol: Mapping[str, str]

    def __getitem__(self, name: str) -> TaskRanking:
        for ranking in self.tasks:
            if ranking.task.name == name:
                return ranking
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (ranking.task.name for ranking in self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    def summary(self) -> tuple[str, str]:
        """What is printed with each score: the size of each task, and the protocol."""
        sizes = ", ".join(str(ranking.task) for ranking in self.tasks)
        return sizes, describe_protocol(self.protocol)

    def __repr__(self) -> str:
        return f"Ranking({'; '.join(self.summary())})"
