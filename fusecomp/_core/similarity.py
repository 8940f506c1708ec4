"""Unit length and cosine, defined once for fusions, losses, search and evaluation."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["cosine", "normalize"]

# Shorter rows have no direction to speak of.
_SMALLEST_NORM = 1e-6
# The dtypes that features may have; narrower ones cannot be computed in.
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
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
        ValueError: on a dtype that is not floating, or unless a and b are rows of one width, of one
            dtype (half types count as float32) and on one device.

    Example:
        >>> cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 1.0]]))
        tensor([[1., 0.]])
    """
    names = "a", "b"
    for features, name in zip((a, b), names, strict=True):
        check_features(features, name, "[rows, D]")
    a, b = widen(a), widen(b)
    check_alike(a, b, names)
    check_widths(a, b, names)
    with torch.autocast(a.device.type, enabled=False):
        return normalize(a) @ normalize(b).T


def widen(features: Tensor, name: str = "features") -> Tensor:
    """The features in float32 at least: half types widen, float32 and float64 stay."""
    check_floating(features, name)
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
    """Raise TypeError unless the value is a torch tensor, ValueError unless it is dense."""
    if not isinstance(value, Tensor):
        way_out = ""
        if isinstance(value, np.ndarray):
            way_out = "; torch.from_numpy(...) makes one of a NumPy array"
        elif isinstance(value, list | tuple):
            way_out = "; torch.tensor(...) makes one of numbers"
        raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}{way_out}")
    if value.layout != torch.strided or value.is_nested:
        kind = "a nested tensor" if value.is_nested else value.layout
        raise ValueError(f"{name} must be dense, got {kind}; .to_dense() makes a sparse one so")


def check_values(tensor: Tensor, name: str) -> None:
    """Raise ValueError on a tensor that has no values to look at."""
    if tensor.is_meta:
        raise ValueError(f"{name} is on the device meta and holds no values: make it on another")


def check_floating(value: Any, name: str) -> None:
    """Do ``check_tensor``; raise ValueError also on a dtype that nothing can be computed in."""
    check_tensor(value, name)
    if value.dtype not in FLOATING:
        raise ValueError(
            f"{name} must have a floating dtype, got {value.dtype}; .float() makes it one of "
            "float16, bfloat16, float32 and float64"
        )


def check_features(features: Any, name: str, shape: str = "[B, D]") -> None:
    """Do ``check_floating``; raise ValueError also unless these are rows of features."""
    check_tensor(features, name)
    if features.ndim != 2 or features.shape[0] == 0 or features.shape[1] == 0:
        raise ValueError(f"{name} must be {shape} and not empty, got {list(features.shape)}")
    check_floating(features, name)


def check_finite(features: Tensor, name: str) -> None:
    """Raise ValueError that names the first row of [N, D] with NaN or infinity."""
    check_values(features, name)
    for row in non_finite_rows(features)[:1]:
        raise ValueError(f"{name} row {row} holds NaN or infinity")


def check_alike(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Raise ValueError unless both are of one dtype and on one device."""
    for what in ("dtype", "device"):
        one, other = getattr(a, what), getattr(b, what)
        if one != other:
            raise ValueError(
                f"{names[0]} is {one} and {names[1]} is {other}: bring both to one {what}"
            )


def check_pair(a: Any, b: Any, names: tuple[str, str]) -> None:
    """Raise ValueError unless a and b are two [B, D] tensors of one dtype and device, B >= 1.

    What is no tensor at all raises TypeError.
    """
    check_features(a, names[0])
    check_features(b, names[1])
    if a.shape != b.shape:
        raise ValueError(
            f"{names[0]} {list(a.shape)} and {names[1]} {list(b.shape)} must have the same shape"
        )
    check_alike(a, b, names)


def check_search(query: Any, gallery: Any) -> None:
    """Raise ValueError unless these are finite [Q, D] and [N, D] of one dtype on one device."""
    for name, features in (("query", query), ("gallery", gallery)):
        check_features(features, name, "[rows, D]")
        check_finite(features, name)
    check_alike(query, gallery, ("query", "gallery"))
    check_widths(query, gallery, ("query", "gallery"))


def check_widths(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Raise ValueError unless both have as many columns."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{names[0]} {list(a.shape)} and {names[1]} {list(b.shape)} differ in width"
        )


def check_indices(
    name: str, indices: Any, query: Tensor, gallery: Tensor, least: int = -1
) -> Tensor:
    """The indices, on the query's device.

    Raises:
        TypeError: on what is no torch tensor.
        ValueError: unless they are int64 [Q] or [Q, M], from ``least`` to below N.
    """
    check_tensor(indices, name)
    rows, size = len(query), len(gallery)
    if indices.dtype != torch.int64:
        raise ValueError(f"{name} must be int64, got {indices.dtype}")
    if indices.ndim not in (1, 2) or len(indices) != rows:
        raise ValueError(f"{name} must be [{rows}] or [{rows}, M], got {list(indices.shape)}")
    check_values(indices, name)
    if indices.numel() > 0:
        low, high = int(indices.min()), int(indices.max())
        if low < least or high >= size:
            raise ValueError(f"{name} must lie in [{least}, {size}), got {low} to {high}")
    moved: Tensor = indices.to(query.device)
    return moved


def check_targets(targets: Any, query: Tensor, gallery: Tensor, least: int = -1) -> Tensor:
    """Do ``check_indices``; raise ValueError also unless they are [Q], one for each query."""
    moved = check_indices("targets", targets, query, gallery, least)
    if moved.ndim != 1:
        raise ValueError(f"targets must be [Q], got {list(moved.shape)}")
    return moved


def index_pairs(indices: Tensor) -> tuple[Tensor, Tensor]:
    """The (row, gallery index) pairs of a padded [B] or [B, M] tensor."""
    indices = as_columns(indices)
    row, column = (indices >= 0).nonzero(as_tuple=True)
    return row, indices[row, column]


def as_columns(indices: Tensor) -> Tensor:
    """Indices [B] as [B, 1]; [B, M] stay."""
    return indices.unsqueeze(1) if indices.ndim == 1 else indices
