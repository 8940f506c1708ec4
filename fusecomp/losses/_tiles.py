"""Losses of the rows of a matrix of scaled cosines, or of similarities, that is never held."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusecomp._core.indices import compare
from fusecomp._core.similarity import unit_rows
from fusecomp._core.tensors import widen
from fusecomp.types import Similarity

# The least rows of a tile, and the least logits. Fewer rows slow the products down, more logits
# leave a processor's cache; GPUs want larger products.
_CPU_TILE, _GPU_TILE = (1024, 2**22), (2048, 2**24)

# (logits [T, N], tile, offset) -> (losses [T], slopes [T] or None)
RowLosses = Callable[[Tensor, slice, float | Tensor | None], tuple[Tensor, Tensor | None]]
# The losses [B] of all rows, and the gradients of their sum by query, target, scale and offset,
# None by what does not learn.
_Sums = tuple[Tensor, *tuple[Tensor | None, ...]]


def slices(features: Tensor, width: int, least_rows: int | None = None) -> list[slice]:
    """Split the rows of a batch into tiles of ``width`` columns each."""
    usual_rows, least_logits = _CPU_TILE if features.device.type == "cpu" else _GPU_TILE
    rows = max(usual_rows if least_rows is None else least_rows, least_logits // width)
    batch = features.shape[0]
    return [slice(start, min(start + rows, batch)) for start in range(0, batch, rows)]


def rows_of(features: Tensor, tile: slice) -> Tensor:
    """Return the rows of a tile, which for small batches are all."""
    return features if tile.stop - tile.start == features.shape[0] else features[tile]


def tiled(
    row_losses: RowLosses,
    query: Tensor,
    target: Tensor,
    scale: float | Tensor,
    *,
    constants: Tensor | None = None,
    offset: float | Tensor | None = None,
    similarity: Similarity | None = None,
) -> Tensor:
    """Return the mean of a loss over the rows of ``scale * cosine(query, [target; constants])``.

    A row is complete within its tile, so the gradients are computed in the forward pass, without
    a second product for the logits: ``row_losses`` replaces the logits of the rows ``tile`` in
    place by the gradient of each row's loss; ``slopes`` is the gradient by the offset, which it
    adds to some logits. ``query`` is [B, D], ``target`` [N - M, D]; ``constants`` [M, D] have unit
    length. Query, target, and scale and offset if they are tensors, get gradients. A similarity
    replaces the cosine; its constants are as they are.
    """
    with torch.autocast(query.device.type, enabled=False):
        wide, rows = widen(query), widen(target)
        if constants is not None:
            constants = constants.to(wide.dtype)
        losses_of = partial(_cosine_tiles, row_losses, constants)
        if similarity is not None:
            _check_weightless(similarity, wide, rows)
            losses_of = partial(_similarity_tiles, row_losses, constants, similarity)
        loss: Tensor = _Tiled.apply(  # type: ignore[no-untyped-call]  # torch gives no types
            losses_of, wide, rows, scale, offset
        )
        return loss


class _Tiled(torch.autograd.Function):
    """The mean of losses whose gradients come with them, as constants."""

    @staticmethod
    def forward(
        ctx: Any,
        losses_of: Callable[..., _Sums],
        query: Tensor,
        target: Tensor,
        scale: float | Tensor,
        offset: float | Tensor | None,
    ) -> Tensor:
        losses, *gradients = losses_of(query, target, scale, offset, ctx.needs_input_grad[1:])
        ctx.rows = query.shape[0]
        ctx.save_for_backward(*gradients)
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "this loss has no second derivative: call backward without create_graph=True"
            )
        share = grad / ctx.rows
        return (None, *(None if saved is None else saved * share for saved in ctx.saved_tensors))


def _cosine_tiles(
    row_losses: RowLosses,
    constants: Tensor | None,
    query: Tensor,
    target: Tensor,
    scale: float | Tensor,
    offset: float | Tensor | None,
    learns: Sequence[bool],
) -> _Sums:
    query_learns, target_learns, scale_learns, offset_learns = learns
    unit, length = unit_rows(target)
    tiles, buffer = _tiles(query, unit, constants)
    losses, scale_slopes, offset_slopes = [], [], []
    query_grad = torch.empty_like(query) if query_learns or scale_learns else None
    target_grad = torch.empty_like(target) if target_learns else None
    for tile in tiles:
        unit_query, query_length = unit_rows(rows_of(query, tile))
        scaled = unit_query * scale
        logits, near, far = _score(buffer, scaled, unit, constants)
        values, slopes = row_losses(logits, tile, offset)
        losses.append(values)
        if slopes is not None:
            offset_slopes.append(slopes)
        if query_grad is not None:
            grad = rows_of(query_grad, tile).addmm_(near, unit, beta=0)
            if constants is not None:
                grad.addmm_(far, constants)
            scale_slopes.append(_along_the_sphere(grad, unit_query, query_length * scale))
        if target_grad is not None:
            target_grad.addmm_(near.T, scaled, beta=int(tile.start > 0))
    if target_grad is not None:
        _by_vectors(target_grad, unit, length)
    return (
        torch.cat(losses),
        query_grad if query_learns else None,
        target_grad,
        torch.cat(scale_slopes).sum() if scale_learns else None,
        torch.cat(offset_slopes).sum() if offset_learns else None,
    )


def _tiles(query: Tensor, unit: Tensor, constants: Tensor | None) -> tuple[list[slice], Tensor]:
    """Return the tiles of rows, and room for the logits of one."""
    width = unit.shape[0] + (0 if constants is None else constants.shape[0])
    tiles = slices(query, width)
    return tiles, query.new_empty(tiles[0].stop, width)


def _score(
    buffer: Tensor, scaled: Tensor, unit: Tensor, constants: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute a tile of logits; return all, those of the targets, and those of the constants."""
    logits = rows_of(buffer, slice(0, scaled.shape[0]))
    if constants is None:
        logits.addmm_(scaled, unit.T, beta=0)
        return logits, logits, logits
    near, far = logits[:, : len(unit)], logits[:, len(unit) :]
    near.addmm_(scaled, unit.T, beta=0)
    far.addmm_(scaled, constants.T, beta=0)
    return logits, near, far


