from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusecomp._core.checks import number
from fusecomp.losses._candidates import CandidateLoss, Compared
from fusecomp.losses._memory import Bank, Queue
from fusecomp.losses._pairs import Pairs
from fusecomp.losses._temperature import LearnableTemperature, check_temperature, scale_of
from fusecomp.losses._tiles import rows_of


class SigmoidLoss(CandidateLoss):
    """Classification of each pair of a query and a target: do they belong together or not?

    With l_ij = cos(q_i, t_j) / T + b,
    ``loss = mean_i ( -log sigmoid(l_ii) - sum_{j != i} log sigmoid(-l_ij) )``.

    T and the bias b learn. Computed in tiles, in float32 at least.

    Reference:
        Zhai, Mustafa, Kolesnikov, Beyer, "Sigmoid Loss for Language Image Pre-Training", ICCV 2023
        (SigLIP), https://arxiv.org/abs/2303.15343

    Args:
        temperature: a number that stays, or a ``LearnableTemperature``; None is one that starts
            at 0.1 and has no limit, as published.
        bias: b at first; the published -10 makes most pairs negative from the start.
        exclude: ``"target"``, ``"reference"`` or both: pairs of rows with an equal id do not count.
        memory: further candidates, a ``Bank`` or ``Queue`` of targets.

    Shape:
        ``loss(query, target) -> scalar``, in nats; [B, D] each, B >= 2, of one floating dtype and
        any length. ``target_ids``, ``reference_ids``: integers [B], which ``exclude`` needs.
        ``similarity``: a fusion's own, from [Q, E] and [N, D] to [Q, N]; it replaces the cosine,
        and query is then [B, E].

    Raises:
        ValueError: if the temperature is not positive and finite, the bias is not finite, or query,
            target or ids do not fit these shapes.
        RuntimeError: on a second derivative, which it does not have.

    Example:
        >>> import torch
        >>> loss = SigmoidLoss(temperature=1.0, bias=0.0)
        >>> round(loss(torch.eye(2), torch.eye(2)).item(), 4)  # log(1 + exp(-1)) + log(2)
        1.0064
    """

    def __init__(
        self,
        temperature: float | LearnableTemperature | None = None,
        bias: float = -10.0,
        *,
        exclude: Collection[str] = (),
        memory: Bank | Queue | None = None,
    ) -> None:
        super().__init__(exclude, memory)
        if temperature is None:
            temperature = LearnableTemperature(start=0.1, lowest=0.0)
        self.temperature = check_temperature(temperature)
        self.start = number("bias", bias)
        self.bias = nn.Parameter(torch.tensor(self.start))

    def _loss(self, batch: Compared) -> Tensor:
        return self._mean(_each, batch, scale_of(self.temperature), self.bias)

    def extra_repr(self) -> str:
        """Show the settings, not the present values."""
        learns = isinstance(self.temperature, nn.Module)
        temperature = "" if learns else f"temperature={self.temperature}, "
        return f"{temperature}bias={self.start}, exclude={self.exclude}"


def _each(logits: Tensor, tile: slice, bias: Tensor, *, pairs: Pairs) -> tuple[Tensor, Tensor]:
    positives = rows_of(pairs.positives, tile)
    logits.add_(bias)
    positive = logits.gather(1, positives)
    pairs.leave_out(logits, tile)
    logits.scatter_(1, positives, -positive)
    # Beyond 40 softplus is the identity in float64 too; exp alone would overflow in float32.
    losses = F.softplus(logits, threshold=40.0).sum(dim=1)
    logits.sigmoid_()
    logits.scatter_(1, positives, -logits.gather(1, positives))
    return losses, logits.sum(dim=1)
