"""The protocol, run once: queries and gallery -> Ranking -> Evaluation."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusecomp.data import without
from fusecomp.encoders import CachedEncoder
from fusecomp.model import ComposedEncoder
from fusecomp.modules import device_of, inference, require_one_device
from fusecomp.protocols import Dataset, Encoder, require
from fusecomp.records import Task, Triplet
from fusecomp.retrieval import rank_targets, recall_at_k
from fusecomp.similarity import non_finite_rows

__all__ = [
    "Evaluation",
    "Ranking",
    "TaskRanking",
    "evaluate",
    "headline",
    "metric_names",
    "rank",
]

# A subset has so few members that only these are published.
_SUBSET_KS = (1, 2, 3)
# CIRR's one number: the mean of these.
_WITH_SUBSETS = ("recall@5", "recall_subset@1")
# Queries fused at once: bounds the hidden activations of a large fusion.
_FUSE_ROWS = 1024


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

    def __repr__(self) -> str:
        return f"Ranking({'; '.join(self._summary())})"

    def _summary(self) -> tuple[str, str]:
        """The size of each task, and the protocol."""
        sizes = ", ".join(str(ranking.task) for ranking in self.tasks)
        return sizes, ", ".join(f"{name} {value}" for name, value in self.protocol.items())


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation(Mapping[str, float]):
    """Metrics by name, in per cent; prints as a table, also at the prompt.

    Args:
        metrics: such as ``dress/recall@10``, ``mean/recall@10`` and ``mean``.
        ranking: what they were computed from.
    """

    metrics: Mapping[str, float]
    ranking: Ranking

    @property
    def protocol(self) -> Mapping[str, str]:
        """The options of the dataset that make scores comparable or not."""
        return self.ranking.protocol

    @property
    def headline(self) -> str:
        """The name of the metric that chooses the best checkpoint by default."""
        return _headline(self.ranking.tasks[0].task)

    def __getitem__(self, name: str) -> float:
        if name not in self.metrics:
            raise KeyError(f"no metric {name!r}; there are {', '.join(self.metrics)}")
        return self.metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def __str__(self) -> str:
        # One row a metric, one column a task; what sums up all tasks stands under their mean.
        rows: dict[str, dict[str, str]] = {}
        for name, value in self.metrics.items():
            group, _, metric = name.rpartition("/")
            rows.setdefault(metric, {})[group or _mean_group(self.ranking)] = f"{value:.2f}"
        groups = list(dict.fromkeys(group for row in rows.values() for group in row))
        names = max(map(len, rows))
        table = [("", dict(zip(groups, groups, strict=True)))] if any(groups) else []
        lines = [
            f"{name:<{names}}" + "".join(f"  {row.get(g, ''):>{max(6, len(g))}}" for g in groups)
            for name, row in [*table, *rows.items()]
        ]
        return "\n".join([*lines, *self.ranking._summary()])

    def __repr__(self) -> str:
        return str(self)


def evaluate(
    model: ComposedEncoder,
    dataset: Dataset,
    *,
    workers: int | None = None,
    on_error: str = "raise",
) -> Evaluation:
    """Run the dataset's protocol and compute its metrics.

    Args:
        model: the encoder and fusion; used in evaluation mode.
        dataset: with known targets.
        workers: processes that load pictures; None chooses.
        on_error: as in ``rank``.

    Returns:
        A mapping of metrics in per cent: ``TASK/recall@k`` for each task, ``mean/recall@k``
        over several tasks, and ``mean``, the mean of these. Each query counts the same within a
        task, each task the same in the means. Where tasks have subsets, also
        ``recall_subset@k``, and in place of ``mean`` CIRR's: ``mean(recall@5,
        recall_subset@1)`` if 5 is among the k, and the ``arithmetic_mean``, ``harmonic_mean``
        and ``geometric_mean`` of all recalls, the last two 0 if one of these is.

    Raises:
        TypeError: if model or dataset is something else, as when they are swapped.
        ValueError: if targets are unknown (then use ``rank``), or a feature is not finite.
        FileNotFoundError: if pictures are missing.
    """
    _require_both(model, dataset)
    names = metric_names(dataset)
    ranking = rank(model, dataset, workers=workers, on_error=on_error)
    values = {name: value for task in ranking.tasks for name, value in _metrics(task).items()}
    task = ranking.tasks[0].task
    means = {
        metric: _arithmetic_mean([values[_named(name, metric)] for name in ranking])
        for metric in _task_metrics(task)
    }
    values |= {_named(_mean_group(ranking), metric): value for metric, value in means.items()}
    for name, (mean, metrics) in _summaries(task).items():
        values[name] = mean([means[metric] for metric in metrics])
    return Evaluation({name: values[name] for name in names}, ranking)


def metric_names(dataset: Dataset) -> list[str]:
    """The metrics that ``evaluate`` will give, known without evaluating.

    Raises:
        ValueError: if the dataset has no task, a task without queries or a query without
            target, tasks of different k, or tasks as ``rank`` refuses them.
    """
    tasks = dataset.tasks()
    if not tasks:
        raise ValueError(f"{dataset!r} has no task to evaluate")
    _check_tasks(tasks)
    for task in tasks:
        for query in task.queries:
            if query.target_id is None:
                raise ValueError(
                    f"query {query.query_id!r} has no target, so there is nothing to score; "
                    "rank(model, dataset) gives the ranking alone"
                )
        if _task_metrics(task) != _task_metrics(tasks[0]):
            raise ValueError("the tasks of a dataset must have the same metrics")
    names = [task.name for task in tasks]
    groups = dict.fromkeys([*names, _mean_group(names)])
    return [
        *(_named(group, metric) for group in groups for metric in _task_metrics(tasks[0])),
        *_summaries(tasks[0]),
    ]


def headline(dataset: Dataset) -> str:
    """The metric that chooses the best checkpoint by default, known without evaluating."""
    return _headline(dataset.tasks()[0])


def _headline(task: Task) -> str:
    return next(iter(_summaries(task)))


def _check_tasks(tasks: Sequence[Task]) -> None:
    seen: set[str] = set()
    for task in tasks:
        if task.name in seen:
            raise ValueError(f"two tasks are named {task.name!r}; their metrics need other names")
        if task.name == "mean":
            raise ValueError("a task is named 'mean', as the means over the tasks are; rename it")
        if not task.name and len(tasks) > 1:
            raise ValueError(f"one of {len(tasks)} tasks has the name ''; name every task")
        seen.add(task.name)
        _check_task(task)


def _check_task(task: Task) -> None:
    if not task.queries:
        raise ValueError(f"task {task.name!r} has no queries")
    if not task.ks or min(task.ks) < 1:
        raise ValueError(
            f"task {task.name!r} has ks={task.ks}, expected one k or more, each at least 1"
        )
    for name in ("exclude", "subsets"):
        rows = getattr(task, name)
        if rows is not None and len(rows) != len(task.queries):
            raise ValueError(
                f"task {task.name!r} has {len(task.queries)} queries but {len(rows)} rows of "
                f"{name}; give one for each query, or None"
            )


def _mean_group(names: Iterable[str]) -> str:
    """Where the means over the tasks stand: a single task without a name is its own mean."""
    return "mean" if any(names) else ""


def _named(group: str, metric: str) -> str:
    return f"{group}/{metric}" if group else metric


def _task_metrics(task: Task) -> list[str]:
    subset = [f"recall_subset@{k}" for k in _SUBSET_KS] if task.subsets is not None else []
    return [f"recall@{k}" for k in task.ks] + subset


_Mean = Callable[[Sequence[float]], float]


def _summaries(task: Task) -> dict[str, tuple[_Mean, Sequence[str]]]:
    """The numbers that sum up all metrics, headline first: which mean, and of which of a task's."""
    metrics = _task_metrics(task)
    if task.subsets is None:
        return {"mean": (_arithmetic_mean, metrics)}
    headline = {f"mean({', '.join(_WITH_SUBSETS)})": (_arithmetic_mean, _WITH_SUBSETS)}
    return {
        **(headline if set(_WITH_SUBSETS) <= set(metrics) else {}),
        "arithmetic_mean": (_arithmetic_mean, metrics),
        "harmonic_mean": (_harmonic_mean, metrics),
        "geometric_mean": (_geometric_mean, metrics),
    }


