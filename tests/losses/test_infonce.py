"""The batch-based classification loss."""

from collections.abc import Callable
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

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


def test_loss_and_gradients_equal_the_published_code(shared: Callable[[str], Path]) -> None:
    published = np.load(shared("parity/combiner.npz"))
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
