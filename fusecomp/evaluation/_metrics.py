"""The metrics of a dataset: their names, and how those of its tasks are combined."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusecomp._core.checks import require
from fusecomp.evaluation._tasks import mean_group, scored_tasks
from fusecomp.types import Dataset, Task


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
        ValueError: if the dataset has no task, a query has no target, or tasks have different
            metrics or names that clash.
    """
    require("dataset", dataset, "triplets", "a Dataset")
    tasks = scored_tasks(dataset)
    one = torch.ones(())
    values = {task.name: {metric.name: one for metric in task.metrics} for task in tasks}
    return list(average_tasks(tasks, values))


def default_metric(dataset: Dataset) -> str:
    """Return the name of the metric that picks the best weights by default (``Task.decides``).

    Raises:
        TypeError: if it is no dataset.
        ValueError: if the dataset has no task, a query has no target, or tasks have different
            metrics or names that clash.
    """
    require("dataset", dataset, "triplets", "a Dataset")
    return deciding_metric(scored_tasks(dataset))


def deciding_metric(tasks: Sequence[Task]) -> str:
    """Return the name in an evaluation of the metric that decides."""
    decides, group = tasks[0].decides, mean_group(tasks)
    summarised = decides in [mean.name for mean in tasks[0].summaries]
    return decides if summarised or not group else f"{group}/{decides}"
