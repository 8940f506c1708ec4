"""The Combiner: formula, published numbers, dropout."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from golden import PUBLISHED
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from fusecomp._core.similarity import normalize
from fusecomp.fusions import Combiner
from fusecomp.losses import InfoNCE

Array = NDArray[np.float64]


@pytest.fixture
def published() -> dict[str, Tensor]:
    with np.load(PUBLISHED / "combiner.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def small(**settings: float) -> Combiner:
    torch.manual_seed(0)
    return Combiner(4, projection_dim=3, hidden_dim=5, **settings).eval()


def assert_close_to_largest(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=1e-5 * float(expected.abs().max()), check_dtype=True
    )


def in_loops(weights: dict[str, Array], image: Array, text: Array) -> tuple[Array, float]:
    """The formula for one row: the query and the gate."""

    def linear(name: str, x: list[float]) -> list[float]:
        matrix, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return [
            float(b) + sum(float(w) * v for w, v in zip(row, x, strict=True))
            for row, b in zip(matrix, bias, strict=True)
        ]

    def relu(x: list[float]) -> list[float]:
        return [max(0.0, v) for v in x]

    r = relu(linear("text_projection_layer", list(text)))
    r += relu(linear("image_projection_layer", list(image)))
    mixture = linear("output_layer", relu(linear("combiner_layer", r)))
    (score,) = linear("dynamic_scalar.3", relu(linear("dynamic_scalar.0", r)))
    gate = 1 / (1 + np.exp(-score))
    query = [v + gate * t + (1 - gate) * i for v, t, i in zip(mixture, text, image, strict=True)]
    length = sum(x * x for x in query) ** 0.5
    return np.array([x / length for x in query]), float(gate)


def test_it_equals_the_formula_in_loops() -> None:
    combiner = small().double()
    image, text = torch.randn(2, 6, 4, dtype=torch.float64)
    weights = {name: tensor.numpy() for name, tensor in combiner.state_dict().items()}
    with torch.no_grad():
        query, gate = combiner(image, text), combiner.gate(image, text)
    assert gate.shape == (6, 1)
    for row in range(6):
        expected, share = in_loops(weights, image[row].numpy(), text[row].numpy())
        np.testing.assert_allclose(query[row].numpy(), expected, atol=1e-12)
        np.testing.assert_allclose(gate[row].item(), share, atol=1e-12)


def test_values_and_gradients_equal_the_published_code(published: dict[str, Tensor]) -> None:
    state = {k.removeprefix("state/"): v for k, v in published.items() if k.startswith("state/")}
    combiner = Combiner(16, projection_dim=24, hidden_dim=40).eval()
    combiner.load_state_dict(state)
    image, text, target = (
        published[name].clone().requires_grad_() for name in ("image", "text", "target")
    )
    query = combiner(image, text)
    loss = InfoNCE(temperature=0.01)(query, target)
    loss.backward()
    assert_close_to_largest(query.detach(), published["combined"])
    assert_close_to_largest(loss.detach(), published["loss"])
    for tensor, name in ((image, "image"), (text, "text"), (target, "target")):
        assert tensor.grad is not None
        assert_close_to_largest(tensor.grad, published[f"grad_{name}"])
    for name, weight in combiner.named_parameters():
        assert weight.grad is not None
        assert_close_to_largest(weight.grad, published[f"grad/{name}"])


def test_the_default_sizes_and_dropout_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        combiner = Combiner(dim=640)
    assert combiner.text_projection_layer.weight.shape == (2560, 640)
    assert combiner.combiner_layer.weight.shape == (5120, 5120)
    weights = sum(weight.numel() for weight in combiner.parameters())
    assert round(weights / 1e6, 1) == 59.0
    assert {module.p for module in dropouts(combiner)} == {0.5}


def dropouts(combiner: Combiner) -> Iterator[nn.Dropout]:
    return (module for module in combiner.modules() if isinstance(module, nn.Dropout))


def test_dropout_stands_in_four_places() -> None:
    seen: list[int] = []
    combiner = small(dropout=0.25).train()
    for module in dropouts(combiner):
        assert module.p == 0.25
        module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    combiner(*torch.randn(2, 3, 4))
    projections, hidden_layers = 3 + 3, 5 + 5
    assert sum(seen) == projections + hidden_layers


def test_dropout_acts_in_training_only() -> None:
    image, text = torch.randn(2, 8, 4)
    combiner = small(dropout=0.5)
    assert torch.equal(combiner(image, text), combiner(image, text))
    combiner.train()
    assert not torch.equal(combiner(image, text), combiner(image, text))
    without = small(dropout=0.0)
    assert torch.equal(without.train()(image, text), small()(image, text))


P = 0.25
SIDE = 1000


def relu_dropout(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What the layer gives for x in training, always with the same mask, and x's gradient."""
    layer = small(dropout=P).train().relu_dropout
    torch.manual_seed(1)
    leaf = x.clone().requires_grad_()
    out = layer(leaf * 1)
    out.backward(torch.ones_like(out) if weights is None else weights)
    assert leaf.grad is not None
    return out.detach(), leaf.grad


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    out, _ = relu_dropout(torch.ones(SIDE, SIDE))
    kept = torch.tensor(1 / (1 - P))
    assert ((out == 0) | (out == kept)).all()
    dropped = (out == 0).double()
    deviation = (P * (1 - P)) ** 0.5  # of one value
    assert abs(float(dropped.mean()) - P) < 5 * deviation / SIDE
    assert abs(float(out.double().mean()) - 1) < 5 * deviation / SIDE / (1 - P)
    for axis in (0, 1):
        assert float((dropped.mean(axis) - P).abs().max()) < 6 * deviation / SIDE**0.5


