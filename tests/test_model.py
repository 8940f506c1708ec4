"""The composed encoder: queries, gallery, files."""

import os
import re
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raising import own_error, shown_id
from torch import Tensor, nn

from fusecomp._core.files import read_tensors, write_tensors
from fusecomp._core.similarity import normalize
from fusecomp.caching import CachedEncoder
from fusecomp.encoders import DualEncoder
from fusecomp.fusions import Combiner, Sum
from fusecomp.images._loading import ImageError
from fusecomp.model import ComposedEncoder
from fusecomp.types import Batch


class Hostile:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, texts: list[str]) -> Tensor:
        codes = [[ord(letter) / 64 for letter in text[:8].ljust(8)] for text in texts]
        out: Tensor = self.layer(torch.tensor(codes))
        return out


def load(path: Path) -> Tensor:
    numbers = [float(number) for number in path.read_text().split()]
    return torch.tensor(numbers)


def live(seed: int = 0, load: Callable[[Path], Tensor] | None = load) -> DualEncoder:
    torch.manual_seed(seed)
    return DualEncoder(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), Words(), load)


def combiner(seed: int = 0) -> Combiner:
    torch.manual_seed(seed)
    return Combiner(4, projection_dim=3, hidden_dim=5)


def cached() -> CachedEncoder:
    torch.manual_seed(0)
    return CachedEncoder.from_arrays(
        ["a", "b", "c"], torch.randn(3, 4), ["is red", "has dots"], torch.randn(2, 4)
    )


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.txt" for name in "abc"]
    for number, path in enumerate(paths):
        path.write_text(f"{number} {number - 1} 2")
    return paths


TEXTS = ["is red", "has dots", "is long"]


def expected_query(model: ComposedEncoder, images: Tensor, texts: list[str]) -> Tensor:
    model.eval()
    with torch.no_grad():
        image, text = model.encoder.encode_image(images), model.encoder.encode_text(texts)
        query = model.fusion(image, text)
    model.train()
    unit: Tensor = query / query.norm(dim=1, keepdim=True)
    return unit


def test_queries_from_loaded_images_and_from_files_are_the_same(images: list[Path]) -> None:
    model = ComposedEncoder(live(), combiner())
    loaded = torch.stack([load(path) for path in images])
    expected = expected_query(model, loaded, TEXTS)
    torch.testing.assert_close(model.encode_query(loaded, TEXTS), expected)
    torch.testing.assert_close(model.encode_query(images, TEXTS), expected)
    torch.testing.assert_close(model.encode_query([str(path) for path in images], TEXTS), expected)


def test_queries_from_ids() -> None:
    encoder = cached()
    query = ComposedEncoder(encoder, Sum()).encode_query(["c", "a"], ["has dots", "is red"])
    total = encoder.encode_image(["c", "a"]) + encoder.encode_text(["has dots", "is red"])
    torch.testing.assert_close(query, total / total.norm(dim=1, keepdim=True))


def test_many_queries_equal_each_alone() -> None:
    model = ComposedEncoder(live(), combiner())
    images, texts = torch.randn(300, 3), [f"text {number}" for number in range(300)]
    query = model.encode_query(images, texts)
    assert query.shape == (300, 4)
    for row in (0, 127, 128, 299):
        torch.testing.assert_close(
            query[row : row + 1], model.encode_query(images[row : row + 1], [texts[row]])
        )


def test_the_gallery_is_image_features_of_unit_length(images: list[Path]) -> None:
    encoder = live()
    model = ComposedEncoder(encoder, Sum())
    gallery = model.encode_gallery(images)
    encoder.eval()
    expected = normalize(encoder.encode_image(torch.stack([load(path) for path in images])))
    torch.testing.assert_close(gallery, expected.detach())
    torch.testing.assert_close(
        ComposedEncoder(cached(), Sum()).encode_gallery(["b"]).norm(), torch.tensor(1.0)
    )


def test_queries_are_evaluated_without_gradients_and_modes_come_back(
    images: list[Path],
) -> None:
    encoder, fusion = live(), combiner()
    model = ComposedEncoder(encoder, fusion).train()
    fusion.relu_dropout.eval()
    before = [module.training for module in model.modules()]
    for result in (model.encode_query(images, TEXTS), model.encode_gallery(images)):
        assert not result.requires_grad
    assert torch.equal(model.encode_query(images, TEXTS), model.encode_query(images, TEXTS))
    assert [module.training for module in model.modules()] == before
    with pytest.raises(FileNotFoundError):
        model.encode_query(["none.png"], ["is red"])
    assert [module.training for module in model.modules()] == before


