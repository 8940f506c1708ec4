"""The encoder made of two callables."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fusecomp.encoders import DualEncoder
from fusecomp.protocols import Encoder


class Letters(nn.Module):
    """Mean letter, so that texts have weights to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(128, 4)

    def forward(self, texts: list[str]) -> Tensor:
        rows = [self.table(torch.tensor([ord(x) % 128 for x in text])).mean(0) for text in texts]
        return torch.stack(rows)


def no_picture(path: Path) -> Tensor:
    raise OSError(path)


def make() -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(nn.Linear(9, 4), Letters(), load=no_picture)


def test_each_side_goes_to_its_own_callable() -> None:
    encoder = make()
    pictures = torch.randn(3, 9)
    assert torch.equal(encoder.encode_image(pictures), encoder.image(pictures))
    assert torch.equal(encoder.encode_text(["ab", "c"]), encoder.text(["ab", "c"]))
    assert isinstance(encoder, Encoder)


def test_plain_functions_serve_as_well() -> None:
    encoder = DualEncoder(image=lambda x: x * 2, text=lambda texts: torch.ones(len(texts), 4))
    assert torch.equal(encoder.encode_image(torch.ones(1, 4)), torch.full((1, 4), 2.0))
    assert encoder.encode_text(["a", "b"]).shape == (2, 4)
    assert encoder.load is None
    assert list(encoder.parameters()) == []


def test_the_towers_name_every_weight_once() -> None:
    encoder = make()
    prefixes = [pattern.removesuffix("*") for side in encoder.towers.values() for pattern in side]
    assert sorted(encoder.towers) == ["image", "text"]
    for name, _ in encoder.named_parameters():
        assert sum(name.startswith(prefix) for prefix in prefixes) == 1


def test_load_is_kept_as_given() -> None:
    assert make().load is no_picture
    assert pickle.loads(pickle.dumps(make())).load is no_picture


@pytest.mark.parametrize("side", ["image", "text", "load"])
@pytest.mark.parametrize("value", [3, "clip"])
def test_what_cannot_be_called_is_refused(side: str, value: Any) -> None:
    sides: dict[str, Any] = {"image": len, "text": len, "load": None, side: value}
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
