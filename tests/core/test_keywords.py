"""What a part names, it gets."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fusecomp._core.keywords import taken_keywords
from fusecomp.losses import CombinedLoss, CosineAlignmentLoss


class Named(nn.Module):
    def forward(self, query: Tensor, *, target_ids: Tensor | None = None) -> Tensor:
        return query


def positional(query: Tensor, target_ids: Tensor, /, **more: Any) -> Tensor:
    return query


def combined(*losses: Any) -> CombinedLoss:
    return CombinedLoss({f"part{number}": (1.0, loss) for number, loss in enumerate(losses)})


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (lambda a, b: a, ()),
        (lambda a, b, reference_ids: a, ("reference_ids",)),
        (lambda a, reference_ids, target_ids: a, ("target_ids", "reference_ids")),
        (lambda a, **ids: a, ()),
        (lambda a, *target_ids: a, ()),
        (positional, ()),
        (Named(), ("target_ids",)),
        (torch.compile(Named(), backend="eager"), ("target_ids",)),
        (partial(lambda a, target_ids: a, 1), ("target_ids",)),
        (torch.add, ()),
        (combined(torch.add, lambda a, b, **ids: a), ()),
        (combined(torch.add, Named()), ("target_ids",)),
        (combined(Named(), combined(CosineAlignmentLoss())), ("target_ids", "reference_ids")),
        (torch.compile(combined(Named()), backend="eager"), ("target_ids",)),
    ],
)
def test_keywords_that_a_part_names(part: Any, expected: tuple[str, ...]) -> None:
    assert taken_keywords(part, ("target_ids", "reference_ids")) == expected
    assert taken_keywords(part, ()) == ()
