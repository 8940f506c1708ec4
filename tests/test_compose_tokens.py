"""Composing with what a fusion names: tokens of both sides, and prompts of references."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import own_error
from tokened import TEXT_WIDTH, Everything, Letters, Prompted, composed, encoder, masked_mean
from torch import Tensor, nn
from toy import DIM

import fusecomp as fc
from fusecomp._core.keywords import needed_keywords, taken_keywords
from fusecomp.types import FUSION_KEYWORDS, Tokens

TEXTS = ["word 2", "word 0", "word 4", "word 1"]


class TokensAlone(nn.Module):
    """The mean of the text's tokens, and the number of them."""

    def forward(self, image: Tensor, text: Tensor, text_tokens: Tokens | None = None) -> Tensor:
        assert text_tokens is not None
        counts = text_tokens.mask.sum(1, keepdim=True)
        return torch.cat([masked_mean(text_tokens), counts, image[:, :1]], dim=1)


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tokens]:
    """Two rows with four texts."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, DIM), (4, DIM), (4, 5, TEXT_WIDTH))
    image, text, values = (torch.randn(s, generator=generator) for s in shapes)
    mask = torch.arange(5) < torch.tensor([3, 1, 5, 2])[:, None]
    return image, text, Tokens(values, mask)


def test_keywords_of_a_fusion_and_those_it_needs() -> None:
    def some(image: Tensor, text: Tensor, *, text_tokens: Any, reference_text: Any = None) -> Any:
        return image

    assert taken_keywords(some, FUSION_KEYWORDS) == ("text_tokens", "reference_text")
    assert needed_keywords(some, FUSION_KEYWORDS) == ("text_tokens",)
    compiled = torch.compile(Everything(), backend="eager")
    assert needed_keywords(compiled, FUSION_KEYWORDS) == FUSION_KEYWORDS
    assert needed_keywords(torch.add, FUSION_KEYWORDS) == ()


def test_a_wrapped_fusion_gets_what_it_names() -> None:
    model = fc.ComposedEncoder(encoder(), nn.DataParallel(Everything()))
    assert model.fusion_keywords == FUSION_KEYWORDS
    plain = fc.DualEncoder(nn.Linear(4, DIM), encoder().text)
    with pytest.raises(ValueError, match="needs image_tokens"):
        fc.ComposedEncoder(plain, nn.DataParallel(Everything()))


def test_a_query_is_made_of_one_pass_over_each_side(monkeypatch: pytest.MonkeyPatch) -> None:
    model = composed()
    passes: list[int] = []
    real = Letters.encode_tokens

    def counted(self: Letters, texts: Any) -> Any:
        passes.append(len(texts))
        return real(self, texts)

    monkeypatch.setattr(Letters, "encode_tokens", counted)
    images = torch.randn(4, 4, dtype=torch.float64)
    model.encode_query(images, TEXTS, ["word 3"] * 4)
    assert passes == [4, 4]  # texts and prompts
    with torch.no_grad():
        live: Any = model.encoder
        image, image_tokens = live.encode_image_tokens(images)
        text, text_tokens = live.encode_text_tokens(TEXTS)
        prompts = live.encode_text(["word 3"] * 4)
        expected = model.compose(
            image,
            text,
            image_tokens=image_tokens,
            text_tokens=text_tokens,
            reference_text=prompts,
        )
        assert torch.equal(model.encode_query(images, TEXTS, ["word 3"] * 4), expected)


def test_many_texts_are_encoded_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = composed()
    images, texts = torch.randn(4, 4, dtype=torch.float64), [TEXTS[1], *TEXTS[:3]]
    whole = model.encode_query(images, texts, TEXTS)
    monkeypatch.setattr("fusecomp.model._BATCH", 1)
    torch.testing.assert_close(model.encode_query(images, texts, TEXTS), whole)


def test_calling_a_model_gives_the_fusion_its_tokens() -> None:
    model = composed("CIRPLANT").eval()
    images = torch.randn(4, 4, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(model(images, TEXTS), model.encode_query(images, TEXTS))


def test_tokens_of_several_texts_follow_one_another() -> None:
    model = fc.ComposedEncoder(encoder(), TokensAlone())
    image, text, tokens = inputs()
    query = model.compose(image, text, torch.tensor([3, 1]), text_tokens=tokens)
    rows = [torch.cat([tokens.values[n][tokens.mask[n]] for n in row]) for row in ([0, 1, 2], [3])]
    for got, row, features in zip(query, rows, image, strict=True):
        expected = torch.cat([row.mean(0), torch.tensor([float(len(row))]), features[:1]])
        torch.testing.assert_close(got, nn.functional.normalize(expected, dim=0))


@given(
    filler=st.sampled_from([0.0, 7.0, float("nan"), float("inf")]),
    padding=st.integers(0, 3),
    seed=st.integers(0, 5),
)
@settings(max_examples=25, deadline=None)
def test_masked_positions_change_nothing_to_the_bit(filler: float, padding: int, seed: int) -> None:
    """Neither what they hold, nor, where several texts are joined, how many there are."""
    image, text, tokens = inputs(seed)
    values = tokens.values.masked_fill(~tokens.mask[..., None], filler)
    wider = Tokens(
        nn.functional.pad(values, (0, 0, 0, padding), value=filler),
        nn.functional.pad(tokens.mask, (0, padding)),
    )
    model = composed("CIRPLANT").float().eval()
    counts = torch.tensor([1, 3])
    expected = model.compose(image, text, counts, text_tokens=tokens)
    assert torch.equal(model.compose(image, text, counts, text_tokens=wider), expected)
    one = Tokens(tokens.values[:2], tokens.mask[:2]), Tokens(values[:2], tokens.mask[:2])
    queries = [model.compose(image, text[:2], text_tokens=given) for given in one]
    assert torch.equal(*queries)


def test_joined_tokens_have_gradients() -> None:
    image, text, tokens = inputs()
    values = tokens.values.clone().requires_grad_()
    model = fc.ComposedEncoder(encoder(), TokensAlone())
    given = Tokens(values, tokens.mask)
    model.compose(image, text, torch.tensor([3, 1]), text_tokens=given).sum().backward()
    assert values.grad is not None
    assert values.grad[tokens.mask].any(1).all()
    assert not values.grad[~tokens.mask].any()


def test_half_tokens_widen_and_take_the_dtype_of_the_fusion() -> None:
    seen: list[torch.dtype] = []

    def watch(image: Tensor, text: Tensor, *, text_tokens: Tokens) -> Tensor:
        seen.append(text_tokens.values.dtype)
        return image

    class Watch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, image: Tensor, text: Tensor, text_tokens: Tokens) -> Tensor:
            return watch(image, text, text_tokens=text_tokens)

    image, text, tokens = inputs()
    half = Tokens(tokens.values.half(), tokens.mask)
    fusions: list[Any] = [Watch(), watch]
    for fusion in fusions:
        model = fc.ComposedEncoder(encoder(), fusion)
        model.compose(image, text, torch.tensor([3, 1]), text_tokens=half)
    assert seen == [torch.float64, torch.float32]


def test_what_a_fusion_does_not_name_it_does_not_get() -> None:
    image, text, tokens = inputs()
    model = fc.ComposedEncoder(encoder(), fc.Sum())
    more: dict[str, Any] = {"text_tokens": tokens, "reference_text": text[:2]}
    counts = torch.tensor([3, 1])
    assert torch.equal(
        model.compose(image, text, counts, **more), model.compose(image, text, counts)
    )
    texts = ["word 1"] * 2
    images = torch.randn(2, 4, dtype=torch.float64)
    assert torch.equal(
        model.encode_query(images, texts, ["word 2"] * 2), model.encode_query(images, texts)
    )


BAD: dict[str, tuple[Any, str]] = {
    "fewer rows": (lambda t: Tokens(t.values[:3], t.mask[:3]), "has 3 rows, but there are 4 texts"),
    "a tensor": (lambda t: t.values, "must be fusecomp.types.Tokens, got Tensor"),
}


@pytest.mark.parametrize("bad", BAD)
def test_tokens_that_do_not_fit_are_named(bad: str) -> None:
    change, message = BAD[bad]
    image, text, tokens = inputs()
    model = fc.ComposedEncoder(encoder(), TokensAlone())
    given: Any = change(tokens)
    error = own_error(model.compose, image, text, torch.tensor([3, 1]), text_tokens=given)
    assert f"text_tokens {message}" in error


def test_prompts_that_do_not_fit_are_named() -> None:
    image, text, _ = inputs()
    fusion: Any = lambda image, text, reference_text: image  # noqa: E731
    model = fc.ComposedEncoder(encoder(), fusion)
    error = own_error(model.compose, image, text[:2], reference_text=text)
    assert "reference_text has 4 rows, but there are 2 images" in error
    error = own_error(model.compose, image, text[:2])
    assert error == "the fusion needs reference_text: pass it to compose"
    images = torch.randn(2, 4, dtype=torch.float64)
    error = own_error(model.encode_query, images, TEXTS[:2], TEXTS)
    assert "2 references but 4 reference_texts" in error


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda features, tokens: (features, "tokens"), "1 rows of Tensor, 'tokens'"),
        (lambda features, tokens: tokens, "1 rows of Tokens"),
        (lambda features, tokens: (tokens, features), "1 rows of Tokens, 1 rows of Tensor"),
        (lambda features, tokens: features, "1 rows of Tensor"),
        (lambda features, tokens: None, "None"),
        (lambda features, tokens: (features[:0], tokens), "0 rows of Tensor, 1 rows of Tokens"),
    ],
)
def test_an_encoder_that_gives_no_tokens_after_all_is_named(change: Any, got: str) -> None:
    class Lying(fc.DualEncoder):
        def encode_text_tokens(self, texts: Any) -> Any:
            return change(*super().encode_text_tokens(texts))

    both = encoder()
    model = fc.ComposedEncoder(Lying(both.image, both.text).double(), TokensAlone())
    error = own_error(model.encode_query, torch.randn(1, 4, dtype=torch.float64), ["word 1"])
    assert "encode_text_tokens must return (features, Tokens), in this order" in error
    assert error.endswith(f"got {got}")


def test_a_fusion_with_a_default_goes_without_and_says_so() -> None:
    """Then CIRPLANT is attention over the two pooled vectors."""
    live = fc.DualEncoder(nn.Linear(4, DIM), nn.EmbeddingBag(9, DIM))
    told = "CIRPLANT takes text_tokens, which this DualEncoder does not give .*GivesTokens.* alone"
    with pytest.warns(UserWarning, match=told) as caught:
        model = fc.ComposedEncoder(live, fc.fusions.CIRPLANT(DIM, 1, 2)).eval()
    assert [warning.filename for warning in caught] == [__file__]
    image, text, _ = inputs()
    query = model.compose(image, text[:2])
    torch.testing.assert_close(query, model.fusion(image, text[:2]))


@pytest.mark.parametrize("sides", [["text"], []])
def test_a_saved_model_is_loaded_with_the_tokens_that_it_was_trained_on(
    tmp_path: Path, sides: list[str]
) -> None:
    """CIRPLANT takes tokens and pooled features: only the file tells which it has learnt on."""
    data, path = Prompted(tmp_path, rows=4), tmp_path / "model"
    with_tokens, without = (
        fc.CachedEncoder.build(encoder(), data, tokens=kept) for kept in (["text"], [])
    )
    fusion = fc.fusions.CIRPLANT(DIM, 1, 2, text_dim=TEXT_WIDTH).double()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "CIRPLANT takes text_tokens")
        fc.ComposedEncoder(with_tokens if sides else without, fusion).save(path)
        told = "was 'text' and is gone" if sides else "was not there and is now 'text'"
        with pytest.raises(ValueError, match=f"other settings .* token_sides {told}"):
            fc.ComposedEncoder.load(path, without if sides else encoder())
        fc.ComposedEncoder.load(path, encoder() if sides else without)
