"""The protocol of an index: it finds the nearest rows of a gallery."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Index(Protocol):
    """Finds the nearest rows of a gallery that was prepared once.

    Rows are told by position, from 0; no position is ever used again.
    """

    def search(
        self,
        query: Tensor,
        k: int,
        *,
        exclude: Tensor | None = None,
        within: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return scores [Q, k] and positions int64 [Q, k] of queries [Q, E], best first.

        ``exclude`` and ``within``, int64 [Q] or [Q, M] with -1 as padding, are positions that a
        query must not find, and the only ones that it may find. Where fewer than k are left, the
        rest is position -1 with score -inf.
        """
        ...
