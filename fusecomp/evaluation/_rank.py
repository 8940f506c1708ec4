from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fusecomp._core.checks import whole_number
from fusecomp._core.devices import inference
from fusecomp.evaluation._features import TaskFeatures
from fusecomp.evaluation._protocol import describe_protocol
from fusecomp.model import ComposedEncoder
from fusecomp.retrieval import search_targets
from fusecomp.types import Dataset, Task, TaskRanking


@dataclass(frozen=True, slots=True, eq=False)
class Ranking(Mapping[str, TaskRanking]):
    """Rankings of a dataset's tasks by name; reports and metrics are made from them.

    Args:
        tasks: the ranking of each task.
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
        """Return the two lines printed with each score: the size of each task, and the protocol."""
        sizes = ", ".join(str(ranking.task) for ranking in self.tasks)
        return sizes, describe_protocol(self.protocol)

    def __repr__(self) -> str:
        return f"Ranking({'; '.join(self.summary())})"


def rank(
    model: ComposedEncoder,
    dataset: Dataset,
    k: int = 50,
    *,
    num_workers: int | None = None,
    on_error: str = "raise",
) -> Ranking:
    """Rank the galleries of the dataset's tasks for their queries; targets may be unknown.

    Every image and text is encoded once, or looked up where the encoder is a cached one.

    Args:
        model: the encoder and fusion; used in evaluation mode.
        dataset: gives the tasks to rank.
        k: the number of results to keep for each query.
        num_workers: processes that load images; None chooses.
        on_error: ``"raise"`` stops at a missing or broken image, ``"skip"`` leaves out whatever
            needs it.

    Raises:
        TypeError: if model or dataset is something else, as when they are swapped.
        ValueError: if an option is invalid, encoder and fusion are on different devices, a feature
            is not finite, or names of tasks clash.
        FileNotFoundError: if images are missing.
    """
    k = whole_number("k", k, 1)
    with inference(model):  # galleries and queries of the same weights, next to a training too
        features = TaskFeatures(model, dataset, num_workers=num_workers, on_error=on_error)
        return rank_features(features, k)


def rank_features(features: TaskFeatures, k: int = 50) -> Ranking:
    """Rank the galleries of some tasks, whose features a model gives, for their queries."""
    return Ranking([_rank_task(features, task, k) for task in features.tasks], features.protocol)


def _rank_task(features: TaskFeatures, task: Task, k: int) -> TaskRanking:
    targets, exclude, subsets, relevant = features.indices(task)
    query = features.queries(task)
    gallery = features.gallery(task).to(query.dtype)
    similarity = features.similarity
    found = search_targets(
        query, gallery, targets, k, exclude, subsets, relevant, similarity=similarity
    )
    known = bool((targets >= 0).any())
    ranks = found.ranks, found.subset_ranks, found.relevant_ranks
    target_ranks, subset_ranks, relevant_ranks = ranks if known else (None, None, None)
    on_cpu = (
        part if part is None else part.cpu()
        for part in (target_ranks, found.subset_indices, subset_ranks, relevant_ranks)
    )
    return TaskRanking(task, found.indices.cpu(), found.scores.cpu(), *on_cpu)
