"""CLIP and SigLIP of transformers, with random weights."""

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CONTEXT, WORDS, make_tokenizer, make_transformers
from torch import Tensor, nn

import fusecomp as fc
from fusecomp.encoders import TransformersEncoder

TEXTS = ["is red", "is blue and sleeveless", "red"]


def processor(transformers: Any) -> Any:
    return transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)


@pytest.fixture(params=["clip", "siglip"])
def encoder(transformers: Any, request: pytest.FixtureRequest) -> TransformersEncoder:
    model = make_transformers(transformers, request.param)
    return TransformersEncoder(model, make_tokenizer(transformers), processor(transformers))


def own_features(output: Any) -> Tensor:
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features.detach()


def test_features_are_those_of_the_library(encoder: TransformersEncoder) -> None:
    model, siglip = encoder.model, "siglip" in encoder.model.config.model_type
    padding = {"padding": "max_length", "max_length": CONTEXT} if siglip else {"padding": True}
    tokens: Any = encoder.tokenizer(TEXTS, return_tensors="pt", **padding)
    if siglip:
        expected = own_features(model.get_text_features(input_ids=tokens["input_ids"]))
    else:
        expected = own_features(
            model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
        )
    torch.testing.assert_close(encoder.encode_text(TEXTS), expected, rtol=0, atol=1e-6)
    pixels = torch.randn(3, 3, 16, 16)
    expected = own_features(model.get_image_features(pixel_values=pixels))
    torch.testing.assert_close(encoder.encode_image(pixels), expected, rtol=0, atol=1e-6)
    assert encoder.output_dim == expected.shape[1]


def test_clip_gives_the_projected_embeddings(transformers: Any) -> None:
    """What ``logits_per_image`` is made of, which every version of the library has."""
    model = make_transformers(transformers, "clip")
    encoder = TransformersEncoder(model, make_tokenizer(transformers))
    pixels = torch.randn(3, 3, 16, 16)
    tokens: Any = encoder.tokenizer(TEXTS, return_tensors="pt", padding=True)
    output = model(
        input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels
    )
    ours = nn.functional.normalize(encoder.encode_image(pixels), dim=-1)
    torch.testing.assert_close(ours, output.image_embeds, rtol=0, atol=1e-6)
    ours = nn.functional.normalize(encoder.encode_text(TEXTS), dim=-1)
    torch.testing.assert_close(ours, output.text_embeds, rtol=0, atol=1e-6)


def test_a_text_does_not_depend_on_its_neighbours(encoder: TransformersEncoder) -> None:
    together = encoder.encode_text(TEXTS)
    for text, features in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(encoder.encode_text([text])[0], features, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_images_are_processed_as_the_library_does(
    encoder: TransformersEncoder, transformers: Any, tmp_path: Path, mode: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).convert(mode).save(path)
    assert encoder.load_image is not None
    image = pickle.loads(pickle.dumps(encoder.load_image))(path)
    expected = processor(transformers)(images=Image.open(path).convert("RGB"), return_tensors="pt")
    assert torch.equal(image, expected["pixel_values"][0])


def test_each_side_has_its_parameters(encoder: TransformersEncoder) -> None:
    names = {name for name, _ in encoder.named_parameters()}
    image, text = (set(encoder.towers[side]) for side in ("image", "text"))
    assert not image & text
    assert {name.split(".")[-1] for name in names - image - text} <= {"logit_scale", "logit_bias"}
    assert "model.logit_scale" not in image | text
    encoder.zero_grad()
    encoder.encode_text(TEXTS).sum().backward()
    learned = {n for n, p in encoder.named_parameters() if p.grad is not None}
    assert learned == text


def test_long_texts_are_cut_with_one_warning(encoder: TransformersEncoder) -> None:
    long = "is red and blue and red and blue and red"
    with pytest.warns(UserWarning, match="are cut, for example 'is red and blue") as warned:
        features = encoder.encode_text(["red", long])
        encoder.encode_text([long])
    assert len(warned) == 1
    torch.testing.assert_close(encoder.encode_text(["red", f"{long} is is"]), features)


def test_many_threads_use_the_tokenizer_one_at_a_time(encoder: TransformersEncoder) -> None:
    """It keeps padding and truncation of its last call, whichever thread made it."""
    tokenizer, inside, most = encoder.tokenizer, threading.Semaphore(1), []

    def slow(*args: Any, **settings: Any) -> Any:
        most.append(inside.acquire(blocking=False))
        time.sleep(0.002)
        inside.release()
        return tokenizer(*args, **settings)

    encoder.tokenizer = slow
    with ThreadPoolExecutor(8) as pool:
        features = list(pool.map(encoder.encode_text, [TEXTS] * 40))
    assert all(most)
    assert all(torch.equal(rows, features[0]) for rows in features)


def test_a_text_that_just_fits_does_not_warn(encoder: TransformersEncoder) -> None:
    encoder.encode_text(["is red and blue and is red"])


def test_a_tokenizer_of_another_model_is_refused(
    encoder: TransformersEncoder, transformers: Any
) -> None:
    other = make_tokenizer(transformers, [*WORDS, "spotted"])
    with pytest.raises(ValueError, match="gives token 8, but the model knows 8: it belongs"):
        TransformersEncoder(encoder.model, other).encode_text(["spotted"])


def test_the_fingerprint_knows_weights_tokens_and_processor(
    encoder: TransformersEncoder, transformers: Any
) -> None:
    tokenizer = encoder.tokenizer
    keys = {encoder.fingerprint(), encoder.fingerprint()}
    other = transformers.CLIPImageProcessor(size={"shortest_edge": 24}, crop_size=16)
    keys.add(TransformersEncoder(encoder.model, tokenizer, other).fingerprint())
    next(encoder.parameters()).data += 1e-3
    keys.add(encoder.fingerprint())
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.Linear(2, 2), len), "got Linear, which has no get_image_features"),
        (("openai/clip", len), "got str, which has no get_image_features"),
    ],
)
def test_the_wrong_kind_of_object_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        TransformersEncoder(*arguments)


def test_the_wrong_kind_of_tokenizer_is_refused(encoder: TransformersEncoder) -> None:
    name: Any = "openai/clip"
    with pytest.raises(TypeError, match="tokenizer must be callable, got str"):
        TransformersEncoder(encoder.model, name)
    with pytest.raises(TypeError, match="image_processor must be callable, got str"):
        TransformersEncoder(encoder.model, encoder.tokenizer, name)
    assert isinstance(encoder, fc.Encoder)


def test_images_of_any_shape_are_refused(transformers: Any) -> None:
    model = make_transformers(transformers, "siglip2")
    with pytest.raises(TypeError, match=r"Siglip2Model takes .* load as SiglipModel"):
        TransformersEncoder(model, make_tokenizer(transformers))