def test_a_lambda_is_a_fusion_and_gets_unit_length() -> None:
    encoder = cached()
    model = ComposedEncoder(encoder, lambda image, text: 7 * image - text)
    query = model.encode_query(["a"], ["is red"])
    raw = 7 * encoder.encode_image(["a"]) - encoder.encode_text(["is red"])
    torch.testing.assert_close(query, normalize(raw))


@pytest.mark.parametrize(
    "fusion",
    [
        lambda image, text: torch.cat((image, text), dim=1),
        lambda image, text: image[0],
        lambda image, text: (image * text).sum(),
    ],
)
def test_a_fusion_of_another_shape_is_refused(fusion: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = ComposedEncoder(cached(), fusion)
    with pytest.raises(ValueError, match=r"the fusion returned .* for features \[1, 4\]"):
        model.encode_query(["a"], ["is red"])


def test_the_features_of_several_texts_are_averaged() -> None:
    image, text = torch.randn(3, 4), torch.randn(6, 4, requires_grad=True)
    model = ComposedEncoder(cached(), Sum())
    query = model.compose(image, text, torch.tensor([2, 1, 3]))
    means = [text[:2].mean(0), text[2], text[3:].mean(0)]
    torch.testing.assert_close(query, normalize(image + torch.stack(means)))
    query.sum().backward()
    assert text.grad is not None
    assert text.grad.any(dim=1).all()
    one_each = model.compose(image, text[:3], torch.ones(3, dtype=torch.int64))
    assert torch.equal(one_each, model.compose(image, text[:3]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_features_are_fused_in_float32(dtype: torch.dtype) -> None:
    image, text = torch.randn(2, 3, 4).to(dtype)
    query = ComposedEncoder(cached(), Sum()).compose(image, text)
    assert query.dtype == torch.float32
    torch.testing.assert_close(query, normalize(image.float() + text.float()))


def test_forward_learns() -> None:
    model = ComposedEncoder(live(), combiner())
    model(torch.randn(3, 3), TEXTS).square()[:, 0].sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


# What does not fit


def test_references_and_texts_are_equally_many() -> None:
    with pytest.raises(ValueError, match="1 references but 2 texts"):
        ComposedEncoder(cached(), Sum()).encode_query(["a"], ["is red", "has dots"])


def test_a_single_string_is_no_list_of_texts() -> None:
    with pytest.raises(ValueError, match="texts must be a list of strings, got the string 'is"):
        ComposedEncoder(cached(), Sum()).encode_query(["a", "b", "c", "a", "b", "c"], "is red")


@pytest.mark.parametrize("images", ["a", Path("a.png"), []])
def test_images_are_a_list(images: Any) -> None:
    with pytest.raises(
        ValueError, match=r"images must be a list of strings, got the string|non-empty list"
    ):
        ComposedEncoder(cached(), Sum()).encode_gallery(images)


@pytest.mark.parametrize("references", [[], torch.empty(0, 3)], ids=["list", "tensor"])
def test_no_queries_at_all_are_refused(references: Any) -> None:
    with pytest.raises(ValueError, match="empty"):
        ComposedEncoder(live(), Sum()).encode_query(references, [])


def test_a_string_that_is_no_file_is_named(images: list[Path]) -> None:
    with pytest.raises(FileNotFoundError, match="1 of 2 images are missing, the first: B009"):
        ComposedEncoder(live(), Sum()).encode_query([images[0], "B009"], ["is red", "is red"])


def test_a_string_that_is_no_id_is_named() -> None:
    with pytest.raises(ValueError, match=r"no cached features for the image 'z\.png'"):
        ComposedEncoder(cached(), Sum()).encode_query(["z.png"], ["is red"])
    with pytest.raises(ValueError, match="for the text 'is blue'"):
        ComposedEncoder(cached(), Sum()).encode_query(["a"], ["is blue"])


def test_files_need_an_encoder_that_loads_them(images: list[Path]) -> None:
    with pytest.raises(ValueError, match="DualEncoder neither loads files nor looks ids up"):
        ComposedEncoder(live(load=None), Sum()).encode_query(images, TEXTS)


def test_a_broken_image_is_named(images: list[Path]) -> None:
    images[1].write_text("no numbers")
    with pytest.raises(ImageError, match=r"cannot read the image .*b.txt"):
        ComposedEncoder(live(), Sum()).encode_query(images, TEXTS)


def test_images_of_two_shapes_are_named(images: list[Path]) -> None:
    images[1].write_text("1 2")
    with pytest.raises(ValueError, match=r"b.txt has shape \[2\] and .*a.txt \[3\]"):
        ComposedEncoder(live(), Sum()).encode_query(images, TEXTS)


def test_an_encoder_has_both_methods_and_a_fusion_can_be_called() -> None:
    with pytest.raises(TypeError, match="encoder Linear has no method encode_image"):
        ComposedEncoder(nn.Linear(2, 2), Sum())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="fusion must be callable, got str"):
        ComposedEncoder(cached(), "sum")  # type: ignore[arg-type]


@pytest.mark.parametrize("side", ["image", "text"])
def test_an_encoder_that_returns_something_else_is_named(side: str, images: list[Path]) -> None:
    def other(change: Callable[[Tensor], Any]) -> ComposedEncoder:
        sides: dict[str, Any] = {"image": lambda p: p, "text": lambda t: torch.ones(len(t), 3)}
        whole = sides[side]
        sides[side] = lambda inputs: change(whole(inputs))
        return ComposedEncoder(DualEncoder(**sides, load_image=load), Sum())

    loaded = torch.stack([load(path) for path in images])
    for references in (images, loaded):
        other(lambda features: features).encode_query(references, TEXTS)
        message = rf"the {side} side must return a tensor \[B, D\], got ndarray"
        with pytest.raises(TypeError, match=message):
            other(lambda features: features.numpy()).encode_query(references, TEXTS)
        for change, shape in ((lambda f: f[0], [3]), (lambda f: f[:2], [2, 3])):
            message = f"encode_{side} returned {shape} for 3 inputs, expected [3, D]"
            with pytest.raises(ValueError, match=re.escape(message)):
                other(change).encode_query(references, TEXTS)


# Files


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.pt"
    model = ComposedEncoder(live(seed=0), combiner(seed=0))
    model.save(path)
    back = ComposedEncoder.load(str(path), live(seed=1), combiner(seed=1))
    images = torch.randn(3, 3)
    assert torch.equal(back.encode_query(images, TEXTS), model.encode_query(images, TEXTS))
    assert torch.load(path, weights_only=True)["weights"].keys() == model.state_dict().keys()


def test_a_saved_model_may_have_a_lambda_and_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    model = ComposedEncoder(cached(), lambda image, text: image - text)
    model.save(path)
    back = ComposedEncoder.load(path, cached(), lambda image, text: image - text)
    assert torch.equal(back.encode_query(["a"], ["is red"]), model.encode_query(["a"], ["is red"]))


def test_a_model_of_other_parts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    ComposedEncoder(live(), combiner()).save(path)
    with pytest.raises(ValueError, match=f"{path} holds .*Combiner.* but .*Sum.* was given"):
        ComposedEncoder.load(path, live(), Sum())
    with pytest.raises(ValueError, match=r"DualEncoder.* but .*CachedEncoder"):
        ComposedEncoder.load(path, cached(), combiner())


@pytest.mark.parametrize(
    ("encoder", "fusion", "named"),
    [
        (live, lambda: Combiner(4, 3, 5, dropout=0.1), r"fusion\.dropout was '0.5' and is now"),
        (lambda: live(load=None), combiner, r"encoder\.load_image was"),
        (lambda: changed(live(), "image", nn.GELU()), combiner, r"encoder\.image\.1"),
    ],
    ids=["dropout", "load", "activation"],
)
def test_a_model_of_other_settings_is_refused(
    tmp_path: Path, encoder: Callable[[], DualEncoder], fusion: Callable[[], Combiner], named: str
) -> None:
    path = tmp_path / "model.pt"
    ComposedEncoder(live(), combiner()).save(path)
    with pytest.raises(ValueError, match=f"{path} was saved with other settings.*: {named}"):
        ComposedEncoder.load(path, encoder(), fusion())


def changed(encoder: DualEncoder, side: str, activation: nn.Module) -> DualEncoder:
    getattr(encoder, side)[1] = activation
    return encoder


def test_a_lambda_of_other_code_or_values_is_another_fusion(tmp_path: Path) -> None:
    def scaled(scale: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda image, text: image + scale * text

    path = tmp_path / "model.pt"
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
    path, encoder = tmp_path / "model.pt", live()
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
    path = tmp_path / "model.pt"
    ComposedEncoder(built(live(), key=live().fingerprint()), combiner()).save(path)
    with pytest.warns(UserWarning, match="was trained on features of the key 'weights"):
        ComposedEncoder.load(path, live(seed=1), combiner())
    with pytest.warns(UserWarning, match="this encoder's is 'mine'"):
        ComposedEncoder.load(path, built(live(), key="mine"), combiner())


def test_a_model_of_other_sizes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    ComposedEncoder(live(), combiner()).save(path)
    other, narrow = live(seed=1), Combiner(4, projection_dim=2)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ValueError, match=f"{path} does not fit the encoder and fusion given"):
        ComposedEncoder.load(path, other, narrow)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_compiled_or_not_a_saved_model_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
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


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        ComposedEncoder.load(tmp_path / "none.pt", live(), Sum())


def test_a_torn_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    ComposedEncoder(live(), combiner()).save(path)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{path} is not a readable checkpoint"):
            ComposedEncoder.load(path, live(), combiner())


@pytest.mark.parametrize(
    "change",
    [{"format": "other/1"}, {"format": None}, {"weights": None}, {"weights": [1, 2]}],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "model.pt"
    ComposedEncoder(live(), Sum()).save(path)
    write_tensors(path, {**read_tensors(path), **change})
    with pytest.raises(ValueError, match=f"{path} is no saved ComposedEncoder"):
        ComposedEncoder.load(path, live(), Sum())


@pytest.mark.parametrize("weights", [{"encoder.image.0.weight": "text"}, {1: torch.ones(1)}, {}])
def test_weights_of_something_else_are_refused(tmp_path: Path, weights: Any) -> None:
    path = tmp_path / "model.pt"
    ComposedEncoder(live(), Sum()).save(path)
    write_tensors(path, {**read_tensors(path), "weights": weights})
    with pytest.raises(ValueError, match=f"{path} does not fit"):
        ComposedEncoder.load(path, live(), Sum())


FILE_WEIGHT = "fusion.output_layer.weight"
# By a weight [4, 5] and the others of the file: what stands in its place, and what is said of it.
STRANGE: dict[str, tuple[Callable[[Tensor, dict[str, Tensor]], Any], str]] = {
    "sparse": (lambda own, _: own.to_sparse(), "is a tensor of layout torch.sparse_coo"),
    "quantised": (
        lambda own, _: torch.quantize_per_tensor(own, 0.1, 0, torch.qint8),
        "is a quantised tensor",
    ),
    "without values": (lambda own, _: own.to("meta"), "is a tensor without values"),
    "no tensor": (lambda own, _: own.tolist(), "is a list in the file"),
    "whole numbers": (lambda own, _: own.long(), "is torch.int64 in the file, expected torch.f"),
    "booleans": (lambda own, _: own > 0, "is torch.bool in the file, expected torch.float32"),
    "complex": (lambda own, _: own + 1j, "is torch.complex64 in the file, expected torch.float32"),
    "another shape": (lambda own, _: own[:1], r"is \[1, 5\] in the file, expected \[4, 5\]"),
    "one row for all": (
        lambda own, _: own[:1].clone().expand(4, 5),
        "has fewer bytes .* than it needs",
    ),
    "NaN": (lambda own, _: own.index_fill(0, torch.tensor(1), torch.nan), "NaN .*5 of 20 values"),
    "infinity": (lambda own, _: own / 0, "holds NaN or infinity"),
    "too large": (lambda own, _: own.double() * 1e300, "holds NaN or infinity"),
    "bytes of another": (
        lambda own, others: others["fusion.combiner_layer.weight"].view(-1)[8:28].view(4, 5),
        "'fusion.combiner_layer.weight' and 'fusion.output_layer.weight' are the same bytes",
    ),
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("known", [True, False], ids=["checksum", "no checksum"])
def test_a_strange_weight_is_named_and_nothing_is_copied(
    tmp_path: Path, kind: str, known: bool
) -> None:
    path = tmp_path / "model.pt"
    ComposedEncoder(live(), combiner()).save(path)
    content, (change, message) = read_tensors(path), STRANGE[kind]
    weights = content["weights"]
    with warnings.catch_warnings(action="ignore"):  # torch's about quantised tensors
        weights[FILE_WEIGHT] = change(weights[FILE_WEIGHT], weights)
    if kind in ("sparse", "quantised", "without values", "one row for all"):
        with pytest.raises(ValueError, match=f"'weights/{FILE_WEIGHT}'"):
            write_tensors(path, content)
        known = False
    with warnings.catch_warnings(action="ignore"):  # torch's about old kinds of storage
        write_tensors(path, content) if known else torch.save(content, path)
    other, fusion = live(seed=1), combiner(seed=1)
    before = deepcopy([other.state_dict(), fusion.state_dict()])
    expected = message if known else "is changed, damaged or of an older fusecomp"
    with (
        warnings.catch_warnings(action="ignore"),
        pytest.raises(ValueError, match=f"{path} .*{expected}"),
    ):
        ComposedEncoder.load(path, other, fusion)
    for part, saved in zip((other, fusion), before, strict=True):
        assert all(torch.equal(value, saved[name]) for name, value in part.state_dict().items())


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
    path = tmp_path / "model.pt"
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
    path, fusion, other = tmp_path / "model.pt", combiner(), live(seed=1)
    fusion.register_buffer("same", torch.ones(1).expand(3))
    ComposedEncoder(live(), fusion).save(path)
    before = deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"'fusion.same' .*\.contiguous\(\)"):
        ComposedEncoder.load(path, other, fusion)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    fusion.same = torch.zeros(3)
    assert torch.equal(ComposedEncoder.load(path, other, fusion).fusion.same, torch.ones(3))  # type: ignore[attr-defined]


def test_half_precision_weights_load_into_float32_and_back(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    ComposedEncoder(live(), combiner().bfloat16()).save(path)
    fusion = combiner(seed=1)
    ComposedEncoder.load(path, live(), fusion)
    expected = combiner().bfloat16().output_layer.weight.float()
    assert torch.equal(fusion.output_layer.weight, expected)


def test_code_in_a_model_is_refused_not_run(tmp_path: Path) -> None:
    path, victim = tmp_path / "model.pt", tmp_path / "victim"
    ComposedEncoder(live(), Sum()).save(path)
    content = read_tensors(path)
    torch.save({**content, "settings": Hostile(victim)}, path)
    with pytest.raises(ValueError, match="more than tensors"):
        ComposedEncoder.load(path, live(), Sum())
    assert not victim.exists()


def test_features_take_the_dtype_of_the_fusions_weights() -> None:
    """numpy's features are float64 by habit."""
    image, text = torch.randn(2, 3, 4, dtype=torch.float64)
    model = ComposedEncoder(cached(), Combiner(4).eval())
    expected = model.compose(image.float(), text.float())
    assert torch.equal(model.compose(image, text), expected)
    assert ComposedEncoder(cached(), Sum()).compose(image, text).dtype == torch.float64
    assert ComposedEncoder(cached(), Combiner(4).double()).compose(image, text).dtype == image.dtype


def test_a_class_in_place_of_an_instance_is_named() -> None:
    with pytest.raises(TypeError, match="fusion is the class Combiner: pass an instance"):
        ComposedEncoder(cached(), Combiner)  # type: ignore[arg-type]


def test_more_texts_than_images_need_counts() -> None:
    with pytest.raises(ValueError, match="2 images but 3 texts: where a row has several texts"):
        ComposedEncoder(cached(), Sum()).compose(torch.ones(2, 4), torch.ones(3, 4))


@pytest.mark.parametrize("references", ["a", Path("a.png")])
def test_a_single_image_is_no_list_of_references(references: Any) -> None:
    with pytest.raises(ValueError, match="references must be a list of strings, got the string 'a"):
        ComposedEncoder(cached(), Sum()).encode_query(references, ["is red"])


@st.composite
def counts_of_texts(draw: st.DrawFn) -> tuple[int, int, list[int]]:
    """A number of rows, of texts, and counts that mostly do not fit them."""
    rows, texts = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    return rows, texts, draw(st.lists(st.integers(-1, 4), min_size=0, max_size=5))


@settings(max_examples=200, deadline=None)
@given(counts_of_texts())
def test_counts_of_texts_fit_rows_and_texts_or_are_named(case: tuple[int, int, list[int]]) -> None:
    rows, texts, counts = case
    model = ComposedEncoder(cached(), Sum())
    image, text = torch.randn(rows, 4), torch.randn(texts, 4)
    given_counts = torch.tensor(counts, dtype=torch.int64)
    if len(counts) == rows and sum(counts) == texts and min(counts) >= 1:
        means = torch.stack([part.mean(0) for part in text.split(counts)])
        expected = normalize(image + means)
        torch.testing.assert_close(model.compose(image, text, given_counts), expected)
        return
    message = own_error(model.compose, image, text, given_counts)
    assert message.startswith("text_counts ")
    ids = torch.zeros(rows, dtype=torch.int64)
    names = [f"q{row}" for row in range(rows)]
    batch_message = own_error(Batch, ids, text, ids, given_counts, ids, ids, names)
    assert batch_message.startswith("text_counts ")


@pytest.mark.parametrize(
    "counts",
    [
        [1, 1],
        (1, 1),
        "11",
        torch.tensor([1.0, 1.0]),
        torch.tensor([True, True]),
        torch.tensor([1, 1], dtype=torch.int32),
        torch.tensor([[1], [1]]),
        torch.tensor(2),
        torch.tensor([1, 1]).to("meta"),
    ],
    ids=shown_id,
)
def test_counts_of_another_kind_are_named(counts: Any) -> None:
    image, text = torch.randn(2, 2, 4)
    message = own_error(ComposedEncoder(cached(), Sum()).compose, image, text, counts)
    assert message.startswith("text_counts ")


class Shelf(list[str]):
    """Another list."""


@pytest.mark.parametrize("make", [list, tuple, np.array, Shelf], ids=lambda make: make.__name__)
def test_references_and_texts_may_be_in_any_list(make: Any) -> None:
    model = ComposedEncoder(cached(), Sum())
    expected = model.encode_query(["b", "a"], ["is red", "has dots"])
    assert torch.equal(model.encode_query(make(["b", "a"]), make(["is red", "has dots"])), expected)
    assert torch.equal(model.encode_gallery(make(["b", "a"])), model.encode_gallery(["b", "a"]))


@pytest.mark.parametrize(
    "values",
    [
        *(None, 3, b"a", {"a"}, {"a": 1}, iter("a"), (name for name in "a"), map(str, "a")),
        *([3], [None], [b"a"], [{"a"}], [torch.ones(3)], np.array([["a"]]), np.array("a")),
    ],
    ids=shown_id,
)
def test_what_is_no_list_of_paths_or_texts_is_named(values: Any) -> None:
    model = ComposedEncoder(cached(), Sum())
    assert own_error(model.encode_query, ["a"], values).startswith("texts")
    assert own_error(model.encode_query, values, ["is red"]).startswith(
        "references must be a list of "
    )
    assert own_error(model.encode_gallery, values).startswith("images must be a list of ")


@pytest.mark.parametrize("texts", [[["is red", "has dots"]], [("is red",)]])
def test_several_texts_of_a_row_are_refused_with_the_way_out(texts: Any) -> None:
    message = own_error(ComposedEncoder(cached(), Sum()).encode_query, ["a"], texts)
    assert message.startswith(f"texts[0] is {texts[0]!r}, but a query takes one text: ")
    assert "text_counts" in message
    assert "Triplet" in message


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 299), st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_a_query_or_image_that_is_not_finite_is_named(row: int, value: float) -> None:
    model = ComposedEncoder(live(), Sum())
    images, texts = torch.zeros(300, 3), [f"is {number}" for number in range(300)]
    images[row, 1] = value
    assert own_error(model.encode_query, images, texts).startswith(
        f"query {row} (a loaded image with 'is {row}') holds NaN or infinity"
    )
    assert own_error(model.encode_gallery, images).startswith(
        f"image {row} (a loaded image) has features with NaN or infinity"
    )


def test_a_query_that_a_fusion_breaks_names_its_reference_and_text() -> None:
    def broken(image: Tensor, text: Tensor) -> Tensor:
        return torch.where(torch.arange(len(image))[:, None] == 1, torch.nan, image)

    message = own_error(
        ComposedEncoder(cached(), broken).encode_query, ["a", "b"], ["is red", "has dots"]
    )
    assert message.startswith("query 1 ('b' with 'has dots') holds NaN or infinity; check the ")


@pytest.mark.parametrize("result", [None, 1.0, "query", [[1.0] * 4], np.ones((1, 4), "f4")])
def test_a_fusion_that_returns_no_tensor_is_named(result: Any) -> None:
    model = ComposedEncoder(cached(), lambda image, text: result)
    message = own_error(model.encode_query, ["a"], ["is red"])
    assert message.startswith("what the fusion returns must be a torch tensor, got ")


def test_a_row_of_the_gallery_is_no_reference() -> None:
    """It has lost the length that the fusion takes into account: another query comes out."""
    encoder = cached()
    model = ComposedEncoder(encoder, Sum())
    text = encoder.encode_text(["is red"])
    expected = model.encode_query(["a"], ["is red"])
    torch.testing.assert_close(model.compose(encoder.encode_image(["a"]), text), expected)
    assert (model.compose(model.encode_gallery(["a"]), text) - expected).abs().max() > 0.05
