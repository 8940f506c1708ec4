"""Which column of the logits a row must find, and which it leaves out."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fusecomp._core.checks import shown
from fusecomp._core.tensors import check_pair
from fusecomp.losses._ids import batch_ids

__all__ = [
    "ABSENT",
    "Pairs",
    "check_batch",
    "check_candidates",
    "check_exclude",
    "own_targets",
]

# The id of a column that holds nothing.
ABSENT = torch.iinfo(torch.int64).min
_EXCLUDABLE = ("target", "reference")


class Pairs(NamedTuple):
    """What B rows want of N columns.

    Args:
        positives: int64 [B, 1]; the column of each row's own target.
        columns: int64 [N]; the id in each column.
        banned: int64 [B, E]; the ids that a row leaves out, except in its positive; or None.
    """

    positives: Tensor
    columns: Tensor
    banned: Tensor | None = None

    def ban(self, ids: Tensor) -> "Pairs":
        """The same, with one id more that each row leaves out."""
        more = ids.expand(len(self.positives)).unsqueeze(1)
        banned = more if self.banned is None else torch.cat((self.banned, more), dim=1)
        return self._replace(banned=banned)

    def append(self, ids: Tensor) -> "Pairs":
        """The same, with more columns."""
        return self._replace(columns=torch.cat((self.columns, ids)))

    def leave_out(self, logits: Tensor, at: slice) -> Tensor | None:
        """Lower what the rows leave out to minus infinity; where that was, or None for nowhere.

        Args:
            logits: [T, C], of all columns or of the first ones.
            at: the T rows.
        """
        if self.banned is None:
            return None
        columns = self.columns[: logits.shape[1]]
        banned = self.banned[at]
        mask = columns == banned[:, :1]
        for other in range(1, banned.shape[1]):
            mask.logical_or_(columns == banned[:, other : other + 1])
        mask.scatter_(1, self.positives[at], False)
        logits.masked_fill_(mask, -torch.inf)
        return mask

    def leave_negatives(self, logits: Tensor, at: slice) -> Tensor:
        """Lower the rows' positives too; how many negatives remain in each row [T, 1]."""
        left_out = self.leave_out(logits, at)
        logits.scatter_(1, self.positives[at], -torch.inf)
        others = torch.full_like(logits[:, :1], logits.shape[1] - 1)
        return others if left_out is None else others - left_out.sum(dim=1, keepdim=True)


def check_batch(query: Tensor, target: Tensor) -> None:
    """Raise ValueError unless these are two [B, D] tensors of one floating dtype, B >= 2."""
    check_pair(query, target, ("query", "target"))
    check_candidates(len(target))


def check_candidates(number: int) -> None:
    """Raise ValueError on fewer than two."""
    if number < 2:
        raise ValueError("the loss needs at least 2 rows: a single candidate gives no gradient")


def own_targets(
    query: Tensor,
    exclude: Collection[str],
    target_ids: Tensor | None,
    reference_ids: Tensor | None,
) -> Pairs:
    """Row i wants column i of B, and leaves out what ``exclude`` says.

    Raises:
        ValueError: on ids of a wrong dtype or length, or without those that ``exclude`` needs.
    """
    columns, references = batch_ids(query, target_ids, reference_ids)
    every = torch.arange(len(query), device=query.device)
    pairs = Pairs(every.unsqueeze(1), torch.zeros_like(every) if columns is None else columns)
    for name in exclude:
        ids = columns if name == "target" else references
        if columns is None or ids is None:
            needed = " and ".join(dict.fromkeys(("target_ids", f"{name}_ids")))
            raise ValueError(f"exclude={name!r} needs {needed} of the batch")
        pairs = pairs.ban(ids)
    return pairs


def check_exclude(exclude: Collection[str]) -> tuple[str, ...]:
    """The names, in one order; ValueError on one that is unknown."""
    listed = isinstance(exclude, Collection) and not isinstance(exclude, Mapping | Tensor)
    names: Any = (exclude,) if isinstance(exclude, str) or not listed else exclude
    if not all(isinstance(name, str) and name in _EXCLUDABLE for name in names):
        raise ValueError(f"exclude must name some of {_EXCLUDABLE}, got {shown(exclude)}")
    return tuple(name for name in _EXCLUDABLE if name in names)
