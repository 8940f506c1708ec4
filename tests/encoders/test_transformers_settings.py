"""TransformersEncoder gives transformers' own features, whatever the model is made of."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import CONTEXT, make_tokenizer
from torch import Tensor

from fusecomp.encoders import TransformersEncoder

WORDS = ["is", "red", "blue", "and", "sleeveless"]
# Where the padding's number counts for something it is no 0.
VOCABULARY = ["[UNK]", "[EOS]", "[PAD]", *WORDS]
PADDING = VOCABULARY.index("[PAD]")
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VISION = TOWER | {"image_size": 16, "patch_size": 8}
TEXT = TOWER | {
    "vocab_size": len(VOCABULARY),
    "max_position_embeddings": CONTEXT,
    "pad_token_id": PADDING,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
# Positions begin behind the padding's, so that as many are never used.
BEHIND = TEXT | {"max_position_embeddings": CONTEXT + PADDING + 1}
# The classes of a family, and the settings of its text.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("CLIP", TEXT),
    "clip-argmax": ("CLIP", TEXT | {"eos_token_id": 2}),
    "clip-quick": ("CLIP", TEXT | {"hidden_act": "quick_gelu"}),
    "metaclip2": ("MetaClip2", TEXT),
    "altclip": ("AltCLIP", BEHIND | {"project_dim": 16}),
    "chinese-clip": ("ChineseCLIP", TEXT),
    "blip": ("Blip", TEXT),
    "siglip": ("Siglip", TEXT),
    "siglip-wide": ("Siglip", TEXT | {"projection_size": 16}),
}
DTYPES = {torch.float32: 1e-6, torch.float16: 4e-3, torch.bfloat16: 4e-2}


def make(transformers: Any, family: str) -> Any:
    name, text = FAMILIES[family]
    torch.manual_seed(0)
    whole = {} if name == "Siglip" else {"projection_dim": 12}
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=VISION, **whole)
    return getattr(transformers, f"{name}Model")(config).eval()


def make_dual(transformers: Any) -> Any:
    """A ViT and a RoBERTa side by side."""
    torch.manual_seed(0)
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        transformers.ViTConfig(**VISION), transformers.RobertaConfig(**BEHIND), projection_dim=12
    )
    return transformers.VisionTextDualEncoderModel(config).eval()


@pytest.fixture(scope="module", params=[*FAMILIES, "dual"])
def model(transformers: Any, request: pytest.FixtureRequest) -> Any:
    if request.param == "chinese-clip" and transformers.__version__.startswith("4."):
        pytest.skip("this version itself fails on a text for ChineseCLIP")
    return make_dual(transformers) if request.param == "dual" else make(transformers, request.param)


def own_features(output: Any) -> Tensor:
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features


def own_text_features(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    """As the pages of the models show it; a published tokenizer knows the context."""
    siglip = model.config.model_type == "siglip"
    tokens = tokenizer(
        texts, padding="max_length" if siglip else True, truncation=True, return_tensors="pt"
    )
    taken = ("input_ids",) if siglip else ("input_ids", "attention_mask")
    return own_features(model.get_text_features(**{name: tokens[name] for name in taken}))


texts = st.lists(
    st.lists(st.sampled_from(WORDS), max_size=2 * CONTEXT).map(" ".join), min_size=1, max_size=4
)


@pytest.mark.filterwarnings("ignore:texts longer than the context")
@settings(max_examples=25)
@given(
    texts=texts,
    dtype=st.sampled_from(sorted(DTYPES, key=str)),
    limit=st.sampled_from([None, CONTEXT, 5]),
    side=st.sampled_from(["right", "left"]),
)
def test_features_are_those_of_the_library(
    transformers: Any, model: Any, texts: list[str], dtype: torch.dtype, limit: Any, side: str
) -> None:
    model.to(dtype)
    ours, own = (make_tokenizer(transformers, VOCABULARY) for _ in range(2))
    for tokenizer in (ours, own):
        tokenizer.padding_side = side
        tokenizer.model_max_length = limit or CONTEXT
    if limit is None:  # as a tokenizer without a limit of its own
        ours.model_max_length = 10**30
    encoder, bound = TransformersEncoder(model, ours), DTYPES[dtype]
    expected = own_text_features(model, own, texts)
    torch.testing.assert_close(encoder.encode_text(texts), expected, rtol=bound, atol=bound)
    pixels = torch.randn(len(texts), 3, 16, 16)
    expected = own_features(model.get_image_features(pixel_values=pixels.to(dtype)))
    torch.testing.assert_close(encoder.encode_image(pixels), expected, rtol=0, atol=0)
    assert encoder.output_dim == expected.shape[1]


def test_gradients_are_those_of_the_library(transformers: Any, model: Any) -> None:
    tokenizer = make_tokenizer(transformers, VOCABULARY)
    encoder = TransformersEncoder(model.float(), tokenizer)
    tokenizer.model_max_length, texts, pixels = (
        CONTEXT,
        ["is red", "blue"],
        torch.randn(2, 3, 16, 16),
    )

    def gradients(image: Tensor, text: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        (image.pow(3).sum() + text.pow(3).sum()).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    image = own_features(model.get_image_features(pixel_values=pixels))
    expected = gradients(image, own_text_features(model, tokenizer, texts))
    actual = gradients(encoder.encode_image(pixels), encoder.encode_text(texts))
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, msg=name)


@pytest.mark.parametrize("limit", [None, 5])
def test_a_text_that_is_cut_is_named_and_no_other(
    transformers: Any, model: Any, limit: int | None
) -> None:
    tokenizer = make_tokenizer(transformers, VOCABULARY)
    if limit is not None:
        tokenizer.model_max_length = limit
    encoder, context = TransformersEncoder(model.float(), tokenizer), limit or CONTEXT
    encoder.encode_text(["red " * (context - 1), "blue"])
    with pytest.warns(UserWarning, match="are cut, for example 'red red"):
        encoder.encode_text(["red " * context, "blue"])


PROCESSORS = {
    "converts": ("CLIPImageProcessor", {"do_convert_rgb": True}),
    "converts-not": ("CLIPImageProcessor", {"do_convert_rgb": False}),
    "siglip": ("SiglipImageProcessor", {}),
}


KINDS: list[tuple[str, Any]] = [
    (mode, None) for mode in ("RGB", "L", "P", "RGBA", "LA", "CMYK", "1")
]
KINDS += [("P", 0), ("P", bytes([0, 128, 255])), ("L", 7), ("RGB", (1, 2, 3))]


@pytest.mark.parametrize(("mode", "transparency"), KINDS, ids=str)
@pytest.mark.parametrize("kind", PROCESSORS)
def test_images_of_every_kind_are_read_alike_and_without_a_warning(
    transformers: Any, tmp_path: Path, kind: str, transparency: Any, mode: str
) -> None:
    name, options = PROCESSORS[kind]
    size = {"height": 16, "width": 16}
    processor = getattr(transformers, name)(size=size, crop_size=size, **options)
    noise = torch.randint(256, (20, 24, 3), generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(noise.byte().numpy()).convert(mode)
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    image.save(path, **({} if transparency is None else {"transparency": transparency}))
    encoder = TransformersEncoder(
        make(transformers, "clip"), make_tokenizer(transformers, VOCABULARY), processor
    )
    assert encoder.load_image is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = encoder.load_image(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of transparency in a palette
        plain = Image.fromarray(np.asarray(Image.open(path).convert("RGB")))
    assert torch.equal(pixels, processor(images=plain, return_tensors="pt")["pixel_values"][0])


def test_a_model_without_one_vector_an_image_says_so(transformers: Any) -> None:
    vision = VISION | {"vision_use_head": False}
    config = transformers.SiglipConfig(text_config=TEXT, vision_config=vision)
    model = transformers.SiglipModel(config)
    encoder = TransformersEncoder(model, make_tokenizer(transformers, VOCABULARY))
    with pytest.raises(TypeError, match="model must give one vector for each input, got NoneType"):
        encoder.encode_image(torch.zeros(1, 3, 16, 16))
