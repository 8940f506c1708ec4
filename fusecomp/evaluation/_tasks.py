"""The tasks of one dataset together; each alone is checked when it is made."""

from collections.abc import Iterable, Sequence

from fusecomp._core.checks import ordered, shown
from fusecomp._core.task import repeated
from fusecomp.types import Dataset, Task

__all__ = ["check_names", "mean_group", "require_same_metrics", "scored_tasks", "tasks_of"]


def tasks_of(dataset: Dataset) -> list[Task]:
    """Make the tasks of a dataset; raise ValueError unless they are tasks with distinct names."""
    tasks: list[Task] = ordered("tasks() of a dataset", dataset.tasks(), "tasks")
    for task in tasks:
        if not isinstance(task, Task):
            raise ValueError(
                f"tasks() of a dataset must be a list of tasks, got {shown(task)} in it"
            )
    check_names([task.name for task in tasks])
    return tasks


def scored_tasks(dataset: Dataset) -> list[Task]:
    """Make the tasks of a dataset; raise ValueError also if one of them cannot be scored."""
    tasks = tasks_of(dataset)
    if not tasks:
        raise ValueError(f"{dataset!r} has no task to evaluate")
    for task in tasks:
        task.require_targets()
    require_same_metrics(tasks)
    return tasks


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError on names of tasks under which metrics could not be told apart."""
    for name in repeated(names):
        raise ValueError(f"two tasks are named {name!r}; their metrics need other names")
    if "mean" in names:
        raise ValueError("a task is named 'mean', as the means over the tasks are; rename it")
    if "" in names and len(names) > 1:
        raise ValueError(f"one of {len(names)} tasks has the name ''; name every task")


def require_same_metrics(tasks: Sequence[Task]) -> None:
    """Raise ValueError unless tasks have the same metrics, summaries and deciding one."""
    for task in tasks:
        if _measured(task) != _measured(tasks[0]):
            raise ValueError(
                "the tasks of a dataset must have the same metrics, summaries and decides, but "
                f"{tasks[0].name!r} and {task.name!r} differ"
            )


def _measured(task: Task) -> tuple[object, ...]:
    return [metric.name for metric in task.metrics], task.summaries, task.decides


def mean_group(names: Iterable[str]) -> str:
    """Return the group of the means over tasks: a single task without a name is its own mean."""
    return "mean" if any(names) else ""
