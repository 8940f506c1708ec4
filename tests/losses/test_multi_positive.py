"""Every target with the row's id is a positive."""

from functools import partial

import by_hand
import pytest
import torch
from by_hand import assert_equals_by_hand, pair

from fusecomp.losses import InfoNCE, MultiPositiveNCE


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("ids", [[10, 11, 12, 13, 10, 15, 16], [3, 3, 3, 1, 3, 1, 0], [5] * 7])
def test_it_equals_the_formula_in_loops(temperature: float, ids: list[int]) -> None:
    formula = partial(by_hand.multi_positive, temperature=temperature)
    loss = MultiPositiveNCE(temperature)
    assert_equals_by_hand(loss, formula, pair(), target_ids=torch.tensor(ids))


def test_where_all_ids_differ_it_is_infonce() -> None:
    query, target = pair()
    ours = MultiPositiveNCE(0.05)(query, target, target_ids=torch.arange(7))
    plain = InfoNCE(0.05)(query, target)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (query, target)), torch.autograd.grad(plain, (query, target))
    )


def test_twins_that_are_found_get_only_the_gradient_of_the_others() -> None:
    """Near its floor, log 2, the gradient is tiny, and right."""
    target = torch.eye(6)[[0, 0, 1, 2, 3, 4]]
    query = (target + 0.02 * torch.eye(6).roll(1, 0)).requires_grad_()
    exact_query = query.detach().double().requires_grad_()
    loss = partial(MultiPositiveNCE(0.05), target_ids=torch.tensor([0, 0, 1, 2, 3, 4]))
    value = loss(query, target)
    exact = loss(exact_query, target.double())
    assert value.item() == pytest.approx(exact.item(), rel=1e-6)
    assert exact.item() == pytest.approx(2 / 6 * torch.tensor(2.0).log().item(), abs=1e-5)
    (gradient,), (expected,) = (
        torch.autograd.grad(loss_of, leaf)
        for loss_of, leaf in ((value, query), (exact, exact_query))
    )
    assert (gradient - expected).norm() < 1e-4 * expected.norm()


def test_it_needs_ids() -> None:
    with pytest.raises(ValueError, match="MultiPositiveNCE needs target_ids"):
        MultiPositiveNCE()(*pair())


def test_it_prints_its_settings() -> None:
    assert repr(MultiPositiveNCE(0.1)) == "MultiPositiveNCE(temperature=0.1)"
