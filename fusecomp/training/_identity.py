import hashlib
from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import nn

from fusecomp.model import ComposedEncoder
from fusecomp.modules import class_name, describe, fingerprint
from fusecomp.protocols import Dataset, Loss
from fusecomp.training._stage import StageConfig

__all__ = ["describe_run"]


def describe_run(
    model: ComposedEncoder,
    learning: Mapping[str, nn.Parameter],
    loss: Loss,
    config: StageConfig,
    train: Dataset,
    validation: Dataset | None,
) -> dict[str, Any]:
    """What must be equal for a resumed run to be the same run."""
    # Persistent buffers may change (BatchNorm's) and are part of the checkpoint.
    changing = learning.keys() | model.state_dict().keys() - dict(model.named_parameters()).keys()
    tensors = chain(model.named_parameters(), model.named_buffers())
    frozen = [(name, tensor) for name, tensor in tensors if name not in changing]
    data = {"train": train, "validation": validation}
    return {
        **{f"config.{name}": value for name, value in config.fixed().items()},
        **{name: _describe_dataset(dataset, config.seed) for name, dataset in data.items()},
        "encoder": _describe_part(model.encoder),
        "fusion": _describe_part(model.fusion),
        "learning weights": {n: list(p.shape) for n, p in learning.items()},
        "frozen weights": fingerprint(frozen),
        "loss": _describe_loss(loss),
    }


def _describe_dataset(dataset: Dataset | None, seed: int) -> dict[str, Any] | None:
    if dataset is None:
        return None
    triplets = hashlib.sha256()
    for triplet in dataset.triplets(0, seed):
        triplets.update(repr(triplet).encode())
    protocol = dict(getattr(dataset, "protocol", {}))
    size = {"triplets": len(dataset), "images": len(dataset.image_ids)}
    return {**size, "hash": triplets.hexdigest(), **protocol}


def _describe_loss(loss: Loss) -> str:
    if not isinstance(loss, nn.Module):
        return "callable"
    # Features that a loss compares with, and never changes.
    hashes = (getattr(module, "fingerprint", None) for module in loss.modules())
    return "\n".join([str(loss), *(take() for take in hashes if callable(take))])


def _describe_part(part: Any) -> str:
    return describe(part) if hasattr(part, "__code__") else class_name(part)
