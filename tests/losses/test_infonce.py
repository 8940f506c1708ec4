"""The batch-based classification loss."""

from math import exp, log

import numpy as np
import pytest
import torch
from by_hand import set_tile
from golden import PUBLISHED
from torch import Tensor
from torch.nn import functional as F

from fusecomp.losses import InfoNCE


def in_loops(query: Tensor, target: Tensor, temperature: float) -> float:
    q, t = query.detach().double().numpy(), target.detach().double().numpy()
    losses = []
    for i in range(len(q)):
        logits = []
        for j in range(len(t)):
            lengths = sum(x * x for x in q[i]) ** 0.5 * sum(x * x for x in t[j]) ** 0.5
            dot = sum(x * y for x, y in zip(q[i], t[j], strict=True))
            logits.append(float(dot / lengths) / temperature)
        top = max(logits)
        losses.append(log(sum(exp(x - top) for x in logits)) - (logits[i] - top))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.01, 0.2, 3.0])
def test_it_equals_the_formula_in_loops(temperature: float) -> None:
    query, target = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    loss = InfoNCE(temperature)(query, target).item()
    np.testing.assert_allclose(loss, in_loops(query, target, temperature), rtol=1e-5)


def test_loss_and_gradients_equal_the_published_code() -> None:
    published = np.load(PUBLISHED / "combiner.npz")
    query = torch.from_numpy(published["combined"]).requires_grad_()
    target = torch.from_numpy(published["target"]).requires_grad_()
    loss = InfoNCE()(query, target)
    loss.backward()
    np.testing.assert_allclose(loss.item(), published["loss"], rtol=1e-5)
    expected = published["grad_target"]
    assert target.grad is not None
    np.testing.assert_allclose(target.grad, expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_the_published_temperature_is_the_default() -> None:
    assert InfoNCE().temperature == 0.01
    assert repr(InfoNCE(0.5)) == "InfoNCE(temperature=0.5)"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("side", [0, 1])
def test_a_zero_row_gives_a_finite_loss_and_gradient(dtype: torch.dtype, side: int) -> None:
    pair = torch.randn(2, 4, 6)
    pair[side, 2] = 0
    query, target = (features.to(dtype).requires_grad_() for features in pair)
    loss = InfoNCE()(query, target)
    loss.backward()
    assert loss.isfinite()
    for tensor in (query, target):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("norm", [1e-2, 30.0, 30000.0])
def test_the_length_of_features_does_not_spoil_half_precision(
    dtype: torch.dtype, norm: float
) -> None:
    pair = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))
    query, target = (pair / pair.norm(dim=-1, keepdim=True) * norm).to(dtype)
    exact = InfoNCE()(query.double(), target.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(InfoNCE()(query, target).double(), exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize("temperature", [0.0, -0.01, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(
        ValueError, match=f"temperature must be positive and finite, got {temperature}"
    ):
        InfoNCE(temperature)


def whole(query: Tensor, target: Tensor, temperature: float) -> Tensor:
    """The loss with the whole matrix of logits."""
    logits = F.normalize(query, dim=1) @ F.normalize(target, dim=1).T / temperature
    return F.cross_entropy(logits, torch.arange(len(query)))


def with_gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("temperature", [0.01, 0.05, 1.0])
@pytest.mark.parametrize("tile", [1, 7, 22, 23, 24, 46])
def test_tiles_give_what_the_whole_matrix_gives(
    tile: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tile(monkeypatch, tile)
    pair = torch.randn(2, 23, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    query, target = (features.requires_grad_() for features in pair)
    tiled = with_gradients(InfoNCE(temperature)(query, target), query, target)
    expected = with_gradients(whole(query, target, temperature), query, target)
    torch.testing.assert_close(tiled, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("learns", [0, 1])
def test_a_frozen_side_gets_no_gradient(learns: int) -> None:
    query, target = torch.randn(2, 9, 4, dtype=torch.float64)
    learning = (query, target)[learns].requires_grad_()
    (gradient,) = torch.autograd.grad(InfoNCE(0.1)(query, target), learning)
    (expected,) = torch.autograd.grad(whole(query, target, 0.1), learning)
    torch.testing.assert_close(gradient, expected)


def converged(rows: int = 64, dim: int = 40) -> tuple[Tensor, Tensor]:
    """Pairs so close together that the loss is near 1e-8."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(rows, dim, generator=generator)
    target = torch.linalg.qr(target.T).Q.T if rows <= dim else F.normalize(target, dim=1)
    return (target + 0.02 * torch.randn(rows, dim, generator=generator)), target


def test_near_convergence_value_and_gradient_stay_right() -> None:
    query, target = converged()
    temperature = 0.025
    query.requires_grad_()
    exact_query = query.detach().double().requires_grad_()
    exact = with_gradients(whole(exact_query, target.double(), temperature), exact_query)
    assert 1e-12 < exact[0] < 1e-5
    ours = with_gradients(InfoNCE(temperature)(query, target), query)
    naive = with_gradients(whole(query, target, temperature), query)

    def error(values: list[Tensor]) -> tuple[float, ...]:
        pairs = zip(values, exact, strict=True)
        return tuple(((v.double() - e).norm() / e.norm()).item() for v, e in pairs)

    assert max(error(ours)) < 1e-4
    assert max(error(naive)) > 1e-3


def test_a_second_derivative_is_refused() -> None:
    query, target = (features.requires_grad_() for features in torch.randn(2, 4, 3))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(InfoNCE()(query, target), query, create_graph=True)


def test_a_second_backward_adds_the_same_gradient() -> None:
    query, target = (features.requires_grad_() for features in torch.randn(2, 4, 3))
    loss = InfoNCE(0.5)(query, target)
    loss.backward(retain_graph=True)
    assert query.grad is not None
    once = query.grad.clone()
    loss.backward()
    torch.testing.assert_close(query.grad, 2 * once)


def test_the_gradient_from_above_scales_it() -> None:
    query, target = (features.requires_grad_() for features in torch.randn(2, 4, 3))
    loss = InfoNCE(0.5)
    (once,) = torch.autograd.grad(loss(query, target), query)
    (scaled,) = torch.autograd.grad(1024 * loss(query, target), query)
    assert torch.equal(scaled, 1024 * once)
