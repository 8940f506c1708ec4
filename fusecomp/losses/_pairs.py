"""Which column of the logits a row must find, and which it leaves out, by the ids of images."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fusecomp._core.checks import shown
from fusecomp._core.tensors import check_pair, check_tensor
from fusecomp.types import Similarity

# The id of a column that holds nothing.
ABSENT = torch.iinfo(torch.int64).min
_EXCLUDABLE = ("target", "reference")
# Integers, a position in ``dataset.image_ids`` for each row; None where the caller has none.
Ids = Tensor | None


class Pairs(NamedTuple):
    """The positive and the left-out columns of B rows of logits [B, N]."""

    # int64 [B, 1]: the column of each row's own target.
    positives: Tensor
    # int64 [N]: the id in each column.
    columns: Tensor
    # int64 [B, E]: the ids that a row leaves out, except in its positive.
    banned: Tensor | None = None

    def ban(self, ids: Tensor) -> "Pairs":
        """Let each row leave out one id more."""
        more = ids.expand(len(self.positives)).unsqueeze(1)
        banned = more if self.banned is None else torch.cat((self.banned, more), dim=1)
        return self._replace(banned=banned)

    def ban_absent(self) -> "Pairs":
        """Let each row leave out the columns that hold nothing."""
        return self.ban(self.columns.new_full((1,), ABSENT))

    def append(self, ids: Tensor) -> "Pairs":
        """Add columns with these ids."""
        return self._replace(columns=torch.cat((self.columns, ids)))

    def leave_out(
        self, logits: Tensor, tile: slice, margin: float | Tensor | None = None
    ) -> Tensor | None:
        """Lower the positives of a tile by a margin; leave out what is banned; return its mask.

        ``logits`` [T, C] may be those of the first columns alone; what is left out becomes minus
        infinity.
        """
        if margin is None and self.banned is None:
            return None
        positives = self.positives[tile]
        if margin is not None:
            logits.scatter_(1, positives, logits.gather(1, positives) - margin)
        if self.banned is None:
            return None
        columns = self.columns[: logits.shape[1]]
        banned = self.banned[tile]
        mask = columns == banned[:, :1]
        for other in range(1, banned.shape[1]):
            mask.logical_or_(columns == banned[:, other : other + 1])
        mask.scatter_(1, positives, False)
        logits.masked_fill_(mask, -torch.inf)
        return mask

    def leave_negatives(self, logits: Tensor, tile: slice) -> Tensor:
        """Lower the rows' positives too; return the number of negatives in each row [T, 1]."""
        left_out = self.leave_out(logits, tile)
        logits.scatter_(1, self.positives[tile], -torch.inf)
        others = torch.full_like(logits[:, :1], logits.shape[1] - 1)
        return others if left_out is None else others - left_out.sum(dim=1, keepdim=True)


def check_candidates(number: int) -> None:
    """Raise ValueError on too few candidates."""
    if number < 2:
        raise ValueError("the loss needs at least 2 rows: a single candidate gives no gradient")


def check_exclude(exclude: Collection[str]) -> tuple[str, ...]:
    """Return the names, in one order; ValueError on one that is unknown."""
    names = (exclude,) if isinstance(exclude, str) else exclude
    listed = isinstance(names, Collection) and not isinstance(names, Mapping | Tensor)
    if not listed or not all(isinstance(name, str) and name in _EXCLUDABLE for name in names):
        raise ValueError(f"exclude must name some of {_EXCLUDABLE}, got {shown(exclude)}")
    return tuple(name for name in _EXCLUDABLE if name in names)


def check_batch(
    query: Tensor,
    target: Tensor,
    target_ids: Ids,
    reference_ids: Ids,
    similarity: Similarity | None = None,
) -> tuple[Ids, Ids]:
    """Return the ids as int64; ValueError unless features are [B, D] each and ids integers [B].

    Only a similarity takes queries of another width than the targets.
    """
    check_pair(query, target, ("query", "target"), one_width=similarity is None)
    rows = query[:, 0]
    targets = None if target_ids is None else check_ids(target_ids, rows, "target_ids")
    known = None if reference_ids is None else check_ids(reference_ids, rows, "reference_ids")
    return targets, known


def check_ids(ids: object, rows: Tensor, name: str) -> Tensor:
    """Return ids as int64; ValueError unless integers of the shape and device of ``rows``."""
    if not isinstance(ids, Tensor):
        raise ValueError(f"{name} must be a tensor of integers, got {type(ids).__name__}")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, got {ids.dtype}")
    check_tensor(ids, name)
    if ids.shape != rows.shape:
        raise ValueError(
            f"{name} must be {list(rows.shape)}, one for each row, got {list(ids.shape)}"
        )
    if ids.device != rows.device:
        raise ValueError(f"{name} are on {ids.device} and the features on {rows.device}")
    return ids.long()
