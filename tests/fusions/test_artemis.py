"""ARTEMIS: its scores one by one, its laws, and what it holds."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from largest import Largest
from raising import own_error
from torch import Tensor, nn

from fusecomp._core.similarity import normalize
from fusecomp.fusions import ARTEMIS

TERMS = [["EM", "IS"], ["EM"], ["IS"]]
every_term = pytest.mark.parametrize("terms", TERMS, ids="+".join)
seeds = st.integers(0, 10**6)
# Lengths that the squares of float64 and even float32 numbers hold.
lengths = st.floats(1e-5, 1e15)


def inputs(
    seed: int = 0, dim: int = 5, text_dim: int = 3, queries: int = 4, targets: int = 6
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (queries, dim), (queries, text_dim), (targets, dim)
    image, text, target = (
        torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes
    )
    return image, text, target


def artemis(terms: list[str] | None = None, seed: int = 0, sharpness: float = 1.0) -> ARTEMIS:
    """A small one; sharpness multiplies the logits of its attentions."""
    torch.manual_seed(seed)
    fusion = ARTEMIS(5, terms or ["EM", "IS"], text_dim=3).double()
    with torch.no_grad():
        for attention in fusion.attentions.values():
            last = attention.get_submodule("2")
            for weight in last.parameters():
                weight.mul_(sharpness)
    return fusion


def linear(layer: Any, x: list[float]) -> list[float]:
    return [
        b + sum(w * v for w, v in zip(row, x, strict=True))
        for row, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def unit(x: list[float]) -> list[float]:
    length = math.sqrt(math.fsum(v * v for v in x))
    return [v / length for v in x]


def dot(x: list[float], y: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def scaled(x: list[float], y: list[float]) -> list[float]:
    return [a * b for a, b in zip(x, y, strict=True)]


def attention(layers: Any, m: list[float]) -> list[float]:
    hidden = [max(v, 0.0) for v in linear(layers[0], m)]
    powers = [math.exp(v) for v in linear(layers[2], hidden)]
    return [power / math.fsum(powers) for power in powers]


def score(fusion: ARTEMIS, r: list[float], m: list[float], x: list[float]) -> float:
    """The published score of one query with one candidate."""
    m, found = unit(m), 0.0
    if "EM" in fusion.terms:
        a = attention(fusion.attentions["EM"], m)
        found += dot(unit(linear(fusion.transform, m)), unit(scaled(a, x)))
    if "IS" in fusion.terms:
        b = attention(fusion.attentions["IS"], m)
        found += dot(unit(scaled(b, r)), unit(scaled(b, x)))
    return found


@every_term
@pytest.mark.parametrize("sharpness", [0.1, 1.0, 10.0, 30.0])
def test_scores_equal_those_of_one_pair_at_a_time(terms: list[str], sharpness: float) -> None:
    fusion = artemis(terms, sharpness=sharpness)
    image, text, target = inputs()
    scores = fusion.similarity(fusion(image, text), target)
    expected = [
        [score(fusion, r, m, x) for x in target.tolist()]
        for r, m in zip(image.tolist(), text.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        scores.detach(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_a_gallery_in_pieces_gives_the_scores_of_the_whole() -> None:
    torch.manual_seed(0)
    fusion = ARTEMIS(64).double()
    image, text, target = inputs(1, 64, 64, queries=30, targets=500)
    query = fusion(image, text)
    scores = fusion.similarity(query, target)
    for size in (1, 7, 499):
        pieces = torch.cat([fusion.similarity(query, part) for part in target.split(size)], dim=1)
        torch.testing.assert_close(pieces, scores, rtol=0, atol=1e-12)
        pieces = torch.cat([fusion.similarity(part, target) for part in query.split(size)])
        torch.testing.assert_close(pieces, scores, rtol=0, atol=1e-12)
    order = torch.randperm(500)
    shuffled = fusion.similarity(query, target[order])
    torch.testing.assert_close(shuffled, scores[:, order], rtol=0, atol=1e-12)


def test_two_terms_are_the_sum_of_each_alone() -> None:
    both, (image, text, target) = artemis(), inputs()
    alone = []
    for term in ("EM", "IS"):
        fusion = artemis([term])
        fusion.load_state_dict(both.state_dict(), strict=False)
        alone.append(fusion.similarity(fusion(image, text), target))
    torch.testing.assert_close(sum(alone), both.similarity(both(image, text), target))


def test_explicit_matching_alone_does_not_look_at_the_reference() -> None:
    fusion, (image, text, _) = artemis(["EM"]), inputs()
    assert torch.equal(fusion(image, text), fusion(torch.zeros_like(image), text))


@settings(max_examples=50, deadline=None)
@given(seeds, lengths, lengths, lengths, st.sampled_from(TERMS))
def test_the_length_of_no_input_matters(
    seed: int, of_image: float, of_text: float, of_target: float, terms: list[str]
) -> None:
    fusion, (image, text, target) = artemis(terms, seed), inputs(seed)
    expected = fusion.similarity(fusion(image, text), target)
    scores = fusion.similarity(fusion(of_image * image, of_text * text), of_target * target)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(seeds, st.floats(0, 1000), st.sampled_from(TERMS), st.sampled_from(["float32", "float64"]))
def test_scores_are_sums_of_cosines(
    seed: int, sharpness: float, terms: list[str], dtype: str
) -> None:
    """Also where the attention leaves next to nothing of a candidate."""
    fusion = artemis(terms, seed, sharpness).to(vars(torch)[dtype])
    image, text, target = (side.to(vars(torch)[dtype]) for side in inputs(seed))
    target = target.clone().requires_grad_()
    scores = fusion.similarity(fusion(image, text), target)
    assert scores.abs().max() <= len(terms) * (1 + 1e-5)
    scores.sum().backward()
    assert target.grad is not None
    for weight in (target, *fusion.parameters()):
        assert weight.grad is not None
        assert weight.grad.isfinite().all()


@settings(max_examples=50, deadline=None)
@given(seeds, st.floats(0, 100))
def test_implicit_similarity_to_the_reference_itself_is_one(seed: int, sharpness: float) -> None:
    """Also where the attention is on features that are 0; beyond 200 it leaves others no digits."""
    fusion, (image, text, _) = artemis(["IS"], seed, sharpness), inputs(seed)
    image[:, :3] = 0
    scores = fusion.similarity(fusion(image, text), image)
    torch.testing.assert_close(scores.diag(), torch.ones(4).double(), rtol=0, atol=1e-12)


def test_zero_references_and_texts_have_scores_and_gradients() -> None:
    fusion, (image, text, target) = artemis(), inputs()
    image, text = torch.zeros_like(image), torch.zeros_like(text)
    for side in (image, text):
        side.requires_grad_()
    scores = fusion.similarity(fusion(image, text), target)
    scores.sum().backward()
    assert scores.isfinite().all()
    assert image.grad is not None
    assert text.grad is not None
    assert image.grad.isfinite().all()
    assert text.grad.isfinite().all()
    alone = artemis(["IS"])
    assert not alone.similarity(alone(image, text), target).any()


@pytest.mark.parametrize("length", [1e-5, 1e30])
def test_candidates_of_any_length_are_compared_in_float32(length: float) -> None:
    fusion, (image, text, target) = artemis().float(), (side.float() for side in inputs())
    query = fusion(image, text)
    expected = fusion.similarity(query, target)
    torch.testing.assert_close(fusion.similarity(query, length * target), expected)


@pytest.mark.parametrize(("left", "expected"), [(1e-5, 1), (1e-15, 1), (2e-16, 0), (1e-20, 0)])
def test_a_candidate_of_which_too_little_is_left_scores_zero(left: float, expected: int) -> None:
    fusion, attention = ARTEMIS(2, ["EM"]), torch.tensor([[1.0, left]])
    query = torch.cat((attention * torch.tensor([[0.0, 1.0]]), attention**2), dim=1)
    query, target = query.requires_grad_(), torch.tensor([[0.0, 3.0]], requires_grad=True)
    score = fusion.similarity(query, target)
    assert score.item() == pytest.approx(expected, abs=1e-6 if expected else 0)
    score.backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()
    assert query.grad.any() == bool(expected)


def test_nothing_larger_than_the_products_is_held() -> None:
    fusion = ARTEMIS(32)
    image, text, target = (side.float() for side in inputs(0, 32, 32, queries=50, targets=200))
    query = fusion(image, text)
    with Largest() as largest:
        fusion.similarity(query, target).sum().backward()
    assert largest.numbers == 2 * 50 * 200


def test_the_query_is_that_of_the_formula() -> None:
    fusion, (image, text, _) = artemis(), inputs()
    u, v, a_squared, b_squared = fusion(image, text).split(5, dim=1)
    a, b = a_squared.sqrt(), b_squared.sqrt()
    m = normalize(text)
    for found, term in ((a, "EM"), (b, "IS")):
        expected = fusion.attentions[term](m).softmax(dim=1)
        torch.testing.assert_close(found / found.sum(dim=1, keepdim=True), expected)
        assert torch.equal(found.amax(dim=1), torch.ones(4).double())  # far from underflow
    torch.testing.assert_close(u, a * normalize(fusion.transform(m)))
    torch.testing.assert_close(v, b * normalize(b * image))


def test_terms_have_one_order_and_are_counted_once() -> None:
    torch.manual_seed(0)
    first = ARTEMIS(4, ("EM", "IS"))
    torch.manual_seed(0)
    second = ARTEMIS(4, ["IS", "EM", "IS"])
    assert second.terms == ["EM", "IS"]
    assert "terms=['EM', 'IS']" in repr(second)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ("EM", "terms must be a list of strings, got the string 'EM'"),
        ([], "terms must name EM, IS or both, got none"),
        (["EM", "AM"], "unknown term 'AM'; valid: 'EM', 'IS'"),
        ([None], "terms must be a list of strings"),
        (None, "terms must be a list of strings"),
        ({"EM"}, "terms must be a list of strings"),
    ],
)
def test_other_terms_are_refused(terms: Any, message: str) -> None:
    assert own_error(ARTEMIS, 4, terms).startswith(message)


def test_queries_of_other_terms_are_refused() -> None:
    both, one = ARTEMIS(4), ARTEMIS(4, ["IS"])
    query = one(torch.randn(2, 4), torch.randn(2, 4))
    assert own_error(both.similarity, query, torch.randn(3, 4)) == (
        "this ARTEMIS compares query [Q, 16] with target [N, 4], got query [2, 8] and target [3, 4]"
    )


def test_it_learns_to_find_its_targets() -> None:
    torch.manual_seed(0)
    fusion = ARTEMIS(8)
    image, text = torch.randn(2, 32, 8)
    target = image * text.sigmoid()
    optimizer = torch.optim.Adam(fusion.parameters(), lr=0.01)

    def loss() -> Tensor:
        scores = fusion.similarity(fusion(image, text), target)
        return nn.functional.cross_entropy(scores / 0.07, torch.arange(32))

    before = loss().item()
    for _ in range(50):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.7 * before
