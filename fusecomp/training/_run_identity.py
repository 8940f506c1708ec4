import hashlib
from collections.abc import Iterable
from itertools import chain

import torch
from torch import Tensor

from fusecomp._core.abilities import protocol_of, reference_texts_of, told_fingerprint
from fusecomp._core.identity import hash_tensors, settings
from fusecomp.images import file_marks, image_paths
from fusecomp.training._learning_parameters import Stage
from fusecomp.training._stage_data import StageData
from fusecomp.types import Dataset, Task


def describe_run(stage: Stage, acting: Iterable[Tensor], data: StageData) -> dict[str, object]:
    """Describe what must be equal for a resumed run to be the same run.

    ``acting`` are buffers that a step may change. ValueError if a part does not tell its settings.
    """
    model, loss, config = stage.model, stage.loss, stage.config
    changing = {id(tensor) for tensor in (*stage.learning.values(), *acting)}
    tensors = chain(model.named_parameters(), model.named_buffers())
    frozen = [(name, tensor) for name, tensor in tensors if id(tensor) not in changing]
    tasks = None if data.val is None else _hash(map(_content, data.val.tasks()))
    # torch.compile puts something into the names of weights.
    shapes = {name.replace("_orig_mod.", ""): list(p.shape) for name, p in stage.learning.items()}
    marks = map(told_fingerprint, stage.loss_module.modules())
    return {
        **{f"config.{name}": value for name, value in config.fixed().items()},
        **_describe_dataset("train", data.train, config.seed),
        **_describe_dataset("validation", data.val, config.seed),
        "validation.tasks": tasks,
        "frozen weights": hash_tensors(frozen),
        **{f"learning weights {name}": shape for name, shape in shapes.items()},
        **settings(model.encoder, "encoder"),
        **settings(model.fusion, "fusion"),
        **settings(loss, "loss"),
        # Fingerprints of what the loss compares with and never changes, such as a bank.
        "loss.features": [mark for mark in marks if mark is not None],
    }


def _describe_dataset(name: str, dataset: Dataset | None, seed: int) -> dict[str, object]:
    if dataset is None:
        return {}
    told = reference_texts_of(dataset)
    found = {
        "triplets": len(dataset),
        "images": len(dataset.image_ids),
        "hash": _hash(dataset.triplets(0, seed)),
        # In bytes, -1 where there is no file, by ``image_ids``.
        "files": torch.from_numpy(file_marks(list(image_paths([dataset]).values()), "size")),
        **({"reference_texts": _hash(sorted(told.items()))} if told else {}),
        **protocol_of(dataset),
    }
    return {f"{name}.{entry}": value for entry, value in found.items()}


def _hash(items: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(item).encode(errors="backslashreplace"))
    return digest.hexdigest()


def _content(task: Task) -> tuple[object, ...]:
    rows = task.exclude, task.subsets, task.relevant
    metrics = [settings(metric, metric.name) for metric in task.metrics]
    return task.name, task.queries, task.gallery, *rows, metrics, task.summaries, task.decides
