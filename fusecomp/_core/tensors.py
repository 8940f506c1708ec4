"""Tensors as arguments: features, and indices into them; a check for each, naming the argument."""

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "FLOATING",
    "as_columns",
    "check_alike",
    "check_features",
    "check_finite",
    "check_floating",
    "check_indices",
    "check_pair",
    "check_search",
    "check_targets",
    "check_tensor",
    "check_values",
    "check_widths",
    "index_pairs",
    "non_finite_rows",
    "widen",
]

# The dtypes that features may have; narrower ones cannot be computed in.
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Rows whose values are looked at at once.
_PIECE = 65536


def widen(features: Tensor, name: str = "features") -> Tensor:
    """Return the features in float32 at least: half types widen, float32 and float64 stay."""
    check_floating(features, name)
    if features.dtype in (torch.float16, torch.bfloat16):
        return features.float()
    return features


def non_finite_rows(features: Tensor) -> list[int]:
    """Return the rows of [N, D] that hold NaN or infinity."""
    bad = []
    # In pieces, so that memory-mapped features larger than memory pass.
    for number, piece in enumerate(features.split(_PIECE)):
        # A finite sum has finite terms: one fast pass settles the usual case.
        total = piece.sum(dtype=torch.promote_types(piece.dtype, torch.float32))
        if not total.isfinite():
            rows = (~piece.isfinite().all(dim=1)).nonzero().flatten()
            bad += (rows + number * _PIECE).tolist()
    return bad


def check_tensor(value: object, name: str) -> Tensor:
    """Return a dense torch tensor; TypeError on no tensor, ValueError on another layout."""
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
    return value


def check_values(tensor: Tensor, name: str) -> None:
    """Raise ValueError on a tensor that has no values to look at."""
    if tensor.is_meta:
        raise ValueError(f"{name} is on the device meta and holds no values: make it on another")


def check_floating(value: object, name: str) -> Tensor:
    """Return a dense tensor of a dtype that can be computed in; ValueError on another dtype."""
    tensor = check_tensor(value, name)
    if tensor.dtype not in FLOATING:
        raise ValueError(
            f"{name} must have a floating dtype, got {tensor.dtype}; .float() makes it one of "
            "float16, bfloat16, float32 and float64"
        )
    return tensor


def check_features(value: object, name: str, shape: str = "[B, D]") -> Tensor:
    """Return features: two axes, neither empty, of a floating dtype; ValueError on others."""
    features = check_tensor(value, name)
    if features.ndim != 2 or features.shape[0] == 0 or features.shape[1] == 0:
        raise ValueError(f"{name} must be {shape} and not empty, got {list(features.shape)}")
    return check_floating(features, name)


def check_finite(features: Tensor, name: str) -> None:
    """Raise ValueError that names the first row of [N, D] with NaN or infinity."""
    check_values(features, name)
    for row in non_finite_rows(features)[:1]:
        raise ValueError(f"{name} row {row} holds NaN or infinity")


def check_alike(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Raise ValueError unless both are of one dtype and on one device."""
    for kind, one, other in (("dtype", a.dtype, b.dtype), ("device", a.device, b.device)):
        if one != other:
            raise ValueError(
                f"{names[0]} is {one} and {names[1]} is {other}: bring both to one {kind}"
            )


def check_pair(a: object, b: object, names: tuple[str, str]) -> None:
    """Raise ValueError unless a and b are features [B, D] of one dtype on one device.

    What is no tensor at all raises TypeError.
    """
    one, other = check_features(a, names[0]), check_features(b, names[1])
    if one.shape != other.shape:
        raise ValueError(
            f"{names[0]} {list(one.shape)} and {names[1]} {list(other.shape)} must have the same "
            "shape"
        )
    check_alike(one, other, names)


def check_search(query: object, gallery: object) -> None:
    """Raise ValueError unless these are finite [Q, D] and [N, D] of one dtype on one device."""
    names = "query", "gallery"
    queries, rows = (
        check_features(value, name, "[rows, D]")
        for value, name in zip((query, gallery), names, strict=True)
    )
    check_finite(queries, "query")
    check_finite(rows, "gallery")
    check_alike(queries, rows, names)
    check_widths(queries, rows, names)


def check_widths(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Raise ValueError unless both have equally many columns."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{names[0]} {list(a.shape)} and {names[1]} {list(b.shape)} differ in width"
        )


def check_indices(
    name: str, value: object, query: Tensor, gallery: Tensor, least: int = -1
) -> Tensor:
    """Return indices into a gallery, on the query's device.

    Raises:
        TypeError: on what is no torch tensor.
        ValueError: unless they are int64 [Q] or [Q, M], from ``least`` to below N.
    """
    indices = check_tensor(value, name)
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