def test_dropout_draws_a_new_mask_each_time() -> None:
    layer = small(dropout=P).train().relu_dropout
    first, second = layer(torch.ones(SIDE)), layer(torch.ones(SIDE))
    both = float(((first == 0) & (second == 0)).double().mean())
    assert abs(both - P * P) < 5 * (P * P * (1 - P * P) / SIDE) ** 0.5


def test_dropout_multiplies_value_and_gradient_by_one_mask() -> None:
    mask, _ = relu_dropout(torch.ones(SIDE, SIDE))
    x, weights = torch.randn(2, SIDE, SIDE)
    out, gradient = relu_dropout(x, weights)
    torch.testing.assert_close(out, x.clamp_min(0) * mask, rtol=0, atol=0)
    torch.testing.assert_close(gradient, weights * mask * (x > 0), rtol=0, atol=0)


def test_dropout_of_negative_values_is_zero_with_a_gradient_of_zero() -> None:
    out, gradient = relu_dropout(-torch.rand(SIDE, SIDE) - 1e-3)
    assert not out.any()
    assert not gradient.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dropout_keeps_the_dtype(dtype: torch.dtype) -> None:
    mask, _ = relu_dropout(torch.ones(SIDE))
    out, gradient = relu_dropout(torch.ones(SIDE, dtype=dtype))
    assert out.dtype == gradient.dtype == dtype
    assert torch.equal(out, mask.to(dtype))


def test_training_compiles_without_a_graph_break() -> None:
    combiner = small(dropout=P).train()
    torch._dynamo.reset()
    compiled = torch.compile(combiner, fullgraph=True, backend="aot_eager")
    image, text = torch.randn(2, 6, 4)
    results = []
    for run in (combiner, compiled):
        torch.manual_seed(1)
        combiner.zero_grad()
        query = run(image, text)
        query[:, 0].sum().backward()
        results.append([query.detach(), *(w.grad.clone() for w in combiner.parameters())])  # type: ignore[union-attr]
    for plain, other in zip(*results, strict=True):
        torch.testing.assert_close(other, plain)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5, float("nan")])
def test_dropout_outside_its_bounds_is_refused(dropout: float) -> None:
    with pytest.raises(ValueError, match=rf"dropout must be in \[0, 1\), got {dropout}"):
        Combiner(4, dropout=dropout)


@pytest.mark.parametrize("name", ["dim", "projection_dim", "hidden_dim"])
@pytest.mark.parametrize("size", [0, -1])
def test_sizes_below_one_are_refused(name: str, size: int) -> None:
    sizes = {"dim": 4, "projection_dim": 4, "hidden_dim": 4, name: size}
    with pytest.raises(
        ValueError, match=f"{name} must be a whole number of at least 1, got {size}"
    ):
        Combiner(**sizes)


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dim=4, got features \[2, 5\]"):
        small()(torch.ones(2, 5), torch.ones(2, 5))
    with pytest.raises(ValueError, match="dim=4"):
        small().gate(torch.ones(2, 5), torch.ones(2, 5))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_without_a_mixture_the_query_lies_between_image_and_text(seed: int) -> None:
    torch.manual_seed(seed)
    combiner = Combiner(5, projection_dim=3, hidden_dim=4).eval().double()
    nn.init.zeros_(combiner.output_layer.weight)
    nn.init.zeros_(combiner.output_layer.bias)
    image, text = torch.randn(2, 3, 5, dtype=torch.float64) * 3
    with torch.no_grad():
        query, gate = combiner(image, text), combiner.gate(image, text)
    assert ((gate > 0) & (gate < 1)).all()
    torch.testing.assert_close(query, normalize(image + gate * (text - image)))


@pytest.mark.parametrize(("bias", "side"), [(50.0, "text"), (-50.0, "image")])
def test_the_gate_is_the_share_of_the_text(bias: float, side: str) -> None:
    combiner = small()
    nn.init.zeros_(combiner.output_layer.weight)
    nn.init.zeros_(combiner.output_layer.bias)
    gate = combiner.dynamic_scalar.get_submodule("3")
    assert isinstance(gate, nn.Linear)
    nn.init.zeros_(gate.weight)
    nn.init.constant_(gate.bias, bias)
    image, text = torch.randn(2, 3, 4)
    expected = normalize(text if side == "text" else image)
    torch.testing.assert_close(combiner(image, text), expected)


def test_a_published_file_gives_the_published_queries(published: dict[str, Tensor]) -> None:
    file = torch.load(PUBLISHED / "combiner_checkpoint.pt", weights_only=True)
    combiner = Combiner.from_published(file["Combiner"]).eval()
    assert (combiner.dim, combiner.projection_dim, combiner.hidden_dim) == (16, 24, 40)
    with torch.no_grad():
        assert_close_to_largest(
            combiner(published["image"], published["text"]), published["combined"]
        )
    assert list(combiner.state_dict()) == list(file["Combiner"])
