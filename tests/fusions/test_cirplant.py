"""CIRPLANT: its transformer in loops, its mask, and what it is given."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import own_error
from torch import Tensor

from fusecomp.fusions import CIRPLANT
from fusecomp.types import Tokens

DIM, WIDTH = 6, 4
LENGTHS = [3, 1, 5, 2]
Row = list[float]


def cirplant(seed: int = 0, text_dim: int = WIDTH, **options: Any) -> CIRPLANT:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"layers": 2, "heads": 3, "hidden_dim": 7, "max_tokens": 9}
    fusion = CIRPLANT(DIM, text_dim=text_dim, **(sizes | options)).double().eval()
    with torch.no_grad():  # biases and norms begin with zeros and ones, which hide mistakes
        for weight in fusion.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return fusion


def inputs(
    seed: int = 0, lengths: list[int] = LENGTHS, padded: int = 5, width: int = WIDTH
) -> tuple[Tensor, Tensor, Tokens]:
    """Image and text features, and tokens of these numbers."""
    generator = torch.Generator().manual_seed(seed)
    rows = len(lengths)
    shapes = (rows, DIM), (rows, width), (rows, padded, width)
    image, text, values = (
        torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes
    )
    return image, text, Tokens(values, torch.arange(padded) < torch.tensor(lengths)[:, None])


def linear(weight: Tensor, bias: Tensor, x: Row) -> Row:
    rows = zip(weight.tolist(), bias.tolist(), strict=True)
    return [b + sum(w * v for w, v in zip(row, x, strict=True)) for row, b in rows]


def plus(x: Row, y: Row) -> Row:
    return [a + b for a, b in zip(x, y, strict=True)]


def layer_norm(norm: Any, x: Row) -> Row:
    mean = sum(x) / len(x)
    spread = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + 1e-12)
    scaled = zip(x, norm.weight.tolist(), norm.bias.tolist(), strict=True)
    return [w * (v - mean) / spread + b for v, w, b in scaled]


def gelu(x: float) -> float:
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


def attended(layer: Any, sequence: list[Row], heads: int) -> list[Row]:
    """Every position's mixture of all positions, one head after the other."""
    attention, size = layer.self_attn, DIM // heads
    weights, biases = attention.in_proj_weight.split(DIM), attention.in_proj_bias.split(DIM)
    queries, keys, values = (
        [linear(w, b, x) for x in sequence] for w, b in zip(weights, biases, strict=True)
    )
    mixed = []
    for query in queries:
        joined: Row = []
        for start in range(0, DIM, size):
            part = slice(start, start + size)
            powers = [
                math.exp(
                    sum(a * b for a, b in zip(query[part], key[part], strict=True)) / size**0.5
                )
                for key in keys
            ]
            joined += [
                sum(p * value[k] for p, value in zip(powers, values, strict=True)) / sum(powers)
                for k in range(start, start + size)
            ]
        mixed.append(linear(attention.out_proj.weight, attention.out_proj.bias, joined))
    return mixed


def one_query(fusion: CIRPLANT, image: Row, tokens: list[Row]) -> Row:
    """The query of one row, without padding."""
    sequence = []
    for token, position in zip(tokens, fusion.positions.tolist(), strict=False):
        if fusion.text_dim != DIM:
            token = linear(fusion.projection.weight, fusion.projection.bias, token)  # type: ignore[arg-type]
        sequence.append(layer_norm(fusion.text_norm, plus(token, position)))
    sequence.append(image)
    for layer in fusion.transformer:
        assert isinstance(layer, torch.nn.TransformerEncoderLayer)
        mixed = attended(layer, sequence, fusion.heads)
        sequence = [
            layer_norm(layer.norm1, plus(x, m)) for x, m in zip(sequence, mixed, strict=True)
        ]
        inner = [
            [gelu(v) for v in linear(layer.linear1.weight, layer.linear1.bias, x)] for x in sequence
        ]
        outer = [linear(layer.linear2.weight, layer.linear2.bias, x) for x in inner]
        sequence = [
            layer_norm(layer.norm2, plus(x, o)) for x, o in zip(sequence, outer, strict=True)
        ]
    length = math.sqrt(sum(v * v for v in sequence[-1]))
    return [v / length for v in sequence[-1]]


