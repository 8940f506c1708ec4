"""Losses of the rows of a matrix of similarities that is never held."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fusecomp._core.indices import compare
from fusecomp.losses._row_losses import RowLosses, refuse_second_derivative, slices
from fusecomp.types import Similarity


def similarity_tiles(
    row_losses: RowLosses,
    similarity: Similarity,
    query: Tensor,
    target: Tensor,
    scale: float | Tensor,
    offset: float | Tensor | None,
    constants: Tensor | None,
) -> Tensor:
    """Return the mean of a loss over the rows of scaled similarities with target and constants.

    As in ``tiled``, a tile of rows is complete, so its gradients are computed at once: through the
    graph of the tile's similarity, which is dropped before the next tile. Weights of the
    similarity itself would get none, and are refused.
    """
    one = _score(similarity, query[:1], target[:1], None, (False, False)).scores
    if one.requires_grad:
        raise ValueError(
            "the similarity has weights that learn, which would get no gradient: let all that "
            "learns act on the query, in the fusion's forward"
        )
    loss: Tensor = _Tiles.apply(  # type: ignore[no-untyped-call]  # torch gives no types
        row_losses, similarity, query, target, scale, offset, constants
    )
    return loss


class _Scores(NamedTuple):
    """Scores [T, N] of a tile, with the graph to the parts that they were computed of."""

    query: Tensor
    target: Tensor
    scores: Tensor

    def gradients(self, by_scores: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients by query and target; None by a part that does not learn."""
        parts = [part for part in (self.query, self.target) if part.requires_grad]
        if not parts or not self.scores.requires_grad:
            return None, None
        found = torch.autograd.grad(self.scores, parts, by_scores, allow_unused=True)
        known = dict(zip(map(id, parts), found, strict=True))
        return known.get(id(self.query)), known.get(id(self.target))


def _score(
    similarity: Similarity,
    query: Tensor,
    target: Tensor,
    constants: Tensor | None,
    learns: tuple[bool, bool],
) -> _Scores:
    rows = query.detach().requires_grad_(learns[0])
    images = target.detach().requires_grad_(learns[1])
    with torch.enable_grad():
        scores = compare(similarity, rows, images)
        if constants is not None:
            # Apart, so that nothing computes their gradient.
            more = compare(similarity, rows, constants)
            scores = torch.cat((scores, more), dim=1)
        return _Scores(rows, images, scores)


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        row_losses: RowLosses,
        similarity: Similarity,
        query: Tensor,
        target: Tensor,
        scale: float | Tensor,
        offset: float | Tensor | None,
        constants: Tensor | None,
    ) -> Tensor:
        _, _, *learns, scale_learns, offset_learns, _ = ctx.needs_input_grad
        losses, scale_slopes, offset_slopes = (query.new_zeros(len(query)) for _ in range(3))
        query_grad, target_grad = torch.zeros_like(query), torch.zeros_like(target)
        width = len(target) + (0 if constants is None else len(constants))
        for tile in slices(query, width):
            scored = _score(similarity, query[tile], target, constants, (learns[0], learns[1]))
            logits = scored.scores.detach() * scale
            losses[tile], slopes = row_losses(logits, tile, offset)
            if slopes is not None:
                offset_slopes[tile] = slopes
            scale_slopes[tile] = (logits * scored.scores.detach()).sum(dim=1)
            by_query, by_target = scored.gradients(logits * scale)
            if by_query is not None:
                query_grad[tile] = by_query
            if by_target is not None:
                target_grad += by_target
        ctx.rows = len(query)
        ctx.save_for_backward(
            query_grad if learns[0] else None,
            target_grad if learns[1] else None,
            scale_slopes.sum() if scale_learns else None,
            offset_slopes.sum() if offset_learns else None,
        )
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        share = grad / ctx.rows
        gradients = [None if saved is None else saved * share for saved in ctx.saved_tensors]
        return (None, None, *gradients, None)
