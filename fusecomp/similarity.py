"""Unit length and cosine, defined once for fusions, losses, search and evaluation."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["cosine", "normalize"]

# Shorter rows have no direction to speak of.
_SMALLEST_NORM = 1e-6
# Rows whose values are looked at at once.
_PIECE = 65536


def normalize(features: Tensor) -> Tensor:
    """Scale each row to unit length.

    The norm is computed in float32 at least, also where squares overflow. Rows shorter than 1e-6
    become zero and get a gradient of zero.

    Args:
        features: [..., D], a floating dtype.

    Shape:
        [..., D], the dtype of the input.

    Raises:
        TypeError: on what is no torch tensor.
        ValueError: on a dtype that is not floating.

    Example:
        >>> normalize(torch.tensor([[3.0, 4.0]]))
        tensor([[0.6000, 0.8000]])
    """
    unit, _ = unit_rows(widen(features))
    return unit.to(features.dtype)


def unit_rows(wide: Tensor) -> tuple[Tensor, Tensor]:
    """The rows [..., D] at unit length, and by what [..., 1] they were multiplied."""
    norm: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    factor = torch.ones_like(norm)
    if _may_overflow(norm):
        # A power of two, so that no digit is lost: it takes the largest norm that overflows as
        # well as the smallest far into the range.
        down = 2.0**-16 * torch.finfo(wide.dtype).tiny ** 0.5
        factor = torch.where(norm == torch.inf, down, factor)
        wide = wide * factor
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    # Dividing by infinity gives such rows a gradient of zero, which half precision can hold too.
    length = torch.where(norm > _SMALLEST_NORM, norm, torch.inf)
    return wide / length, factor / length


def _may_overflow(norm: Tensor) -> bool:
    # Asking a GPU waits for it, and a compiled graph cannot ask: there one pass more costs less.
    if torch.compiler.is_compiling() or norm.device.type != "cpu":
        return True
    try:
        return bool((norm == torch.inf).any())
    except RuntimeError:  # vmap cannot ask either
        return True


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of every row of a with every row of b.

    Args:
        a: [Q, D].
        b: [N, D].

    Shape:
        [Q, N], float32 at least.

    Raises:
        TypeError: on what is no torch tensor.
        ValueError: on a dtype that is not floating.

    Example:
        >>> cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 1.0]]))
        tensor([[1., 0.]])
    """
    a, b = widen(a), widen(b)
    with torch.autocast(a.device.type, enabled=False):
        return normalize(a) @ normalize(b).T


def widen(features: Tensor) -> Tensor:
    """The features in float32 at least: half types widen, float32 and float64 stay."""
    check_tensor(features, "features")
    if not features.is_floating_point():
        raise ValueError(f"features must have a floating dtype, got {features.dtype}")
    if features.dtype in (torch.float16, torch.bfloat16):
        return features.float()
    return features


def non_finite_rows(features: Tensor) -> list[int]:
    """The rows of [N, D] that hold NaN or infinity."""
    bad = []
    # In pieces, so that memory-mapped features larger than memory pass.
    for number, piece in enumerate(features.split(_PIECE)):
        # A finite sum has finite terms: one fast pass settles the usual case.
        total = piece.sum(dtype=torch.promote_types(piece.dtype, torch.float32))
        if not total.isfinite():
            rows = (~piece.isfinite().all(dim=1)).nonzero().flatten()
            bad += (rows + number * _PIECE).tolist()
    return bad


def check_tensor(value: Any, name: str) -> None:
    """Raise TypeError unless the value is a torch tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be a torch tensor, got {type(value).__name__}; torch.from_numpy(...) "
            "makes one of a NumPy array"
        )


def check_pair(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Raise ValueError unless a and b are two [B, D] tensors of one floating dtype, B >= 1.

    What is no tensor at all raises TypeError.
    """
    for tensor, name in zip((a, b), names, strict=True):
        check_tensor(tensor, name)
        if tensor.ndim != 2 or tensor.shape[0] == 0 or tensor.shape[1] == 0:
            raise ValueError(f"{name} must be [B, D] and not empty, got {list(tensor.shape)}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must have a floating dtype, got {tensor.dtype}")
    if a.shape != b.shape:
        raise ValueError(
            f"{names[0]} {list(a.shape)} and {names[1]} {list(b.shape)} must have the same shape"
        )
    if a.dtype != b.dtype:
        raise ValueError(
            f"{names[0]} is {a.dtype} and {names[1]} is {b.dtype}: bring both to one dtype"
        )


def check_search(query: Tensor, gallery: Tensor) -> None:
    """Raise ValueError unless these are finite [Q, D] and [N, D] of one dtype on one device."""
    for name, features in (("query", query), ("gallery", gallery)):
        check_tensor(features, name)
        if features.ndim != 2 or features.numel() == 0:
            raise ValueError(f"{name} must be [rows, D], not empty; got {list(features.shape)}")
        if not features.is_floating_point():
            raise ValueError(f"{name} must have a floating dtype, got {features.dtype}")
        bad = non_finite_rows(features)
        if bad:
            raise ValueError(f"{name} row {bad[0]} holds NaN or infinity")
    for what in ("dtype", "device"):
        if getattr(query, what) != getattr(gallery, what):
            raise ValueError(
                f"query and gallery must share one {what}, got {getattr(query, what)} and "
                f"{getattr(gallery, what)}"
            )
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query {list(query.shape)} and gallery {list(gallery.shape)} differ in width"
        )


def check_indices(name: str, indices: Tensor, rows: int, size: int, least: int = -1) -> None:
    """Raise ValueError unless these are int64 [rows] or [rows, M], from ``least`` to below size."""
    check_tensor(indices, name)
    if indices.dtype != torch.int64:
        raise ValueError(f"{name} must be int64, got {indices.dtype}")
    if indices.ndim not in (1, 2) or len(indices) != rows:
        raise ValueError(f"{name} must be [{rows}] or [{rows}, M], got {list(indices.shape)}")
    if indices.numel() == 0:
        return
    low, high = int(indices.min()), int(indices.max())
    if low < least or high >= size:
        raise ValueError(f"{name} must lie in [{least}, {size}), got {low} to {high}")


def check_targets(targets: Tensor, rows: int, size: int, least: int = -1) -> None:
    """As ``check_indices``, one for each row."""
    check_indices("targets", targets, rows, size, least)
    if targets.ndim != 1:
        raise ValueError(f"targets must be [Q], got {list(targets.shape)}")


def index_pairs(indices: Tensor) -> tuple[Tensor, Tensor]:
    """The (row, gallery index) pairs of a padded [B] or [B, M] tensor."""
    indices = as_columns(indices)
    row, column = (indices >= 0).nonzero(as_tuple=True)
    return row, indices[row, column]


def as_columns(indices: Tensor) -> Tensor:
    """Indices [B] as [B, 1]; [B, M] stay."""
    return indices.unsqueeze(1) if indices.ndim == 1 else indices
