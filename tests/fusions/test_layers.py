"""Sizes and settings of the fusions that are stacks of layers."""

from collections.abc import Callable

import pytest
import torch
from raising import own_error
from torch import Tensor, nn

from fusecomp import fusions
from fusecomp.fusions import ARTEMIS, CIRPLANT, MUTAN, RTIC, TIRG, Concat, ConvexGate


@pytest.mark.parametrize(
    ("make", "at_512", "at_640"),
    [
        # The published ones have two coefficients more, which do nothing.
        (TIRG, 2_103_300 - 2, 3_284_484 - 2),
        (Concat, 1_578_496, 2_464_640),
        (lambda dim: RTIC(dim, blocks=1), 1_382_912, 2_158_720),
        (RTIC, 2_372_096, 3_702_400),
        (ConvexGate, 787_969, 1_230_721),
        (ARTEMIS, 1_313_280, 2_051_200),
    ],
    ids=["TIRG", "Concat", "RTIC, 1 block", "RTIC", "ConvexGate", "ARTEMIS"],
)
def test_there_are_as_many_weights_as_published(
    make: Callable[[int], nn.Module], at_512: int, at_640: int
) -> None:
    with torch.device("meta"):
        counts = [sum(weight.numel() for weight in make(dim).parameters()) for dim in (512, 640)]
    assert counts == [at_512, at_640]


def test_the_published_mutan_is_much_larger_than_the_default() -> None:
    with torch.device("meta"):
        published, ours = (
            sum(weight.numel() for weight in fusion.parameters())
            for fusion in (MUTAN(512, rank=15, width=1600), MUTAN(512))
        )
    assert round(published / 1e6, 1) == 79.3
    assert ours < 4e6


def test_tirg_starts_with_the_published_coefficients() -> None:
    assert TIRG(4).a.tolist() == [1, 10]


def test_dropout_of_concat_acts_in_training_only() -> None:
    image, text = torch.randn(2, 8, 6)
    fusion = Concat(6, dropout=0.5)
    torch.manual_seed(0)
    one = fusion(image, text)
    assert not torch.equal(one, fusion(image, text))
    fusion.eval()
    assert torch.equal(fusion(image, text), fusion(image, text))
    without = Concat(6, dropout=0.0)
    assert torch.equal(without(image, text), without(image, text))


def test_the_slope_of_rtic_is_that_of_its_activation() -> None:
    torch.manual_seed(0)
    leaky, relu = RTIC(4, negative_slope=0.5).eval(), RTIC(4, negative_slope=0).eval()
    relu.load_state_dict(leaky.state_dict())
    image, text = torch.randn(2, 8, 4)
    assert not torch.allclose(leaky(image, text), relu(image, text))
    slopes = {m.negative_slope for m in leaky.modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.5}


def linear(layer: nn.Linear, x: list[float]) -> list[float]:
    return [
        b + sum(w * v for w, v in zip(row, x, strict=True))
        for row, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def at_unit_length(x: list[float]) -> list[float]:
    length = sum(v * v for v in x) ** 0.5
    return [v / length for v in x]


@pytest.mark.parametrize("normalized", [False, True])
def test_mutan_equals_its_formula_in_loops(normalized: bool) -> None:
    torch.manual_seed(0)
    rank, width = 3, 4
    fusion = MUTAN(5, 2, rank=rank, width=width, normalize=normalized).double()
    image, text = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    query = fusion(image, text)
    for row in range(3):
        p = linear(fusion.image_factors, linear(fusion.image_in, image[row].tolist()))
        q = linear(fusion.text_factors, linear(fusion.text_in, text[row].tolist()))
        z = [0.0] * width
        for r in range(rank):
            for k in range(width):
                z[k] += p[r * width + k] * q[r * width + k]
        if normalized:
            z = at_unit_length([abs(v) ** 0.5 * (1 if v > 0 else -1) for v in z])
        expected = torch.tensor(at_unit_length(linear(fusion.out, z)), dtype=torch.float64)
        torch.testing.assert_close(query[row].detach(), expected, rtol=0, atol=1e-12)


def test_signed_roots_of_zero_have_a_finite_gradient() -> None:
    fusion = MUTAN(4, normalize=True)
    nn.init.zeros_(fusion.image_in.weight)
    nn.init.zeros_(fusion.image_in.bias)
    nn.init.zeros_(fusion.image_factors.bias)
    image, text = torch.randn(2, 3, 4)
    fusion(image, text).sum().backward()
    for weight in fusion.parameters():
        assert weight.grad is not None
        assert weight.grad.isfinite().all()


TWO_WIDTHS = ("ARTEMIS", "Concat", "TIRG", "RTIC", "MUTAN")
SIZES = [
    *((name, size) for name in (*TWO_WIDTHS, "CIRPLANT") for size in ("dim", "text_dim")),
    *(("ConvexGate", "dim"), ("RTIC", "blocks"), ("MUTAN", "rank"), ("MUTAN", "width")),
    *(("CIRPLANT", size) for size in ("layers", "heads", "hidden_dim", "max_tokens")),
]


@pytest.mark.parametrize(("name", "size"), SIZES)
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "4"])
def test_sizes_that_are_none_are_refused(name: str, size: str, value: object) -> None:
    make = vars(fusions)[name]
    message = own_error(make, **{"dim": 4, size: value})
    assert message.startswith(f"{size} must be a whole number of at least ")


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda: Concat(4, dropout=1.0), "dropout must be in [0, 1)"),
        (lambda: CIRPLANT(8, dropout=1.0), "dropout must be in [0, 1)"),
        (lambda: CIRPLANT(8, heads=3), "heads must divide dim=8, got 3"),
        (lambda: RTIC(4, negative_slope=-0.1), "negative_slope must be finite and not negative"),
        (lambda: MUTAN(4, normalize="yes"), "normalize must be True or False"),  # type: ignore[arg-type]
    ],
    ids=["Concat", "CIRPLANT, dropout", "CIRPLANT, heads", "RTIC", "MUTAN"],
)
def test_other_options_are_refused(make: Callable[[], nn.Module], option: str) -> None:
    assert own_error(make).startswith(option)


@pytest.mark.parametrize("name", TWO_WIDTHS)
@pytest.mark.parametrize(("image", "text"), [((2, 5), (2, 3)), ((2, 4), (2, 4)), ((2, 4), (1, 3))])
def test_features_of_other_widths_are_named(
    name: str, image: tuple[int, int], text: tuple[int, int]
) -> None:
    fusion = vars(fusions)[name](4, text_dim=3).eval()
    inputs: list[Tensor] = [torch.ones(shape) for shape in (image, text)]
    assert own_error(fusion, *inputs) == (
        f"this {name} needs image [B, 4] and text [B, 3], got image {list(image)} and text "
        f"{list(text)}"
    )
