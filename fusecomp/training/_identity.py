import hashlib
from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import nn

from fusecomp._core.identity import hash_tensors, settings
from fusecomp.images import ABSENT, file_marks, image_paths
from fusecomp.model import ComposedEncoder
from fusecomp.training._stage import StageConfig
from fusecomp.types import Dataset, Loss, Task

__all__ = ["UNKNOWN", "describe_run"]

# Stands for image files that are not there: they count as unchanged.
UNKNOWN = "unknown"


def describe_run(
    model: ComposedEncoder,
    learning: Mapping[str, nn.Parameter],
    loss: Loss,
    config: StageConfig,
    train: Dataset,
    validation: Dataset | None,
) -> dict[str, Any]:
    """Describe what must be equal for a resumed run to be the same run.

    Raises:
        ValueError: if a part does not tell its settings.
    """
    # Persistent buffers may change (BatchNorm's) and are part of the checkpoint.
    changing = learning.keys() | model.state_dict().keys() - dict(model.named_parameters()).keys()
    tensors = chain(model.named_parameters(), model.named_buffers())
    frozen = [(name, tensor) for name, tensor in tensors if name not in changing]
    data = {"train": train} if validation is None else {"train": train, "validation": validation}
    return {
        **{f"config.{name}": value for name, value in config.fixed().items()},
        **{
            f"{name}.{entry}": value
            for name, dataset in data.items()
            for entry, value in _describe_dataset(dataset, config.seed).items()
        },
        "validation.tasks": None if validation is None else _hash_tasks(validation.tasks()),
        "frozen weights": hash_tensors(frozen),
        **{f"learning weights {name}": list(p.shape) for name, p in learning.items()},
        **settings(model.encoder, "encoder"),
        **settings(model.fusion, "fusion"),
        **settings(loss, "loss"),
        "loss.features": _hash_fixed_features(loss),
    }


def _describe_dataset(dataset: Dataset, seed: int) -> dict[str, Any]:
    triplets = hashlib.sha256()
    for triplet in dataset.triplets(0, seed):
        triplets.update(repr(triplet).encode(errors="backslashreplace"))
    return {
        "triplets": len(dataset),
        "images": len(dataset.image_ids),
        "hash": triplets.hexdigest(),
        "files": _hash_files(dataset),
        **dict(getattr(dataset, "protocol", {})),
    }


def _hash_files(dataset: Dataset) -> str:
    marks = file_marks(list(image_paths([dataset]).values()), "size")
    return UNKNOWN if (marks == ABSENT).any() else hashlib.sha256(marks.tobytes()).hexdigest()


def _hash_tasks(tasks: Any) -> str:
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(repr(_task_content(task)).encode(errors="backslashreplace"))
    return digest.hexdigest()


def _task_content(task: Task) -> tuple[Any, ...]:
    rows = ([list(map(tuple, rows or ()))] for rows in (task.exclude, task.subsets))
    return task.name, list(task.queries), tuple(task.gallery), *rows, task.ks


def _hash_fixed_features(loss: Loss) -> list[str]:
    """Hash the features that a loss compares with and never changes, such as a bank's."""
    if not isinstance(loss, nn.Module):
        return []
    hashes = (getattr(module, "fingerprint", None) for module in loss.modules())
    return [take() for take in hashes if callable(take)]
