"""Metrics of a ranked task, and the means that sum them up."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Never, Protocol, runtime_checkable

import torch
from torch import Tensor

from fusecomp._core.checks import as_text, ordered, strings, whole_number
from fusecomp._core.tensors import check_tensor, check_values

if TYPE_CHECKING:
    from fusecomp.types import TaskRanking

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_NAME = re.compile(r"(recall|recall_subset|map)@([1-9][0-9]{0,17})")
# A subset has so few members that only these are published.
_SUBSET_KS = (1, 2, 3)


class _LeftOut(tuple[Never, ...]):
    """Marks a list that was not given, where () is an empty one."""


LEFT_OUT = _LeftOut()


@runtime_checkable
class Metric(Protocol):
    """Gives each query of a ranked task a value; evaluation prints their mean in per cent.

    The value of a query must not depend on the other queries.
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """The name in tables, such as ``recall@10``; holds no slash."""
        ...

    def __call__(self, ranking: "TaskRanking", /) -> Tensor:
        """Return one finite value for each query: bool or floating [Q], 1 for 100 per cent."""
        ...


@dataclass(frozen=True, slots=True)
class _AtK(Metric):
    k: int
    _kind: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", whole_number("k", self.k, 1))

    @property
    def name(self) -> str:
        """The name in tables, such as ``recall@10``."""
        return f"{self._kind}@{self.k}"


@dataclass(frozen=True, slots=True)
class Recall(_AtK):
    """Recall@k: whether the target is among the k best images of the gallery.

    Args:
        k: at least 1.

    Raises:
        ValueError: if k is no whole number of at least 1.

    Example:
        >>> Recall(10).name
        'recall@10'
    """

    _kind = "recall"

    def __call__(self, ranking: "TaskRanking", /) -> Tensor:
        """Return which queries found their target: bool [Q]."""
        return self._hits(ranking.ranks)

    def _hits(self, ranks: Tensor | None) -> Tensor:
        if ranks is None:
            raise ValueError(f"{self.name} needs the ranks of targets, and this ranking has none")
        return hits_at_k(ranks, self.k)


@dataclass(frozen=True, slots=True)
class SubsetRecall(Recall):
    """Recall@k within each query's subset; takes what ``Recall`` takes.

    Example:
        >>> SubsetRecall(1).name
        'recall_subset@1'
    """

    _kind = "recall_subset"

    def __call__(self, ranking: "TaskRanking", /) -> Tensor:
        """Return which queries found their target within their subset: bool [Q]."""
        return self._hits(ranking.subset_ranks)


@dataclass(frozen=True, slots=True)
class MeanAveragePrecision(_AtK):
    """mAP@k over all right answers of each query, by CIRCO's rule.

    With R right answers, of which the j-th that is found has rank r_j,

    ``AP@k = sum over j with r_j <= k of (j / r_j) / min(R, k)``.

    Where a query has but one, that is its reciprocal rank, cut off at k.

    Reference:
        Baldrati, Agnolucci, Bertini, Del Bimbo, "Zero-Shot Composed Image Retrieval with Textual
        Inversion", ICCV 2023, https://arxiv.org/abs/2303.15247

    Args:
        k: at least 1.

    Raises:
        ValueError: if k is no whole number of at least 1.

    Example:
        >>> MeanAveragePrecision(10).name
        'map@10'
    """

    _kind = "map"

    def of_ranks(self, ranks: Sequence[int], answers: int) -> float:
        """Return the average precision of one query, in [0, 1].

        Args:
            ranks: those of the right answers that were found, from 1, in any order.
            answers: the number of all right answers.

        Raises:
            ValueError: if answers are no whole number of at least 1, or ranks are not as above,
                not distinct, or more than the answers.

        Example:
            >>> MeanAveragePrecision(5).of_ranks([1, 4, 9], answers=3)  # (1/1 + 2/4) / 3
            0.5
        """
        answers = whole_number("answers", answers, 1)
        found = [whole_number("each of ranks", r, 1) for r in ordered("ranks", ranks, "ranks")]
        if len({*found}) < len(found) or len(found) > answers:
            raise ValueError(
                f"ranks must be distinct, and at most as many as the {answers} answers, got {found}"
            )
        ranked = torch.tensor([found], dtype=torch.int64)
        return float(self._average_precision(ranked, torch.tensor([answers])))

    def __call__(self, ranking: "TaskRanking", /) -> Tensor:
        """Return the average precision of each query: float64 [Q]."""
        rows = ranking.task.relevant
        ranks = ranking.ranks if rows is None else ranking.relevant_ranks
        if ranks is None:
            raise ValueError(f"{self.name} needs the ranks of all right answers; rank gives them")
        answers = torch.ones_like(ranks) if rows is None else torch.tensor([*map(len, rows)])
        return self._average_precision(ranks.view(len(ranks), -1), answers.to(ranks.device))

    def _average_precision(self, ranks: Tensor, answers: Tensor) -> Tensor:
        """Compute it of ranks [Q, M], -1 where not found, and the numbers of answers [Q]."""
        found = torch.where(ranks >= 1, ranks.double(), torch.inf).sort(dim=1).values
        precision = torch.arange(1, ranks.shape[1] + 1, device=ranks.device) / found
        return precision.masked_fill(found > self.k, 0.0).sum(1) / answers.clamp(max=self.k)


