"""Ids of pictures: integers, looked up by bisection."""

import torch
from torch import Tensor

__all__ = ["batch_ids", "check_ids", "check_table", "find"]


def batch_ids(
    query: Tensor, target_ids: Tensor | None, reference_ids: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The ids that came with a batch, as int64; ValueError on a wrong dtype or length."""
    rows = query.shape[:1]
    named = (("target_ids", target_ids), ("reference_ids", reference_ids))
    target, reference = (None if i is None else check_ids(i, rows, name) for name, i in named)
    return target, reference


def check_ids(ids: Tensor, shape: torch.Size, name: str) -> Tensor:
    """The ids as int64, whatever integers they are; ValueError on others or another shape."""
    if not isinstance(ids, Tensor):
        raise ValueError(f"{name} must be a tensor of integers, got {type(ids).__name__}")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, got {ids.dtype}")
    if ids.shape != shape:
        raise ValueError(f"{name} must be {list(shape)}, as there are rows, got {list(ids.shape)}")
    return ids.long()


def check_table(features: Tensor, name: str) -> None:
    """Raise ValueError unless these are features [M, D]."""
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"{name} must be [M, D] and not empty, got {list(features.shape)}")


def find(known: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Where each wanted id stands among the known ones, which are sorted, and whether it does."""
    place = torch.searchsorted(known, wanted.contiguous()).clamp(max=len(known) - 1)
    return place, known[place] == wanted
