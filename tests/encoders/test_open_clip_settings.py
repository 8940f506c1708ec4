"""OpenClipEncoder gives open_clip's own features, whatever the model is made of."""

import json
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from many_threads import check_in_threads
from tiny import CONTEXT, make_open_clip, make_tokenizer
from torch import Tensor

import fusecomp as fc
from fusecomp.encoders import OpenClipEncoder

pytestmark = pytest.mark.usefixtures("open_clip", "transformers")
TEXTS = ["is red", "is longer and has no sleeves", "", "red " * 100]
# Its padding is no zero, as RoBERTa's is none.
WORDS = ["[UNK]", "[PAD]", "[EOS]", "is", "red", "blue"]
PRECISIONS = ("fp32", "fp16", "bf16", "pure_fp16", "pure_bf16")
VISION = {"layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16}
TEXT = {"width": 16, "heads": 2, "layers": 2}
# As SigLIP reads its texts.
BIDIRECTIONAL = {
    "no_causal_mask": True,
    "pool_type": "last",
    "context_length": CONTEXT,
    "vocab_size": len(WORDS),
    "hf_tokenizer_name": "roberta",
}
TIMM = {"timm_model_pretrained": False, "image_size": 32}
COCA_VISION = {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
COCA = {"context_length": 76, "embed_cls": True, "output_tokens": True}
HF_NAMES = ("hf_model_name", "hf_tokenizer_name")
# The settings of a model: those of the whole, of its vision and of its text.
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "vit": ({}, VISION, TEXT),
    "quick": ({"quick_gelu": True}, VISION, TEXT),
    "resnet": ({}, {"layers": [1, 1, 1, 1], "width": 4, "head_width": 16, "image_size": 32}, TEXT),
    "short": ({}, VISION, TEXT | {"context_length": 32}),
    "own-text": ({"custom_text": True}, VISION, TEXT),
    "bidirectional": ({"custom_text": True, "init_logit_bias": -10}, VISION, TEXT | BIDIRECTIONAL),
    "biased": ({"custom_text": True}, VISION, TEXT | {"proj_bias": True}),
    "unprojected": ({"embed_dim": 16}, VISION, TEXT | {"proj_type": "none"}),
    "timm-linear": ({}, TIMM | {"timm_model_name": "test_resnet"}, TEXT),
    "timm-mlp": (
        {"custom_text": True},
        TIMM | {"timm_model_name": "test_convnext", "timm_proj": "mlp"},
        TEXT,
    ),
    "timm-biased": (
        {},
        TIMM | {"timm_model_name": "test_resnet"},
        TEXT | {"proj_bias": True},
    ),
    "timm-unprojected": (
        {"embed_dim": 128},
        TIMM | {"timm_model_name": "test_convnext2", "timm_proj": "none"},
        TEXT | {"width": 128, "proj_type": "none"},
    ),
    "roberta": (
        {},
        VISION,
        {"hf_model_name": "roberta", "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler"},
    ),
    "mt5": (
        {},
        VISION,
        {"hf_model_name": "mt5", "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"},
    ),
    "coca": (
        {
            "custom_text": True,
            "multimodal_cfg": TEXT | {"context_length": 76, "attn_pooler_heads": 2, "layers": 1},
        },
        VISION | COCA_VISION,
        TEXT | COCA,
    ),
}
# open_clip itself cannot run these where some weights alone are half.
NEVER_MIXED = ("biased", "roberta", "mt5", "coca")
SETTINGS = [
    (name, precision)
    for name in MODELS
    for precision in PRECISIONS
    if name not in NEVER_MIXED or precision not in ("fp16", "bf16")
]


@pytest.fixture(scope="module")
def folder(open_clip: Any, transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of text models of transformers and of model settings that open_clip knows."""
    root = tmp_path_factory.mktemp("settings")
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    roberta = transformers.RobertaConfig(
        **heads, vocab_size=len(WORDS), hidden_size=16, max_position_embeddings=90, pad_token_id=1
    )
    mt5 = transformers.MT5Config(
        vocab_size=len(WORDS),
        pad_token_id=1,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=1,
        num_heads=2,
    )
    for config in (roberta, mt5):
        model = transformers.AutoModel.from_config(config)
        model.save_pretrained(root / config.model_type)
        make_tokenizer(transformers, WORDS).save_pretrained(root / config.model_type)
    configs = root / "configs"
    configs.mkdir()
    for name, (whole, vision, text) in MODELS.items():
        if "hf_model_name" in text:
            text = text | {"hf_tokenizer_name": text["hf_model_name"]}
        paths = {key: str(root / text[key]) for key in text if key in HF_NAMES}
        content = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text | paths} | whole
        (configs / f"fusecomp-{name}.json").write_text(json.dumps(content))
    open_clip.add_model_config(configs)
    return root


def make(open_clip: Any, folder: Path, name: str, precision: str) -> tuple[Any, Any, Tensor]:
    """The model, its tokenizer and images that it could have loaded."""
    torch.manual_seed(0)
    model = open_clip.create_model(f"fusecomp-{name}", precision=precision).eval()
    size = model.visual.image_size
    side = size if isinstance(size, int) else size[0]
    return model, open_clip.get_tokenizer(f"fusecomp-{name}"), torch.rand(3, 3, side, side)


@pytest.mark.filterwarnings("ignore:texts longer than the context")
@pytest.mark.parametrize(("name", "precision"), SETTINGS)
def test_features_are_those_of_the_library(
    open_clip: Any, folder: Path, name: str, precision: str
) -> None:
    model, tokenizer, images = make(open_clip, folder, name, precision)
    encoder = OpenClipEncoder(model, tokenizer)
    dtype = open_clip.get_input_dtype(precision) or torch.float32
    image, text = encoder.encode_image(images), encoder.encode_text(TEXTS)
    assert torch.equal(image, model.encode_image(images.to(dtype)))
    # Without the padding behind the longest text, matrices of another shape round otherwise.
    bound = {torch.float32: 1e-6, torch.float16: 4e-3, torch.bfloat16: 4e-2}[dtype]
    torch.testing.assert_close(text, model.encode_text(tokenizer(TEXTS)), rtol=bound, atol=bound)
    assert image.shape == (3, encoder.output_dim)
    assert text.shape == (4, encoder.output_dim)


@pytest.mark.filterwarnings("ignore:texts longer than the context")
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_the_library(open_clip: Any, folder: Path, name: str) -> None:
    model, tokenizer, images = make(open_clip, folder, name, "fp32")
    model.double()
    encoder = OpenClipEncoder(model, tokenizer)

    def gradients(image: Tensor, text: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        (image.pow(3).sum() + text.pow(3).sum()).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    expected = gradients(model.encode_image(images.double()), model.encode_text(tokenizer(TEXTS)))
    actual = gradients(encoder.encode_image(images), encoder.encode_text(TEXTS))
    assert actual.keys() == expected.keys()
    for parameter, gradient in expected.items():
        torch.testing.assert_close(actual[parameter], gradient, msg=parameter)
    learning = {n.removeprefix("model.") for side in encoder.towers.values() for n in side}
    assert expected.keys() <= learning
    assert not any("text_decoder" in parameter for parameter in learning)


@pytest.mark.parametrize("name", ["vit", "short", "bidirectional", "roberta", "mt5", "coca"])
def test_a_text_that_is_cut_is_named_and_no_other(open_clip: Any, folder: Path, name: str) -> None:
    model, tokenizer, _ = make(open_clip, folder, name, "fp32")
    encoder, context = OpenClipEncoder(model, tokenizer), tokenizer(["red"]).shape[1]
    added = len(tokenizer(["red"])[0].unique()) - 2  # a start and an end beside word and padding
    encoder.encode_text(["red " * (context - added), "blue"])
    with pytest.warns(UserWarning, match="are cut, for example 'red red"):
        encoder.encode_text(["red " * (context - added + 1), "blue"])


# By name: how the tokens of a row end, beside the usual end of text and padding behind it.
ENDS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "padded by the end of text": ({"pad_token": "[EOS]"}, {}),
    "end of text taken for padding": ({"sep_token": "[EOS]"}, {"strip_sep_token": True}),
    "padded on the left": ({"padding_side": "left"}, {}),
    "a class behind the padding": (
        {"bos_token": "[UNK]", "cls_token": "sleeveless"},
        {"tokenizer_mode": "clips"},
    ),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("many", [1, 2, 30])
def test_a_text_that_is_cut_is_named_however_its_row_ends(
    open_clip: Any, transformers: Any, tmp_path: Path, end: str, many: int
) -> None:
    of_tokens, of_rows = ENDS[end]
    inner = make_tokenizer(transformers)
    for name, value in of_tokens.items():
        setattr(inner, name, value)
    inner.save_pretrained(tmp_path)
    tokenizer = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=CONTEXT, **of_rows)
    encoder = OpenClipEncoder(make_open_clip(context_length=CONTEXT), tokenizer)
    longest = CONTEXT - (3 if of_rows.get("tokenizer_mode") else 1)
    encoder.encode_text([*("red " * words for words in range(longest + 1)), "blue"])
    with pytest.warns(UserWarning, match="are cut, for example 'red red"):
        encoder.encode_text(["red " * (longest + many), "blue"])


def test_a_token_that_is_also_the_padding_does_not_hide_a_cut(open_clip: Any) -> None:
    tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
    encoder = OpenClipEncoder(make_open_clip(context_length=CONTEXT), tokenizer)
    padding, word = tokenizer([""])[0, -1], "!$"
    assert tokenizer([word])[0, 1] == padding
    encoder.encode_text([f"{word} {word} {word}"])
    for text in (f"red red red red red red {word}", f"{word} {word} {word} {word}"):
        with pytest.warns(UserWarning, match="are cut, for example"):
            OpenClipEncoder(encoder.model, tokenizer).encode_text([text])


@pytest.mark.parametrize("name", ["own-text", "bidirectional", "coca"])
def test_a_tokenizer_of_another_context_is_refused(open_clip: Any, folder: Path, name: str) -> None:
    model, _, _ = make(open_clip, folder, name, "fp32")
    encoder = OpenClipEncoder(model, open_clip.SimpleTokenizer(context_length=64))
    with pytest.raises(ValueError, match="makes 64 tokens of each text, but the model reads"):
        encoder.encode_text(["is red"])


@pytest.mark.parametrize("name", ["roberta", "mt5"])
def test_a_tokenizer_of_another_vocabulary_is_refused(
    open_clip: Any, folder: Path, name: str
) -> None:
    model, _, _ = make(open_clip, folder, name, "fp32")
    encoder = OpenClipEncoder(model, open_clip.SimpleTokenizer())
    with pytest.raises(ValueError, match=f"gives token 49407, but the model knows {len(WORDS)}"):
        encoder.encode_text(["is red"])


@pytest.mark.filterwarnings("ignore:texts longer than the context")
@pytest.mark.parametrize("name", ["vit", "bidirectional"])
def test_threads_do_not_disturb_one_another(open_clip: Any, folder: Path, name: str) -> None:
    """Those that leave out padding read another number of positions."""
    model, tokenizer, _ = make(open_clip, folder, name, "fp32")
    batches = [["red"], ["red " * (2 * CONTEXT)], ["is blue", "blue " * CONTEXT]]
    check_in_threads(OpenClipEncoder(model, tokenizer).encode_text, batches)


def test_half_features_make_a_cache(open_clip: Any, folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "t.csv").write_text("reference,text,target\na,is red,b\nb,is blue,a\n")
    for name, color in {"a": "red", "b": "blue"}.items():
        Image.new("RGB", (20, 20), color).save(tmp_path / f"{name}.png")
    data = fc.datasets.TripletTable(tmp_path / "t.csv", images=tmp_path)
    transform = fc.images.clip_transform(16)
    whole, half = (
        fc.CachedEncoder.build(
            OpenClipEncoder(*make(open_clip, folder, "vit", p)[:2], transform), data
        )
        for p in ("fp32", "fp16")
    )
    torch.testing.assert_close(half.image.features, whole.image.features, rtol=1e-2, atol=1e-2)


# What leaves out no padding, because a token sees it or the method is another


def unmask(model: Any) -> None:
    model.attn_mask[0, -1] = 0


def replace(model: Any) -> None:
    def encode_text(self: Any, text: Tensor) -> Tensor:
        features: Tensor = self.token_embedding(text).mean(dim=1)
        return features

    model.encode_text = MethodType(encode_text, model)


@pytest.mark.parametrize("change", [unmask, replace])
def test_a_model_that_was_changed_gets_its_padding(open_clip: Any, change: Any) -> None:
    model = make_open_clip()
    change(model)
    encoder = OpenClipEncoder(model, open_clip.get_tokenizer("RN50"))
    texts = ["is red", "is longer"]
    assert torch.equal(encoder.encode_text(texts), model.encode_text(encoder._tokens(texts)))
