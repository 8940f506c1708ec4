import math

import torch
from torch import Tensor, nn

from fusecomp.losses._tiles import tiled
from fusecomp.similarity import check_pair

__all__ = ["InfoNCE"]


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
        positives = torch.arange(len(query), device=query.device).unsqueeze(1)
        return tiled(_softmax, query, target, 1 / self.temperature, positives)

    def extra_repr(self) -> str:
        """The settings."""
        return f"temperature={self.temperature}"


def _softmax(
    logits: Tensor, at: slice, offset: Tensor | None, positives: Tensor
) -> tuple[Tensor, None]:
    own = positives[at]
    highest = logits.amax(dim=1, keepdim=True)
    lead = logits.gather(1, own) - highest
    torch.softmax(logits, dim=1, out=logits)
    top = logits.amax(dim=1, keepdim=True)
    # Where a row has converged, p - 1 and -log p cancel; the sum of the others' p does not.
    others = logits.scatter_(1, own, 0.0).sum(dim=1, keepdim=True)
    logits.scatter_(1, own, -others)
    losses = torch.where(others < 0.5, -(-others).log1p(), -lead - top.log())
    return losses.squeeze(1), None
