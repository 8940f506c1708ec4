"""Which metrics there are, and how those of the tasks are combined."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fusecomp._core.checks import require, shown
from fusecomp._core.tensors import check_floating
from fusecomp.evaluation._tasks import check_names, check_tasks, repeated
from fusecomp.types import Dataset, Task

__all__ = [
    "SUBSET_KS",
    "average_tasks",
    "default_metric",
    "headline_of",
    "mean_group",
    "metric_names",
]

# A subset has so few members that only these are published.
SUBSET_KS = (1, 2, 3)
_SUBSET = "recall_subset@"
# CIRR's one number: the mean of these.
_WITH_SUBSETS = ("recall@5", "recall_subset@1")


def average_tasks(recalls: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """All metrics that ``evaluate`` gives, in its order, from the recalls of each task.

    Args:
        recalls: by task and metric (``recall@k``, ``recall_subset@k``), each task with the same
            metrics; tensors of one shape, such as [R] for R resamples.

    Shape:
        The same.

    Raises:
        TypeError: unless they map tasks to metrics and these to tensors.
        ValueError: if there is no task or no metric, tasks have different metrics, two metrics
            would have one name, or the tensors are not floating or of different shapes.

    Example:
        >>> recalls = {"a": {"recall@1": torch.tensor(10.0)}, "b": {"recall@1": torch.tensor(30.0)}}
        >>> {name: float(value) for name, value in average_tasks(recalls).items()}
        {'a/recall@1': 10.0, 'b/recall@1': 30.0, 'mean/recall@1': 20.0, 'mean': 20.0}
    """
    metrics = _checked_metrics(recalls)
    means = {
        metric: _arithmetic_mean([task[metric] for task in recalls.values()]) for metric in metrics
    }
    named = [
        (f"{group}/{metric}" if group else metric, values[metric])
        for group, values in {**recalls, mean_group(recalls): means}.items()
        for metric in metrics
    ]
    for name, (mean, chosen) in _summaries(metrics).items():
        named.append((name, mean([means[metric] for metric in chosen])))
    for name in repeated(name for name, _ in named):
        raise ValueError(f"two metrics would be named {name!r}: rename the task or the metric")
    return dict(named)


def _checked_metrics(recalls: Any) -> list[str]:
    """The metrics that each task has."""
    if not isinstance(recalls, Mapping):
        raise TypeError(f"recalls must map tasks to their metrics, got {shown(recalls)}")
    if not recalls:
        raise ValueError("recalls must hold at least one task, got none")
    first, *_ = recalls
    for task, values in recalls.items():
        if not isinstance(task, str) or not isinstance(values, Mapping):
            raise TypeError(
                f"recalls must map tasks to metrics, but {shown(task)} has {shown(values)}"
            )
        if not values or values.keys() != recalls[first].keys():
            raise ValueError(
                f"the tasks of recalls must have the same metrics, but {first!r} has "
                f"{list(recalls[first])} and {task!r} has {list(values)}"
            )
    check_names(list(recalls))
    metrics = list(recalls[first])
    _check_values(recalls, metrics)
    return metrics


def _check_values(recalls: Mapping[str, Mapping[str, Tensor]], metrics: Sequence[str]) -> None:
    shape = None
    for task, values in recalls.items():
        for metric in metrics:
            name = f"recalls[{task!r}][{metric!r}]"
            check_floating(values[metric], name)
            shape = values[metric].shape if shape is None else shape
            if values[metric].shape != shape:
                raise ValueError(
                    f"{name} is {list(values[metric].shape)}, but the first one {list(shape)}"
                )


def metric_names(dataset: Dataset) -> list[str]:
    """The metrics that ``evaluate`` will give, known without evaluating.

    Raises:
        TypeError: if it is no dataset.
        ValueError: if the dataset has no task, a task without queries or a query without
            target, tasks of different k, or tasks as ``rank`` refuses them.
    """
    tasks = _tasks(dataset)
    for task in tasks:
        task.require_targets()
        if _task_metrics(task) != _task_metrics(tasks[0]):
            raise ValueError("the tasks of a dataset must have the same metrics")
    return list(
        average_tasks({t.name: dict.fromkeys(_task_metrics(t), torch.ones(())) for t in tasks})
    )


def default_metric(dataset: Dataset) -> str:
    """The metric that chooses the best checkpoint by default, known without evaluating.

    Raises:
        TypeError: if it is no dataset.
        ValueError: if the dataset has no task, or tasks as ``rank`` refuses them.
    """
    return headline_of(_tasks(dataset)[0])


def _tasks(dataset: Dataset) -> Sequence[Task]:
    require("dataset", dataset, "triplets", "a Dataset")
    tasks = dataset.tasks()
    check_tasks(tasks)
    if not tasks:
        raise ValueError(f"{dataset!r} has no task to evaluate")
    return tasks


def headline_of(task: Task) -> str:
    """The headline of a dataset with such tasks."""
    return next(iter(_summaries(_task_metrics(task))))


def mean_group(names: Iterable[str]) -> str:
    """Where the means over the tasks stand: a single task without a name is its own mean."""
    return "mean" if any(names) else ""


def _task_metrics(task: Task) -> list[str]:
    subset = [f"{_SUBSET}{k}" for k in SUBSET_KS] if task.subsets is not None else []
    return [f"recall@{k}" for k in task.ks] + subset


_Mean = Callable[[Sequence[Tensor]], Tensor]


def _summaries(metrics: Sequence[str]) -> dict[str, tuple[_Mean, Sequence[str]]]:
    """The numbers that sum up all metrics, headline first: which mean, and of which of a task's."""
    if not any(metric.startswith(_SUBSET) for metric in metrics):
        return {"mean": (_arithmetic_mean, metrics)}
    default_metric = {f"mean({', '.join(_WITH_SUBSETS)})": (_arithmetic_mean, _WITH_SUBSETS)}
    return {
        **(default_metric if set(_WITH_SUBSETS) <= set(metrics) else {}),
        "arithmetic_mean": (_arithmetic_mean, metrics),
        "harmonic_mean": (_harmonic_mean, metrics),
        "geometric_mean": (_geometric_mean, metrics),
    }


def _arithmetic_mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(tuple(values)).mean(0)


# Where a value is 0, its reciprocal and logarithm are infinite and these two are 0.
def _harmonic_mean(values: Sequence[Tensor]) -> Tensor:
    return 1 / torch.stack(tuple(values)).reciprocal().mean(0)


def _geometric_mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(tuple(values)).log().mean(0).exp()
