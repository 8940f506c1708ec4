from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusecomp._core.checks import shown
from fusecomp.losses._loss_repr import LossRepr
from fusecomp.losses._memory import Bank, Queue
from fusecomp.losses._pairs import Ids, Pairs, check_candidates, check_exclude, own_targets
from fusecomp.losses._tiles import tiled
from fusecomp.types import Similarity


class CandidateLoss(LossRepr):
    """A loss that compares each query with its target and with other candidates."""

    def __init__(self, exclude: Collection[str] = (), memory: Bank | Queue | None = None) -> None:
        super().__init__()
        if not isinstance(memory, Bank | Queue | None):
            raise ValueError(f"memory must be a losses.Bank or Queue, got {shown(memory)}")
        self.exclude = check_exclude(exclude)
        self.memory = memory

    def _pair(
        self,
        query: Tensor,
        target: Tensor,
        target_ids: Ids,
        reference_ids: Ids,
        similarity: Similarity | None,
    ) -> Pairs:
        """Check a batch and pair its rows."""
        pairs = own_targets(query, target, self.exclude, target_ids, reference_ids, similarity)
        if target_ids is None and isinstance(self.memory, Bank):
            raise ValueError("a bank needs target_ids, to find each row's own target in it")
        return pairs

    def _width(self, pairs: Pairs) -> int:
        """Return the number of columns, those of the memory included."""
        return len(pairs.columns) + (0 if self.memory is None else len(self.memory.ids))

    def _join(self, pairs: Pairs, target: Tensor) -> Pairs:
        """Add the memory's columns."""
        if self.memory is not None:
            pairs = self.memory.join(pairs, target)
        check_candidates(pairs.columns.shape[0])
        return pairs

    def _mean(
        self,
        row_losses: Callable[..., Any],
        query: Tensor,
        target: Tensor,
        pairs: Pairs,
        scale: float | Tensor,
        *,
        further: tuple[Tensor, ...] = (),
        offset: float | Tensor | None = None,
        similarity: Similarity | None = None,
    ) -> Tensor:
        """Return the mean of ``row_losses`` over the targets, further candidates and the memory."""
        joined = self._join(pairs, target)
        loss = tiled(
            partial(row_losses, pairs=joined),
            query,
            torch.cat((target, *further)) if further else target,
            scale,
            constants=None if self.memory is None else self.memory.rows(similarity),
            offset=offset,
            similarity=similarity,
        )
        self._remember(target, pairs, loss)
        return loss

    def _remember(self, target: Tensor, pairs: Pairs, loss: Tensor) -> None:
        """Let the batch join a queue, in training mode."""
        if isinstance(self.memory, Queue) and self.training:
            self.memory.push(target, pairs.columns[: len(target)], loss)
