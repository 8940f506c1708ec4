from collections.abc import Sequence

import torch
from torch import Tensor

from fusecomp.similarity import check_tensor

__all__ = ["hits_at_k", "median_rank", "recall_at_k", "target_rank"]


def target_rank(
    ranked: Tensor | Sequence[Sequence[str]], targets: Tensor | Sequence[str]
) -> Tensor:
    """The place of each target in its query's ranked ids, counted from 1.

    Args:
        ranked: Q rows of ids, best first: int64 [Q, k], or Q sequences of strings. The index -1
            is padding and never matches.
        targets: the Q wanted ids, of the same kind.

    Shape:
        int64 [Q]; -1 where the target is not among the ranked.

    Raises:
        ValueError: if ranked and targets differ in length, only one is a tensor, or a shape is
            another.

    Example:
        >>> target_rank([["a", "b"], ["c", "d"]], ["b", "x"])
        tensor([ 2, -1])
    """
    if len(ranked) != len(targets):
        raise ValueError(f"{len(ranked)} rankings but {len(targets)} targets")
    if isinstance(ranked, Tensor) and isinstance(targets, Tensor):
        if ranked.ndim != 2 or targets.ndim != 1:
            raise ValueError(
                f"expected ranked [Q, k] and targets [Q], got {list(ranked.shape)} and "
                f"{list(targets.shape)}"
            )
        hit = (ranked == targets.unsqueeze(1)) & (ranked >= 0)
        place = hit.int().argmax(dim=1) if ranked.shape[1] else torch.zeros_like(targets)
        return torch.where(hit.any(dim=1), place + 1, -1)
    if isinstance(ranked, Tensor) or isinstance(targets, Tensor):
        raise ValueError("ranked and targets must both be tensors or both be sequences")
    if any(isinstance(row, str) for row in ranked):
        raise ValueError("ranked must hold a sequence of ids for each query, got a string")
    places = [
        list(row).index(target) + 1 if target in row else -1
        for row, target in zip(ranked, targets, strict=True)
    ]
    return torch.tensor(places, dtype=torch.int64)


def recall_at_k(ranks: Tensor, k: int) -> float:
    """The share of queries whose target stands among the first k, in per cent.

    Args:
        ranks: int64 [Q], counted from 1; -1 never counts as a hit.
        k: at least 1.

    Raises:
        TypeError: if ranks are no torch tensor.
        ValueError: if ranks are empty, or k is below 1.

    Example:
        >>> recall_at_k(torch.tensor([1, 7, -1, 3]), k=5)
        50.0
    """
    return 100.0 * int(hits_at_k(ranks, k).sum()) / len(ranks)


def hits_at_k(ranks: Tensor, k: int) -> Tensor:
    """Which queries have their target among the first k.

    Args:
        ranks: int64 [Q], counted from 1; -1 never counts as a hit.
        k: at least 1.

    Shape:
        bool [Q].

    Raises:
        TypeError: as ``recall_at_k``.
        ValueError: as ``recall_at_k``.

    Example:
        >>> hits_at_k(torch.tensor([1, 7, -1, 3]), k=5)
        tensor([ True, False, False,  True])
    """
    _check_ranks(ranks)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return (ranks >= 1) & (ranks <= k)


def median_rank(ranks: Tensor) -> float:
    """The median rank, where a target that cannot be found counts as infinitely far.

    Args:
        ranks: int64 [Q], counted from 1; -1 where not found.

    Raises:
        TypeError: if ranks are no torch tensor.
        ValueError: if ranks are empty.

    Example:
        >>> median_rank(torch.tensor([1, 7, 3]))
        3.0
    """
    _check_ranks(ranks)
    places = torch.where(ranks >= 1, ranks.double(), torch.inf).sort().values
    return float((places[(len(places) - 1) // 2] + places[len(places) // 2]) / 2)


def _check_ranks(ranks: Tensor) -> None:
    check_tensor(ranks, "ranks")
    if ranks.ndim != 1 or len(ranks) == 0 or ranks.is_floating_point():
        raise ValueError(
            f"ranks must be a non-empty integer [Q], got {ranks.dtype} {list(ranks.shape)}"
        )