@pytest.mark.parametrize("width", [WIDTH, DIM])
@pytest.mark.parametrize("heads", [1, 3])
def test_queries_equal_those_of_loops_over_one_row_at_a_time(width: int, heads: int) -> None:
    fusion = cirplant(text_dim=width, heads=heads)
    image, text, tokens = inputs(width=width)
    query = fusion(image, text, text_tokens=tokens)
    for row, length in enumerate(LENGTHS):
        words = tokens.values[row, :length].tolist()
        expected = one_query(fusion, image[row].tolist(), words)
        assert query[row].tolist() == pytest.approx(expected, rel=0, abs=1e-12)


def test_a_pooled_text_is_one_token() -> None:
    fusion, (image, text, _) = cirplant(), inputs()
    one = Tokens(text[:, None], torch.ones(4, 1, dtype=torch.bool))
    query = fusion(image, text)
    torch.testing.assert_close(fusion(image, text, text_tokens=one), query)
    for row in range(4):
        expected = one_query(fusion, image[row].tolist(), [text[row].tolist()])
        assert query[row].tolist() == pytest.approx(expected, rel=0, abs=1e-12)


def run(
    fusion: CIRPLANT, image: Tensor, text: Tensor, tokens: Tokens
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Queries, and the gradients of token values and of all weights."""
    fusion.zero_grad()
    values = tokens.values.detach().requires_grad_()
    query = fusion(image, text, text_tokens=Tokens(values, tokens.mask))
    generator = torch.Generator().manual_seed(5)
    query.backward(torch.randn(query.shape, dtype=query.dtype, generator=generator))
    assert values.grad is not None
    gradients = [weight.grad for weight in fusion.parameters()]
    return query.detach(), values.grad, [g for g in gradients if g is not None]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.sampled_from([0.0, -1.0, 1e30, torch.inf, torch.nan]),
    st.booleans(),
)
def test_what_masked_positions_hold_changes_nothing_to_the_bit(
    seed: int, lengths: list[int], value: float, training: bool
) -> None:
    fusion = cirplant(seed, dropout=0.0).train(training)
    image, text, tokens = inputs(seed, lengths)
    other = Tokens(tokens.values.masked_fill(~tokens.mask[..., None], value), tokens.mask)
    query, of_values, of_weights = run(fusion, image, text, tokens)
    again, of_others, of_weights_again = run(fusion, image, text, other)
    assert torch.equal(again, query)
    assert torch.equal(of_others, of_values)
    assert not of_others[~tokens.mask].any()
    assert of_others[tokens.mask].any()
    assert all(map(torch.equal, of_weights, of_weights_again))
    with torch.no_grad():  # torch takes another way through its layers
        one, two = (fusion(image, text, text_tokens=given) for given in (tokens, other))
        assert torch.equal(one, two)
        torch.testing.assert_close(one, query)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_neither_more_padding_nor_other_rows_change_a_row(seed: int, lengths: list[int]) -> None:
    fusion, (image, text, tokens) = cirplant(seed), inputs(seed, lengths)
    query = fusion(image, text, text_tokens=tokens)
    near: dict[str, Any] = {"rtol": 0, "atol": 1e-13}
    longer = Tokens(
        torch.nn.functional.pad(tokens.values, (0, 0, 0, 4)),
        torch.nn.functional.pad(tokens.mask, (0, 4)),
    )
    torch.testing.assert_close(fusion(image, text, text_tokens=longer), query, **near)
    for row, length in enumerate(lengths):
        one = slice(row, row + 1)
        alone = Tokens(tokens.values[one, :length], tokens.mask[one, :length])
        found = fusion(image[one], text[one], text_tokens=alone)
        torch.testing.assert_close(found, query[one], **near)
    order = torch.randperm(len(lengths))
    shuffled = Tokens(tokens.values[order], tokens.mask[order])
    found = fusion(image[order], text[order], text_tokens=shuffled)
    torch.testing.assert_close(found, query[order], **near)


def test_with_tokens_the_text_feature_is_not_used() -> None:
    fusion, (image, text, tokens) = cirplant(), inputs()
    query = fusion(image, text, text_tokens=tokens)
    assert torch.equal(fusion(image, torch.randn(4, 11).double(), text_tokens=tokens), query)


def test_word_order_matters() -> None:
    fusion, (image, text, tokens) = cirplant(), inputs(lengths=[5] * 4)
    back = Tokens(tokens.values.flip(1), tokens.mask)
    first, second = (fusion(image, text, text_tokens=given) for given in (tokens, back))
    assert (first - second).abs().amax(dim=1).min() > 1e-3


def test_gradients_with_tokens_are_those_of_finite_differences() -> None:
    fusion, (image, text, tokens) = cirplant(), inputs(lengths=[3, 1], padded=3)

    def query(image: Tensor, values: Tensor) -> Tensor:
        result: Tensor = fusion(image, text, text_tokens=Tokens(values, tokens.mask))
        return result

    given = image.requires_grad_(), tokens.values.requires_grad_()
    assert torch.autograd.gradcheck(query, given)


def test_compiled_with_tokens_it_is_the_same() -> None:
    fusion, (image, text, tokens) = cirplant(), inputs()
    torch._dynamo.reset()
    compiled = torch.compile(fusion, fullgraph=True, backend="aot_eager")
    query = fusion(image, text, text_tokens=tokens)
    torch.testing.assert_close(compiled(image, text, text_tokens=tokens), query)


def test_autocast_takes_tokens() -> None:
    fusion, (image, text, tokens) = cirplant().float(), inputs()
    half = Tokens(tokens.values.bfloat16(), tokens.mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        query = fusion(image.bfloat16(), text.bfloat16(), text_tokens=half)
    expected = cirplant()(image, text, text_tokens=tokens)
    torch.testing.assert_close(query.double(), expected, rtol=0, atol=0.1)


def test_every_layer_begins_with_its_own_weights_and_the_rest_as_bert_does() -> None:
    torch.manual_seed(0)
    fusion = CIRPLANT(64, layers=2)
    first, second = (layer.get_submodule("linear1").weight for layer in fusion.transformer)
    assert isinstance(first, Tensor)
    assert not torch.equal(first, second)  # type: ignore[arg-type]
    assert fusion.positions.std().item() == pytest.approx(0.02, rel=0.05)


def test_dropout_acts_in_training_only() -> None:
    fusion, (image, text, tokens) = cirplant(dropout=0.5), inputs()
    still = fusion(image, text, text_tokens=tokens)
    assert torch.equal(fusion(image, text, text_tokens=tokens), still)
    fusion.train()
    torch.manual_seed(0)
    moved = fusion(image, text, text_tokens=tokens)
    assert not torch.equal(fusion(image, text, text_tokens=tokens), moved)
    torch.manual_seed(0)
    assert torch.equal(fusion(image, text, text_tokens=tokens), moved)


CHANGES: dict[str, tuple[Callable[[Tokens], Any], str]] = {
    "values alone": (lambda t: t.values, "must be fusecomp.types.Tokens, got Tensor"),
    "a pair": (lambda t: (t.values, t.mask), "must be fusecomp.types.Tokens, got tuple"),
    "other rows": (
        lambda t: Tokens(t.values[:3], t.mask[:3]),
        "[4, L, 4] with L at most 9, got [3, 5, 4]",
    ),
    "another width": (
        lambda t: Tokens(t.values[..., :3], t.mask),
        "[4, L, 4] with L at most 9, got [4, 5, 3]",
    ),
    "too many": (
        lambda t: Tokens(t.values.repeat(1, 2, 1), torch.ones(4, 10, dtype=torch.bool)),
        "[4, L, 4] with L at most 9, got [4, 10, 4]",
    ),
    "another dtype": (lambda t: Tokens(t.values.float(), t.mask), "is torch.float32: bring both"),
    "another device": (lambda t: Tokens(t.values.to("meta"), t.mask.to("meta")), "is meta: bring"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_tokens_are_refused(change: str) -> None:
    fusion, (image, text, tokens) = cirplant(), inputs()
    bend, found = CHANGES[change]
    message = own_error(fusion, image, text, text_tokens=bend(tokens))
    assert "text_tokens" in message
    assert found in message


def test_image_and_text_are_checked_with_tokens_too() -> None:
    fusion, (image, text, tokens) = cirplant(), inputs()
    assert "image" in own_error(fusion, image[:, :3], text, text_tokens=tokens)
    assert "text" in own_error(fusion, image, text[:3], text_tokens=tokens)
    assert "text" in own_error(fusion, image, ["is red"] * 4, text_tokens=tokens)
    assert "image" in own_error(fusion, image.float(), text, text_tokens=tokens)
