"""Each pair of query and target by itself."""

from functools import partial
from typing import Any

import by_hand
import numpy as np
import pytest
import torch
from by_hand import IDS, assert_equals_by_hand, pair
from raising import shown_id

from fusecomp.losses import SigmoidLoss


@pytest.mark.parametrize("exclude", [(), "target", ("target", "reference")])
@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("bias", [-10.0, 0.0, 3.0])
def test_it_equals_the_formula_in_loops(temperature: float, bias: float, exclude: Any) -> None:
    loss = SigmoidLoss(temperature, bias, exclude=exclude)
    settings = {"temperature": temperature, "bias": bias, "exclude": exclude}
    assert_equals_by_hand(loss, partial(by_hand.sigmoid, **settings), pair(), **IDS)


@pytest.mark.parametrize("exclude", [(), "target"])
def test_the_gradient_of_the_bias_is_exact(exclude: Any) -> None:
    query, target = (x.detach() for x in pair())
    loss = SigmoidLoss(0.2, -1.0, exclude=exclude).double()
    (gradient,) = torch.autograd.grad(loss(query, target, **IDS), loss.bias)
    ids = {name: given.tolist() for name, given in IDS.items()}

    def formula(bias: torch.Tensor) -> float:
        return by_hand.sigmoid(query, target, 0.2, bias.item(), exclude=exclude, **ids)

    expected = by_hand.slope(formula, [loss.bias], [torch.ones(())])
    assert gradient.item() == pytest.approx(expected, rel=1e-6)


def test_it_starts_as_published() -> None:
    loss = SigmoidLoss()
    values = {name: value.item() for name, value in loss.named_parameters()}
    assert values == {"bias": -10.0, "temperature.log_scale": pytest.approx(2.302585)}
    assert all(parameter.ndim == 0 for parameter in loss.parameters())


def test_a_fixed_temperature_leaves_the_bias_to_learn() -> None:
    assert [name for name, _ in SigmoidLoss(0.1).named_parameters()] == ["bias"]


@pytest.mark.parametrize("bias", [float("nan"), float("inf")])
def test_a_bias_that_is_not_finite_is_refused(bias: float) -> None:
    with pytest.raises(ValueError, match=f"bias must be finite, got {bias}"):
        SigmoidLoss(bias=bias)


def test_it_prints_its_settings() -> None:
    loss = SigmoidLoss(0.1, exclude="target")
    with torch.no_grad():
        loss.bias.add_(1)
    assert repr(loss) == "SigmoidLoss(temperature=0.1, bias=-10.0, exclude=('target',))"


@pytest.mark.parametrize("bias", [-10, np.int64(-10), np.float32(-10)], ids=shown_id)
def test_a_whole_number_is_a_bias_that_learns(bias: Any) -> None:
    loss, expected = SigmoidLoss(bias=bias), SigmoidLoss(bias=-10.0)
    assert loss.bias.requires_grad
    assert repr(loss) == repr(expected)
    assert loss(*pair()) == expected(*pair())
