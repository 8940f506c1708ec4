"""Losses of the rows of a matrix of scaled cosines that is never held."""

from typing import Any

import torch
from torch import Tensor

from fusecomp._core.similarity import unit_rows
from fusecomp._core.tensors import widen
from fusecomp.losses._row_losses import RowLosses, refuse_second_derivative, rows_of, slices
from fusecomp.losses._similarity_tiles import similarity_tiles
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
        if similarity is not None:
            return similarity_tiles(row_losses, similarity, wide, rows, scale, offset, constants)
        loss: Tensor = _Tiled.apply(  # type: ignore[no-untyped-call]  # torch gives no types
            row_losses, wide, rows, scale, offset, constants
        )
        return loss


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        row_losses: RowLosses,
        query: Tensor,
        target: Tensor,
        scale: float | Tensor,
        offset: float | Tensor | None,
        constants: Tensor | None,
    ) -> Tensor:
        _, query_learns, target_learns, scale_learns, offset_learns, _ = ctx.needs_input_grad
        unit, length = unit_rows(target)
        tiles, buffer = _tiles(query, unit, constants)
        losses: list[Tensor] = []
        scale_slopes: list[Tensor] = []
        offset_slopes: list[Tensor] = []
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
                grad = _add_up(rows_of(query_grad, tile), near, far, unit, constants)
                scale_slopes.append(_along_the_sphere(grad, unit_query, query_length * scale))
            if target_grad is not None:
                target_grad.addmm_(near.T, scaled, beta=int(tile.start > 0))
        if target_grad is not None:
            _by_vectors(target_grad, unit, length)
        ctx.rows = query.shape[0]
        ctx.save_for_backward(
            query_grad if query_learns else None,
            target_grad,
            torch.cat(scale_slopes).sum() if scale_learns else None,
            torch.cat(offset_slopes).sum() if offset_learns else None,
        )
        return torch.cat(losses).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        share = grad / ctx.rows
        gradients = [None if saved is None else saved * share for saved in ctx.saved_tensors]
        return (None, *gradients, None)


def _tiles(query: Tensor, unit: Tensor, constants: Tensor | None) -> tuple[list[slice], Tensor]:
    """Return the tiles of rows, and room for the logits of one."""
    width = unit.shape[0] + (0 if constants is None else constants.shape[0])
    tiles = slices(query, width)
    return tiles, query.new_empty(tiles[0].stop, width)


def _along_the_sphere(grad: Tensor, unit: Tensor, length: Tensor) -> Tensor:
    """Turn gradients by unit vectors into those by vectors, in place; return those by length."""
    away = (grad * unit).sum(dim=1, keepdim=True)
    grad.addcmul_(unit, away, value=-1).mul_(length)
    return away


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


def _add_up(
    grad: Tensor, near: Tensor, far: Tensor, unit: Tensor, constants: Tensor | None
) -> Tensor:
    """Fill the gradient by a tile's unit queries, from the gradient by its logits."""
    grad.addmm_(near, unit, beta=0)
    return grad if constants is None else grad.addmm_(far, constants)


def _by_vectors(grad: Tensor, unit: Tensor, length: Tensor) -> None:
    """Turn the whole gradient by unit vectors into the gradient by the vectors, in tiles."""
    for tile in slices(grad, grad.shape[1]):
        _along_the_sphere(*(rows_of(values, tile) for values in (grad, unit, length)))
