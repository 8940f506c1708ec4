"""A similarity whose rows are the images is refused, also where its scores are square."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fusecomp as fc
from fusecomp import losses
from fusecomp.retrieval import ExactIndex, search, search_targets

ROWS = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
USES: dict[str, Callable[[Any], object]] = {
    "InfoNCE": lambda s: fc.InfoNCE()(ROWS, ROWS, similarity=s),
    "InfoNCE, two rows": lambda s: fc.InfoNCE()(ROWS[:2], ROWS[:2], similarity=s),
    "HardNegativeNCE": lambda s: losses.HardNegativeNCE()(ROWS, ROWS, similarity=s),
    "SigmoidLoss": lambda s: losses.SigmoidLoss()(ROWS, ROWS, similarity=s),
    "TripletMarginLoss": lambda s: losses.TripletMarginLoss()(ROWS, ROWS, similarity=s),
    "search": lambda s: search(ROWS, ROWS, 3, similarity=s),
    "search of few": lambda s: search(ROWS[:3], ROWS[:5], 3, similarity=s),
    "search_targets": lambda s: search_targets(ROWS, ROWS, torch.arange(64), 3, similarity=s),
    "ExactIndex": lambda s: ExactIndex(ROWS, similarity=s).search(ROWS, 3),
}


def transposed(query: Tensor, target: Tensor) -> Tensor:
    return target @ query.T


@pytest.mark.parametrize("name", USES)
def test_a_transposed_similarity_is_refused(name: str) -> None:
    USES[name](lambda query, target: query @ target.T)
    with pytest.raises(ValueError, match=r"the similarity returned \[1, 2\] .* expected \[2, 1\]"):
        USES[name](transposed)
