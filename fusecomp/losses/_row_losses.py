"""The seam of tiled losses: what computes the losses of some rows, and how rows are split."""

from collections.abc import Callable, Sequence

from torch import Tensor

# The least rows of a tile, and the least logits. Fewer rows slow the products down, more logits
# leave a processor's cache; GPUs want larger products.
_CPU_TILE, _GPU_TILE = (1024, 2**22), (2048, 2**24)

# (logits [T, N], tile, offset) -> (losses [T], slopes [T] or None)
RowLosses = Callable[[Tensor, slice, float | Tensor | None], tuple[Tensor, Tensor | None]]
# (query, target, scale, offset, which of these learn) -> the losses [B] of all rows, and the
# gradients of their sum by each that learns, else None
TiledLosses = Callable[
    [Tensor, Tensor, float | Tensor, float | Tensor | None, Sequence[bool]],
    tuple[Tensor, *tuple[Tensor | None, ...]],
]


def slices(features: Tensor, width: int, least_rows: int | None = None) -> list[slice]:
    """Split the rows of a batch into tiles of ``width`` columns each."""
    usual_rows, least_logits = _CPU_TILE if features.device.type == "cpu" else _GPU_TILE
    rows = max(usual_rows if least_rows is None else least_rows, least_logits // width)
    batch = features.shape[0]
    return [slice(start, min(start + rows, batch)) for start in range(0, batch, rows)]


def rows_of(features: Tensor, tile: slice) -> Tensor:
    """Return the rows of a tile, which for small batches are all."""
    return features if tile.stop - tile.start == features.shape[0] else features[tile]
