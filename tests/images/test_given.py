"""Images as a person has them, in the place of a path."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composing import TEXTS, cached
from drawing import drawn
from PIL import Image
from torch import Tensor, nn

from fusecomp.encoders import DualEncoder
from fusecomp.fusions import Sum
from fusecomp.images import ImageLoader, clip_transform, load_given
from fusecomp.model import ComposedEncoder


def small(image: Any) -> Tensor:
    """A transform as torchvision's."""
    return torch.from_numpy(np.array(image.convert("RGB").resize((4, 4)))).float()


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


LOADERS: dict[str, Any] = {"clip_transform": clip_transform(4), "ImageLoader": ImageLoader(small)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    drawn("RGB", 20, 12).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("loader", LOADERS)
def test_each_form_of_an_image_gives_what_its_file_gives(loader: str, path: Path) -> None:
    load = LOADERS[loader]
    image = opened(path)
    given = [path, str(path), image, np.array(image), np.asfortranarray(image), load(path)]
    (batch,) = load_given(given, load, 8)
    assert len(batch) == len(given)
    assert all(torch.equal(row, load(path)) for row in batch)


def test_a_grey_array_is_a_grey_image(path: Path) -> None:
    grey = opened(path).convert("L")
    (one,) = load_given([np.array(grey)], LOADERS["ImageLoader"], 8)
    assert torch.equal(one[0], small(grey))


def test_a_model_takes_opened_images_as_references_and_gallery(path: Path) -> None:
    load = clip_transform(4)
    encoder = DualEncoder(nn.Flatten(), lambda texts: torch.ones(len(texts), 48), load)
    model = ComposedEncoder(encoder, Sum())
    image = opened(path)
    forms = [path, image, np.array(image)]
    expected = model.encode_query([path] * 3, TEXTS)
    assert torch.equal(model.encode_query(forms, TEXTS), expected)
    assert torch.equal(model.encode_gallery(forms), model.encode_gallery([path] * 3))


def test_what_a_transform_draws_is_the_same_each_time_and_leaves_the_streams(path: Path) -> None:
    load = ImageLoader(lambda image: small(image) + torch.rand(()))
    image, state = opened(path), torch.get_rng_state()
    (batch,) = load_given([image, image], load, 8)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)  # another state
    (again,) = load_given([image], load, 8)
    assert torch.equal(batch[0], batch[1])
    assert torch.equal(batch[0], again[0])


def test_batches_have_the_size_that_is_asked_for(path: Path) -> None:
    assert [len(batch) for batch in load_given([path] * 7, LOADERS["ImageLoader"], 3)] == [3, 3, 1]


@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (np.zeros((3, 4, 4), np.uint8), r"uint8 \[3, 4, 4\]"),
        (np.zeros((4, 4, 3), np.float32), r"float32 \[4, 4, 3\]"),
        (np.zeros(4, np.uint8), r"uint8 \[4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
    ],
    ids=["channels first", "floats", "a row", "no pixels"],
)
def test_an_array_of_something_else_is_refused(array: Any, shown: str) -> None:
    with pytest.raises(ValueError, match=f"must be uint8 .*, got {shown}; what load_image"):
        list(load_given([array], LOADERS["ImageLoader"], 8))


def test_a_loader_of_paths_alone_is_named(path: Path) -> None:
    with pytest.raises(ValueError, match=r"load_image of this encoder does not take <PIL\.Image"):
        list(load_given([opened(path)], lambda p: small(opened(Path(p))), 8))


def test_a_loader_that_makes_no_tensor_is_named(path: Path) -> None:
    transform: Any = np.array
    with pytest.raises(ValueError, match="load_image returned ndarray, expected a tensor"):
        list(load_given([opened(path)], ImageLoader(transform), 8))


def test_images_of_two_shapes_are_named(path: Path) -> None:
    with pytest.raises(ValueError, match=r"tensor.* has shape \[2\] .* \[4, 4, 3\]: bring every"):
        list(load_given([path, torch.ones(2)], LOADERS["ImageLoader"], 8))


@pytest.mark.parametrize("value", [3, None, b"a.png", ["a.png"]])
def test_what_is_no_image_is_refused(value: Any) -> None:
    model = ComposedEncoder(cached(), Sum())
    with pytest.raises(ValueError, match=r"references must be a list of .*: references\[1\] is "):
        model.encode_query(["a", value], TEXTS[:2])


def test_one_array_is_no_list_of_images() -> None:
    model = ComposedEncoder(cached(), Sum())
    with pytest.raises(ValueError, match=r"references must .* an array \[4, 4, 3\]: put each"):
        model.encode_query(np.zeros((4, 4, 3), np.uint8), TEXTS)  # type: ignore[arg-type]


def test_an_encoder_that_looks_ids_up_takes_no_opened_image(path: Path) -> None:
    model = ComposedEncoder(cached(), Sum())
    with pytest.raises(ValueError, match=r"list of ids, .* but number 1 is <PIL"):
        model.encode_query(["a", opened(path)], ["is red", "is red"])


def test_many_images_show_progress(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusecomp._core.progress._SHORT_SECONDS", 0.0)
    list(load_given([path] * 3, LOADERS["ImageLoader"], 3))
    assert capsys.readouterr().err == ""
    list(load_given([path] * 4, LOADERS["ImageLoader"], 3))
    assert capsys.readouterr().err.startswith("encoding images: 4/4 images, ")
