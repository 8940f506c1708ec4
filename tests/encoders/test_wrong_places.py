"""A part in another part's place is refused with a word on what belongs there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import make_open_clip, make_tokenizer, make_transformers
from torch import nn

import fusecomp as fc
from fusecomp.encoders import (
    DualEncoder,
    OpenClipEncoder,
    SentenceTransformersText,
    TransformersEncoder,
)


@pytest.fixture(scope="module")
def parts(open_clip: Any, transformers: Any) -> dict[str, Any]:
    """Parts of both libraries by name."""
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    words = make_tokenizer(transformers)
    return {
        "hf model": make_transformers(transformers, "clip"),
        "hf tokenizer": words,
        "hf images": images,
        "hf processor": transformers.CLIPProcessor(images, words),
        "clip model": make_open_clip(),
        "clip tokenizer": open_clip.get_tokenizer("RN50"),
        "clip transform": open_clip.image_transform(16, is_train=False),
        "ours": fc.images.clip_transform(16),
        "name": "openai/clip-vit-base-patch32",
        "all three": (make_open_clip(), None, fc.images.clip_transform(16)),
        "linear": nn.Linear(2, 2),
        "len": len,
        "identity": lambda texts: texts,
    }


OPEN_CLIP = r"tokenizer must be a function from a list of strings .* open_clip.get_tokenizer"
HF = "tokenizer must be the model's own, as AutoTokenizer"
IMAGES = "image_processor must be the model's own, as AutoImageProcessor"
TRANSFORM = "preprocess must be a function from a PIL image to a tensor"
Mistake = tuple[type, tuple[str, ...], str]
MISTAKES: list[Mistake] = [
    *(
        (OpenClipEncoder, ("clip model", tokenizer), f"{OPEN_CLIP}.*; got .*")
        for tokenizer in ("hf tokenizer", "hf images", "hf processor", "clip transform", "ours")
    ),
    (OpenClipEncoder, ("clip model", "len"), f"{OPEN_CLIP}.*builtin.*returns something else"),
    (OpenClipEncoder, ("clip model", "identity"), f"{OPEN_CLIP}.*got function, which returns"),
    (OpenClipEncoder, ("clip model", "name"), "tokenizer must be callable, got str"),
    (OpenClipEncoder, ("clip model", "clip transform", "clip tokenizer"), OPEN_CLIP),
    *(
        (OpenClipEncoder, ("clip model", "clip tokenizer", transform), f"{TRANSFORM}.*; got .*")
        for transform in ("clip tokenizer", "hf tokenizer", "hf images", "hf processor")
    ),
    (OpenClipEncoder, ("hf model", "hf tokenizer"), "TransformersEncoder"),
    (OpenClipEncoder, ("name", "clip tokenizer"), "model must be a CLIP of open_clip .* got str"),
    (OpenClipEncoder, ("all three", "clip tokenizer"), "model must be a CLIP .* got tuple"),
    *(
        (TransformersEncoder, ("hf model", tokenizer), f"{HF}.*; got .*")
        for tokenizer in ("clip tokenizer", "clip transform", "ours", "hf images", "len")
    ),
    (TransformersEncoder, ("hf model", "hf images", "hf tokenizer"), HF),
    (
        TransformersEncoder,
        ("hf model", "hf processor", "hf processor"),
        f"{HF}.*; a CLIPProcessor holds both parts: pass its .tokenizer as tokenizer and its "
        ".image_processor as image_processor",
    ),
    *(
        (TransformersEncoder, ("hf model", "hf tokenizer", images), f"{IMAGES}.*; got .*")
        for images in ("hf tokenizer", "clip tokenizer", "clip transform", "ours", "len")
    ),
    (TransformersEncoder, ("clip model", "clip tokenizer"), "OpenClipEncoder"),
    (TransformersEncoder, ("name", "hf tokenizer"), "model must be a CLIP or SigLIP .* got str"),
    *(
        (SentenceTransformersText, (model,), "model must be a SentenceTransformer, got .*")
        for model in ("name", "hf model", "hf tokenizer", "linear")
    ),
]


@pytest.mark.parametrize(("adapter", "names", "message"), MISTAKES)
def test_a_part_in_the_wrong_place_is_refused(
    parts: dict[str, Any], adapter: Callable[..., Any], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        adapter(*(parts[name] for name in names))


def test_a_bare_sentence_transformer_is_no_side(minilm: Any) -> None:
    with pytest.raises(TypeError, match=r"text=fusecomp\.encoders\.SentenceTransformersText"):
        DualEncoder(nn.Linear(9, 4), minilm)


@pytest.mark.parametrize("part", ["hf tokenizer", "identity"])
def test_a_side_that_gives_no_tensor_is_named(parts: dict[str, Any], part: str) -> None:
    listing: Any = sorted
    encoder = DualEncoder(listing, parts[part])
    with pytest.raises(TypeError, match=r"the text side must return a tensor \[B, D\], got"):
        encoder.encode_text(["is red"])
    with pytest.raises(TypeError, match=r"the image side must return a tensor \[B, D\], got list"):
        encoder.encode_image(torch.zeros(1, 9))


def test_a_whole_processor_serves_as_image_processor(parts: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (20, 30), "red").save(path)
    loads = [
        TransformersEncoder(parts["hf model"], parts["hf tokenizer"], parts[name]).load_image
        for name in ("hf processor", "hf images")
    ]
    assert loads[0] is not None
    assert loads[1] is not None
    assert torch.equal(loads[0](path), loads[1](path))


def test_images_that_are_no_tensor_are_refused(parts: dict[str, Any]) -> None:
    for encoder in (
        OpenClipEncoder(parts["clip model"], parts["clip tokenizer"]),
        TransformersEncoder(parts["hf model"], parts["hf tokenizer"]),
    ):
        images: Any = torch.zeros(1, 3, 16, 16).numpy()
        with pytest.raises(TypeError, match="images must be a torch tensor, got ndarray"):
            encoder.encode_image(images)
