"""Positions in a gallery: int64 [Q] or [Q, M], where -1 is padding."""

import torch
from torch import Tensor

from fusecomp._core.tensors import (
    check_alike,
    check_features,
    check_finite,
    check_tensor,
    check_values,
    check_widths,
    widen,
)


def check_search(query: object, gallery: object, one_width: bool = True) -> None:
    """Raise ValueError unless these are finite [Q, D] and [N, D] of one dtype on one device."""
    names = "query", "gallery"
    queries, rows = (
        check_features(value, name, "[rows, D]")
        for value, name in zip((query, gallery), names, strict=True)
    )
    check_finite(queries, "query")
    check_finite(rows, "gallery")
    check_alike(queries, rows, names)
    if one_width:
        check_widths(queries, rows, names)


def check_scores(scores: object, query: Tensor, gallery: Tensor) -> Tensor:
    """Return what a similarity gives; ValueError unless it is [Q, N], floating and without NaN."""
    name = "what the similarity returns"
    found = widen(check_tensor(scores, name), name)
    expected = [len(query), len(gallery)]
    if list(found.shape) != expected:
        raise ValueError(f"the similarity returned {list(found.shape)}, expected {expected}")
    if not found.isfinite().all():
        raise ValueError("the similarity returned NaN or infinity for finite queries and images")
    return found


def check_indices(
    name: str, value: object, query: Tensor, gallery: Tensor, least: int = -1
) -> Tensor:
    """Return int64 [Q] or [Q, M] from ``least`` to below N, on the query's device."""
    indices, rows, size = check_tensor(value, name), len(query), len(gallery)
    if indices.dtype != torch.int64:
        raise ValueError(f"{name} must be int64, got {indices.dtype}")
    if indices.ndim not in (1, 2) or len(indices) != rows:
        raise ValueError(f"{name} must be [{rows}] or [{rows}, M], got {list(indices.shape)}")
    check_values(indices, name)
    if indices.numel() > 0:
        low, high = int(indices.min()), int(indices.max())
        if low < least or high >= size:
            raise ValueError(f"{name} must lie in [{least}, {size}), got {low} to {high}")
    return indices.to(query.device)


def check_targets(targets: object, query: Tensor, gallery: Tensor, least: int = -1) -> Tensor:
    """Return targets [Q], checked as ``check_indices`` does."""
    moved = check_indices("targets", targets, query, gallery, least)
    if moved.ndim != 1:
        raise ValueError(f"targets must be [Q], got {list(moved.shape)}")
    return moved


def index_pairs(indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (row, gallery index) pairs of a padded [B] or [B, M] tensor."""
    indices = as_columns(indices)
    row, column = (indices >= 0).nonzero(as_tuple=True)
    return row, indices[row, column]


def as_columns(indices: Tensor) -> Tensor:
    """Return indices [B] as [B, 1]; [B, M] stay."""
    return indices.unsqueeze(1) if indices.ndim == 1 else indices
