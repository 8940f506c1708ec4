"""The encoder made of two callables."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Numbered
from torch import Tensor, nn
from toy import Toy

import fusecomp as fc
from fusecomp.encoders import DualEncoder
from fusecomp.types import Encoder


class Letters(nn.Module):
    """Mean letter, so that texts have weights to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(128, 4)

    def forward(self, texts: list[str]) -> Tensor:
        rows = [self.table(torch.tensor([ord(x) % 128 for x in text])).mean(0) for text in texts]
        return torch.stack(rows)


def no_image(path: Path) -> Tensor:
    raise OSError(path)


def make() -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(nn.Linear(9, 4), Letters(), load_image=no_image)


def test_each_side_goes_to_its_own_callable() -> None:
    encoder = make()
    images = torch.randn(3, 9)
    assert torch.equal(encoder.encode_image(images), encoder.image(images))
    assert torch.equal(encoder.encode_text(["ab", "c"]), encoder.text(["ab", "c"]))
    assert isinstance(encoder, Encoder)


@pytest.mark.parametrize("side", ["image", "text"])
def test_a_side_without_tokens_is_named(side: str) -> None:
    encoder = DualEncoder(nn.Linear(4, 3), Letters())
    call = encoder.encode_image_tokens if side == "image" else encoder.encode_text_tokens
    with pytest.raises(ValueError, match=f"the {side} side of this DualEncoder gives no tokens"):
        call(["a"])


def test_plain_functions_serve_as_well() -> None:
    encoder = DualEncoder(image=lambda x: x * 2, text=lambda texts: torch.ones(len(texts), 4))
    assert torch.equal(encoder.encode_image(torch.ones(1, 4)), torch.full((1, 4), 2.0))
    assert encoder.encode_text(["a", "b"]).shape == (2, 4)
    assert encoder.load_image is None
    assert list(encoder.parameters()) == []


def test_the_towers_name_every_weight_once() -> None:
    encoder = make()
    prefixes = [pattern.removesuffix("*") for side in encoder.towers.values() for pattern in side]
    assert sorted(encoder.towers) == ["heads", "image", "text"]
    for name, _ in encoder.named_parameters():
        assert sum(name.startswith(prefix) for prefix in prefixes) == 1


def test_load_is_kept_as_given() -> None:
    assert make().load_image is no_image
    assert pickle.loads(pickle.dumps(make())).load_image is no_image


@pytest.mark.parametrize("kind", [int, np.int64, np.int32, np.uint8])
def test_the_width_of_a_side_is_a_whole_number_of_any_kind(kind: Any) -> None:
    image, text = nn.Linear(9, 6), Letters()
    image.output_dim, text.output_dim = kind(6), kind(4)
    encoder = DualEncoder(image, text, dim=4)
    assert list(encoder.heads) == ["image"]
    assert encoder.encode_image(torch.ones(2, 9)).shape == (2, 4)


@pytest.mark.parametrize("side", ["image", "text", "load_image"])
@pytest.mark.parametrize("value", [3, "clip"])
def test_what_cannot_be_called_is_refused(side: str, value: Any) -> None:
    sides: dict[str, Any] = {"image": len, "text": len, "load_image": None, side: value}
    with pytest.raises(TypeError, match=f"{side} must be callable, got {type(value).__name__}"):
        DualEncoder(**sides)


def test_the_fingerprint_names_the_weights() -> None:
    encoder = make()
    before = encoder.fingerprint()
    assert make().fingerprint() == before
    with torch.no_grad():
        next(encoder.parameters())[1, 2] += 1e-3
    assert encoder.fingerprint() != before


@pytest.mark.parametrize("side", ["image", "text"])
def test_a_plain_callable_has_no_fingerprint(side: str) -> None:
    sides: dict[str, Any] = {"image": nn.Linear(9, 4), "text": Letters(), side: len}
    with pytest.raises(
        ValueError, match=f"the {side} side is a plain callable: give the cache a key"
    ):
        DualEncoder(**sides).fingerprint()


class Wide(nn.Linear):
    """A vision model that knows its width."""

    output_dim = 6

    def __init__(self) -> None:
        super().__init__(9, 6)


def test_a_side_of_another_width_gets_a_head() -> None:
    encoder = DualEncoder(Wide(), Letters(), text_dim=4, dim=4)
    assert list(encoder.heads) == ["image"]
    images = torch.randn(3, 9)
    below = encoder.encode_tower("image", images)
    assert below.shape == (3, 6)
    assert torch.equal(encoder.encode_image(images), encoder.heads["image"](below))
    assert encoder.encode_text(["ab"]).shape == (1, 4)
    assert encoder.towers["heads"] == ("heads.image.weight",)


def test_the_heads_travel_with_the_weights() -> None:
    first, second = (DualEncoder(Wide(), Letters(), text_dim=4, dim=5) for _ in range(2))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.encode_image(torch.ones(1, 9)), second.encode_image(torch.ones(1, 9)))
    assert torch.equal(first.encode_text(["ab"]), second.encode_text(["ab"]))


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_the_vision_models_of_other_libraries_need_no_adapter(
    torchvision: None, tmp_path: Path, library: str
) -> None:
    models = pytest.importorskip(f"{library}.models", reason=f"needs {library}")
    torch.manual_seed(0)
    if library == "timm":
        image = models.create_model("resnet10t", num_classes=0)
    else:
        image = models.mobilenet_v3_small(num_classes=512)
    encoder = DualEncoder(image, Letters(), Numbered(32), image_dim=512, text_dim=4, dim=8)
    before = {name: tensor.clone() for name, tensor in encoder.named_parameters()}
    config = fc.StageConfig(
        epochs=1, batch_size=5, lr=1e-3, trainable="image", encoder_mode="train"
    )
    fc.Trainer(fc.ComposedEncoder(encoder, fc.Sum()), loss=fc.InfoNCE(), config=config).fit(
        Toy(tmp_path)
    )
    moved = {n for n, p in encoder.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n in before if n.startswith(("image.", "heads."))}


def test_without_a_common_width_each_side_keeps_its_own() -> None:
    encoder = DualEncoder(Wide(), Letters(), text_dim=4)
    assert encoder.encode_image(torch.ones(2, 9)).shape == (2, 6)
    assert encoder.encode_text(["a"]).shape == (1, 4)
    assert not encoder.heads


def test_a_head_needs_the_width_below_it() -> None:
    with pytest.raises(ValueError, match="dim=8 needs the width of the text side: pass text_dim="):
        DualEncoder(Wide(), Letters(), dim=8)


def test_a_wrong_width_is_named_when_it_shows() -> None:
    encoder = DualEncoder(Wide(), Letters(), text_dim=7, dim=6)
    with pytest.raises(ValueError, match=r"text side returned \[1, 4\].*\[B, 7\].*text_dim"):
        encoder.encode_text(["ab"])


def test_a_side_has_its_parameters_of_today_frozen_or_not() -> None:
    encoder = DualEncoder(nn.Linear(9, 4).requires_grad_(False), Letters())
    assert encoder.towers["image"] == ("image.weight", "image.bias")
    encoder.image = nn.Sequential(nn.Linear(9, 4))
    assert encoder.towers["image"] == ("image.0.weight", "image.0.bias")


def test_the_fingerprint_knows_the_preprocessing() -> None:
    def other(path: Path) -> Tensor:
        return torch.zeros(9)

    first, second = make(), make()
    assert first.fingerprint() == second.fingerprint()
    second.load_image = other
    assert first.fingerprint() != second.fingerprint()
