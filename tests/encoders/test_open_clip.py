"""CLIP through open_clip, and the published checkpoints."""

import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import PUBLISHED
from tiny import make_open_clip
from torch import Tensor, nn

import fusecomp as fc
from fusecomp._core.files import read_tensors
from fusecomp.encoders import OpenClipEncoder

pytestmark = pytest.mark.usefixtures("open_clip")
KINDS = ("resnet", "vit")
Shared = Callable[[str], Path]


def published(shared: Shared, kind: str) -> tuple[OpenClipEncoder, Any, list[str]]:
    """The tiny CLIP, the published numbers, and the texts they belong to."""
    encoder = OpenClipEncoder.from_clip4cir(shared(f"parity/clip_{kind}_checkpoint.pt"))
    numbers = np.load(shared(f"parity/clip_{kind}.npz"))
    captions = json.loads(shared("parity/captions.json").read_text())
    return encoder, numbers, [captions["captions"][row] for row in numbers["text_index"]]


def images(numbers: Any) -> Tensor:
    return torch.from_numpy(numbers["images"]).float()


@pytest.mark.parametrize("kind", KINDS)
def test_features_equal_the_published_ones(shared: Shared, kind: str) -> None:
    encoder, numbers, texts = published(shared, kind)
    with torch.no_grad():
        image, text = encoder.encode_image(images(numbers)), encoder.encode_text(texts)
    np.testing.assert_allclose(image, numbers["image_features"], atol=1e-4)
    np.testing.assert_allclose(text, numbers["text_features"], atol=1e-4)
    assert encoder.output_dim == image.shape[1] == text.shape[1]


@pytest.mark.parametrize("kind", KINDS)
def test_another_activation_would_miss_them(shared: Shared, kind: str) -> None:
    encoder, numbers, texts = published(shared, kind)
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "QuickGELU":
                setattr(module, name, nn.GELU())
    with torch.no_grad():
        text = encoder.encode_text(texts).numpy()
    assert abs(text - numbers["text_features"]).max() > 1e-3


def test_tokens_equal_those_of_openai(open_clip: Any) -> None:
    rows = json.loads((PUBLISHED / "tokens.json").read_text("utf-8"))
    encoder = OpenClipEncoder(make_open_clip(), open_clip.get_tokenizer("RN50"))
    tokens = encoder._tokens([text for text, _ in rows])
    assert [[token for token in row if token] for row in tokens.tolist()] == [r for _, r in rows]


def test_tokens_of_published_captions_equal_the_published_ones(shared: Shared) -> None:
    encoder, _, _ = published(shared, "vit")
    captions = json.loads(shared("parity/captions.json").read_text())
    tokens = encoder._tokens(captions["captions"])
    assert [[token for token in row if token] for row in tokens.tolist()] == captions["tokens"]


def six(root: Path, texts: list[str]) -> fc.datasets.Triplets:
    """The published six triplets; images are the rows of an array."""
    files = {f"{number}": root / f"{number}.png" for number in range(12)}
    for path in files.values():
        path.touch()
    triplets = [fc.Triplet(f"{n}", f"{n}", (text,), f"{n + 6}") for n, text in enumerate(texts[:6])]
    return fc.datasets.Triplets(triplets, files, gallery=list(files))


