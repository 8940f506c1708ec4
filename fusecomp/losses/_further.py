"""Candidates beside the batch's targets: negatives of one's own, and the batch's references."""

import torch
from torch import Tensor

from fusecomp._core.tensors import check_alike, check_floating, check_pair
from fusecomp.losses._pairs import ABSENT, Ids, check_ids


def check_negatives(
    target: Tensor, negatives: Tensor | None, negative_ids: Ids, user_of_ids: str | None
) -> tuple[Tensor, Tensor]:
    """Return negatives and their ids, [B * K, D] and [B * K]; ``user_of_ids`` needs the ids."""
    batch, dim = target.shape
    if negatives is None:
        raise ValueError("negative_ids need negatives")
    check_floating(negatives, "negatives")
    if negatives.ndim != 3 or negatives.shape[::2] != target.shape:
        raise ValueError(
            f"negatives must be [{batch}, K, {dim}], as target is {list(target.shape)}, "
            f"got {list(negatives.shape)}"
        )
    check_alike(target, negatives, ("target", "negatives"))
    if negative_ids is not None:
        ids = check_ids(negative_ids, negatives[..., 0], "negative_ids")
    elif user_of_ids is not None:
        raise ValueError(f"{user_of_ids} needs negative_ids of the negatives")
    else:
        ids = torch.zeros(negatives.shape[:2], dtype=torch.int64, device=target.device)
    return negatives.flatten(0, 1), ids.flatten()


def check_references(
    target: Tensor, reference: Tensor | None, target_ids: Ids, reference_ids: Ids
) -> tuple[Tensor, Tensor]:
    """Return the references and their ids; those of a target of the batch are absent."""
    if reference is None or target_ids is None or reference_ids is None:
        raise ValueError(
            "include_references=True needs reference (the features [B, D] of the batch's reference "
            "images), target_ids and reference_ids"
        )
    check_pair(target, reference, ("target", "reference"))
    known = torch.isin(reference_ids, target_ids)
    return reference, reference_ids.long().masked_fill(known, ABSENT)
