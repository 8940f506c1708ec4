"""Queries that point where their targets point."""

import by_hand
import pytest
import torch
from by_hand import IDS, assert_equals_by_hand, features, pair

from fusecomp.losses import CosineAlignmentLoss


def test_it_equals_the_formula_in_loops() -> None:
    assert_equals_by_hand(CosineAlignmentLoss(), by_hand.cosine_alignment, pair(), **IDS)


def test_one_row_is_enough() -> None:
    query, target = features(0, 2, 1, 4)
    expected = by_hand.cosine_alignment(query, target)
    assert CosineAlignmentLoss()(query, target).item() == pytest.approx(expected)


def test_near_zero_it_keeps_its_precision() -> None:
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    query = torch.tensor([[1.0, 1e-4], [-3e-4, 1.0]])
    loss = CosineAlignmentLoss()(query, target).item()
    assert loss == pytest.approx((1e-8 + 9e-8) / 4, rel=1e-4)