class Rows:
    """Opens an image of ``six``."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __call__(self, path: Path) -> Tensor:
        return self.rows[int(path.stem)]


STAGE1 = fc.StageConfig(
    epochs=6,
    batch_size=6,
    lr=2e-4,
    optimizer="adamw",
    eps=1e-7,
    weight_decay=0.01,
    trainable="text",
)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("train", ["text", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_six_published_steps_of_stage_1(
    shared: Shared, tmp_path: Path, kind: str, train: str, cache: bool
) -> None:
    encoder, numbers, texts = published(shared, kind)
    encoder.load_image = Rows(images(numbers))
    model = fc.ComposedEncoder(encoder, fc.Sum())
    config = replace(STAGE1, trainable=train, cache=cache)
    run = fc.Trainer(model, loss=fc.InfoNCE(), config=config).fit(six(tmp_path, texts))
    losses = [record["loss"] for record in run.history]
    np.testing.assert_allclose(losses, numbers[f"stage1_{train}_losses"], rtol=1e-4, atol=1e-4)


def test_tuning_the_text_moves_the_text_side_alone(shared: Shared, tmp_path: Path) -> None:
    encoder, numbers, texts = published(shared, "vit")
    encoder.load_image = Rows(images(numbers))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    model, data = fc.ComposedEncoder(encoder, fc.Sum()), six(tmp_path, texts)
    fc.Trainer(model, loss=fc.InfoNCE(), config=STAGE1).fit(data)
    moved = {n for n, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[n])}
    # Rows of tokens that do not occur still move, by weight decay.
    expected = {name for name in before if "visual" not in name and "logit" not in name}
    assert moved == expected
    trainer = fc.Trainer(model, loss=fc.InfoNCE(), config=STAGE1)
    trainer.step(next(fc.training.batches(data, trainer.prepare(data), STAGE1, 0)))
    assert not encoder.get_parameter("model.logit_scale").requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_checkpoint_is_the_published_one(
    shared: Shared, tmp_path: Path, kind: str
) -> None:
    encoder, numbers, texts = published(shared, kind)
    path = tmp_path / "tuned.pt"
    encoder.save_clip4cir(path, epoch=3)
    original = torch.load(shared(f"parity/clip_{kind}_checkpoint.pt"), weights_only=True)
    written = read_tensors(path)
    assert written["epoch"] == original["epoch"] == 3
    assert written["CLIP"].keys() == original["CLIP"].keys()
    for name, tensor in original["CLIP"].items():
        assert torch.equal(written["CLIP"][name], tensor.float()), name
    again = OpenClipEncoder.from_clip4cir(path)
    assert torch.equal(again.encode_image(images(numbers)), encoder.encode_image(images(numbers)))
    assert torch.equal(again.encode_text(texts), encoder.encode_text(texts))


def test_weights_are_not_rounded_through_float16(shared: Shared, tmp_path: Path) -> None:
    encoder, _, _ = published(shared, "vit")
    fine = torch.full((1, 64), 1.0 + 2.0**-20)
    encoder.get_parameter("model.visual.ln_post.weight").data[:] = fine
    encoder.save_clip4cir(tmp_path / "fine.pt")
    again = OpenClipEncoder.from_clip4cir(tmp_path / "fine.pt")
    assert torch.equal(again.get_parameter("model.visual.ln_post.weight"), fine[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 1}, 'holds no "CLIP" weights'),
        ({"CLIP": {}}, "holds no complete CLIP"),
        ({"CLIP": {"visual.proj": torch.ones(2, 2)}}, "holds no complete CLIP"),
    ],
)
def test_a_file_without_a_clip_is_named(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"other.pt {message}"):
        OpenClipEncoder.from_clip4cir(path)


def test_without_open_clip_the_extra_is_named(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "open_clip.model", None)
    with pytest.raises(ImportError, match=r'pip install "fusecomp\[clip\]"'):
        OpenClipEncoder.from_clip4cir(shared("parity/clip_vit_checkpoint.pt"))


def test_weights_of_another_shape_are_named(shared: Shared, tmp_path: Path) -> None:
    content = torch.load(shared("parity/clip_vit_checkpoint.pt"), weights_only=True)
    content["CLIP"]["visual.proj"] = torch.ones(3, 5)
    torch.save(content, tmp_path / "bent.pt")
    with pytest.raises(ValueError, match=r"(?s)bent.pt holds no complete CLIP.*visual.proj"):
        OpenClipEncoder.from_clip4cir(tmp_path / "bent.pt")


def test_the_default_preprocessing_is_the_published_one(shared: Shared) -> None:
    encoder, _, _ = published(shared, "vit")
    assert encoder.load_image is not None
    path = shared("parity/images") / "5_RGB.png"
    expected = fc.images.clip_transform(64, fc.images.TargetPad(1.25))(path)
    assert torch.equal(encoder.load_image(path), expected)
    assert torch.equal(pickle.loads(pickle.dumps(encoder.load_image))(path), expected)


class Tokens:
    """A tokenizer of another model."""

    def __init__(self, context: int, largest: int) -> None:
        self.context, self.largest = context, largest

    def __call__(self, texts: list[str]) -> Tensor:
        return torch.full((len(texts), self.context), self.largest)


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (Tokens(64, 5), "makes 64 tokens of each text, but the model reads 77"),
        (Tokens(77, 250_000), "gives token 250000, but the model knows 49408"),
    ],
)
def test_a_tokenizer_of_another_model_is_refused(
    shared: Shared, tokenizer: Tokens, message: str
) -> None:
    encoder, _, _ = published(shared, "vit")
    with pytest.raises(ValueError, match=message):
        OpenClipEncoder(encoder.model, tokenizer).encode_text(["is blue"])


def test_long_texts_are_cut_with_one_warning(shared: Shared) -> None:
    encoder, _, _ = published(shared, "vit")
    long = "is blue and " * 50
    with pytest.warns(UserWarning, match="are cut, for example 'is blue and") as warned:
        features = encoder.encode_text(["is red", long])
        encoder.encode_text([long])
    assert len(warned) == 1
    assert torch.equal(encoder.encode_text(["is red", long + "more"]), features)


def test_a_text_that_just_fits_does_not_warn(shared: Shared) -> None:
    encoder, _, _ = published(shared, "vit")
    encoder.encode_text(["red " * 75])


def gradients(model: nn.Module, features: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    features.pow(3).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("wrap", [nn.Module.eval, partial(torch.compile, backend="eager")])
@pytest.mark.parametrize("texts", [["is red"], ["is red", "is longer and has no sleeves", ""]])
def test_the_padding_behind_all_texts_is_left_out_and_not_missed(
    open_clip: Any, texts: list[str], wrap: Callable[[nn.Module], Any]
) -> None:
    model = make_open_clip().double()
    encoder = OpenClipEncoder(wrap(model), open_clip.get_tokenizer("RN50"))
    tokens = encoder._tokens(texts)
    lengths: list[int] = []
    model.ln_final.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    actual, expected = encoder.encode_text(texts), model.encode_text(tokens)
    assert lengths == [int(tokens.count_nonzero(1).max()), 77]
    torch.testing.assert_close(actual, expected)
    expected_gradients = gradients(model, expected)
    for name, gradient in gradients(model, encoder.encode_text(texts)).items():
        torch.testing.assert_close(gradient, expected_gradients.pop(name))
    assert not expected_gradients


@pytest.mark.parametrize("settings", [{"no_causal_mask": True}, {"pool_type": "last"}], ids=str)
def test_a_model_that_reads_its_padding_gets_it(open_clip: Any, settings: dict[str, Any]) -> None:
    model = make_open_clip(**settings)
    encoder = OpenClipEncoder(model, open_clip.get_tokenizer("RN50"))
    texts = ["is red", "is longer and has no sleeves"]
    assert torch.equal(encoder.encode_text(texts), model.encode_text(encoder._tokens(texts)))


def test_the_tokenizer_of_openai_is_told_to_cut(shared: Shared) -> None:
    encoder, _, _ = published(shared, "vit")
    inner: Any = encoder.tokenizer

    def tokenize(texts: list[str], truncate: bool = False) -> Tensor:
        if not truncate and any(len(text.split()) > 75 for text in texts):
            raise RuntimeError("Input is too long for context length 77")
        tokens: Tensor = inner(texts)
        return tokens

    other = OpenClipEncoder(encoder.model, tokenize)
    with pytest.warns(UserWarning, match="are cut"):
        features = other.encode_text(["blue " * 80])
    assert torch.equal(features, encoder.encode_text(["blue " * 75]))


def test_the_fingerprint_knows_weights_tokens_and_preprocessing(shared: Shared) -> None:
    encoder, _, _ = published(shared, "vit")
    again, _, _ = published(shared, "vit")
    assert encoder.fingerprint() == again.fingerprint()
    keys = {encoder.fingerprint()}
    keys.add(OpenClipEncoder(encoder.model, encoder.tokenizer).fingerprint())
    keys.add(OpenClipEncoder(encoder.model, Tokens(77, 5), again.load_image).fingerprint())
    again.get_parameter("model.visual.proj").data += 1e-6
    keys.add(again.fingerprint())
    assert len(keys) == 4


class NoClip(nn.Module):
    pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((NoClip(), len), "got NoClip, which has no encode_image"),
        (("RN50x4", len), "got str, which has no encode_image"),
        (
            (fc.DualEncoder(torch.stack, torch.stack), "RN50x4"),
            "tokenizer must be callable, got str",
        ),
        (
            (fc.DualEncoder(torch.stack, torch.stack), len, 224),
            "preprocess must be callable, got int",
        ),
    ],
)
def test_the_wrong_kind_of_object_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        OpenClipEncoder(*arguments)


def test_wrappers_before_every_name_of_a_clip_are_left_out(shared: Shared, tmp_path: Path) -> None:
    published = shared("parity/clip_vit_checkpoint.pt")
    content = torch.load(published, weights_only=True)
    content["CLIP"] = {f"module.{name}": value for name, value in content["CLIP"].items()}
    torch.save(content, tmp_path / "parallel.pt")
    encoders = map(OpenClipEncoder.from_clip4cir, (published, tmp_path / "parallel.pt"))
    one, other = (encoder.state_dict() for encoder in encoders)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_nan_in_a_clip_is_named(shared: Shared, tmp_path: Path) -> None:
    content = torch.load(shared("parity/clip_vit_checkpoint.pt"), weights_only=True)
    content["CLIP"]["visual.proj"][0, 0] = torch.nan
    torch.save(content, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=r"nan.pt holds no complete CLIP: 'visual.proj' holds NaN"):
        OpenClipEncoder.from_clip4cir(tmp_path / "nan.pt")
