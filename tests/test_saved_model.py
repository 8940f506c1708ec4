"""A saved model is read back, and refused where other parts are given."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from composing import TEXTS, cached, combiner, live
from raising import own_error
from torch import Tensor, nn

from fusecomp.caching import CachedEncoder
from fusecomp.encoders import DualEncoder
from fusecomp.fusions import Combiner, Sum
from fusecomp.model import ComposedEncoder


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model"
    model = ComposedEncoder(live(seed=0), combiner(seed=0))
    model.save(path)
    back = ComposedEncoder.load(str(path), live(seed=1), combiner(seed=1))
    images = torch.randn(3, 3)
    assert torch.equal(back.encode_query(images, TEXTS), model.encode_query(images, TEXTS))
    files = {"README.md", "config.json", "weights.safetensors"}
    assert {part.name for part in path.iterdir()} == files
    assert [part.name for part in path.parent.iterdir()] == ["model"]


def test_a_loaded_model_is_in_evaluation_mode(tmp_path: Path) -> None:
    path, images = tmp_path / "model", torch.randn(3, 3)
    ComposedEncoder(live(), combiner()).save(path)
    back = ComposedEncoder.load(path, live(), combiner())
    assert not any(module.training for module in back.modules())
    assert torch.equal(back(images, TEXTS), back(images, TEXTS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_fusion_of_the_package_is_rebuilt(
    tmp_path: Path, dtype: torch.dtype, compiled: bool
) -> None:
    fusion, path = Combiner(4, hidden_dim=5, dropout=0.25).to(dtype), tmp_path / "model"
    model = ComposedEncoder(live(), torch.compile(fusion, backend="eager") if compiled else fusion)
    model.save(path)
    back = ComposedEncoder.load(path, live(seed=1))
    assert isinstance(back.fusion, Combiner)
    assert (back.fusion.dim, back.fusion.projection_dim, back.fusion.hidden_dim) == (4, 16, 5)
    assert back.fusion.dropout == back.fusion.relu_dropout.p == 0.25
    for one, other in zip(back.fusion.parameters(), fusion.parameters(), strict=True):
        assert one.dtype == dtype
        assert torch.equal(one, other)


def test_a_fusion_without_weights_is_rebuilt_behind_features(tmp_path: Path) -> None:
    ComposedEncoder(cached(), Sum()).save(tmp_path / "model")
    assert isinstance(ComposedEncoder.load(tmp_path / "model", cached()).fusion, Sum)


class Mine(Combiner):
    """A fusion of the user's own."""


Mine.__qualname__ = "Combiner"


@pytest.mark.parametrize("fusion", [Mine(4), lambda image, text: image], ids=["class", "lambda"])
def test_a_fusion_of_the_users_own_is_not_rebuilt(tmp_path: Path, fusion: Any) -> None:
    ComposedEncoder(live(), fusion).save(tmp_path / "model")
    message = own_error(ComposedEncoder.load, tmp_path / "model", live())
    assert message.startswith(f"{tmp_path / 'model'} holds the fusion ")
    assert message.endswith(": pass fusion=")
    ComposedEncoder.load(tmp_path / "model", live(), fusion)


def test_a_saved_model_may_have_a_lambda_and_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "model"
    model = ComposedEncoder(cached(), lambda image, text: image - text)
    model.save(path)
    back = ComposedEncoder.load(path, cached(), lambda image, text: image - text)
    assert torch.equal(back.encode_query(["a"], ["is red"]), model.encode_query(["a"], ["is red"]))


def test_a_model_of_other_parts_is_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match=f"{saved} holds .*Combiner.* but .*Sum.* was given"):
        ComposedEncoder.load(saved, live(), Sum())
    with pytest.raises(ValueError, match=r"DualEncoder.* but .*CachedEncoder"):
        ComposedEncoder.load(saved, cached(), combiner())


@pytest.mark.parametrize(
    ("encoder", "fusion", "named"),
    [
        (
            live,
            lambda: Combiner(4, 3, 5, dropout=0.1),
            r"fusion\.dropout was '0.5' and is",
        ),
        (lambda: live(load=None), combiner, r"encoder\.load_image was"),
        (lambda: changed(live(), "image", nn.GELU()), combiner, r"encoder\.image\.1"),
    ],
    ids=["dropout", "load", "activation"],
)
def test_a_model_of_other_settings_is_refused(
    saved: Path,
    encoder: Callable[[], DualEncoder],
    fusion: Callable[[], Combiner],
    named: str,
) -> None:
    with pytest.raises(ValueError, match=f"{saved} was saved with other settings.*: {named}"):
        ComposedEncoder.load(saved, encoder(), fusion())


def changed(encoder: DualEncoder, side: str, activation: nn.Module) -> DualEncoder:
    getattr(encoder, side)[1] = activation
    return encoder


