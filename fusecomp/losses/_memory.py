from typing import Any

import torch
from torch import Tensor, nn

from fusecomp._core.checks import whole_number
from fusecomp._core.identity import hash_tensors
from fusecomp._core.similarity import normalize
from fusecomp._core.tensors import check_features, check_finite, widen
from fusecomp.losses._pairs import ABSENT, Pairs, check_ids
from fusecomp.types import Similarity


class KeptFeatures(nn.Module):
    """A part of a loss with a buffer of unit features [M, D], which must stay finite."""

    features: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("features", features)
        listening: Any = self  # torch gives the method no types
        listening.register_load_state_dict_post_hook(_check_loaded)

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{len(self.features)}, dim={self.features.shape[1]}"


class FixedFeatures(KeptFeatures):
    """Kept features that training never changes, so that a run is known by them."""

    def fingerprint(self) -> str:
        """Hash features and ids."""
        return hash_tensors(self.named_buffers())


def _check_loaded(module: KeptFeatures, keys: object) -> None:
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            check_finite(buffer, f"the state dict's {name} of {type(module).__name__}")


def unit_table(features: Tensor, name: str) -> Tensor:
    """Return finite features [M, D] at unit length, without a graph."""
    check_features(features, name, "[M, D]")
    check_finite(features, name)
    return normalize(widen(features.detach()))


def find(known_ids: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the position of each id among the known ones, which are sorted, and if it is known."""
    positions = torch.searchsorted(known_ids, ids.contiguous()).clamp(max=len(known_ids) - 1)
    return positions, known_ids[positions] == ids


class _Memory(KeptFeatures):
    """Targets [M, D] at unit length, the lengths [M, 1] that they had, and their ids [M]."""

    lengths: Tensor
    ids: Tensor

    def __init__(self, unit: Tensor, lengths: Tensor, ids: Tensor) -> None:
        super().__init__(unit)
        self.register_buffer("lengths", lengths)
        self.register_buffer("ids", ids)

    def rows(self, similarity: Similarity | None) -> Tensor:
        """Return the targets: as they were for a similarity, at unit length for the cosine."""
        return self.features if similarity is None else self.features * self.lengths

    def check_width(self, target: Tensor) -> None:
        """Raise ValueError unless the batch's targets have the memory's width."""
        if target.shape[1] != self.features.shape[1]:
            raise ValueError(f"target {list(target.shape)} does not fit {self}: its dim is another")


def _lengths(features: Tensor, unit: Tensor) -> Tensor:
    return (widen(features) * unit).sum(dim=1, keepdim=True)


class Bank(_Memory, FixedFeatures):
    """Targets that never change, as further candidates: the ``memory`` of a loss.

    An example are the features of all training images from a ``CachedEncoder``; a trainer refuses
    it where the image side learns. Where a row's target id is in the bank, the bank's row is its
    positive and replaces that of the batch, which gets no gradient: each image counts once.
    Features and ids are buffers.

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

    def __init__(self, features: Tensor, ids: Tensor) -> None:
        unit = unit_table(features, "features")
        # Sorted, so that an id is found by bisection.
        ids, order = check_ids(ids, features[:, 0], "ids").sort()
        if again := ids[1:][ids[1:] == ids[:-1]].unique().tolist():
            raise ValueError(f"ids must be all different, but {again[:5]} occur more than once")
        super().__init__(unit[order], _lengths(features.detach(), unit)[order], ids)

    def join(self, pairs: Pairs, target: Tensor) -> Pairs:
        """Add the bank's columns, in which rows find their positive if it is there."""
        self.check_width(target)
        positions, known = find(self.ids, pairs.columns[: len(target)])
        positives = torch.where(known, positions + len(pairs.columns), pairs.positives.squeeze(1))
        # An image of the bank is left out among the batch's columns, so that it counts once.
        batch_columns = torch.where(find(self.ids, pairs.columns)[1], ABSENT, pairs.columns)
        columns = torch.cat((batch_columns, self.ids))
        return Pairs(positives.unsqueeze(1), columns, pairs.banned).ban_absent()


class Queue(_Memory):
    """The targets of the last batches, as further candidates: the ``memory`` of a loss.

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

    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        size, dim = whole_number("size", size, 1), whole_number("dim", dim, 1)
        super().__init__(torch.zeros(size, dim), torch.zeros(size, 1), torch.full((size,), ABSENT))
        self.register_buffer("pushed", torch.tensor(0))

    def join(self, pairs: Pairs, target: Tensor) -> Pairs:
        """Add the queue's columns; those that are still empty are left out."""
        self.check_width(target)
        return pairs.append(self.ids).ban_absent()

    @torch.no_grad()
    def push(self, target: Tensor, ids: Tensor, loss: Tensor) -> None:
        """Let the batch's targets [B, D] with their ids [B] join, if the loss is finite."""
        size = len(self.ids)
        unit = normalize(widen(target[-size:]))
        latest = (unit, _lengths(target[-size:], unit), ids[-size:])
        finite = loss.isfinite()
        rows = (self.pushed + torch.arange(len(unit), device=target.device)) % size
        for held, new in zip((self.features, self.lengths, self.ids), latest, strict=True):
            held[rows] = torch.where(finite, new.to(held.dtype), held[rows])
        self.pushed += finite * len(unit)
