from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from fusecomp._core.checks import ordered, shown
from fusecomp.types import Task, are_ks

__all__ = ["check_names", "check_tasks", "repeated"]


def check_tasks(tasks: Sequence[Task]) -> None:
    """Raise ValueError on tasks that cannot be told apart, ranked or scored."""
    for task in ordered("tasks() of a dataset", tasks, "tasks"):
        if not isinstance(task, Task):
            raise ValueError(
                f"tasks() of a dataset must be a list of tasks, got {shown(task)} in it"
            )
        _check_task(task)
    check_names([task.name for task in tasks])


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError on names of tasks under which metrics could not be told apart."""
    for name in repeated(names):
        raise ValueError(f"two tasks are named {name!r}; their metrics need other names")
    if "mean" in names:
        raise ValueError("a task is named 'mean', as the means over the tasks are; rename it")
    if "" in names and len(names) > 1:
        raise ValueError(f"one of {len(names)} tasks has the name ''; name every task")


def _check_task(task: Task) -> None:
    if not task.queries:
        raise ValueError(f"task {task.name!r} has no queries")
    if not are_ks(task.ks):
        raise ValueError(
            f"task {task.name!r} has ks={task.ks}, expected one k or more, each at least 1, "
            "whole and named once"
        )
    for name in ("exclude", "subsets"):
        rows = getattr(task, name)
        if rows is not None and len(rows) != len(task.queries):
            raise ValueError(
                f"task {task.name!r} has {len(task.queries)} queries but {len(rows)} rows of "
                f"{name}; give one for each query, or None"
            )
    for query_id in repeated(query.query_id for query in task.queries):
        raise ValueError(
            f"two queries of task {task.name!r} have the id {query_id!r}; give each its own"
        )
    _check_gallery(task)


def _check_gallery(task: Task) -> None:
    for image_id in repeated(task.gallery):
        raise ValueError(f"the gallery of task {task.name!r} holds an image twice: {image_id!r}")
    gallery = frozenset(task.gallery)
    for row, query in enumerate(task.queries):
        for image_id in _needed(task, row):
            if image_id not in gallery:
                raise ValueError(
                    f"query {query.query_id!r}: image {image_id!r} is not in the gallery of "
                    f"task {task.name!r}"
                )
    for row in range(len(task.queries)):
        _check_target(task, row)


def _check_target(task: Task, row: int) -> None:
    """Raise ValueError if a query's own row keeps its target from being found."""
    query = task.queries[row]
    if query.target_id is None:
        return
    where = f"query {query.query_id!r} of task {task.name!r}: its target {query.target_id!r}"
    if task.exclude is not None and query.target_id in task.exclude[row]:
        raise ValueError(f"{where} is excluded from its ranking; do not exclude it")
    if task.subsets is not None and query.target_id not in task.subsets[row]:
        raise ValueError(f"{where} is not in its subset; add it there, or give no subsets")


def _needed(task: Task, row: int) -> Iterator[str]:
    """What a query asks of the gallery."""
    target_id = task.queries[row].target_id
    if target_id is not None:
        yield target_id
    for rows in (task.exclude, task.subsets):
        if rows is not None:
            yield from rows[row]


def repeated(names: Iterable[str]) -> Iterator[str]:
    """The names that stand twice or more."""
    return (name for name, count in Counter(names).items() if count > 1)