def test_a_lambda_of_other_code_or_values_is_another_fusion(tmp_path: Path) -> None:
    def scaled(scale: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda image, text: image + scale * text

    path = tmp_path / "model"
    ComposedEncoder(live(), scaled(1.0)).save(path)
    ComposedEncoder.load(path, live(), scaled(1.0))
    with pytest.raises(ValueError, match=r"other settings.*fusion was"):
        ComposedEncoder.load(path, live(), scaled(2.0))


def built(encoder: DualEncoder, **more: Any) -> CachedEncoder:
    names = ["a", "b"], ["is red", "is blue"]
    with torch.no_grad():
        images, texts = encoder.encode_image(torch.randn(2, 3)), encoder.encode_text(names[1])
    return CachedEncoder.from_arrays(names[0], images, names[1], texts, **more)


@pytest.mark.parametrize("suffix", [None, "", ", stored as torch.float16"])
def test_a_fusion_trained_on_features_goes_behind_a_live_encoder(
    tmp_path: Path, suffix: str | None
) -> None:
    path, encoder = tmp_path / "model", live()
    key = "" if suffix is None else encoder.fingerprint() + suffix
    trained = combiner(seed=3)
    ComposedEncoder(built(encoder, key=key), trained).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ComposedEncoder.load(path, live(), combiner(seed=1))
    images = torch.randn(3, 3)
    expected = ComposedEncoder(live(), trained).encode_query(images, TEXTS)
    assert torch.equal(model.encode_query(images, TEXTS), expected)


def test_features_of_another_encoder_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "model"
    ComposedEncoder(built(live(), key=live().fingerprint()), combiner()).save(path)
    with pytest.warns(UserWarning, match="was trained on features of the key 'weights"):
        ComposedEncoder.load(path, live(seed=1), combiner())
    with pytest.warns(UserWarning, match="this encoder's is 'mine'"):
        ComposedEncoder.load(path, built(live(), key="mine"), combiner())


def test_a_model_of_other_sizes_is_refused(saved: Path) -> None:
    other, narrow = live(seed=1), Combiner(4, projection_dim=2)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ValueError, match=f"{saved} does not fit the encoder and fusion given"):
        ComposedEncoder.load(saved, other, narrow)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_compiled_or_not_a_saved_model_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "model"
    model = ComposedEncoder(live(seed=0), combiner(seed=0))
    compiled = torch.compile(combiner(seed=0), backend="eager")
    ComposedEncoder(live(seed=0), compiled).save(path)
    back = ComposedEncoder.load(path, live(seed=1), combiner(seed=1))
    again = ComposedEncoder.load(
        path, live(seed=1), torch.compile(combiner(seed=1), backend="eager")
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor)
    for one, other in zip(again.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


class Masked(nn.Module):
    """A fusion with tied weights and a mask, as models have them."""

    def __init__(self, tied: bool = True, offset: float = 0.0) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.other = nn.Linear(4, 4)
        if tied:
            self.other.weight = self.one.weight
        mask = torch.full((4, 4), -torch.inf).triu(1) + offset
        self.register_buffer("mask", mask)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        total: Tensor = self.one(image) + self.other(text)
        return total


def test_masks_and_tied_weights_come_back(tmp_path: Path) -> None:
    path = tmp_path / "model"
    model = ComposedEncoder(live(seed=0), Masked())
    model.save(path)
    back = ComposedEncoder.load(path, live(seed=1), Masked())
    pairs = zip(back.state_dict().values(), model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    with pytest.raises(
        ValueError, match=r"'fusion.one.weight' and .*'fusion.other.weight' are the"
    ):
        ComposedEncoder.load(path, live(), Masked(tied=False))
    with pytest.raises(ValueError, match=r"'fusion.mask' holds NaN or infinity"):
        ComposedEncoder.load(path, live(), Masked(offset=torch.inf))


def test_an_expanded_buffer_of_the_model_given_is_named(tmp_path: Path) -> None:
    path, fusion, other = tmp_path / "model", combiner(), live(seed=1)
    fusion.register_buffer("same", torch.ones(1).expand(3))
    ComposedEncoder(live(), fusion).save(path)
    before = deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"'fusion.same' .*\.contiguous\(\)"):
        ComposedEncoder.load(path, other, fusion)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    fusion.same = torch.zeros(3)
    assert torch.equal(ComposedEncoder.load(path, other, fusion).fusion.same, torch.ones(3))  # type: ignore[attr-defined]


def test_half_precision_weights_load_into_float32_and_back(tmp_path: Path) -> None:
    path = tmp_path / "model"
    ComposedEncoder(live(), combiner().bfloat16()).save(path)
    fusion = combiner(seed=1)
    ComposedEncoder.load(path, live(), fusion)
    expected = combiner().bfloat16().output_layer.weight.float()
    assert torch.equal(fusion.output_layer.weight, expected)
