"""Adapters give the libraries' own hidden states, of the pass that gives the features."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from raising import own_error
from tiny import make_open_clip, make_tokenizer, make_transformers
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fusecomp as fc
from fusecomp.encoders import OpenClipEncoder, SentenceTransformersText, TransformersEncoder

TEXTS = ["is red", "is blue and sleeveless", "red", "", "is red and blue and red and blue"]


def images(rows: int = 3) -> Tensor:
    return torch.randn(rows, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def of_open_clip(open_clip: Any, kind: str = "vit", **text: Any) -> OpenClipEncoder:
    return OpenClipEncoder(make_open_clip(kind, **text), open_clip.get_tokenizer("RN50"))


def of_transformers(transformers: Any, family: str) -> TransformersEncoder:
    return TransformersEncoder(
        make_transformers(transformers, family), make_tokenizer(transformers)
    )


@pytest.fixture(params=["open_clip", "clip", "siglip"])
def encoder(request: pytest.FixtureRequest) -> Any:
    library = "open_clip" if request.param == "open_clip" else "transformers"
    module = request.getfixturevalue(library)
    return (
        of_open_clip(module) if library == "open_clip" else of_transformers(module, request.param)
    )


@pytest.mark.filterwarnings("ignore:texts longer than the context")
def test_features_of_the_pass_are_those_without_tokens_to_the_bit(encoder: Any) -> None:
    text, text_tokens = encoder.encode_text_tokens(TEXTS)
    assert torch.equal(text, encoder.encode_text(TEXTS))
    image, image_tokens = encoder.encode_image_tokens(images())
    assert torch.equal(image, encoder.encode_image(images()))
    assert (len(text_tokens), len(image_tokens)) == (5, 3)
    assert image_tokens.mask.all()
    assert text_tokens.mask[:, 0].all()


def test_tokens_of_open_clip_are_its_own_last_states(open_clip: Any) -> None:
    encoder = of_open_clip(open_clip)
    model, tokens = encoder.model, open_clip.get_tokenizer("RN50")(TEXTS)
    states = model.forward_intermediates(text=tokens, normalize_intermediates=True)
    features, ours = encoder.encode_text_tokens(TEXTS)
    length = ours.mask.shape[1]
    expected = states["text_intermediates"][-1][:, :length]
    ends = tokens.argmax(dim=1)
    assert torch.equal(ours.mask, torch.arange(length) <= ends[:, None])
    torch.testing.assert_close(ours.values[ours.mask], expected[ours.mask], rtol=1e-5, atol=1e-6)
    last = ours.values[torch.arange(len(TEXTS)), ends]
    torch.testing.assert_close(last @ model.text_projection, features)

    states = model.visual.forward_intermediates(
        images(), normalize_intermediates=True, output_fmt="NLC", output_extra_tokens=True
    )
    features, ours = encoder.encode_image_tokens(images())
    prefix, patches = states["image_intermediates_prefix"][-1], states["image_intermediates"][-1]
    torch.testing.assert_close(ours.values, torch.cat([prefix, patches], dim=1))
    torch.testing.assert_close(ours.values[:, 0] @ model.visual.proj, features)


def test_a_token_that_is_also_the_padding_counts_within_a_text(open_clip: Any) -> None:
    """OpenAI's vocabulary begins with "!", and pads with its number."""
    encoder = of_open_clip(open_clip)
    texts = ["red !` is red", "red"]
    _, tokens = encoder.encode_text_tokens(texts)
    numbers = open_clip.get_tokenizer("RN50")(texts)
    ends = numbers.argmax(dim=1)
    assert 0 in numbers[0, : ends[0]]
    assert tokens.mask.sum(dim=1).tolist() == (ends + 1).tolist()


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.filterwarnings("ignore:texts longer than the context")
def test_tokens_of_transformers_are_its_last_hidden_states(transformers: Any, family: str) -> None:
    encoder = of_transformers(transformers, family)
    model: Any = encoder.model
    taken, mask = encoder._tokens(TEXTS)
    _, tokens = encoder.encode_text_tokens(TEXTS)
    assert torch.equal(tokens.values, model.text_model(**taken).last_hidden_state)
    assert torch.equal(tokens.mask, mask.bool())
    assert tokens.mask.sum(dim=1).tolist() == [3, 5, 2, 1, 8]
    features, tokens = encoder.encode_image_tokens(images())
    expected = model.vision_model(pixel_values=images()).last_hidden_state
    if family == "clip":  # it normalises what it pools alone
        expected = model.vision_model.post_layernorm(expected)
        torch.testing.assert_close(model.visual_projection(tokens.values[:, 0]), features)
    assert torch.equal(tokens.values, expected)


