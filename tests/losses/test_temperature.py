"""A temperature that learns: its gradient, its start and its settings."""

import by_hand
import pytest
import torch
from by_hand import pair
from torch import Tensor

from fusecomp.losses import InfoNCE, LearnableTemperature


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_the_gradient_of_the_temperature_is_exact(symmetric: bool, margin: float) -> None:
    query, target = (x.detach() for x in pair())
    temperature = LearnableTemperature(0.2).double()
    value = InfoNCE(temperature, symmetric, margin=margin)(query, target)
    (gradient,) = torch.autograd.grad(value, temperature.log_scale)

    def formula(log_scale: Tensor) -> float:
        own = 1 / log_scale.exp().item()
        return by_hand.info_nce(query, target, own, symmetric=symmetric, margin=margin)

    point = temperature.log_scale.detach()
    expected = by_hand.slope(formula, [point], [torch.ones_like(point)])
    assert gradient.item() == pytest.approx(expected, rel=1e-6)


def test_a_temperature_that_learns_starts_as_the_fixed_one() -> None:
    query, target = pair()
    torch.testing.assert_close(
        InfoNCE(LearnableTemperature(0.2))(query, target),
        InfoNCE(0.2)(query, target),
        rtol=1e-6,
        atol=0,
    )


def test_its_parameter_has_no_dimensions_and_a_name() -> None:
    loss = InfoNCE(LearnableTemperature())
    ((name, parameter),) = loss.named_parameters()
    assert (name, parameter.ndim) == ("temperature.log_scale", 0)
    assert repr(loss) == (
        "InfoNCE(\n  (temperature): LearnableTemperature(start=0.07, lowest=0.01)\n)"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 0.0}, "start must be positive and finite, got 0.0"),
        ({"start": float("nan")}, "start must be positive"),
        ({"start": 0.1, "lowest": 0.2}, r"lowest must be in \[0, start=0.1\], got 0.2"),
        ({"lowest": -1.0}, "lowest must be in"),
        ({"lowest": float("nan")}, "lowest must be finite, got nan"),
    ],
)
def test_bad_settings_of_the_temperature_are_refused(
    settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LearnableTemperature(**settings)


def test_the_lowest_temperature_may_be_the_one_to_start_from() -> None:
    assert LearnableTemperature(0.1, lowest=0.1).value().item() == pytest.approx(0.1)
