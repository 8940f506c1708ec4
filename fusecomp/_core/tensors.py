"""Arguments that are tensors: a check for each kind, which names the argument and its value."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusecomp._core.checks import shown

# Features as users have them, where they enter.
Array = Tensor | NDArray[np.generic]

# The dtypes that features may have; narrower ones cannot be computed in.
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Rows whose values are looked at at once.
_PIECE = 65536


def widen(features: Tensor, name: str = "features") -> Tensor:
    """Return the features in float32 at least: half types widen, float32 and float64 stay."""
    check_floating(features, name)
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features


def average_rows(features: Tensor, counts: Tensor) -> Tensor:
    """Average features [N, D] by rows [B, D], int64 counts [B] of them in each, in order."""
    counts = counts.to(features.device)
    rows = rows_of(counts)
    total = features.new_zeros(len(counts), features.shape[1]).index_add(0, rows, features)
    return total / counts.unsqueeze(1)


def rows_of(counts: Tensor) -> Tensor:
    """Return the row of each of N members, int64 [N], where counts [B] say how many a row has."""
    return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)


def raw_bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """Return the bytes of a dense tensor's values, in order."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    array: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return array


def non_finite_rows(features: Tensor) -> list[int]:
    """Return the rows of [N, D] that hold NaN or infinity."""
    bad = []
    # In pieces, so that memory-mapped features larger than memory pass.
    for number, piece in enumerate(features.split(_PIECE)):
        # A finite sum has finite terms: one fast pass settles the usual case.
        total = piece.sum(dtype=torch.promote_types(piece.dtype, torch.float32))
        if not math.isfinite(total.item()):
            rows = (~piece.isfinite().all(dim=1)).nonzero().flatten()
            bad += (rows + number * _PIECE).tolist()
    return bad


def check_tensor(value: object, name: str) -> Tensor:
    """Return a dense torch tensor; TypeError on no tensor, ValueError on another layout."""
    if not isinstance(value, Tensor):
        way_out = ""
        if isinstance(value, np.ma.MaskedArray):
            way_out = ", whose gaps would count: fill or drop them"
        elif isinstance(value, np.ndarray):
            cast = ".float()" if value.dtype.kind == "f" else ""
            way_out = f"; torch.from_numpy(...){cast} makes one of a NumPy array"
        elif isinstance(value, list | tuple):
            way_out = "; torch.tensor(...) makes one of numbers"
        raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}{way_out}")
    if value.layout != torch.strided or value.is_nested:
        kind = "a nested tensor" if value.is_nested else value.layout
        raise ValueError(f"{name} must be dense, got {kind}; .to_dense() makes a sparse one so")
    return value


def as_tensor(value: object) -> Tensor:
    """Return a NumPy array as a tensor of its dtype; whatever else for a check to look at.

    Memory is shared where it is writable and in an order that torch has.
    """
    gaps = isinstance(value, np.ma.MaskedArray)  # which would count as numbers
    if isinstance(value, np.ndarray) and not gaps and value.dtype.kind in "fiu":
        value = torch.from_numpy(_native(value))
    tensor: Tensor = value  # type: ignore[assignment]
    return tensor


def _native(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the array as torch takes it: in this machine's byte order, rows going forward."""
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype("f8")  # torch has no long doubles
    array = array.astype(dtype, copy=False)
    # Torch warns of memory that must not be written.
    plain = array.flags.writeable and min(array.strides, default=0) >= 0
    return array if plain else array.copy()


def check_values(tensor: Tensor, name: str) -> None:
    """Raise ValueError on a tensor that has no values to look at."""
    if tensor.is_meta:
        raise ValueError(f"{name} is on the device meta and holds no values: make it on another")


def check_dtype(dtype: object) -> None:
    """Raise ValueError unless a dtype, or none, is given that can be computed in."""
    if dtype is not None and dtype not in FLOATING:
        valid = ", ".join(map(str, FLOATING))
        raise ValueError(f"dtype must be floating, one of {valid}; got {shown(dtype)}")


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


def check_row(value: object, name: str, shape: str) -> Tensor:
    """Return features of one row, all finite; ValueError on others."""
    features = check_features(value, name, shape)
    if len(features) > 1:
        raise ValueError(f"{name} must be {shape}, one row, got {list(features.shape)}")
    check_finite(features, name)
    return features


def check_alike(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Raise ValueError unless both are of one dtype and on one device."""
    for kind, one, other in (("dtype", a.dtype, b.dtype), ("device", a.device, b.device)):
        if one != other:
            way_out = ", such as float32 by .float()" if kind == "dtype" else ""
            raise ValueError(
                f"{names[0]} is {one} and {names[1]} is {other}: bring both to one {kind}{way_out}"
            )


def check_pair(a: object, b: object, names: tuple[str, str], one_width: bool = True) -> None:
    """Raise ValueError unless a and b are features of as many rows, of one dtype on one device."""
    one, other = check_features(a, names[0]), check_features(b, names[1])
    if len(one) != len(other) or (one_width and one.shape != other.shape):
        problem = "must have the same shape" if one_width else "differ in rows"
        raise ValueError(
            f"{names[0]} {list(one.shape)} and {names[1]} {list(other.shape)} {problem}"
        )
    check_alike(one, other, names)


def check_widths(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    """Raise ValueError unless both have equally many columns."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{names[0]} {list(a.shape)} and {names[1]} {list(b.shape)} differ in width"
        )


def check_text_counts(counts: object, rows: int, texts: int) -> None:
    """Raise ValueError unless these are int64 [rows], each 1 at least, and sum to the texts."""
    tensor = check_int64("text_counts", counts, rows, "rows")
    check_values(tensor, "text_counts")
    given = tensor.tolist()
    if min(given) < 1:
        raise ValueError(f"text_counts must be 1 at least, as every row has a text; got {given}")
    if sum(given) != texts:
        raise ValueError(f"text_counts sum to {sum(given)}, but there are {texts} texts")


def check_int64(name: str, value: object, rows: int, of: str) -> Tensor:
    """Return int64 [rows], a number for each of some things; ValueError on anything else."""
    tensor = check_tensor(value, name)
    if tensor.dtype != torch.int64 or tensor.shape != (rows,):
        raise ValueError(
            f"{name} must be int64 [{rows}], as there are {rows} {of}, "
            f"got {tensor.dtype} {list(tensor.shape)}"
        )
    return tensor
