"""Losses of the rows of a matrix of similarities that is never held."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fusecomp._core.indices import compare
from fusecomp.losses._row_losses import RowLosses, slices
from fusecomp.types import Similarity


def check_weightless(similarity: Similarity, query: Tensor, target: Tensor) -> None:
    """Raise ValueError on a similarity with weights that learn: they would get no gradient."""
    with torch.enable_grad():
        if compare(similarity, query[:1].detach(), target[:1].detach()).requires_grad:
            raise ValueError(
                "the similarity has weights that learn, which would get no gradient: let all that "
                "learns act on the query, in the fusion's forward"
            )


def similarity_tiles(
    row_losses: RowLosses,
    constants: Tensor | None,
    similarity: Similarity,
    query: Tensor,
    target: Tensor,
    scale: float | Tensor,
    offset: float | Tensor | None,
    learns: Sequence[bool],
) -> tuple[Tensor, *tuple[Tensor | None, ...]]:
    """Compute ``TiledLosses`` of scaled similarities, as ``tiled`` does of cosines.

    The gradients of a tile go through the graph of its similarity, dropped before the next tile.
    """
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
