"""Several losses at once."""

import copy
from typing import Any

import pytest
import torch
from by_hand import IDS, pair
from torch import Tensor, nn

from fusecomp.losses import (
    CombinedLoss,
    CosineAlignmentLoss,
    InfoNCE,
    LearnableTemperature,
    MultiPositiveNCE,
)


def two() -> CombinedLoss:
    return CombinedLoss(
        {"find": (0.3, MultiPositiveNCE(0.2)), "align": (2.0, CosineAlignmentLoss())}
    )


def test_it_is_the_sum_of_the_weighted_losses() -> None:
    query, target = pair()
    loss = two()(query, target, **IDS)
    expected = 0.3 * MultiPositiveNCE(0.2)(query, target, **IDS) + 2 * CosineAlignmentLoss()(
        query, target
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, (query, target)), torch.autograd.grad(expected, (query, target))
    )


def test_it_names_the_similarity_only_if_each_of_its_losses_compares_by_it() -> None:
    both = CombinedLoss({"find": (0.3, MultiPositiveNCE(0.2)), "tell": (1.0, InfoNCE())})
    assert both.named_keywords == {"target_ids", "reference_ids", "similarity"}
    assert two().named_keywords == {"target_ids", "reference_ids"}


def test_each_loss_gets_the_ids_that_it_names() -> None:
    seen: dict[str, list[str]] = {}

    def plain(query: Tensor, target: Tensor) -> Tensor:
        seen["plain"] = []
        return (query - target).square().mean()

    def one(query: Tensor, target: Tensor, reference_ids: Any) -> Tensor:
        seen["one"] = ["reference_ids"]
        assert torch.equal(reference_ids, IDS["reference_ids"])
        return query.sum()

    def unnamed(query: Tensor, target: Tensor, **ids: Any) -> Tensor:
        seen["unnamed"] = list(ids)
        return target.sum()

    query, target = pair()
    losses: dict[str, Any] = {"plain": (1.0, plain), "one": (0.5, one), "unnamed": (0.0, unnamed)}
    loss = CombinedLoss(losses)
    expected = (query - target).square().mean() + query.sum() / 2
    torch.testing.assert_close(loss(query, target, **IDS), expected)
    assert seen == {"plain": [], "one": ["reference_ids"], "unnamed": []}


def test_a_weight_of_zero_is_a_weight() -> None:
    loss = CombinedLoss({"find": (0.0, InfoNCE())})(*pair())
    assert loss == 0
    assert loss.requires_grad


def test_its_modules_are_its_own() -> None:
    loss = CombinedLoss({"find": (1.0, InfoNCE(LearnableTemperature()))})
    assert list(loss.state_dict()) == ["find.temperature.log_scale"]
    twin = copy.deepcopy(loss)
    with torch.no_grad():
        next(twin.parameters()).fill_(1.0)
    assert twin(*pair()) != loss(*pair())


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({}, r"losses must map at least one name to \(weight, loss\), got {}"),
        ([(1.0, InfoNCE())], r"losses must map at least one name to \(weight, loss\), got"),
        ({"a b": (1.0, InfoNCE())}, "a loss cannot be named 'a b'"),
        ({"forward": (1.0, InfoNCE())}, "a loss cannot be named 'forward'"),
        ({"find": (float("nan"), InfoNCE())}, "the weight of 'find' must be finite, got nan"),
    ],
)
def test_bad_settings_are_refused(losses: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CombinedLoss(losses)


def test_a_loss_that_is_no_scalar_is_refused() -> None:
    loss = CombinedLoss({"rows": (1.0, lambda query, target: query.sum(1))})
    with pytest.raises(ValueError, match=r"the loss 'rows' must return a scalar, got \[7\]"):
        loss(*pair())


def test_it_prints_weights_and_losses_without_addresses() -> None:
    text = repr(CombinedLoss({"find": (1.0, InfoNCE(0.1)), "plain": (0.5, nn.MSELoss())}))
    assert "find: 1.0, plain: 0.5" in text
    assert "(find): InfoNCE(temperature=0.1)" in text
    function = repr(CombinedLoss({"own": (0.5, lambda query, target: query.sum())}))
    assert "(own): test_it_prints" in function
    assert " at 0x" not in function
