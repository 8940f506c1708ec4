"""The tasks of one dataset: checks, names and means of their metrics, and gallery positions."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from fusecomp._core.checks import list_of, require
from fusecomp._core.task import repeated
from fusecomp.types import Dataset, Task


def tasks_of(dataset: Dataset) -> list[Task]:
    """Make the tasks of a dataset; raise ValueError unless they are tasks with distinct names."""
    tasks: list[Task] = list_of("tasks() of a dataset", dataset.tasks(), Task, "tasks")
    _check_names([task.name for task in tasks])
    return tasks


def scored_tasks(dataset: Dataset) -> list[Task]:
    """Make the tasks of a dataset; raise ValueError also unless there are some to be scored."""
    tasks = tasks_of(dataset)
    for task in tasks:
        task.require_targets()
    require_same_metrics(tasks)
    return tasks


def require_same_metrics(tasks: Sequence[Task]) -> None:
    """Raise ValueError unless there are tasks, with distinct names and the same metrics."""
    if not tasks:
        raise ValueError("there is no task to evaluate")
    _check_names([task.name for task in tasks])
    measured = [([m.name for m in task.metrics], task.summaries, task.decides) for task in tasks]
    for task, found in zip(tasks, measured, strict=True):
        if found != measured[0]:
            raise ValueError(
                "the tasks of a dataset must have the same metrics, summaries and decides, but "
                f"{tasks[0].name!r} and {task.name!r} differ"
            )


def _check_names(names: Sequence[str]) -> None:
    for name in repeated(names):
        raise ValueError(f"two tasks are named {name!r}; their metrics need other names")
    if "mean" in names:
        raise ValueError("a task is named 'mean', as the means over the tasks are; rename it")
    if "" in names and len(names) > 1:
        raise ValueError(f"one of {len(names)} tasks has the name ''; name every task")


def mean_group(tasks: Sequence[Task]) -> str:
    """Return the group of the means over tasks: a single task without a name is its own mean."""
    return "mean" if any(task.name for task in tasks) else ""


def average_tasks(
    tasks: Sequence[Task], values: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Name the metrics of each task, given by task and metric, their means, and the summaries."""
    names = [metric.name for metric in tasks[0].metrics]
    means = {name: torch.stack([each[name] for each in values.values()]).mean(0) for name in names}
    named = {
        f"{group}/{name}" if group else name: each[name]
        for group, each in {**values, mean_group(tasks): means}.items()
        for name in names
    }
    return named | {mean.name: mean(means) for mean in tasks[0].summaries}


def metric_names(dataset: Dataset) -> list[str]:
    """Return the names of the metrics that ``evaluate`` will give, without evaluating.

    Raises:
        TypeError: if it is no dataset.
        ValueError: if there is no task, a query has no target, or metrics or names of tasks clash.
    """
    require("dataset", dataset, "triplets", "a Dataset")
    tasks = scored_tasks(dataset)
    one = torch.ones(())
    values = {task.name: {metric.name: one for metric in task.metrics} for task in tasks}
    return list(average_tasks(tasks, values))


def default_metric(dataset: Dataset) -> str:
    """Return the name of the metric that picks the best weights by default (``Task.decides``).

    Raises what ``metric_names`` raises.
    """
    require("dataset", dataset, "triplets", "a Dataset")
    return deciding_metric(scored_tasks(dataset))


def deciding_metric(tasks: Sequence[Task]) -> str:
    """Return the name in an evaluation of the metric that decides."""
    decides, group = tasks[0].decides, mean_group(tasks)
    summarised = decides in [mean.name for mean in tasks[0].summaries]
    return decides if summarised or not group else f"{group}/{decides}"


class TaskIndices(NamedTuple):
    """Positions in a gallery: targets int64 [Q], the others int64 [Q, M] or None; -1 is none."""

    targets: Tensor
    exclude: Tensor | None
    subsets: Tensor | None
    relevant: Tensor | None


def task_positions(task: Task) -> TaskIndices:
    """Return where a task's targets, excluded images, subsets, right answers are in its gallery."""
    targets = [() if q.target_id is None else (q.target_id,) for q in task.queries]
    lists = task.exclude, task.subsets, task.relevant
    optional = (None if rows is None else padded_positions(task, rows) for rows in lists)
    return TaskIndices(padded_positions(task, targets)[:, 0], *optional)


def padded_positions(task: Task, rows: Sequence[Sequence[str]]) -> Tensor:
    """Return the gallery positions of rows of images: int64 [Q, M], padded with -1, M >= 1."""
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.full((len(rows), max(1, int(lengths.max()))), -1)
    padded[torch.arange(padded.shape[1]) < lengths[:, None]] = task.positions(chain(*rows))
    return padded
