"""Prompt directions: the constant, the dials, what is refused."""

import pytest
import torch
from raising import own_error
from torch import Tensor

from fusecomp._core.similarity import normalize
from fusecomp.fusions import Direction, WeightedSum

IMAGE, TEXT, REFERENCE = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [Tensor.clone, Tensor.tolist, Tensor.double])
def test_a_constant_is_the_reference_prompt_of_every_row(kind: object) -> None:
    constant = REFERENCE[0]
    fusion = Direction(kind(constant), 1.4, 0.6, 0.75)  # type: ignore[operator]
    expected = Direction(None, 1.4, 0.6, 0.75)(IMAGE, TEXT, constant.expand(4, 5))
    torch.testing.assert_close(fusion(IMAGE, TEXT), expected)


def test_the_keyword_takes_the_place_of_the_constant() -> None:
    with_constant = Direction(torch.ones(5))(IMAGE, TEXT, reference_text=REFERENCE)
    assert torch.equal(with_constant, Direction()(IMAGE, TEXT, reference_text=REFERENCE))
    assert not torch.allclose(with_constant, Direction(torch.ones(5))(IMAGE, TEXT))


def test_the_dials_at_their_ends() -> None:
    give = {"reference_text": REFERENCE}
    stays = Direction(alpha_image=0, beta=0)(IMAGE, TEXT, **give)
    torch.testing.assert_close(stays, normalize(IMAGE))
    published = Direction(beta=1)(IMAGE, TEXT, **give)
    torch.testing.assert_close(published, normalize(TEXT))
    reference = Direction(alpha_text=0, beta=1)(IMAGE, TEXT, **give)
    torch.testing.assert_close(reference, normalize(REFERENCE))
    unmoved = Direction(beta=0.3)(IMAGE, TEXT, reference_text=TEXT)
    torch.testing.assert_close(unmoved, WeightedSum(0.3)(IMAGE, TEXT))


def test_the_constant_follows_the_module_and_does_not_learn() -> None:
    fusion = Direction(torch.ones(5)).double()
    assert fusion(IMAGE.double(), TEXT.double()).dtype == torch.float64
    assert list(fusion.parameters()) == []
    assert fusion(IMAGE.bfloat16(), TEXT.bfloat16()).dtype == torch.bfloat16
    assert "reference_text=[5]" in repr(fusion)


def test_a_missing_reference_is_named_with_the_way_out() -> None:
    message = own_error(Direction(), IMAGE, TEXT)
    assert (
        "call it with reference_text=[B, D], or make it with Direction(reference_text=" in message
    )


@pytest.mark.parametrize(
    "reference",
    [REFERENCE[:, :4], REFERENCE[:3], REFERENCE[0], REFERENCE.double(), REFERENCE.long(), [1.0]],
)
def test_other_features_than_the_texts_are_refused(reference: object) -> None:
    assert "reference_text" in own_error(Direction(), IMAGE, TEXT, reference_text=reference)


@pytest.mark.parametrize(
    "constant",
    [torch.ones(4), torch.ones(0), torch.ones(1, 5), torch.ones(5).long(), [], [1.0, "a"]],
)
def test_other_constants_than_d_numbers_are_refused(constant: object) -> None:
    def use() -> Tensor:
        query: Tensor = Direction(constant)(IMAGE, TEXT)  # type: ignore[arg-type]
        return query

    assert "reference_text" in own_error(use)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_constant_that_is_not_finite_is_refused(value: float) -> None:
    assert own_error(Direction, torch.tensor([1.0, value])).startswith("reference_text must be")


@pytest.mark.parametrize("dial", ["alpha_image", "alpha_text", "beta"])
@pytest.mark.parametrize("value", [float("nan"), "one", None])
def test_dials_are_finite_numbers(dial: str, value: object) -> None:
    assert own_error(Direction, **{dial: value}).startswith(f"{dial} must be ")


@pytest.mark.parametrize("beta", [-0.1, 1.1])
def test_beta_is_a_share(beta: float) -> None:
    assert own_error(Direction, beta=beta) == f"beta must be in [0, 1], got {beta}"