def test_padding_and_neighbours_change_no_token(encoder: Any) -> None:
    texts = TEXTS[:3]
    _, together = encoder.encode_text_tokens(texts)
    for row, text in enumerate(texts):
        _, alone = encoder.encode_text_tokens([text])
        one, other = alone.values[0, alone.mask[0]], together.values[row, together.mask[row]]
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_tokens_have_gradients_of_their_tower_alone(encoder: Any) -> None:
    towers = encoder.towers
    for side, inputs in (("image", images()), ("text", TEXTS[:3])):
        encoder.zero_grad()
        _, tokens = getattr(encoder, f"encode_{side}_tokens")(inputs)
        tokens.values[tokens.mask].square().sum().backward()
        learned = {n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.any()}
        assert learned
        assert learned <= set(towers[side])


def test_tokens_and_features_are_those_of_one_dropout(transformers: Any) -> None:
    encoder = of_transformers(transformers, "clip")
    encoder.train()
    for module in encoder.modules():
        if "attention" in type(module).__name__.lower():
            module.dropout = 0.5  # type: ignore[assignment]
    model: Any = encoder.model
    features, tokens = encoder.encode_image_tokens(images())
    assert not torch.equal(features, encoder.encode_image(images()))
    torch.testing.assert_close(model.visual_projection(tokens.values[:, 0]), features)


def test_tokens_that_are_computed_again_have_the_same_gradients(encoder: Any) -> None:
    gradients = []
    for again in (False, True):
        encoder.zero_grad()

        def encode(inputs: Tensor) -> Any:
            return encoder.encode_image_tokens(inputs)

        features, tokens = (
            checkpoint(encode, images(), use_reentrant=False) if again else encode(images())
        )
        (features.square().sum() + tokens.values.pow(3).sum()).backward()
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 4
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_each_thread_sees_its_own_tokens(encoder: Any) -> None:
    batches = [TEXTS[:3], TEXTS[1:2], [TEXTS[2]] * 4]
    expected = [encoder.encode_text_tokens(texts)[1] for texts in batches]

    def turn(number: int) -> Any:
        with torch.no_grad():
            return encoder.encode_text_tokens(batches[number % 3])[1]

    with ThreadPoolExecutor(4) as pool:
        for number, tokens in enumerate(pool.map(turn, range(60))):
            torch.testing.assert_close(tokens.values, expected[number % 3].values)
    assert not any(module._forward_hooks for module in encoder.modules())


def test_towers_without_hidden_states_are_named(open_clip: Any) -> None:
    resnet = of_open_clip(open_clip, "resnet")
    assert resnet.token_sides == ["text"]
    needing: Any = lambda image, text, image_tokens: image  # noqa: E731
    assert "needs image_tokens, which this OpenClipEncoder" in own_error(
        fc.ComposedEncoder, resnet, needing
    )
    assert of_open_clip(open_clip).token_sides == ["image", "text"]

    class PooledFirst(nn.Module):
        """As OpenAI's own package writes a vision transformer."""

        def __init__(self, visual: Any) -> None:
            super().__init__()
            self.inner, self.ln_post = visual, visual.ln_post

        def forward(self, pixels: Tensor) -> Tensor:
            features: Tensor = self.ln_post(pixels.flatten(1)[:, :16])
            return features

    encoder = of_open_clip(open_clip)
    encoder.model.visual = PooledFirst(encoder.model.visual)
    error = own_error(encoder.encode_image_tokens, images())
    assert "this image tower pools before its last norm" in error


def test_a_sentence_encoder_gives_its_token_embeddings(minilm: Any) -> None:
    encoder = fc.DualEncoder(
        nn.Linear(9, 16), SentenceTransformersText(minilm), dim=16, image_dim=16
    )
    assert encoder.token_sides == ["text"]
    texts = ["is blue", "has no sleeves and a longer skirt"]
    features, tokens = encoder.encode_text_tokens(texts)
    assert torch.equal(features, encoder.encode_text(texts))
    own = minilm.encode(texts, output_value="token_embeddings")
    for row, expected in enumerate(own):
        values = tokens.values[row, tokens.mask[row]]
        torch.testing.assert_close(values, expected.clone(), rtol=1e-4, atol=1e-5)


def test_both_sides_of_ones_own_give_tokens_below_the_head() -> None:
    class Rows(nn.Module):
        def encode_tokens(self, inputs: Tensor) -> tuple[Tensor, fc.types.Tokens]:
            mask = torch.ones(inputs.shape[:2], dtype=torch.bool)
            return inputs.mean(1), fc.types.Tokens(inputs, mask)

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.mean(1)

    encoder = fc.DualEncoder(Rows(), Rows(), image_dim=4, text_dim=4, dim=3)
    inputs = torch.randn(2, 5, 4)
    for side in ("image", "text"):
        features, tokens = getattr(encoder, f"encode_{side}_tokens")(inputs)
        assert torch.equal(features, getattr(encoder, f"encode_{side}")(inputs))
        assert features.shape == (2, 3)
        assert torch.equal(tokens.values, inputs)
