import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fusecomp._core.checks import shown
from fusecomp.losses._memory import Bank, Queue
from fusecomp.losses._pairs import Ids, Pairs, check_batch, check_candidates, check_exclude
from fusecomp.losses._tiles import tiled
from fusecomp.types import Similarity


class Compared(NamedTuple):
    """A checked batch: queries and targets, how they are paired, and what compares them."""

    query: Tensor
    target: Tensor
    pairs: Pairs
    has_ids: bool
    similarity: Similarity | None
    # [M, D] each: further candidates, which have columns in the pairs.
    further: tuple[Tensor, ...] = ()

    def add(self, candidates: Tensor, pairs: Pairs) -> "Compared":
        """Add candidates, whose columns the pairs have already."""
        return self._replace(pairs=pairs, further=(*self.further, candidates))


class CandidateLoss(nn.Module, ABC):
    """A loss that compares each query with its target and with other candidates."""

    def __init__(self, exclude: Collection[str] = (), memory: Bank | Queue | None = None) -> None:
        super().__init__()
        if not isinstance(memory, Bank | Queue | None):
            raise ValueError(f"memory must be a losses.Bank or Queue, got {shown(memory)}")
        self.exclude = check_exclude(exclude)
        self.memory = memory

    def forward(
        self,
        query: Tensor,
        target: Tensor,
        *,
        target_ids: Ids = None,
        reference_ids: Ids = None,
        similarity: Similarity | None = None,
    ) -> Tensor:
        """Return the mean over the batch."""
        return self._loss(self._pair(query, target, target_ids, reference_ids, similarity))

    @abstractmethod
    def _loss(self, batch: Compared) -> Tensor: ...

    def _pair(
        self,
        query: Tensor,
        target: Tensor,
        target_ids: Ids,
        reference_ids: Ids,
        similarity: Similarity | None,
    ) -> Compared:
        """Check a batch; pair row i with column i of B, leaving out what ``exclude`` names."""
        columns, references = check_batch(query, target, target_ids, reference_ids, similarity)
        rows = torch.arange(query.shape[0], device=query.device)
        # Without ids nothing asks for them.
        pairs = Pairs(rows.unsqueeze(1), rows if columns is None else columns)
        for name in self.exclude:
            ids = columns if name == "target" else references
            if columns is None or ids is None:
                needed = " and ".join(dict.fromkeys(("target_ids", f"{name}_ids")))
                raise ValueError(f"exclude={name!r} needs {needed} of the batch")
            pairs = pairs.ban(ids)
        if target_ids is None and isinstance(self.memory, Bank):
            raise ValueError("a bank needs target_ids, to find each row's own target in it")
        return Compared(query, target, pairs, target_ids is not None, similarity)

    def _join(self, batch: Compared) -> Pairs:
        """Return the pairs with the memory's columns."""
        pairs = batch.pairs
        if self.memory is not None:
            pairs = self.memory.join(pairs, batch.target)
        check_candidates(pairs.columns.shape[0])
        return pairs

    def _mean(
        self,
        row_losses: Callable[..., Any],
        batch: Compared,
        scale: float | Tensor,
        offset: float | Tensor | None = None,
    ) -> Tensor:
        """Return the mean of ``row_losses`` over the targets, further candidates and the memory."""
        loss = tiled(
            partial(row_losses, pairs=self._join(batch)),
            batch.query,
            torch.cat((batch.target, *batch.further)) if batch.further else batch.target,
            scale,
            constants=None if self.memory is None else self.memory.rows(batch.similarity),
            offset=offset,
            similarity=batch.similarity,
        )
        self._remember(batch, loss)
        return loss

    def _remember(self, batch: Compared, loss: Tensor) -> None:
        if isinstance(self.memory, Queue) and self.training:
            self.memory.push(batch.target, batch.pairs.columns[: len(batch.target)], loss)

    def extra_repr(self) -> str:
        """Show the first setting, and those that are not the default; modules print themselves."""
        _, *parameters = inspect.signature(type(self).__init__).parameters.values()
        held = vars(self)  # modules are not in it
        return ", ".join(
            f"{parameter.name}={held[parameter.name]!r}"
            for number, parameter in enumerate(parameters)
            if parameter.name in held and (number == 0 or held[parameter.name] != parameter.default)
        )
