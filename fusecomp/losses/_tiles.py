"""Losses of the rows of a matrix of scaled cosines that is never held."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusecomp._core.similarity import unit_rows
from fusecomp._core.tensors import widen
from fusecomp.losses._row_losses import RowLosses, TiledLosses, rows_of, slices
from fusecomp.losses._similarity_tiles import check_weightless, similarity_tiles
from fusecomp.types import Similarity


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
            check_weightless(similarity, wide, rows)
            losses_of = partial(similarity_tiles, row_losses, constants, similarity)
        loss: Tensor = _Tiled.apply(  # type: ignore[no-untyped-call]  # torch gives no types
            losses_of, wide, rows, scale, offset
        )
        return loss


class _Tiled(torch.autograd.Function):
    """The mean of losses whose gradients come with them, as constants."""

    @staticmethod
    def forward(
        ctx: Any,
        losses_of: TiledLosses,
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
) -> tuple[Tensor, *tuple[Tensor | None, ...]]:
    """Compute ``TiledLosses`` of scaled cosines."""
    query_learns, target_learns, scale_learns, offset_learns = learns
    unit, length = unit_rows(target)
    width = unit.shape[0] + (0 if constants is None else constants.shape[0])
    tiles = slices(query, width)
    buffer = query.new_empty(tiles[0].stop, width)
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
        for tile in slices(target_grad, target_grad.shape[1]):
            _along_the_sphere(*(rows_of(values, tile) for values in (target_grad, unit, length)))
    return (
        torch.cat(losses),
        query_grad if query_learns else None,
        target_grad,
        torch.cat(scale_slopes).sum() if scale_learns else None,
        torch.cat(offset_slopes).sum() if offset_learns else None,
    )


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
