"""Positions in a gallery: int64 [Q] or [Q, M], where -1 is padding."""

import torch
from torch import Tensor

from fusecomp._core.checks import whole_number
from fusecomp._core.tensors import (
    as_tensor,
    check_alike,
    check_features,
    check_finite,
    check_tensor,
    check_values,
    check_widths,
    widen,
)
from fusecomp.types import Similarity

# How far k may exceed the gallery: what lies beyond is padding, and takes room for each query.
MAX_PADDED = 2**20


def check_search(query: object, gallery: object, one_width: bool = True) -> None:
    """Raise ValueError unless these are finite [Q, D] and [N, D] of one dtype on one device."""
    queries = check_features(query, "query", "[rows, D]")
    rows = check_features(gallery, "gallery", "[rows, D]")
    check_finite(queries, "query")
    check_finite(rows, "gallery")
    check_alike(queries, rows, ("query", "gallery"))
    if one_width:
        check_widths(queries, rows, ("query", "gallery"))


def check_query(query: object, gallery: Tensor, k: object, one_width: bool) -> int:
    """Return k; ValueError unless it is a number and the query is finite and fits the gallery."""
    found = check_features(query, "query", "[Q, D]")
    check_finite(found, "query")
    if found.device != gallery.device:
        raise ValueError(f"query is on {found.device}, but the gallery is on {gallery.device}")
    if one_width:
        check_widths(found, gallery, ("query", "gallery"))
    return whole_number("k", k, 1, max(len(gallery), MAX_PADDED))


def compare(similarity: Similarity, query: Tensor, gallery: Tensor) -> Tensor:
    """Return a similarity's scores; ValueError unless they are [Q, N] on the queries' device."""
    name = "what the similarity returns"
    found = widen(check_tensor(similarity(query, gallery), name), name)
    expected = [len(query), len(gallery)]
    if list(found.shape) != expected or found.device != query.device:
        raise ValueError(
            f"the similarity returned {list(found.shape)} on {found.device} for queries "
            f"{list(query.shape)} and images {list(gallery.shape)}, expected {expected} on "
            f"{query.device}"
        )
    if len(query) == len(gallery) > 1:
        # A square does not show whether rows and columns are swapped.
        compare(similarity, query[:2], gallery[:1])
    return found


def check_indices(
    name: str, value: object, query: Tensor, gallery: Tensor, least: int = -1
) -> Tensor:
    """Return int64 [Q] or [Q, M] from ``least`` to below N, on the query's device."""
    indices, rows, size = check_tensor(as_tensor(value), name), len(query), len(gallery)
    if indices.dtype != torch.int64:
        raise ValueError(f"{name} must be int64, got {indices.dtype}")
    if indices.ndim not in (1, 2) or len(indices) != rows:
        raise ValueError(f"{name} must be [{rows}] or [{rows}, M], got {list(indices.shape)}")
    check_values(indices, name)
    distinct = one_row(indices)
    if distinct.numel() > 0:
        low, high = int(distinct.min()), int(distinct.max())
        if low < least or high >= size:
            raise ValueError(f"{name} must lie in [{least}, {size}), got {low} to {high}")
    return distinct.to(query.device).expand_as(indices)


def one_row(indices: Tensor) -> Tensor:
    """Return the row that ``expand`` has given all queries; any other indices as they are."""
    return indices[:1] if indices.stride(0) == 0 else indices


def check_positions(positions: object, size: int) -> Tensor:
    """Return int64 [M], each in [0, N); ValueError on anything else."""
    found = check_tensor(as_tensor(positions), "positions")
    if found.dtype != torch.int64 or found.ndim != 1:
        raise ValueError(f"positions must be int64 [M], got {found.dtype} {list(found.shape)}")
    check_values(found, "positions")
    for position in found[(found < 0) | (found >= size)][:1].tolist():
        raise ValueError(f"positions must lie in [0, {size}), got {position}")
    return found


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
