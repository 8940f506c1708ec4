import torch
from torch import Tensor, nn

from fusecomp._core.checks import whole_number
from fusecomp._core.identity import hash_tensors
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import widen
from fusecomp.losses._ids import check_ids, find
from fusecomp.losses._pairs import ABSENT, Pairs
from fusecomp.losses._table import refuse_loaded_nan, unit_table

__all__ = ["Bank", "Queue", "make_bank"]


class Bank(nn.Module):
    """Targets that never change, for every query to tell its own from; ``InfoNCE`` makes it.

    Args:
        features: [M, D].
        ids: M integers, all different.

    Raises:
        TypeError: if features are no torch tensor.
        ValueError: if features are not [M, D] of a floating dtype or not finite (also in a state
            dict), or the ids not M different integers.
    """

    features: Tensor
    ids: Tensor

    def __init__(self, features: Tensor, ids: Tensor) -> None:
        super().__init__()
        unit = unit_table(features, "bank")
        # Sorted, so that an id is found by bisection.
        ids, order = check_ids(ids, features[:, 0], "bank_ids").sort()
        if (ids[1:] == ids[:-1]).any():
            again = ids[1:][ids[1:] == ids[:-1]].unique().tolist()
            raise ValueError(
                f"bank_ids must be all different, but {again[:5]} occur more than once"
            )
        self.register_buffer("features", unit[order])
        self.register_buffer("ids", ids)
        refuse_loaded_nan(self)

    def join(self, pairs: Pairs, query: Tensor, target_ids: Tensor | None) -> Pairs:
        """The pairs with the bank's columns, in which rows find their positive if it is there."""
        _check_width(self, query)
        if target_ids is None:
            raise ValueError("a bank needs target_ids, to find each row's own target in it")
        wanted = target_ids.long()
        place, known = find(self.ids, wanted)
        positives = torch.where(known, place + len(pairs.columns), pairs.positives.squeeze(1))
        # What the bank has stands there alone, so that each image counts once.
        beside = torch.where(find(self.ids, pairs.columns)[1], ABSENT, pairs.columns)
        columns = torch.cat((beside, self.ids))
        return Pairs(positives.unsqueeze(1), columns, pairs.banned).ban(_absent(columns))

    def fingerprint(self) -> str:
        """A hash of what it holds."""
        return hash_tensors(self.named_buffers())

    def extra_repr(self) -> str:
        """The size."""
        return f"{len(self.features)}, dim={self.features.shape[1]}"


class Queue(nn.Module):
    """The targets of the last batches, as further negatives: first in, first out.

    In training mode, each batch is compared with what is in the queue and then joins it, unless
    its loss is not finite. The loss sees the gathered batch, so the queue is equal on all
    processes. Contents and count are buffers, hence in the state dict.

    Reference:
        He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation
        Learning", CVPR 2020, https://arxiv.org/abs/1911.05722

    Args:
        size: how many targets it holds.
        dim: their width D.

    Raises:
        ValueError: unless both are positive whole numbers; on a state dict with features that are
            not finite.

    Example:
        >>> from fusecomp.losses import InfoNCE
        >>> loss = InfoNCE(0.07, queue=Queue(size=8, dim=4))
        >>> for step in range(3):
        ...     value = loss(torch.randn(2, 4), torch.randn(2, 4))
        >>> loss.queue.pushed
        tensor(6)
    """

    features: Tensor
    ids: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        size, dim = whole_number("size", size, 1), whole_number("dim", dim, 1)
        self.register_buffer("features", torch.zeros(size, dim))
        self.register_buffer("ids", torch.full((size,), ABSENT))
        self.register_buffer("pushed", torch.tensor(0))
        refuse_loaded_nan(self)

    def join(self, pairs: Pairs, query: Tensor, target_ids: Tensor | None) -> Pairs:
        """The pairs with the queue's columns; those that are still empty are left out."""
        _check_width(self, query)
        return pairs.append(self.ids).ban(_absent(self.ids))

    @torch.no_grad()
    def push(self, target: Tensor, columns: Tensor, loss: Tensor) -> None:
        """Let the batch's targets [B, D] with their ids [B] join, if the loss is finite."""
        size = len(self.ids)
        latest = normalize(widen(target[-size:])).to(self.features.dtype)
        finite = loss.isfinite()
        at = (self.pushed + torch.arange(len(latest), device=target.device)) % size
        self.features[at] = torch.where(finite, latest, self.features[at])
        self.ids[at] = torch.where(finite, columns[: len(target)][-size:], self.ids[at])
        self.pushed += finite * len(latest)

    def extra_repr(self) -> str:
        """The size."""
        return f"{len(self.features)}, dim={self.features.shape[1]}"


def make_bank(features: Tensor | None, ids: Tensor | None) -> Bank | None:
    """The bank of both, or None of neither; ValueError on one alone."""
    if features is None and ids is None:
        return None
    if features is None or ids is None:
        raise ValueError("bank [M, D] and bank_ids [M] belong together")
    return Bank(features, ids)


def _check_width(bank: Bank | Queue, query: Tensor) -> None:
    if query.shape[1] != bank.features.shape[1]:
        raise ValueError(f"query {list(query.shape)} does not fit {bank}: its dim is another")


def _absent(like: Tensor) -> Tensor:
    return like.new_full((1,), ABSENT)
