from functools import partial

import torch
from torch import Tensor

from fusecomp.losses._loss_repr import LossRepr
from fusecomp.losses._pairs import check_batch, own_targets
from fusecomp.losses._temperature import LearnableTemperature, check_temperature, scale_of
from fusecomp.losses._tiles import tiled


class MultiPositiveNCE(LossRepr):
    """InfoNCE in which every target with the row's target id is a positive.

    With s_ij = cos(q_i, t_j) / T and P_i the rows that have the target id of row i,

    ``loss = mean_i mean_{p in P_i} -log( exp(s_ip) / sum_j exp(s_ij) )``.

    One direction, query to target; tiled and in float32 at least, as ``InfoNCE``. A row with k
    positives cannot fall below log k. Where all ids differ, this is ``InfoNCE``.

    Reference:
        Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, the loss "out",
        https://arxiv.org/abs/2004.11362

    Args:
        temperature: T > 0, or a ``LearnableTemperature``.

    Shape:
        ``loss(query, target, target_ids=ids) -> scalar``; [B, D] each, B >= 2, of one floating
        dtype, the inputs need not be normalised; ids integers [B]. In nats.

    Raises:
        ValueError: if the temperature is not positive and finite; without target_ids; if query
            and target differ in shape or dtype or are not [B, D], if B < 2, if ids are not
            integers [B].
        RuntimeError: on a second derivative, which it does not have.

    Example:
        >>> loss = MultiPositiveNCE(temperature=1.0)
        >>> value = loss(torch.eye(2), torch.eye(2), target_ids=torch.tensor([7, 7]))
        >>> round(value.item(), 4)  # log(1 + exp(-1)) + 1/2
        0.8133
    """

    def __init__(self, temperature: float | LearnableTemperature = 0.07) -> None:
        super().__init__()
        self.temperature = check_temperature(temperature)

    def forward(
        self,
        query: Tensor,
        target: Tensor,
        *,
        target_ids: Tensor | None = None,
        reference_ids: Tensor | None = None,
    ) -> Tensor:
        """Return the mean over the batch, in nats."""
        check_batch(query, target)
        if target_ids is None:
            raise ValueError(
                "MultiPositiveNCE needs target_ids, to know the positives of each query"
            )
        ids = own_targets(query, (), target_ids, reference_ids).columns
        return tiled(partial(_out, ids=ids), query, target, scale_of(self.temperature))


def _out(logits: Tensor, tile: slice, offset: None, *, ids: Tensor) -> tuple[Tensor, None]:
    """Compute the loss of each row, for ``tiled``."""
    positive = ids[tile].unsqueeze(1) == ids
    count = positive.sum(dim=1, keepdim=True)
    highest = logits.amax(dim=1, keepdim=True)
    logits.sub_(highest)
    mean = logits.masked_fill(~positive, 0.0).sum(dim=1, keepdim=True) / count
    logits.exp_()
    positives = logits.masked_fill(~positive, 0.0).sum(dim=1, keepdim=True)
    others = logits.masked_fill(positive, 0.0).sum(dim=1, keepdim=True)
    total = positives + others
    # Near convergence, log(total) and p - 1 / k cancel; the others' sum does not.
    near = (others / positives).log1p() + positives.log() - mean
    losses = torch.where(others < positives, near, total.log() - mean)
    logits.sub_(positive * (positives / count)).sub_(positive * (others / count)).div_(total)
    return losses.squeeze(1), None
