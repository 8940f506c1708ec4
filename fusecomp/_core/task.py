from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, compress
from typing import Any

import torch
from torch import Tensor

from fusecomp._core.checks import list_of, ordered, shown, strings, whole_number
from fusecomp._core.metrics import (
    LEFT_OUT,
    MEANS,
    Mean,
    Metric,
    SubsetRecall,
    default_summaries,
    metrics_at,
)
from fusecomp._core.triplet import Triplet

_DEFAULT_KS = (10, 50)
# Image ids for each query.
_Rows = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Task:
    """One ranking problem of a dataset, such as a category of FashionIQ; lists become tuples.

    Args:
        name: the prefix of its metrics, as in ``dress/recall@10``; may be empty.
        queries: Q triplets, each with an id of its own.
        gallery: the image ids that every query is compared with, each once.
        exclude: for each query the image ids that are left out of its ranking, or None.
        subsets: for each query the image ids that are also ranked among themselves, its target
            included, or None.
        metrics: what is measured: recall@10 and recall@50 by default, which are of the target
            alone; with several right answers also map@10 and map@50, with subsets also
            recall_subset@1, 2 and 3.
        summaries: means of the metrics, taken once the tasks are averaged: ``mean`` by default;
            the mean of mAP@k alone where that is measured, CIRR's means where subset recalls are.
        decides: the summary or metric that picks the best weights; by default the first summary,
            or else the first metric.
        relevant: for each query the image ids that are right answers, its target first; None takes
            those that the queries name, if one has ``other_target_ids``.
        missing_queries: ids of queries left out because an image is missing.
        missing_images: ids of gallery images left out because they are missing.

    Raises:
        ValueError: if arguments are not as above or do not fit each other; names the query.

    Example:
        >>> query = Triplet("q0", "a", ("is red",), target_id="c")
        >>> task = Task("toys", [query], ["a", "b", "c"], exclude=[["a"]])
        >>> task, [metric.name for metric in task.metrics], task.decides
        (Task(toys: 1 queries in 3 images), ['recall@10', 'recall@50'], 'mean')
        >>> task.positions(["c", "a"])
        tensor([2, 0])
    """

    name: str
    queries: Sequence[Triplet]
    gallery: Sequence[str]
    exclude: _Rows | None = None
    subsets: _Rows | None = None
    metrics: Sequence[Metric] = LEFT_OUT
    summaries: Sequence[Mean] = LEFT_OUT
    decides: str = ""
    relevant: _Rows | None = None
    missing_queries: Sequence[str] = ()
    missing_images: Sequence[str] = ()
    _positions: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"the name of a task must be a string, got {shown(self.name)}")
        self._set("queries", tuple(list_of("queries", self.queries, Triplet, "triplets")))
        if self.relevant is None and any(query.other_target_ids for query in self.queries):
            self._set("relevant", [query.relevant_ids for query in self.queries])
        kinds = {"subsets": self.subsets is not None, "several": self.relevant is not None}
        metrics = metrics_at(_DEFAULT_KS, **kinds) if self.metrics is LEFT_OUT else self.metrics
        kind = "metrics such as Recall(10)"
        self._set("metrics", tuple(list_of("metrics", metrics, Metric, kind)))
        means = default_summaries(self.metrics) if self.summaries is LEFT_OUT else self.summaries
        kind = 'means such as Mean("mean")'
        self._set("summaries", tuple(list_of("summaries", means, Mean, kind)))
        if self.decides == "":
            names = [mean.name for mean in self.summaries] + [m.name for m in self.metrics]
            self._set("decides", next(iter(names), ""))
        self._set("gallery", tuple(strings("gallery", self.gallery)))
        self._set("missing_queries", tuple(strings("missing_queries", self.missing_queries)))
        self._set("missing_images", tuple(strings("missing_images", self.missing_images)))
        for name, rows in self._rows().items():
            self._set(name, _checked_rows(name, rows))
        self._set("_positions", {image_id: n for n, image_id in enumerate(self.gallery)})
        for problem in chain(_metric_problems(self), _problems(self)):
            raise ValueError(problem)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _rows(self) -> dict[str, _Rows]:
        """Return the lists that have a row for each query, by name; those that are given."""
        rows = {"exclude": self.exclude, "subsets": self.subsets, "relevant": self.relevant}
        return {name: values for name, values in rows.items() if values is not None}

    def positions(self, image_ids: Iterable[str]) -> Tensor:
        """Return positions in the gallery, int64 [N]; ValueError names an unknown image."""
        try:
            found = [self._positions[image_id] for image_id in image_ids]
        except KeyError as error:
            raise ValueError(
                f"image {error.args[0]!r} is not in the gallery of task {self.name!r}"
            ) from None
        return torch.tensor(found, dtype=torch.int64)

    def select(self, rows: Sequence[int]) -> "Task":
        """Return the task of the queries at some positions; ValueError on one that none has."""
        last = len(self.queries) - 1
        rows = [whole_number(f"rows[{n}]", row, 0, last) for n, row in enumerate(rows)]
        queries = [self.queries[row] for row in rows]
        return self._changed(lambda lists: [lists[row] for row in rows], queries=queries)

    def _changed(self, change: Callable[[_Rows], _Rows], **changes: Any) -> "Task":
        """Return the task with other fields, and a change of all lists with a row a query."""
        changes |= {name: change(rows) for name, rows in self._rows().items()}
        return replace(self, **changes)

    def drop_images(self, image_ids: Collection[str]) -> "Task":
        """Return the task without some images, and without the queries that need one of them.

        They are added to ``missing_images`` and ``missing_queries``. ValueError if no query is
        left; images of other tasks may be named too.
        """
        if isinstance(image_ids, str):
            raise ValueError(f"image_ids must be a list of strings, got the string {image_ids!r}")
        missing = frozenset(image_ids)
        left_out = [not missing.isdisjoint(query.image_ids) for query in self.queries]
        task = self.select([row for row, out in enumerate(left_out) if not out])
        dropped = [query.query_id for query in compress(self.queries, left_out)]
        return task._changed(
            lambda rows: [[i for i in row if i not in missing] for row in rows],
            gallery=[i for i in self.gallery if i not in missing],
            missing_queries=(*self.missing_queries, *dropped),
            missing_images=(*self.missing_images, *(i for i in self.gallery if i in missing)),
        )

    def require_targets(self) -> None:
        """Raise ValueError that names the first query without a target."""
        for query in self.queries:
            if query.target_id is None:
                raise ValueError(
                    f"query {query.query_id!r} has no target, so there is nothing to score; "
                    "rank(model, dataset) gives the ranking alone"
                )

    def __str__(self) -> str:
        text = f"{self.name or 'all'}: {len(self.queries)} queries in {len(self.gallery)} images"
        queries, images = len(self.missing_queries), len(self.missing_images)
        missing = f" (missing: {queries} queries, {images} images)" if queries or images else ""
        return text + missing

    def __repr__(self) -> str:
        return f"Task({self})"


