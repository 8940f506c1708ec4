"""Slerp: the angle, its laws, and the places where the published code breaks down."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import own_error
from torch import Tensor

from fusecomp._core.similarity import normalize
from fusecomp.fusions import Slerp

seeds = st.integers(0, 10**6)
weights = st.floats(0, 1)


def apart(theta: float, dtype: torch.dtype = torch.float64, dim: int = 4) -> tuple[Tensor, Tensor]:
    """One row a side, at this angle in radians, in a plane that lies askew."""
    generator = torch.Generator().manual_seed(3)
    basis, _ = torch.linalg.qr(torch.randn(dim, 2, dtype=torch.float64, generator=generator))
    one, other = basis.T
    rows = one[None], (math.cos(theta) * one + math.sin(theta) * other)[None]
    image, text = (row.to(dtype).requires_grad_() for row in rows)
    return image, text


@pytest.mark.parametrize("theta", [1e-9, 1e-5, 0.0099, 0.0101, 0.03, 0.5, 1.6, 3.0, 3.1])
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_the_query_lies_at_its_share_of_the_angle(theta: float, weight: float) -> None:
    image, text = apart(theta)
    query = Slerp(weight)(image, text)
    _, expected = apart(weight * theta)
    torch.testing.assert_close(query, expected, rtol=0, atol=1e-13 / math.sin(theta) * theta)


@settings(max_examples=50, deadline=None)
@given(seeds, weights)
def test_swapped_sides_take_the_other_weight(seed: int, weight: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    image, text = 3 * torch.randn(2, 4, 5, dtype=torch.float64, generator=generator)
    one, other = Slerp(weight)(image, text), Slerp(1 - weight)(text, image)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(Slerp(0)(image, text), normalize(image))
    torch.testing.assert_close(Slerp(1)(image, text), normalize(text))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_equal_features_give_themselves_with_the_exact_gradient(
    weight: float, dtype: torch.dtype
) -> None:
    image, _ = apart(0, dtype)
    text = (2 * image).detach().requires_grad_()
    query = Slerp(weight)(image, text)
    tolerance = {torch.float64: 1e-15, torch.float32: 1e-7}.get(dtype, 1e-2)
    torch.testing.assert_close(query, image.detach(), rtol=0, atol=tolerance)
    cotangent = torch.tensor([[1.0, -2.0, 0.5, 3.0]], dtype=dtype)
    query.backward(cotangent)
    # Along the sphere, query = (1 - w) image + w text there.
    tangent = cotangent - (cotangent * image).sum() * image
    assert image.grad is not None
    assert text.grad is not None
    for grad, share in ((image.grad, 1 - weight), (text.grad, weight / 2)):
        torch.testing.assert_close(grad, share * tangent.detach(), rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("weight", "side"), [(0.0, 1), (0.3, 1), (0.5, 0), (0.7, -1), (1.0, -1)])
def test_opposite_features_give_the_larger_share(
    weight: float, side: int, dtype: torch.dtype
) -> None:
    image = apart(0, dtype)[0].detach().requires_grad_()
    text = (-3 * image).detach().requires_grad_()
    query = Slerp(weight)(image, text)
    torch.testing.assert_close(query, side * image, rtol=0, atol=1e-6)
    query.sum().backward()
    assert image.grad is not None
    assert text.grad is not None
    assert image.grad.isfinite().all()
    assert text.grad.isfinite().all()


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(
    "theta",
    [0.0, 1e-6, 0.01 - 1e-4, 0.01 + 1e-4, 0.0316, 1.5, math.pi - 1.1e-3, math.pi - 0.9e-3],
)
def test_gradients_near_the_branches_are_those_of_finite_differences(
    theta: float, weight: float
) -> None:
    assert torch.autograd.gradcheck(Slerp(weight), apart(theta), eps=1e-7, atol=2e-4, rtol=2e-4)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, math.pi), weights, st.sampled_from([torch.float32, torch.float64]))
def test_queries_and_gradients_are_finite_at_every_angle(
    theta: float, weight: float, dtype: torch.dtype
) -> None:
    image, text = apart(theta, dtype)
    query = Slerp(weight)(image, text)
    query.backward(torch.ones_like(query))
    assert image.grad is not None
    assert text.grad is not None
    for tensor in (query, image.grad, text.grad):
        assert tensor.isfinite().all()


def test_zero_features_give_the_other_side() -> None:
    image = torch.zeros(1, 3, requires_grad=True)
    text = torch.tensor([[0.0, 2.0, 0.0]])
    query = Slerp()(image, text)
    assert query.tolist() == [[0, 1, 0]]
    assert Slerp()(image, torch.zeros(1, 3)).tolist() == [[0, 0, 0]]
    (query + Slerp()(image, image)).sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), "half"])
def test_weights_outside_of_0_to_1_are_refused(weight: object) -> None:
    assert own_error(Slerp, weight).startswith("weight must be ")