def _arithmetic_mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _harmonic_mean(values: Sequence[float]) -> float:
    return len(values) / sum(1 / value for value in values) if all(values) else 0.0


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if all(values) else 0.0


def _metrics(ranking: TaskRanking) -> dict[str, float]:
    name, values = ranking.task.name, {}
    if ranking.ranks is not None:
        for k in ranking.task.ks:
            values[_named(name, f"recall@{k}")] = recall_at_k(ranking.ranks, k)
    if ranking.subset_ranks is not None:
        for k in _SUBSET_KS:
            values[_named(name, f"recall_subset@{k}")] = recall_at_k(ranking.subset_ranks, k)
    return values


def rank(
    model: ComposedEncoder,
    dataset: Dataset,
    k: int = 50,
    *,
    workers: int | None = None,
    on_error: str = "raise",
) -> Ranking:
    """Rank the galleries of the dataset's tasks for their queries; targets may be unknown.

    Every picture and text is encoded once, or looked up where the encoder is a cached one.

    Args:
        model: the encoder and fusion; used in evaluation mode.
        dataset: whose tasks are ranked.
        k: how many results to keep for each query.
        workers: processes that load pictures; None chooses.
        on_error: ``"raise"`` stops at a picture that is missing or broken; ``"skip"`` leaves out
            what needs it, as if by ``data.without``: each task lists what it lacks.

    Raises:
        TypeError: if model or dataset is something else, as when they are swapped.
        ValueError: if encoder and fusion are on different devices, a feature is not finite, an
            id is not in a gallery, or a task has no queries, no k or one below 1, more or fewer
            rows of ``exclude`` or ``subsets`` than queries, or a name that is taken, "mean", or
            empty beside other tasks.
        FileNotFoundError: if pictures are missing.
    """
    _require_both(model, dataset)
    _check_tasks(dataset.tasks())
    require_one_device(model.encoder, model.fusion)
    with inference(model):
        features = _Features(model, dataset, workers, on_error)
        dataset = without(dataset, features.skipped)
        tasks = dataset.tasks()
        _check_tasks(tasks)
        rankings = [_rank_task(model, features, task, k) for task in tasks]
    protocol = getattr(dataset, "protocol", {"dataset": type(dataset).__name__})
    return Ranking(rankings, dict(protocol))