def _along_the_sphere(grad: Tensor, unit: Tensor, length: Tensor) -> Tensor:
    """Turn gradients by unit vectors into those by vectors, in place; return those by length."""
    away = (grad * unit).sum(dim=1, keepdim=True)
    grad.addcmul_(unit, away, value=-1).mul_(length)
    return away


def _by_vectors(grad: Tensor, unit: Tensor, length: Tensor) -> None:
    """Turn the whole gradient by unit vectors into the gradient by the vectors, in tiles."""
    for tile in slices(grad, grad.shape[1]):
        _along_the_sphere(*(rows_of(values, tile) for values in (grad, unit, length)))


def _check_weightless(similarity: Similarity, query: Tensor, target: Tensor) -> None:
    """Raise ValueError on a similarity with weights that learn: they would get no gradient."""
    with torch.enable_grad():
        if compare(similarity, query[:1].detach(), target[:1].detach()).requires_grad:
            raise ValueError(
                "the similarity has weights that learn, which would get no gradient: let all that "
                "learns act on the query, in the fusion's forward"
            )


def _similarity_tiles(
    row_losses: RowLosses,
    constants: Tensor | None,
    similarity: Similarity,
    query: Tensor,
    target: Tensor,
    scale: float | Tensor,
    offset: float | Tensor | None,
    learns: Sequence[bool],
) -> _Sums:
    """Send the gradients of a tile through the graph of its similarity, one graph at a time."""
    query_learns, target_learns, scale_learns, offset_learns = learns
    losses, scale_slopes, offset_slopes = (query.new_zeros(len(query)) for _ in range(3))
    query_grad, target_grad = torch.zeros_like(query), torch.zeros_like(target)
    for tile in slices(query, len(target) + (0 if constants is None else len(constants))):
        rows = query[tile].detach().requires_grad_(query_learns)
        images = target.detach().requires_grad_(target_learns)
        with torch.enable_grad():
            scores = compare(similarity, rows, images)
            if constants is not None:
                # Apart, so that nothing computes their gradient.
                scores = torch.cat((scores, compare(similarity, rows, constants)), dim=1)
        logits = scores.detach() * scale
        losses[tile], slopes = row_losses(logits, tile, offset)
        if slopes is not None:
            offset_slopes[tile] = slopes
        scale_slopes[tile] = (logits * scores.detach()).sum(dim=1)
        ends = (rows, query_grad[tile]), (images, target_grad)
        learning = [(part, total) for part, total in ends if part.requires_grad]
        if learning and scores.requires_grad:
            parts, totals = zip(*learning, strict=True)
            found = torch.autograd.grad(scores, parts, logits * scale, materialize_grads=True)
            for total, gradient in zip(totals, found, strict=True):
                total += gradient
    return (
        losses,
        query_grad if query_learns else None,
        target_grad if target_learns else None,
        scale_slopes.sum() if scale_learns else None,
        offset_slopes.sum() if offset_learns else None,
    )
