"""Losses of the rows of a matrix of similarities that is never held."""

from typing import Any

import torch
from torch import Tensor

from fusecomp._core.indices import check_scores
from fusecomp.losses._row_losses import RowLosses, refuse_second_derivative, slices
from fusecomp.types import Similarity


class SimilarityTiles(torch.autograd.Function):
    """Mean of a loss over the rows of ``scale * similarity(query, target)``.

    As in ``tiled``, a tile of rows is complete, so its gradients are computed at once: through the
    graph of the tile's similarity, which is dropped before the next tile.
    """

    @staticmethod
    def forward(
        ctx: Any,
        row_losses: RowLosses,
        similarity: Similarity,
        query: Tensor,
        target: Tensor,
        scale: float | Tensor,
        offset: float | Tensor | None,
    ) -> Tensor:
        _, _, query_learns, target_learns, scale_learns, offset_learns = ctx.needs_input_grad
        losses, scale_slopes, offset_slopes = (query.new_zeros(len(query)) for _ in range(3))
        query_grad = torch.zeros_like(query) if query_learns else None
        target_grad = torch.zeros_like(target) if target_learns else None
        for tile in slices(query, len(target)):
            rows, images = query[tile].detach(), target.detach()
            rows.requires_grad_(query_learns)
            images.requires_grad_(target_learns)
            with torch.enable_grad():
                scores = check_scores(similarity(rows, images), rows, images)
            logits = scores.detach() * scale
            losses[tile], slopes = row_losses(logits, tile, offset)
            if slopes is not None:
                offset_slopes[tile] = slopes
            scale_slopes[tile] = (logits * scores.detach()).sum(dim=1)
            learning = [part for part in (rows, images) if part.requires_grad]
            if learning and scores.requires_grad:
                found = torch.autograd.grad(scores, learning, logits * scale, allow_unused=True)
                gradients = dict(zip(map(id, learning), found, strict=True))
                if query_grad is not None and (part := gradients[id(rows)]) is not None:
                    query_grad[tile] = part
                if target_grad is not None and (part := gradients[id(images)]) is not None:
                    target_grad += part
        ctx.rows = len(query)
        ctx.save_for_backward(
            query_grad,
            target_grad,
            scale_slopes.sum() if scale_learns else None,
            offset_slopes.sum() if offset_learns else None,
        )
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        share = grad / ctx.rows
        gradients = [None if saved is None else saved * share for saved in ctx.saved_tensors]
        return (None, None, *gradients)
