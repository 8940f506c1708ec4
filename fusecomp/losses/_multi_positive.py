from functools import partial

import torch
from torch import Tensor

from fusecomp.losses._candidates import CandidateLoss, Compared
from fusecomp.losses._memory import Bank, Queue
from fusecomp.losses._pairs import Pairs
from fusecomp.losses._temperature import LearnableTemperature, check_temperature, scale_of


class MultiPositiveNCE(CandidateLoss):
    """InfoNCE in which every target with the row's target id is a positive.

    With s_ij = cos(q_i, t_j) / T and P_i the rows that have the target id of row i,

    ``loss = mean_i mean_{p in P_i} -log( exp(s_ip) / sum_j exp(s_ij) )``.

    One direction, query to target; computed in tiles, in float32 at least. A row with k positives
    cannot fall below log k. Where all ids differ, this is ``InfoNCE``.

    Reference:
        Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, the loss "out",
        https://arxiv.org/abs/2004.11362

    Args:
        temperature: T > 0, or a ``LearnableTemperature``.
        memory: further candidates, a ``Bank`` or ``Queue`` of targets; positives among them count.

    Shape:
        ``loss(query, target, target_ids=ids) -> scalar``, in nats; [B, D] each, B >= 2, of one
        floating dtype and any length; ids integers [B].
        ``similarity``: a fusion's own, from [Q, E] and [N, D] to [Q, N]; it replaces the cosine,
        and query is then [B, E].

    Raises:
        ValueError: if the temperature is not positive and finite, target_ids are missing, or query,
            target or ids do not fit these shapes.
        RuntimeError: on a second derivative, which it does not have.

    Example:
        >>> loss = MultiPositiveNCE(temperature=1.0)
        >>> value = loss(torch.eye(2), torch.eye(2), target_ids=torch.tensor([7, 7]))
        >>> round(value.item(), 4)  # log(1 + exp(-1)) + 1/2
        0.8133
    """

    def __init__(
        self,
        temperature: float | LearnableTemperature = 0.07,
        *,
        memory: Bank | Queue | None = None,
    ) -> None:
        super().__init__(memory=memory)
        self.temperature = check_temperature(temperature)

    def _loss(self, batch: Compared) -> Tensor:
        if not batch.has_ids:
            raise ValueError(
                "MultiPositiveNCE needs target_ids, to know the positives of each query"
            )
        row_losses = partial(_out, own=batch.pairs.columns)
        return self._mean(row_losses, batch, scale_of(self.temperature))


def _out(
    logits: Tensor, tile: slice, offset: None, *, pairs: Pairs, own: Tensor
) -> tuple[Tensor, None]:
    """Compute the loss of each row, whose target id is ``own``, for ``tiled``."""
    positive = own[tile].unsqueeze(1) == pairs.columns
    pairs.leave_out(logits, tile)
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
