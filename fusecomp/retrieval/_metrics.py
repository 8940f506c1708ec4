from collections.abc import Sequence

import torch
from torch import Tensor

from fusecomp._core.checks import ordered, strings
from fusecomp._core.metrics import check_ranks, hits_at_k
from fusecomp._core.tensors import check_alike, check_tensor


def target_rank(
    ranked: Tensor | Sequence[Sequence[str]], targets: Tensor | Sequence[str]
) -> Tensor:
    """Return the rank of each target in its query's ranked ids, counted from 1.

    Args:
        ranked: Q rows of ids, best first: int64 [Q, k], or Q sequences of strings. The index -1
            is padding and never matches.
        targets: the Q ids to find, of the same kind.

    Shape:
        int64 [Q]; -1 where the target is not among the ranked.

    Raises:
        ValueError: if ranked and targets differ in length or kind, a tensor has another dtype or
            shape, or an id in a list is no string.

    Example:
        >>> target_rank([["a", "b"], ["c", "d"]], ["b", "x"])
        tensor([ 2, -1])
    """
    if isinstance(ranked, Tensor) != isinstance(targets, Tensor):
        raise ValueError("ranked and targets must both be tensors or both be sequences")
    if isinstance(ranked, Tensor) and isinstance(targets, Tensor):
        return _rank_of_index(ranked, targets)
    rows, listed = ordered("ranked", ranked, "lists of ids"), strings("targets", targets)
    if len(rows) != len(listed):
        raise ValueError(f"{len(rows)} rankings but {len(listed)} targets")
    ids = [strings(f"ranked[{number}]", row) for number, row in enumerate(rows)]
    found = [
        row.index(target) + 1 if target in row else -1
        for row, target in zip(ids, listed, strict=True)
    ]
    return torch.tensor(found, dtype=torch.int64)


def _rank_of_index(ranked: Tensor, targets: Tensor) -> Tensor:
    for name, indices, axes in (("ranked", ranked, 2), ("targets", targets, 1)):
        check_tensor(indices, name)
        if indices.dtype != torch.int64 or indices.ndim != axes:
            shape = "[Q, k]" if axes == 2 else "[Q]"
            raise ValueError(
                f"{name} must be int64 {shape}, got {indices.dtype} {list(indices.shape)}"
            )
    if len(ranked) != len(targets):
        raise ValueError(f"{len(ranked)} rankings but {len(targets)} targets")
    check_alike(ranked, targets, ("ranked", "targets"))
    hit = (ranked == targets.unsqueeze(1)) & (ranked >= 0)
    first = hit.int().argmax(dim=1) if ranked.shape[1] else torch.zeros_like(targets)
    return torch.where(hit.any(dim=1), first + 1, -1)


def recall_at_k(ranks: Tensor, k: int) -> float:
    """Return the share of queries whose target is among the first k, in per cent.

    Args:
        ranks: int64 [Q], counted from 1; -1 never counts as a hit.
        k: at least 1.

    Raises:
        TypeError: if ranks are no torch tensor.
        ValueError: if ranks are empty or not as above, or k is no whole number of at least 1.

    Example:
        >>> recall_at_k(torch.tensor([1, 7, -1, 3]), k=5)
        50.0
    """
    return 100.0 * int(hits_at_k(ranks, k).sum()) / len(ranks)


def median_rank(ranks: Tensor) -> float:
    """Return the median rank, where a target that cannot be found counts as infinitely far.

    Args:
        ranks: int64 [Q], counted from 1; -1 where not found.

    Raises:
        TypeError: if ranks are no torch tensor.
        ValueError: if ranks are empty, no integers, or below 1 (but -1).

    Example:
        >>> median_rank(torch.tensor([1, 7, 3]))
        3.0
    """
    check_ranks(ranks)
    found = torch.where(ranks >= 1, ranks.double(), torch.inf).sort().values
    return float((found[(len(found) - 1) // 2] + found[len(found) // 2]) / 2)
