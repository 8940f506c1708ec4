import math
from typing import Any

import torch
from torch import Tensor, nn

from fusecomp.similarity import check_pair, normalize, widen

__all__ = ["InfoNCE"]

# Rows scored at once. A tile of logits stays in a processor's cache; GPUs want larger products.
_CPU_TILE, _GPU_TILE = 256, 2048


class InfoNCE(nn.Module):
    """The batch-based classification loss: each query must find its target among the batch's.

    ``loss = mean_i -log( exp(cos(q_i, t_i) / T) / sum_j exp(cos(q_i, t_j) / T) )``

    One direction, query to target. It is never computed below float32, whatever autocast says;
    float64 stays float64. The matrix of logits is never held: rows are scored in tiles, whose
    gradients are computed at once. Near convergence, where the loss is tiny, value and gradient
    keep their precision.

    Reference:
        Baldrati, Bertini, Uricchio, Del Bimbo, "Conditioned and composed image retrieval
        combining and partially fine-tuning CLIP-based features", CVPR Workshops 2022: "batch
        based classification loss", logits = 100 x cosine.

    Args:
        temperature: T > 0; 0.01 as published.

    Shape:
        ``loss(query, target) -> scalar``; [B, D] each, B >= 2, one floating dtype; the inputs
        need not be normalised. In nats.

    Raises:
        ValueError: if the temperature is not positive and finite, if query and target differ
            in shape or dtype or are not [B, D], or if B < 2 (one candidate has no gradient).
        RuntimeError: on a second derivative, which it does not have.

    Example:
        >>> import torch
        >>> loss = InfoNCE(temperature=1.0)
        >>> round(loss(torch.eye(2), torch.eye(2)).item(), 4)  # log(1 + exp(-1))
        0.3133
    """

    def __init__(self, temperature: float = 0.01) -> None:
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        self.temperature = temperature

    def forward(self, query: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch, in nats."""
        check_pair(query, target, ("query", "target"))
        if query.shape[0] < 2:
            raise ValueError("InfoNCE needs at least 2 rows: a single candidate gives no gradient")
        tile = _CPU_TILE if query.device.type == "cpu" else _GPU_TILE
        with torch.autocast(query.device.type, enabled=False):
            # As published: the scale goes to the queries, before the product.
            scaled = normalize(widen(query)) / self.temperature
            unit = normalize(widen(target))
            loss: Tensor = _OneWay.apply(scaled, unit, tile)  # type: ignore[no-untyped-call]
            return loss

    def extra_repr(self) -> str:
        """The settings."""
        return f"temperature={self.temperature}"


class _OneWay(torch.autograd.Function):
    """Mean cross entropy of ``query @ target.T`` [B, B] against its diagonal, by tiles of rows.

    A row's softmax is complete within its tile, so the gradients are computed in the forward
    pass, without a second product for the logits.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, target: Tensor, tile: int) -> Tensor:
        rows = len(query)
        logits = query.new_empty(min(tile, rows), rows)
        losses = query.new_empty(rows)
        wanted = ctx.needs_input_grad
        query_grad = torch.empty_like(query) if wanted[0] else None
        target_grad = torch.zeros_like(target) if wanted[1] else None
        for start in range(0, rows, tile):
            at = slice(start, min(start + tile, rows))
            block = logits[: at.stop - start]
            torch.mm(query[at], target.T, out=block)
            losses[at] = _softmax_gradient(block, start)
            if query_grad is not None:
                torch.mm(block, target, out=query_grad[at])
            if target_grad is not None:
                target_grad.addmm_(block.T, query[at])
        ctx.save_for_backward(query_grad, target_grad)
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        # The saved gradients are constants here: a graph through them would be wrong.
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "InfoNCE has no second derivative: call backward without create_graph=True"
            )
        query_grad, target_grad = ctx.saved_tensors
        rows = len(query_grad if query_grad is not None else target_grad)
        scale = grad / rows
        return (
            None if query_grad is None else query_grad * scale,
            None if target_grad is None else target_grad * scale,
            None,
        )


def _softmax_gradient(logits: Tensor, start: int) -> Tensor:
    """The loss of each row [T], whose positive stands at column start + row.

    The logits become the loss's gradient by them, in place.
    """
    positive = logits.diagonal(start)
    highest = logits.amax(dim=1)
    lead = positive - highest
    logits.sub_(highest.unsqueeze(1)).exp_()
    # Where a row has converged, p - 1 and lse - positive cancel; the others' sum does not.
    positive.zero_()
    others = logits.sum(dim=1)
    total = others + lead.exp()
    logits.div_(total.unsqueeze(1))
    positive.copy_(-others / total)
    return torch.where(lead == 0, others.log1p(), total.log() - lead)
