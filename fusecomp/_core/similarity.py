"""Unit length and cosine, defined once for fusions, losses, search and evaluation."""

import math

import torch
from torch import Tensor
from torch.nn.functional import threshold

from fusecomp._core.tensors import check_alike, check_features, check_widths, widen

# Shorter rows have no direction to speak of.
SMALLEST_NORM = 1e-6


def normalize(features: Tensor) -> Tensor:
    """Scale each row [..., D] to unit length; rows shorter than 1e-6 become zero."""
    unit, _ = unit_rows(widen(features))
    return unit.to(features.dtype)


def unit_rows(wide: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows [..., D] at unit length, and by what [..., 1] they were multiplied."""
    norm: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    if not _may_overflow(norm):
        length = _length(norm)
        return wide / length, length.reciprocal()
    # A power of two, so that no digit is lost: it takes the largest norm that overflows as well
    # as the smallest far into the range.
    down = 2.0**-16 * torch.finfo(wide.dtype).tiny ** 0.5
    factor = torch.where(norm == torch.inf, down, torch.ones_like(norm))
    wide = wide * factor
    length = _length(torch.linalg.vector_norm(wide, dim=-1, keepdim=True))
    return wide / length, factor / length


def _length(norm: Tensor) -> Tensor:
    # Dividing by infinity gives such rows a gradient of zero, which half precision can hold too.
    return threshold(norm, SMALLEST_NORM, torch.inf)


def _may_overflow(norm: Tensor) -> bool:
    # Asking a GPU waits for it, and a compiled graph cannot ask: there one pass more costs less.
    if torch.compiler.is_compiling() or norm.device.type != "cpu":
        return True
    try:
        # A sum that is finite has finite terms.
        return not math.isfinite(norm.sum().item())
    except RuntimeError:  # vmap cannot ask either
        return True


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine [Q, N] of every row of a [Q, D] with every row of b [N, D]."""
    a = widen(check_features(a, "a", "[rows, D]"))
    b = widen(check_features(b, "b", "[rows, D]"))
    check_alike(a, b, ("a", "b"))
    check_widths(a, b, ("a", "b"))
    with torch.autocast(a.device.type, enabled=False):
        return normalize(a) @ normalize(b).T
