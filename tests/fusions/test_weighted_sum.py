"""The weighted sum: its formula, its laws, the weight that learns."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import own_error

from fusecomp._core.similarity import normalize
from fusecomp.fusions import Sum, WeightedSum

seeds = st.integers(0, 10**6)
weights = st.floats(0, 1)


def pair(seed: int) -> torch.Tensor:
    """Rows of very different lengths."""
    lengths = torch.tensor([[[0.1], [1.0], [7.0]], [[3.0], [1.0], [0.2]]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    return lengths * torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("normalized", [True, False])
def test_it_equals_the_formula_in_loops(normalized: bool) -> None:
    image, text = pair(0)
    query = WeightedSum(0.3, normalize=normalized)(image, text)
    for row in range(3):
        i, t = image[row].tolist(), text[row].tolist()
        if normalized:
            i, t = ([x / sum(y * y for y in side) ** 0.5 for x in side] for side in (i, t))
        total = [0.7 * a + 0.3 * b for a, b in zip(i, t, strict=True)]
        length = sum(x * x for x in total) ** 0.5
        expected = torch.tensor([x / length for x in total], dtype=torch.float64)
        torch.testing.assert_close(query[row], expected, rtol=1e-12, atol=0)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_half_of_each_is_the_sum_of_what_goes_in(seed: int) -> None:
    image, text = pair(seed)
    raw, unit = WeightedSum(normalize=False)(image, text), WeightedSum()(image, text)
    torch.testing.assert_close(raw, Sum()(image, text))
    torch.testing.assert_close(unit, Sum()(normalize(image), normalize(text)))
    assert not torch.allclose(raw, unit)


@settings(max_examples=30, deadline=None)
@given(seeds, weights, st.booleans())
def test_swapped_sides_take_the_other_weight(seed: int, weight: float, normalized: bool) -> None:
    image, text = pair(seed)
    one = WeightedSum(weight, normalized)(image, text)
    other = WeightedSum(1 - weight, normalized)(text, image)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("normalized", [True, False])
def test_the_weights_0_and_1_give_the_sides(normalized: bool) -> None:
    image, text = pair(1)
    torch.testing.assert_close(WeightedSum(0, normalized)(image, text), normalize(image))
    torch.testing.assert_close(WeightedSum(1, normalized)(image, text), normalize(text))


def test_a_weight_that_learns_starts_where_it_is_told_and_finds_the_better_side() -> None:
    image, text = pair(2)
    fusion = WeightedSum(0.2, learned=True).double()
    torch.testing.assert_close(
        fusion(image, text), WeightedSum(0.2)(image, text), rtol=1e-6, atol=0
    )
    optimizer = torch.optim.SGD(fusion.parameters(), lr=5.0)
    for _ in range(50):
        optimizer.zero_grad()
        (1 - (fusion(image, text) * normalize(text)).sum(dim=1)).mean().backward()
        optimizer.step()
    assert 0.9 < fusion.log_odds.sigmoid().item() < 1


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), float("inf"), True, "half"])
def test_weights_outside_of_0_to_1_are_refused(weight: object) -> None:
    assert own_error(WeightedSum, weight).startswith("weight must be ")


@pytest.mark.parametrize("weight", [0, 1])
def test_a_weight_that_learns_cannot_start_at_an_end(weight: int) -> None:
    message = own_error(WeightedSum, weight, learned=True)
    assert message == f"a weight that learns must start between 0 and 1, got {weight:.1f}"


@pytest.mark.parametrize("option", ["normalize", "learned"])
def test_options_are_true_or_false(option: str) -> None:
    assert own_error(WeightedSum, **{option: "no"}).startswith(f"{option} must be True or False")
