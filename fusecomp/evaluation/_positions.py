from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from fusecomp.types import Task


class TaskIndices(NamedTuple):
    """Positions in a gallery: targets int64 [Q], the others int64 [Q, M] or None; -1 is none."""

    targets: Tensor
    exclude: Tensor | None
    subsets: Tensor | None


def task_positions(task: Task) -> TaskIndices:
    """Return where a task's targets, excluded images and subsets are in its gallery."""
    targets = [() if q.target_id is None else (q.target_id,) for q in task.queries]
    lists = task.exclude, task.subsets
    optional = (None if rows is None else padded_positions(task, rows) for rows in lists)
    return TaskIndices(padded_positions(task, targets)[:, 0], *optional)


def padded_positions(task: Task, rows: Sequence[Sequence[str]]) -> Tensor:
    """Return the gallery positions of rows of images: int64 [Q, M], padded with -1, M >= 1."""
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.full((len(rows), max(1, int(lengths.max()))), -1)
    padded[torch.arange(padded.shape[1]) < lengths[:, None]] = task.positions(chain(*rows))
    return padded
