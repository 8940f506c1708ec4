"""Cross entropy of tiles of logits: from queries to candidates, and from targets to queries."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fusecomp._core.similarity import unit_rows
from fusecomp._core.tensors import widen
from fusecomp.losses._pairs import Pairs
from fusecomp.losses._tiles import slices

__all__ = ["Columns", "both_ways", "columns_of", "one_way"]

# The columns' side adds up no gradient, so smaller tiles do, which cost less to allocate.
_FEWER_ROWS = 384


def one_way(
    logits: Tensor, at: slice, margin: float | Tensor | None, smoothing: float, *pairs: Any
) -> tuple[Tensor, Tensor | None]:
    """Cross entropy of each row, for ``tiled``.

    Args:
        logits: [T, N].
        at: the T rows.
        margin: what the positive's logit loses.
        smoothing: the share of the wanted distribution that is spread over all candidates.
        pairs: those of a ``Pairs``.
    """
    wanted = Pairs(*pairs)
    left_out = _prepare(logits, at, margin, wanted)
    losses = _cross_entropy(logits, wanted.positives[at], smoothing, left_out)
    return losses, _slopes(logits, at, margin, wanted)


class Columns(NamedTuple):
    """The cross entropy of B columns over all rows, as far as a tile of rows needs it.

    Args:
        normaliser: [B]; the logarithm of the sum of the exponentials.
        own: [B]; the gradient by the positive's logit, before ``spread``.
        losses: [B].
        spread: [B]; what smoothing takes from the gradient by every logit.
    """

    normaliser: Tensor
    own: Tensor
    losses: Tensor
    spread: Tensor


def both_ways(
    logits: Tensor, at: slice, margin: float | Tensor | None, smoothing: float, *details: Any
) -> tuple[Tensor, Tensor | None]:
    """Cross entropy of each row plus that of its target's column, for ``tiled``.

    Args:
        logits: as in ``one_way``; the first B columns are those of the batch's targets.
        at: as in ``one_way``.
        margin: as in ``one_way``.
        smoothing: as in ``one_way``.
        details: those of a ``Columns`` and of a ``Pairs``.
    """
    columns, wanted = Columns(*details[:4]), Pairs(*details[4:])
    batch, own = len(columns.losses), wanted.positives[at]
    left_out = _prepare(logits, at, margin, wanted)
    back = (logits[:, :batch] - columns.normaliser).exp_()
    back.scatter_(1, own, columns.own[at].unsqueeze(1))
    if smoothing:
        _spread(back, columns.spread, None if left_out is None else left_out[:, :batch])
    losses = _cross_entropy(logits, own, smoothing, left_out) + columns.losses[at]
    logits[:, :batch].add_(back)
    return losses, _slopes(logits, at, margin, wanted)


@torch.no_grad()
def columns_of(
    query: Tensor,
    target: Tensor,
    scale: float | Tensor,
    margin: float | Tensor | None,
    smoothing: float,
    wanted: Pairs,
) -> Columns:
    """The columns' side of ``both_ways``: one product of queries [B, D] and targets [B, D]."""
    with torch.autocast(query.device.type, enabled=False):
        return _columns(widen(query), unit_rows(widen(target))[0], scale, margin, smoothing, wanted)


def _columns(
    query: Tensor,
    unit: Tensor,
    scale: float | Tensor,
    margin: float | Tensor | None,
    smoothing: float,
    wanted: Pairs,
) -> Columns:
    others = unit.new_full((len(unit),), -torch.inf)
    positive, sums, counts = (torch.zeros_like(others) for _ in range(3))
    for at in slices(query, len(unit), _FEWER_ROWS):
        logits = unit_rows(query[at])[0].mul_(scale) @ unit.T
        left_out = _prepare(logits, at, margin, wanted)
        own = wanted.positives[at]
        positive[at] = logits.gather(1, own).squeeze(1)
        if smoothing:
            more = _sums(logits, left_out, dim=0)
            sums, counts = sums + more[0], counts + more[1]
        others = torch.logaddexp(others, logits.scatter_(1, own, -torch.inf).logsumexp(dim=0))
    # Near convergence, 1 - p would cancel.
    losses, share = -F.logsigmoid(positive - others), torch.sigmoid(others - positive)
    spread = smoothing / counts if smoothing else sums
    if smoothing:
        losses += smoothing * (positive - sums / counts)
    return Columns(torch.logaddexp(others, positive), smoothing - share, losses, spread)


def _prepare(
    logits: Tensor, at: slice, margin: float | Tensor | None, wanted: Pairs
) -> Tensor | None:
    if margin is not None:
        own = wanted.positives[at]
        logits.scatter_(1, own, logits.gather(1, own) - margin)
    return wanted.leave_out(logits, at)


def _cross_entropy(
    logits: Tensor, own: Tensor, smoothing: float, left_out: Tensor | None
) -> Tensor:
    positive = logits.gather(1, own)
    if smoothing:
        sums, counts = _sums(logits, left_out, dim=1)
    highest = logits.amax(dim=1, keepdim=True)
    torch.softmax(logits, dim=1, out=logits)
    top = logits.amax(dim=1, keepdim=True)
    # Near convergence, p - 1 and -log p cancel; the sum of the others' p does not.
    others = logits.scatter_(1, own, 0.0).sum(dim=1, keepdim=True)
    logits.scatter_(1, own, smoothing - others)
    losses = torch.where(others < 0.5, -(-others).log1p(), highest - positive - top.log())
    if smoothing:
        losses += smoothing * (positive - (sums / counts).unsqueeze(1))
        _spread(logits, (smoothing / counts).unsqueeze(1), left_out)
    return losses.squeeze(1)


def _sums(logits: Tensor, left_out: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
    """Sum the logits that are not left out; return the sums and how many there were."""
    if left_out is None:
        sums = logits.sum(dim)
        return sums, torch.full_like(sums, logits.shape[dim])
    return logits.masked_fill(left_out, 0.0).sum(dim), (~left_out).sum(dim, dtype=logits.dtype)


def _spread(gradient: Tensor, share: Tensor, left_out: Tensor | None) -> None:
    gradient.sub_(share if left_out is None else share.masked_fill(left_out, 0.0))


def _slopes(
    logits: Tensor, at: slice, margin: float | Tensor | None, wanted: Pairs
) -> Tensor | None:
    return None if margin is None else -logits.gather(1, wanted.positives[at]).squeeze(1)
