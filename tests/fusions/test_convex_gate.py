"""The convex gate: between its sides, with few weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import own_error
from torch import nn

from fusecomp._core.similarity import normalize
from fusecomp.fusions import Combiner, ConvexGate


def small(dropout: float = 0.5) -> ConvexGate:
    torch.manual_seed(0)
    return ConvexGate(5, dropout).eval().double()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_query_lies_between_image_and_text(seed: int) -> None:
    torch.manual_seed(seed)
    fusion = ConvexGate(5).eval().double()
    image, text = torch.randn(2, 3, 5, dtype=torch.float64) * torch.rand(2, 3, 1) * 9
    with torch.no_grad():
        query, gate = fusion(image, text), fusion.gate(image, text)
    assert gate.shape == (3, 1)
    assert ((gate > 0) & (gate < 1)).all()
    i, t = normalize(image), normalize(text)
    torch.testing.assert_close(query, normalize(i + gate * (t - i)))
    # On the short arc: nearer to each side than the sides to each other.
    apart = (i * t).sum(dim=1)
    assert ((query * i).sum(dim=1) > apart).all()
    assert ((query * t).sum(dim=1) > apart).all()


@pytest.mark.parametrize(("bias", "side"), [(50.0, "text"), (-50.0, "image")])
def test_the_gate_is_the_share_of_the_text(bias: float, side: str) -> None:
    fusion = small()
    last = fusion.scaler[4]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, bias)
    image, text = torch.randn(2, 3, 5, dtype=torch.float64)
    expected = normalize(text if side == "text" else image)
    torch.testing.assert_close(fusion(image, text), expected)


def test_dropout_acts_in_two_places_in_training_only() -> None:
    seen: list[float] = []
    fusion = small(dropout=0.25)
    for module in fusion.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda m, _, __: seen.append(m.p))
    image, text = torch.randn(2, 8, 5, dtype=torch.float64)
    assert torch.equal(fusion(image, text), fusion(image, text))
    assert seen == [0.25] * 4
    fusion.train()
    assert not torch.equal(fusion(image, text), fusion(image, text))


def test_it_has_a_48th_of_the_weights_of_the_combiner() -> None:
    with torch.device("meta"):
        counts = [sum(p.numel() for p in make(512).parameters()) for make in (Combiner, ConvexGate)]
    assert round(counts[0] / counts[1]) == 48


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_dropout_outside_its_bounds_is_refused(dropout: float) -> None:
    assert own_error(ConvexGate, 4, dropout).startswith("dropout must be in [0, 1)")
