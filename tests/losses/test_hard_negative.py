"""InfoNCE whose negatives weigh by how close they are."""

from functools import partial
from typing import Any

import by_hand
import pytest
import torch
from by_hand import IDS, assert_equals_by_hand, pair

from fusecomp.losses import HardNegativeNCE, InfoNCE


@pytest.mark.parametrize("exclude", [(), "target", ("target", "reference")])
@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.01])
@pytest.mark.parametrize("beta", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_it_equals_the_formula_in_loops(
    alpha: float, beta: float, temperature: float, exclude: Any
) -> None:
    loss = HardNegativeNCE(temperature, alpha, beta, exclude=exclude)
    settings = {"temperature": temperature, "alpha": alpha, "beta": beta, "exclude": exclude}
    assert_equals_by_hand(loss, partial(by_hand.hard_negative, **settings), pair(), **IDS)


def test_without_emphasis_it_is_infonce() -> None:
    query, target = pair()
    ours, plain = HardNegativeNCE(0.05, beta=0.0)(query, target), InfoNCE(0.05)(query, target)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (query, target)), torch.autograd.grad(plain, (query, target))
    )


@pytest.mark.parametrize("name", ["alpha", "beta"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_bad_settings_are_refused(name: str, value: float) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} must be finite and not negative, got {value}"):
        HardNegativeNCE(**settings)


def test_it_prints_its_settings() -> None:
    assert repr(HardNegativeNCE(0.1, beta=1.0)) == "HardNegativeNCE(temperature=0.1, beta=1.0)"