def _checked_rows(name: str, rows: object) -> tuple[tuple[str, ...], ...]:
    listed = ordered(name, rows, "lists of image ids")
    for row in listed:
        if isinstance(row, str) or not isinstance(row, Collection):
            raise ValueError(f"{name} must be a list of lists of image ids, got {row!r} in it")
    # The order of a set is another one in each process.
    kinds = set, frozenset
    return tuple(tuple(sorted(row, key=str) if isinstance(row, kinds) else row) for row in listed)


def _metric_problems(task: Task) -> Iterator[str]:
    if not task.metrics:
        yield f"task {task.name!r} has no metrics, expected one or more such as Recall(10)"
    names = [metric.name for metric in task.metrics] + [mean.name for mean in task.summaries]
    for name in names:
        if not isinstance(name, str) or not name or "/" in name:
            yield f"a metric of task {task.name!r} is named {name!r}, expected words without '/'"
    for name in repeated(names):
        yield f"two metrics of task {task.name!r} are named {name!r}"
    for metric in task.metrics:
        if isinstance(metric, SubsetRecall) and task.subsets is None:
            yield f"task {task.name!r} has the metric {metric.name!r} but no subsets"
    for mean in task.summaries:
        if type(mean) not in MEANS.values():
            yield f"{mean.name!r} of task {task.name!r} is none of {', '.join(MEANS)}"
        for name in mean.metrics:
            if name not in names[: len(task.metrics)]:
                yield f"{mean.name!r} of task {task.name!r} combines {name!r}, none of its metrics"
    if task.decides not in names:
        yield f"task {task.name!r} has decides={task.decides!r}, valid: {', '.join(names)}"


def _problems(task: Task) -> Iterator[str]:
    """Yield what is wrong with the queries, the gallery and the rows."""
    if not task.queries:
        yield f"task {task.name!r} has no queries"
    for name, values in task._rows().items():
        if len(values) != len(task.queries):
            yield (
                f"task {task.name!r} has {len(task.queries)} queries but {len(values)} rows of "
                f"{name}; give one for each query, or None"
            )
    for query_id in repeated([query.query_id for query in task.queries]):
        yield f"two queries of task {task.name!r} have the id {query_id!r}; give each its own"
    for image_id in repeated(task.gallery):
        yield f"the gallery of task {task.name!r} holds an image twice: {image_id!r}"
    yield from _unknown_images(task)
    yield from _misfitting_rows(task)


def _unknown_images(task: Task) -> Iterator[str]:
    targets = [(q.target_id,) if q.target_id is not None else () for q in task.queries]
    lists = (targets, *task._rows().values())
    # All at once, as there may be tens of thousands; which query it is counts only if there is one.
    named = set(chain.from_iterable(chain.from_iterable(lists)))
    if named <= task._positions.keys():
        return
    for query, *rows in zip(task.queries, *lists, strict=True):
        for image_id in chain.from_iterable(rows):
            if image_id not in task._positions:
                yield (
                    f"query {query.query_id!r}: image {image_id!r} is not in the gallery of task "
                    f"{task.name!r}"
                )


def _misfitting_rows(task: Task) -> Iterator[str]:
    """Yield the rows that keep a query's right answers from being found."""
    for row, query in enumerate(task.queries):
        exclude = task.exclude[row] if task.exclude else None
        subset = task.subsets[row] if task.subsets else None
        relevant = task.relevant[row] if task.relevant else None
        target = query.target_id
        where = f"query {query.query_id!r} of task {task.name!r}: its target {target!r}"
        if exclude is not None and target in exclude:
            yield f"{where} is excluded from its ranking; do not exclude it"
        if subset is not None and target is not None and target not in subset:
            yield f"{where} is not in its subset; add it there, or give no subsets"
        if relevant is not None:
            if target is not None and tuple(relevant[:1]) != (target,):
                yield f"{where} is not the first of its relevant images"
            for image_id in repeated(relevant):
                yield f"query {query.query_id!r} names a relevant image twice: {image_id!r}"
            for image_id in {*relevant}.intersection(exclude or ()):
                yield f"query {query.query_id!r} excludes a relevant image: {image_id!r}; keep it"


def repeated(names: Collection[str]) -> list[str]:
    """Return the names that are there twice or more."""
    if len(set(names)) == len(names):  # quickly, as nearly always
        return []
    return [name for name, count in Counter(names).items() if count > 1]
