import torch
from torch import Tensor

from fusecomp._core.checks import whole_number
from fusecomp._core.identity import hash_tensors
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import widen
from fusecomp.losses._kept_features import KeptFeatures, find, unit_table
from fusecomp.losses._pairs import ABSENT, Ids, Pairs, check_ids


class Bank(KeptFeatures):
    """Targets that never change, as further candidates: the ``memory`` of ``InfoNCE``.

    An example are the features of all training images from a ``CachedEncoder``; the image side
    must not learn. Where a row's target id is in the bank, the bank's row is its positive and
    replaces that of the batch, which gets no gradient: each image counts once. Features and ids
    are buffers.

    Reference:
        Feng, Zhang, Nie, "Improving Composed Image Retrieval via Contrastive Learning with Scaling
        Positives and Negatives", ACM Multimedia 2024 (SPN4CIR), the second stage,
        https://arxiv.org/abs/2404.11317

    Args:
        features: [M, D].
        ids: M integers, all different: the images' positions in ``dataset.image_ids``.

    Raises:
        TypeError: if features are no torch tensor.
        ValueError: if features are not [M, D] of a floating dtype or not finite (also in a state
            dict), or the ids not M different integers.

    Example:
        >>> from fusecomp.losses import InfoNCE
        >>> loss = InfoNCE(1.0, memory=Bank(torch.eye(2), torch.tensor([7, 9])))
        >>> value = loss(torch.eye(2)[:1], torch.eye(2)[:1], target_ids=torch.tensor([7]))
        >>> round(value.item(), 4)  # log(1 + exp(-1))
        0.3133
    """

    ids: Tensor

    def __init__(self, features: Tensor, ids: Tensor) -> None:
        unit = unit_table(features, "features")
        # Sorted, so that an id is found by bisection.
        ids, order = check_ids(ids, features[:, 0], "ids").sort()
        if again := ids[1:][ids[1:] == ids[:-1]].unique().tolist():
            raise ValueError(f"ids must be all different, but {again[:5]} occur more than once")
        super().__init__(unit[order])
        self.register_buffer("ids", ids)

    def join(self, pairs: Pairs, query: Tensor, target_ids: Ids) -> Pairs:
        """Add the bank's columns, in which rows find their positive if it is there."""
        self.check_width(query)
        if target_ids is None:
            raise ValueError("a bank needs target_ids, to find each row's own target in it")
        positions, known = find(self.ids, target_ids.long())
        positives = torch.where(known, positions + len(pairs.columns), pairs.positives.squeeze(1))
        # An image of the bank is left out among the batch's columns, so that it counts once.
        batch_columns = torch.where(find(self.ids, pairs.columns)[1], ABSENT, pairs.columns)
        columns = torch.cat((batch_columns, self.ids))
        return Pairs(positives.unsqueeze(1), columns, pairs.banned).ban_absent()

    def fingerprint(self) -> str:
        """Hash features and ids."""
        return hash_tensors(self.named_buffers())


class Queue(KeptFeatures):
    """The targets of the last batches, as further negatives: the ``memory`` of ``InfoNCE``.

    First in, first out. In training mode, each batch is compared with what is in the queue and
    then joins it, unless its loss is not finite. The loss sees the gathered batch, so the queue is
    equal on all processes. Contents and count are buffers, hence in the state dict.

    Reference:
        He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation
        Learning", CVPR 2020, https://arxiv.org/abs/1911.05722

    Args:
        size: the number of targets that it holds.
        dim: their width D.

    Raises:
        ValueError: if size or dim is no positive whole number, or the features of a state dict are
            not finite.

    Example:
        >>> from fusecomp.losses import InfoNCE
        >>> loss = InfoNCE(0.07, memory=Queue(size=8, dim=4))
        >>> for step in range(3):
        ...     value = loss(torch.randn(2, 4), torch.randn(2, 4))
        >>> loss.memory.pushed
        tensor(6)
    """

    ids: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        size, dim = whole_number("size", size, 1), whole_number("dim", dim, 1)
        super().__init__(torch.zeros(size, dim))
        self.register_buffer("ids", torch.full((size,), ABSENT))
        self.register_buffer("pushed", torch.tensor(0))

    def join(self, pairs: Pairs, query: Tensor, target_ids: Ids) -> Pairs:
        """Add the queue's columns; those that are still empty are left out."""
        self.check_width(query)
        return pairs.append(self.ids).ban_absent()

    @torch.no_grad()
    def push(self, target: Tensor, ids: Tensor, loss: Tensor) -> None:
        """Let the batch's targets [B, D] with their ids [B] join, if the loss is finite."""
        size = len(self.ids)
        latest = normalize(widen(target[-size:])).to(self.features.dtype)
        finite = loss.isfinite()
        rows = (self.pushed + torch.arange(len(latest), device=target.device)) % size
        self.features[rows] = torch.where(finite, latest, self.features[rows])
        self.ids[rows] = torch.where(finite, ids[-size:], self.ids[rows])
        self.pushed += finite * len(latest)
