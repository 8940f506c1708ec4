from collections.abc import Sequence

from fusecomp.records import Task

__all__ = ["check_tasks"]


def check_tasks(tasks: Sequence[Task]) -> None:
    """Raise ValueError on tasks that cannot be told apart, ranked or scored."""
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
