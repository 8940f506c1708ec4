import math
from collections.abc import Collection
from typing import Any, Literal

import torch
from torch import Tensor

from fusecomp.losses._pairs import Pairs, check_batch, check_exclude, own_targets
from fusecomp.losses._printed import Printed
from fusecomp.losses._tiles import slices, tiled
from fusecomp.similarity import normalize, widen

__all__ = ["TripletMargin"]

_MINING = ("hardest", "semi-hard", "all")


class TripletMargin(Printed):
    """The own target must be closer than others by a margin m.

    With s_ij = cos(q_i, t_j) and the negatives j of row i, the loss of a row is

    - ``"all"``: ``mean_j max(0, m - s_ii + s_ij)``;
    - ``"hardest"``: ``max_j max(0, m - s_ii + s_ij)``;
    - ``"semi-hard"``: the same over the j with ``s_ij < s_ii``, 0 if there are none.

    The loss is their mean. One direction, query to target; in float32 at least. No matrix of
    cosines is held.

    Reference:
        "semi-hard": Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015,
        https://arxiv.org/abs/1503.03832. "all" (as a sum) and "hardest": Faghri, Fleet, Kiros,
        Fidler, "VSE++", BMVC 2018, https://arxiv.org/abs/1707.05612

    Args:
        margin: m >= 0, in units of the cosine.
        mining: which negatives count; "hardest" learns fast and may collapse at the start.
        exclude: as in ``InfoNCE``.

    Shape:
        ``loss(query, target) -> scalar``; [B, D] each, B >= 2, of one floating dtype; the inputs
        need not be normalised. ``target_ids``, ``reference_ids``: integers [B].

    Raises:
        ValueError: if the margin is negative or not finite, or mining is unknown; if query and
            target differ in shape or dtype or are not [B, D], if B < 2, if ids are missing or
            not integers [B].
        RuntimeError: on a second derivative with "all", which has none.

    Example:
        >>> loss = TripletMargin(margin=0.2)
        >>> round(loss(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 1.0]])).item(), 4)
        0.0
    """

    def __init__(
        self,
        margin: float = 0.2,
        mining: Literal["hardest", "semi-hard", "all"] = "semi-hard",
        *,
        exclude: Collection[str] = (),
    ) -> None:
        super().__init__()
        if not 0 <= margin < math.inf:
            raise ValueError(f"margin must be finite and not negative, got {margin}")
        if mining not in _MINING:
            raise ValueError(f"mining must be one of {_MINING}, got {mining!r}")
        self.margin = margin
        self.mining = mining
        self.exclude = check_exclude(exclude)

    def forward(
        self,
        query: Tensor,
        target: Tensor,
        *,
        target_ids: Tensor | None = None,
        reference_ids: Tensor | None = None,
    ) -> Tensor:
        """The mean over the batch."""
        check_batch(query, target)
        pairs = own_targets(query, self.exclude, target_ids, reference_ids)
        if self.mining == "all":
            return tiled(_hinges, query, target, 1.0, self.margin, *pairs)
        with torch.autocast(query.device.type, enabled=False):
            unit, others = normalize(widen(query)), normalize(widen(target))
            place, found = _closest(unit, others, self.mining == "semi-hard", pairs)
            gap = ((others[place] - others) * unit).sum(dim=1)
            return torch.where(found, (self.margin + gap).relu(), 0.0).mean()


@torch.no_grad()
def _closest(
    query: Tensor, target: Tensor, semi_hard: bool, wanted: Pairs
) -> tuple[Tensor, Tensor]:
    """For each row its hardest negative [B], and whether it has one [B]."""
    place = torch.zeros_like(wanted.columns)
    best = torch.empty_like(query[:, 0])
    for at in slices(query, len(target)):
        cosines = query[at] @ target.T
        positive = cosines.gather(1, wanted.positives[at])
        wanted.leave_negatives(cosines, at)
        if semi_hard:
            cosines.masked_fill_(cosines >= positive, -torch.inf)
        best[at], place[at] = cosines.max(dim=1)
    return place, best != -torch.inf


def _hinges(
    cosines: Tensor, at: slice, offset: None, margin: float, *pairs: Any
) -> tuple[Tensor, None]:
    """The loss of each row over all its negatives, for ``tiled``."""
    wanted = Pairs(*pairs)
    own = wanted.positives[at]
    positive = cosines.gather(1, own)
    count = wanted.leave_negatives(cosines, at).clamp_min(1)
    cosines.add_(margin - positive).relu_()
    losses = cosines.sum(dim=1, keepdim=True) / count
    cosines.sign_().div_(count)
    cosines.scatter_(1, own, -cosines.sum(dim=1, keepdim=True))
    return losses.squeeze(1), None
