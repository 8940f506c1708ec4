import hashlib
from collections.abc import Iterable, Mapping
from itertools import chain

from torch import Tensor, nn

from fusecomp._core.abilities import protocol_of, told_fingerprint
from fusecomp._core.identity import hash_tensors, settings
from fusecomp.images import file_marks, image_paths
from fusecomp.model import ComposedEncoder
from fusecomp.training._stage_config import StageConfig
from fusecomp.types import Dataset, Loss, Task


def describe_run(
    model: ComposedEncoder,
    learning: Mapping[str, nn.Parameter],
    acting: Iterable[Tensor],
    loss: Loss,
    config: StageConfig,
    train: Dataset,
    validation: Dataset | None,
) -> dict[str, object]:
    """Describe what must be equal for a resumed run to be the same run.

    ``acting`` are buffers that a step may change, such as BatchNorm's. ValueError if a part does
    not tell its settings.
    """
    changing = {id(tensor) for tensor in (*learning.values(), *acting)}
    tensors = chain(model.named_parameters(), model.named_buffers())
    frozen = [(name, tensor) for name, tensor in tensors if id(tensor) not in changing]
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
        **{f"learning weights {_plain(n)}": list(p.shape) for n, p in learning.items()},
        **settings(model.encoder, "encoder"),
        **settings(model.fusion, "fusion"),
        **settings(loss, "loss"),
        "loss.features": _hash_fixed_features(loss),
    }


def _plain(name: str) -> str:
    """Take out of the name of a weight what torch.compile puts into it."""
    return name.replace("_orig_mod.", "")


def _describe_dataset(dataset: Dataset, seed: int) -> dict[str, object]:
    triplets = hashlib.sha256()
    for triplet in dataset.triplets(0, seed):
        triplets.update(repr(triplet).encode(errors="backslashreplace"))
    return {
        "triplets": len(dataset),
        "images": len(dataset.image_ids),
        "hash": triplets.hexdigest(),
        "files": _file_sizes(dataset),
        **protocol_of(dataset),
    }


def _file_sizes(dataset: Dataset) -> list[int]:
    """Return the size of each image file in bytes, -1 where there is none, by ``image_ids``."""
    sizes: list[int] = file_marks(list(image_paths([dataset]).values()), "size").tolist()
    return sizes


def _hash_tasks(tasks: Iterable[Task]) -> str:
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(repr(_task_content(task)).encode(errors="backslashreplace"))
    return digest.hexdigest()


def _task_content(task: Task) -> tuple[object, ...]:
    rows = task.exclude, task.subsets, task.relevant
    metrics = [settings(metric, metric.name) for metric in task.metrics]
    return task.name, task.queries, task.gallery, *rows, metrics, task.summaries, task.decides


def _hash_fixed_features(loss: Loss) -> list[str]:
    """Hash the features that a loss compares with and never changes, such as a bank's."""
    if not isinstance(loss, nn.Module):
        return []
    return [told for module in loss.modules() if (told := told_fingerprint(module)) is not None]
