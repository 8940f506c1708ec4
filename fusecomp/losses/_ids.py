"""Ids of images: integers, looked up by bisection."""

from typing import Any

import torch
from torch import Tensor

from fusecomp._core.tensors import check_tensor

__all__ = ["batch_ids", "check_ids", "find"]


def batch_ids(
    query: Tensor, target_ids: Tensor | None, reference_ids: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The ids that came with a batch, as int64; ValueError on a wrong dtype, length or device."""
    rows = query[:, 0]
    named = (("target_ids", target_ids), ("reference_ids", reference_ids))
    target, reference = (None if i is None else check_ids(i, rows, name) for name, i in named)
    return target, reference


def check_ids(ids: Any, rows: Tensor, name: str) -> Tensor:
    """The ids as int64, whatever integers they are.

    Raises:
        ValueError: on others, or of another shape or device than ``rows``.
    """
    if not isinstance(ids, Tensor):
        raise ValueError(f"{name} must be a tensor of integers, got {type(ids).__name__}")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, got {ids.dtype}")
    check_tensor(ids, name)
    if ids.shape != rows.shape:
        raise ValueError(
            f"{name} must be {list(rows.shape)}, as there are rows, got {list(ids.shape)}"
        )
    if ids.device != rows.device:
        raise ValueError(f"{name} are on {ids.device} and the features on {rows.device}")
    return ids.long()


def find(known: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Where each wanted id stands among the known ones, which are sorted, and whether it does."""
    place = torch.searchsorted(known, wanted.contiguous()).clamp(max=len(known) - 1)
    return place, known[place] == wanted
