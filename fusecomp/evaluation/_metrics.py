"""The metrics of a dataset: their names, and how those of its tasks are combined."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusecomp._core.checks import require, shown
from fusecomp._core.metrics import Mean
from fusecomp._core.task import repeated
from fusecomp._core.tensors import check_floating
from fusecomp.evaluation._tasks import check_names, mean_group, scored_tasks, tasks_of
from fusecomp.types import Dataset, Task

__all__ = ["average_tasks", "deciding_metric", "default_metric", "metric_names"]


def average_tasks(
    metrics: Mapping[str, Mapping[str, Tensor]], summaries: Sequence[Mean] = ()
) -> dict[str, Tensor]:
    """Name the metrics of each task, their means over the tasks, and the summaries of these.

    Args:
        metrics: by task and name, each task with the same ones; tensors of one shape, such as [R]
            for R resamples.
        summaries: such as ``task.summaries``.

    Shape:
        The same.

    Raises:
        TypeError: unless they map tasks to metrics and these to tensors.
        ValueError: if there is no task or no metric, tasks have different metrics, two metrics
            would have one name, or the tensors are not floating or of different shapes.

    Example:
        >>> metrics = {"a": {"recall@1": torch.tensor(10.0)}, "b": {"recall@1": torch.tensor(30.0)}}
        >>> averaged = average_tasks(metrics, [Mean("mean")])
        >>> {name: float(value) for name, value in averaged.items()}
        {'a/recall@1': 10.0, 'b/recall@1': 30.0, 'mean/recall@1': 20.0, 'mean': 20.0}
    """
    names = _checked_names(metrics)
    means = {
        name: torch.stack([values[name] for values in metrics.values()]).mean(0) for name in names
    }
    named = [
        (f"{group}/{name}" if group else name, values[name])
        for group, values in {**metrics, mean_group(metrics): means}.items()
        for name in names
    ]
    named += [(mean.name, mean(means)) for mean in summaries]
    for name in repeated([name for name, _ in named]):
        raise ValueError(f"two metrics would be named {name!r}: rename the task or the metric")
    return dict(named)


def _checked_names(metrics: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    """Return the names of the metrics that each task has."""
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must map tasks to their metrics, got {shown(metrics)}")
    if not metrics:
        raise ValueError("metrics must hold at least one task, got none")
    first, *_ = metrics
    shapes = []
    for task, values in metrics.items():
        if not isinstance(task, str) or not isinstance(values, Mapping):
            raise TypeError(
                f"metrics must map tasks to their metrics, but {shown(task)} has {shown(values)}"
            )
        if not values or values.keys() != metrics[first].keys():
            raise ValueError(
                f"the tasks must have the same metrics, but {first!r} has "
                f"{list(metrics[first])} and {task!r} has {list(values)}"
            )
        for name, value in values.items():
            where = f"metrics[{task!r}][{name!r}]"
            check_floating(value, where)
            shapes.append(list(value.shape))
            if shapes[-1] != shapes[0]:
                raise ValueError(f"{where} is {shapes[-1]}, but the first one {shapes[0]}")
    check_names(list(metrics))
    return list(metrics[first])


def metric_names(dataset: Dataset) -> list[str]:
    """Return the names of the metrics that ``evaluate`` will give, without evaluating.

    Raises:
        TypeError: if it is no dataset.
        ValueError: if the dataset has no task, a query has no target, or tasks have different
            metrics or names that clash.
    """
    require("dataset", dataset, "triplets", "a Dataset")
    tasks = scored_tasks(dataset)
    one = torch.ones(())
    metrics = {task.name: {metric.name: one for metric in task.metrics} for task in tasks}
    return list(average_tasks(metrics, tasks[0].summaries))


def default_metric(dataset: Dataset) -> str:
    """Return the name of the metric that picks the best weights by default (``Task.decides``).

    Raises:
        TypeError: if it is no dataset.
        ValueError: if the dataset has no task, or tasks with names that clash.
    """
    require("dataset", dataset, "triplets", "a Dataset")
    tasks = tasks_of(dataset)
    if not tasks:
        raise ValueError(f"{dataset!r} has no task to evaluate")
    return deciding_metric(tasks)


def deciding_metric(tasks: Sequence[Task]) -> str:
    """Return the name under which evaluation gives what the first task says decides."""
    decides, summaries = tasks[0].decides, tasks[0].summaries
    group = mean_group(task.name for task in tasks)
    return f"{group}/{decides}" if group and decides not in {m.name for m in summaries} else decides
