import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusecomp.similarity import check_pair, normalize, widen

__all__ = ["InfoNCE"]


class InfoNCE(nn.Module):
    """The batch-based classification loss: each query must find its target among the batch's.

    ``loss = mean_i -log( exp(cos(q_i, t_i) / T) / sum_j exp(cos(q_i, t_j) / T) )``

    One direction, query to target. It is never computed below float32, whatever autocast says;
    float64 stays float64.

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
        with torch.autocast(query.device.type, enabled=False):
            # As published: the scale goes to the queries, before the product.
            logits = normalize(widen(query)) / self.temperature @ normalize(widen(target)).T
            labels = torch.arange(len(logits), device=logits.device)
            return F.cross_entropy(logits, labels)

    def extra_repr(self) -> str:
        """The settings."""
        return f"temperature={self.temperature}"
