from collections.abc import Collection
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from fusecomp._core.checks import number, require_choice
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import widen
from fusecomp.losses._candidates import CandidateLoss, Compared
from fusecomp.losses._memory import Bank, Queue
from fusecomp.losses._pairs import Pairs
from fusecomp.losses._tiles import slices

_MINING = ("hardest", "semi-hard", "all")


class TripletMarginLoss(CandidateLoss):
    """Margin m by which each query's target must be closer than its negatives.

    With s_ij = cos(q_i, t_j) and the negatives j of row i, the loss of a row is

    - ``"all"``: ``mean_j max(0, m - s_ii + s_ij)``;
    - ``"hardest"``: ``max_j max(0, m - s_ii + s_ij)``;
    - ``"semi-hard"``: the same over the j with ``s_ij < s_ii``, 0 if there are none. A copy of the
      row's target (an equal target id or, without ids, equal numbers) is no negative: rounding
      alone would decide.

    The loss is their mean. One direction, query to target; computed in tiles, in float32 at least.

    Reference:
        "semi-hard": Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015,
        https://arxiv.org/abs/1503.03832. "all" (as a sum) and "hardest": Faghri, Fleet, Kiros,
        Fidler, "VSE++", BMVC 2018, https://arxiv.org/abs/1707.05612

    Args:
        margin: m >= 0, in units of the cosine (or of the similarity).
        mining: which negatives count; "hardest" learns fast and may collapse at the start.
        exclude: ``"target"``, ``"reference"`` or both: rows with an equal id are no negatives.
        memory: further candidates, a ``Bank`` or ``Queue`` of targets.

    Shape:
        ``loss(query, target) -> scalar``; [B, D] each, B >= 2, of one floating dtype and any
        length. ``target_ids``, ``reference_ids``: integers [B], which ``exclude`` needs.
        ``similarity``: a fusion's own, from [Q, E] and [N, D] to [Q, N]; it replaces the cosine,
        and query is then [B, E].

    Raises:
        ValueError: if the margin is negative or not finite, mining is unknown, or query, target or
            ids do not fit these shapes.
        RuntimeError: on a second derivative with "all" or a similarity, which have none.

    Example:
        >>> loss = TripletMarginLoss(margin=0.2)
        >>> round(loss(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 1.0]])).item(), 4)
        0.0
    """

    def __init__(
        self,
        margin: float = 0.2,
        mining: Literal["hardest", "semi-hard", "all"] = "semi-hard",
        *,
        exclude: Collection[str] = (),
        memory: Bank | Queue | None = None,
    ) -> None:
        super().__init__(exclude, memory)
        self.margin = number("margin", margin, 0)
        self.mining = require_choice("mining", mining, _MINING)

    def _loss(self, batch: Compared) -> Tensor:
        semi_hard = self.mining == "semi-hard"
        if semi_hard:
            columns = batch.pairs.columns if batch.has_ids else _row_keys(batch.target)
            batch = batch._replace(pairs=batch.pairs._replace(columns=columns).ban(columns))
        if self.mining == "all" or batch.similarity is not None:
            mined = _hinges if self.mining == "all" else partial(_hinge, semi_hard=semi_hard)
            return self._mean(partial(mined, margin=self.margin), batch, 1.0)
        joined = self._join(batch)
        with torch.autocast(batch.query.device.type, enabled=False):
            unit, others = normalize(widen(batch.query)), normalize(widen(batch.target))
            own = others
            if self.memory is not None:
                others = torch.cat((others, self.memory.features.to(others.dtype)))
                own = others[joined.positives.squeeze(1)]
            hardest, found = _closest(unit, others, semi_hard, joined)
            gap = ((others[hardest] - own) * unit).sum(dim=1)
            loss = torch.where(found, (self.margin + gap).relu(), 0.0).mean()
        self._remember(batch, loss)
        return loss


@torch.no_grad()
def _closest(query: Tensor, target: Tensor, semi_hard: bool, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Find for each row its hardest negative [B], and whether it has one [B]."""
    hardest = torch.zeros_like(pairs.positives[:, 0])
    highest = torch.empty_like(query[:, 0])
    for tile in slices(query, len(target)):
        cosines = query[tile] @ target.T
        _, highest[tile], hardest[tile] = _mine(cosines, tile, semi_hard, pairs)
    return hardest, highest != -torch.inf


def _mine(
    scores: Tensor, tile: slice, semi_hard: bool, pairs: Pairs
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row's positive, its hardest negative and the column of that, [T] each."""
    positive = scores.gather(1, pairs.positives[tile])
    pairs.leave_negatives(scores, tile)
    if semi_hard:
        scores.masked_fill_(scores >= positive, -torch.inf)
    return positive.squeeze(1), *scores.max(dim=1)


def _hinge(
    scores: Tensor, tile: slice, offset: None, *, semi_hard: bool, pairs: Pairs, margin: float
) -> tuple[Tensor, None]:
    """Compute ``RowLosses`` over its hardest negative."""
    positive, highest, hardest = _mine(scores, tile, semi_hard, pairs)
    # A row without a negative has minus infinity, so no loss; NaN stays.
    losses = (margin - positive + highest).relu()
    slope = losses.sign().unsqueeze(1)
    scores.zero_().scatter_(1, hardest.unsqueeze(1), slope)
    scores.scatter_(1, pairs.positives[tile], -slope)
    return losses, None


def _hinges(
    cosines: Tensor, tile: slice, offset: None, *, pairs: Pairs, margin: float
) -> tuple[Tensor, None]:
    """Compute ``RowLosses`` over all its negatives."""
    positives = pairs.positives[tile]
    positive = cosines.gather(1, positives)
    count = pairs.leave_negatives(cosines, tile).clamp_min(1)
    cosines.add_(margin - positive).relu_()
    losses = cosines.sum(dim=1, keepdim=True) / count
    cosines.sign_().div_(count)
    cosines.scatter_(1, positives, -cosines.sum(dim=1, keepdim=True))
    return losses.squeeze(1), None


@torch.no_grad()
def _row_keys(target: Tensor) -> Tensor:
    """Hash each row [B]: equal rows have one number, others too rarely to count."""
    wide = widen(target) + 0.0  # 0 and -0 are equal, but their bits are not
    bits = wide.view(torch.int64 if wide.dtype == torch.float64 else torch.int32).long()
    columns = torch.arange(1, bits.shape[1] + 1, device=bits.device)
    return _scattered(bits + _scattered(columns)).sum(dim=1)


def _scattered(numbers: Tensor) -> Tensor:
    """Take the pattern out of numbers, as splitmix64 does."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        numbers = (numbers ^ (numbers >> shift)) * factor
    return numbers ^ (numbers >> 31)
