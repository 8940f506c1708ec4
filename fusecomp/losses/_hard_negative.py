import math
from collections.abc import Collection
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from fusecomp._core.checks import number
from fusecomp.losses._candidates import CandidateLoss, Compared
from fusecomp.losses._memory import Bank, Queue
from fusecomp.losses._pairs import Pairs
from fusecomp.losses._temperature import LearnableTemperature, check_temperature, scale_of
from fusecomp.losses._tiles import rows_of


class HardNegativeNCE(CandidateLoss):
    """InfoNCE whose negatives weigh more the closer they are to the query.

    With s_ij = cos(q_i, t_j) / T and n_i negatives of row i,

    ``loss = mean_i -log( exp(s_ii) / (alpha exp(s_ii) + sum_j w_ij exp(s_ij)) )``,
    ``w_ij = n_i exp(beta s_ij) / sum_k exp(beta s_ik)``, sums over the negatives j, k of row i.

    One direction, query to target; computed in tiles, in float32 at least. The gradient flows
    through the weights. A row without negatives has the loss 0.

    Reference:
        Radenovic et al., "Filtering, Distillation, and Hard Negatives for Vision-Language
        Pre-Training", CVPR 2023 (HN-NCE), https://arxiv.org/abs/2301.02280

    Args:
        temperature: T > 0, or a ``LearnableTemperature``.
        alpha: the positive's weight in the denominator: 1 as in InfoNCE, 0 leaves it out, which
            decouples pull and push (Yeh et al., "Decoupled Contrastive Learning", ECCV 2022).
            Below 1 the loss may be negative.
        beta: how much more close negatives weigh; with 0, and alpha = 1, this is ``InfoNCE``.
        exclude: ``"target"``, ``"reference"`` or both: rows with an equal id are no negatives.
        memory: further candidates, a ``Bank`` or ``Queue`` of targets.

    Shape:
        ``loss(query, target) -> scalar``, in nats; [B, D] each, B >= 2, of one floating dtype and
        any length. ``target_ids``, ``reference_ids``: integers [B], which ``exclude`` needs.
        ``similarity``: a fusion's own, from [Q, E] and [N, D] to [Q, N]; it replaces the cosine,
        and query is then [B, E].

    Raises:
        ValueError: if the temperature is not positive and finite, alpha or beta is negative or not
            finite, or query, target or ids do not fit these shapes.
        RuntimeError: on a second derivative, which it does not have.

    Example:
        >>> import torch
        >>> loss = HardNegativeNCE(temperature=1.0, beta=0.0)
        >>> round(loss(torch.eye(2), torch.eye(2)).item(), 4)  # log(1 + exp(-1)), as InfoNCE
        0.3133
    """

    def __init__(
        self,
        temperature: float | LearnableTemperature = 0.07,
        alpha: float = 1.0,
        beta: float = 0.25,
        *,
        exclude: Collection[str] = (),
        memory: Bank | Queue | None = None,
    ) -> None:
        super().__init__(exclude, memory)
        self.temperature = check_temperature(temperature)
        self.alpha = number("alpha", alpha, 0.0)
        self.beta = number("beta", beta, 0.0)

    def _loss(self, batch: Compared) -> Tensor:
        row_losses = partial(_weighted, alpha=self.alpha, beta=self.beta)
        return self._mean(row_losses, batch, scale_of(self.temperature))


def _weighted(
    logits: Tensor, tile: slice, offset: None, *, pairs: Pairs, alpha: float, beta: float
) -> tuple[Tensor, None]:
    positives = rows_of(pairs.positives, tile)
    positive = logits.gather(1, positives)
    counts = pairs.leave_negatives(logits, tile)
    alone = counts == 0
    easy = logits * beta if beta > 0 else None
    # The weights are normalised in logarithms: exp(beta s) itself may overflow.
    even = 0.0 if easy is None else counts.log() - _softmax(easy)
    hard = even + _softmax(logits.mul_(1 + beta))
    gap = torch.where(alone, -torch.inf, hard - positive)
    if alpha > 0:
        base = math.log(alpha)
        losses, push = base - F.logsigmoid(base - gap), torch.sigmoid(gap - base)
    else:
        losses, push = gap, torch.ones_like(gap)
    losses, push = (values.masked_fill(alone, 0.0) for values in (losses, push))
    logits.mul_((1 + beta) * push)
    if easy is not None:
        logits.addcmul_(easy, push, value=-beta)
    logits.scatter_(1, positives, -push)
    return losses.squeeze(1), None


def _softmax(logits: Tensor) -> Tensor:
    """Turn logits into their softmax, in place; return the log of the sum of exp, [T, 1]."""
    highest = logits.amax(dim=1, keepdim=True).clamp_min(torch.finfo(logits.dtype).min)
    total = logits.sub_(highest).exp_().sum(dim=1, keepdim=True)
    logits.div_(total.clamp_min(1.0))  # at least the highest counts 1, if there is one
    return highest + total.log()