@dataclass(frozen=True, slots=True)
class Mean:
    """Arithmetic mean of metrics, taken once the tasks are averaged.

    Args:
        name: the name in tables; holds no slash.
        metrics: names of the metrics to combine; () combines all of the task's.

    Raises:
        TypeError: if the name is no string.
        ValueError: if metrics is no list of strings.

    Example:
        >>> Mean("mean", ("recall@10", "recall@50")).name
        'mean'
    """

    name: str
    metrics: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", as_text("the name of a mean", self.name))
        object.__setattr__(self, "metrics", tuple(strings("metrics", self.metrics)))

    def __call__(self, values: Mapping[str, Tensor], /) -> Tensor:
        """Return the mean of the values by metric, tensors of one shape."""
        return self._combine(torch.stack([values[name] for name in self.metrics or values]))

    def _combine(self, values: Tensor) -> Tensor:
        return values.mean(0)


# Where a value is 0, its reciprocal and logarithm are infinite and these two are 0.
@dataclass(frozen=True, slots=True)
class HarmonicMean(Mean):
    """Harmonic mean of metrics, 0 if one of them is 0; takes what ``Mean`` takes."""

    def _combine(self, values: Tensor) -> Tensor:
        return 1 / values.reciprocal().mean(0)


@dataclass(frozen=True, slots=True)
class GeometricMean(Mean):
    """Geometric mean of metrics, 0 if one of them is 0; takes what ``Mean`` takes."""

    def _combine(self, values: Tensor) -> Tensor:
        return values.log().mean(0).exp()


# The metrics there are, by their names without "@k".
_KINDS: Mapping[str, Callable[[int], Metric]] = {
    metric._kind: metric for metric in (Recall, SubsetRecall, MeanAveragePrecision)
}
# The means there are, by which a file can name them.
MEANS = {kind.__name__: kind for kind in (Mean, HarmonicMean, GeometricMean)}


def recalls(ks: Iterable[int], subsets: bool) -> tuple[Recall, ...]:
    """Return the recalls of these k; with subsets, those published for subsets too."""
    return (*map(Recall, ks), *(map(SubsetRecall, _SUBSET_KS) if subsets else ()))


def metrics_at(ks: Sequence[int], *, subsets: bool, several: bool) -> tuple[Metric, ...]:
    """Return the recalls of these k, after mAP@k where queries have several right answers."""
    return (*(map(MeanAveragePrecision, ks) if several else ()), *recalls(ks, subsets))


def default_summaries(metrics: Sequence[Metric]) -> tuple[Mean, ...]:
    """Return the mean of all metrics, of mAP@k alone where measured; with subsets, CIRR's means."""
    if maps := [metric.name for metric in metrics if isinstance(metric, MeanAveragePrecision)]:
        return (Mean(f"mean({', '.join(maps)})", maps),)
    if not any(isinstance(metric, SubsetRecall) for metric in metrics):
        return (Mean("mean"),)
    one_number = Mean("mean(recall@5, recall_subset@1)", ("recall@5", "recall_subset@1"))
    means = Mean("arithmetic_mean"), HarmonicMean("harmonic_mean"), GeometricMean("geometric_mean")
    there = {metric.name for metric in metrics}.issuperset(one_number.metrics)
    return (one_number, *means) if there else means


def metric_named(name: str) -> Metric | None:
    """Return the metric of a name such as ``recall@10``; None if it is a user's own."""
    match = _NAME.fullmatch(name)
    return _KINDS[match[1]](int(match[2])) if match else None


def hits_at_k(ranks: Tensor, k: int) -> Tensor:
    """Return which queries have their target among the first k: bool [Q].

    Args:
        ranks: int64 [Q], counted from 1; -1 never counts as a hit.
        k: at least 1.

    Raises:
        TypeError: if ranks are no torch tensor.
        ValueError: if ranks are empty or not as above, or k is no whole number of at least 1.

    Example:
        >>> hits_at_k(torch.tensor([1, 7, -1, 3]), k=5)
        tensor([ True, False, False,  True])
    """
    check_ranks(ranks)
    k = whole_number("k", k, 1)
    return (ranks >= 1) & (ranks <= k)


def check_ranks(ranks: Tensor) -> None:
    """Raise ValueError unless these are ranks of targets, TypeError on what is no tensor."""
    check_tensor(ranks, "ranks")
    if ranks.ndim != 1 or len(ranks) == 0 or ranks.dtype not in _INTEGERS:
        raise ValueError(
            f"ranks must be a non-empty integer [Q], got {ranks.dtype} {list(ranks.shape)}"
        )
    check_values(ranks, "ranks")
    if (wrong := ranks[(ranks < 1) & (ranks != -1)]).numel():
        raise ValueError(f"ranks must be at least 1, or -1 for not found, got {wrong[0]}")