def _require_both(model: ComposedEncoder, dataset: Dataset) -> None:
    require("model", model, "compose", "a ComposedEncoder", "model, dataset")
    require("dataset", dataset, "tasks", "a Dataset", "model, dataset")


class _Features:
    """Image and text features of a dataset by name, each encoded once."""

    def __init__(
        self, model: ComposedEncoder, dataset: Dataset, workers: int | None, on_error: str
    ) -> None:
        encoder: Encoder = model.encoder
        self.device = device_of(model)
        lookup = getattr(encoder, "lookup", {})
        if not {"image", "text"} <= set(lookup):
            cached = CachedEncoder.build(encoder, dataset, workers=workers, on_error=on_error)
            # An encoder that is no module has no device; its features go to the fusion's.
            encoder = cached.to(self.device)
            lookup = encoder.lookup
        self.skipped: Mapping[str, str] = getattr(encoder, "skipped", {})
        self._encoder = encoder
        self._lookup = lookup

    def images(self, image_ids: Sequence[str]) -> Tensor:
        rows = self._lookup["image"](image_ids).to(self.device)
        return self._encoder.encode_image(rows)

    def texts(self, texts: Sequence[str]) -> Tensor:
        rows = self._lookup["text"](texts).to(self.device)
        return self._encoder.encode_text(rows)


def _rank_task(model: ComposedEncoder, features: _Features, task: Task, k: int) -> TaskRanking:
    place = {image_id: index for index, image_id in enumerate(task.gallery)}
    if len(place) != len(task.gallery):
        raise ValueError(f"the gallery of task {task.name!r} holds an image twice")
    gallery = features.images(task.gallery)
    blocks = (task.queries[i : i + _FUSE_ROWS] for i in range(0, len(task.queries), _FUSE_ROWS))
    fused = torch.cat([_fuse(model, features, block) for block in blocks])
    for row in non_finite_rows(fused)[:1]:
        raise ValueError(
            f"task {task.name!r}: the fused feature of query {task.queries[row].query_id!r} holds "
            "NaN or infinity; check the fusion's weights and inputs"
        )

    def indices(rows: Sequence[Sequence[str]]) -> Tensor:
        return _padded(place, task, rows).to(fused.device)

    target_ids = [query.target_id for query in task.queries]
    targets = indices([() if target is None else (target,) for target in target_ids])[:, 0]
    exclude = None if task.exclude is None else indices(task.exclude)
    subsets = None if task.subsets is None else indices(task.subsets)
    found = rank_targets(fused, gallery, targets, k, exclude, subsets)
    known = any(target is not None for target in target_ids)
    return TaskRanking(
        task,
        found.indices.cpu(),
        found.scores.cpu(),
        found.ranks.cpu() if known else None,
        _cpu(found.subset_indices),
        _cpu(found.subset_ranks) if known else None,
    )


def _cpu(found: Tensor | None) -> Tensor | None:
    return None if found is None else found.cpu()


def _fuse(model: ComposedEncoder, features: _Features, queries: Sequence[Triplet]) -> Tensor:
    image = features.images([query.reference_id for query in queries])
    text = features.texts([text for query in queries for text in query.texts])
    counts = torch.tensor([len(query.texts) for query in queries], device=text.device)
    return model.compose(image, text, counts)


def _padded(place: dict[str, int], task: Task, rows: Sequence[Sequence[str]]) -> Tensor:
    """Gallery indices [Q, M], padded with -1."""
    width = max(1, *(len(row) for row in rows))
    padded = []
    for query, ids in zip(task.queries, rows, strict=True):
        try:
            indices = [place[image_id] for image_id in ids]
        except KeyError as error:
            raise ValueError(
                f"query {query.query_id!r}: image {error.args[0]!r} is not in the gallery of "
                f"task {task.name!r}"
            ) from None
        padded.append(indices + [-1] * (width - len(indices)))
    return torch.tensor(padded, dtype=torch.int64)
