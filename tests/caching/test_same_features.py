"""A file of features is read only where the same features would be computed."""

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from extracting import IMAGES, Numbered, draw, load, make
from torch import Tensor, nn

import fusecomp as fc
from fusecomp.caching import CachedEncoder
from fusecomp.encoders import DualEncoder


def build(encoder: Any, *data: Any, path: Path | None = None, **more: Any) -> CachedEncoder:
    return CachedEncoder.build(encoder, *data, path=path, batch_size=8, **more)


# Another encoder.


class Tower(nn.Module):
    """An image side with settings of many kinds."""

    def __init__(
        self, act: nn.Module | None = None, pool: str = "mean", scale: float = 1.0
    ) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 6)
        self.act = act or nn.ReLU()
        self.pool = pool
        self._scale = scale

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.act(self.layer(images)) * self._scale
        return features if self.pool == "mean" else features.flip(1)


def tower(**settings: Any) -> DualEncoder:
    torch.manual_seed(0)
    image = Tower(**settings)
    return DualEncoder(image, make().text, load)


def doubled(path: Path) -> Tensor:
    return 2 * load(path)


def loading(scale: float) -> Callable[[Path], Tensor]:
    return lambda path: scale * load(path)


def with_load(function: Callable[[Path], Tensor]) -> DualEncoder:
    known = tower()
    return DualEncoder(known.image, known.text, function)


OTHERS: dict[str, Callable[[], DualEncoder]] = {
    "activation": lambda: tower(act=nn.GELU()),
    "argument of the activation": lambda: tower(act=nn.GELU(approximate="tanh")),
    "pooling": lambda: tower(pool="last"),
    "private number": lambda: tower(scale=2.0),
    "load": lambda: with_load(doubled),
    "load's closed-over value": lambda: with_load(loading(2.0)),
    "weights": lambda: make(),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_what_changes_a_feature_changes_the_key(
    tmp_path: Path, other: Callable[[], DualEncoder]
) -> None:
    data, path = draw(tmp_path / "images"), tmp_path / "features"
    build(tower(), data, path=path)
    build(tower(), data, path=path)  # the same one is read
    with pytest.raises(ValueError, match=f"{path} holds features under the key"):
        build(other(), data, path=path)


def test_the_parts_of_a_key_that_differ_are_named(tmp_path: Path) -> None:
    data, path = draw(tmp_path / "images"), tmp_path / "features"
    build(tower(), data, path=path)
    with pytest.raises(ValueError, match=r"\(other settings\); delete it"):
        build(tower(act=nn.GELU()), data, path=path)


def test_modes_and_frozen_weights_change_no_key(tmp_path: Path) -> None:
    data, path = draw(tmp_path / "images"), tmp_path / "features"
    build(tower(), data, path=path)
    again = tower()
    again.eval().requires_grad_(False)
    build(again, data, path=path)


def test_a_key_that_is_no_string_is_refused(tmp_path: Path) -> None:
    data: Any = draw(tmp_path / "images")
    for key in (5, b"mine", Path("mine")):
        with pytest.raises(TypeError, match="key must be a string"):
            build(make(), data, path=tmp_path / "features", key=key)


# Other image files.


@pytest.mark.parametrize("key", [None, "mine", "content"])
def test_another_size_of_an_image_is_named(tmp_path: Path, key: str | None) -> None:
    data, path = draw(tmp_path / "images"), tmp_path / "features"
    build(make(), data, path=path, key=key)
    data.path("7").write_text("007")
    with pytest.raises(ValueError, match=r"another file of the image '7'"):
        build(make(), data, path=path, key=key)


def test_equal_sizes_are_told_apart_by_content_alone(tmp_path: Path) -> None:
    data = draw(tmp_path / "images")
    for key in (None, "content"):
        build(make(), data, path=tmp_path / f"features {key}", key=key)
    data.path("7").write_text("8")
    build(make(), data, path=tmp_path / "features None")
    with pytest.raises(ValueError, match=r"another file of the image '7'"):
        build(make(), data, path=tmp_path / "features content", key="content")


def test_files_told_by_size_and_by_content_are_two_caches(tmp_path: Path) -> None:
    data, path = draw(tmp_path / "images"), tmp_path / "features"
    build(make(), data, path=path)
    with pytest.raises(ValueError, match="images by content"):
        build(make(), data, path=path, key="content")


def test_a_copied_folder_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "features"
    build(make(), draw(tmp_path / "images"), path=path)
    shutil.copytree(tmp_path / "images", tmp_path / "copy")
    for file in (tmp_path / "copy").iterdir():
        os.utime(file, (1, 1))
    build(make(), Numbered(tmp_path / "copy"), path=path)


def test_images_that_are_not_there_count_as_unchanged(tmp_path: Path) -> None:
    data, path = draw(tmp_path / "images"), tmp_path / "features"
    first = build(make(), data, path=path)
    for image_id in ("3", "5"):
        data.path(image_id).unlink()
    with pytest.warns(UserWarning, match=rf"2 of {IMAGES} images are not there, the first: '3'"):
        second = build(make(), data, path=path)
    assert torch.equal(first.image.features, second.image.features)
    data.path("7").write_text("007")  # one that is there still counts
    with pytest.raises(ValueError, match=r"another file of the image '7'"):
        build(make(), data, path=path)


def test_a_skipped_image_that_is_there_now_is_named(tmp_path: Path) -> None:
    data, path = draw(tmp_path / "images"), tmp_path / "features"
    data.path("3").unlink()
    data.path("5").write_text("torn")
    build(make(), data, path=path, on_error="skip")
    assert build(make(), data, path=path, on_error="skip").skipped.keys() == {"3", "5"}
    for image_id in ("3", "5"):
        before = data.path(image_id).read_text() if data.path(image_id).exists() else None
        data.path(image_id).write_text(image_id)
        with pytest.raises(ValueError, match=f"another file of the image '{image_id}'"):
            build(make(), data, path=path, on_error="skip")
        if before is None:
            data.path(image_id).unlink()
        else:
            data.path(image_id).write_text(before)


def test_features_of_ones_own_say_nothing_of_files(tmp_path: Path) -> None:
    data, path = draw(tmp_path / "images"), tmp_path / "features"
    known = build(make(), data)
    names = list(known.image.rows), list(known.text.rows)
    arrays = known.image.features, known.text.features
    CachedEncoder.from_arrays(names[0], arrays[0], names[1], arrays[1], key="mine").save(path)
    again = build(make(), data, path=path, key="mine")
    assert again.image_marks == {}


def test_blocks_of_other_files_are_not_used(tmp_path: Path) -> None:
    data, path = draw(tmp_path / "images"), tmp_path / "features"

    def stops(file: Path) -> Tensor:
        if file.stem == "39":
            raise KeyboardInterrupt
        return load(file)

    with pytest.raises(KeyboardInterrupt):
        build(with_load(stops), data, path=path, key="mine", num_workers=0)
    data.path("7").write_text("007")
    expected = build(with_load(doubled), data).image.features
    got = build(with_load(doubled), data, path=path, key="mine").image.features
    # The first block holds the changed image; it was computed again, whatever the key promised.
    assert torch.equal(got[:32], expected[:32])


# One id with two files.


def folders(root: Path, same: bool) -> tuple[Numbered, Numbered]:
    train, validation = draw(root / "train"), draw(root / "val")
    if not same:
        validation.path("7").write_text("9")
    return train, validation


def test_an_id_that_means_two_files_is_refused(tmp_path: Path) -> None:
    train, validation = folders(tmp_path, same=False)
    named = f"'7' means two files: {train.path('7')} and {validation.path('7')}"
    with pytest.raises(ValueError, match=named):
        build(make(), train, validation)
    with pytest.raises(ValueError, match=named):
        build(make(), train, validation, path=tmp_path / "features")


def test_two_copies_and_two_ways_to_one_file_are_the_same(tmp_path: Path) -> None:
    train, copies = folders(tmp_path, same=True)
    (tmp_path / "link").symlink_to(tmp_path / "train", target_is_directory=True)
    expected = build(make(), train).image.features
    for other in (copies, Numbered(tmp_path / "link")):
        assert torch.equal(build(make(), train, other).image.features, expected)


@pytest.mark.parametrize("train", ["text", "fusion", ("text", "fusion")])
def test_training_with_a_cache_refuses_them_too(tmp_path: Path, train: Any) -> None:
    data, validation = folders(tmp_path, same=False)
    config = fc.StageConfig(epochs=1, batch_size=8, lr=1e-3, trainable=train)

    def fit(**more: Any) -> fc.Run:
        model = fc.ComposedEncoder(more.pop("encoder", None) or make(), fc.Combiner(6))
        settings = fc.StageConfig.from_dict({**config.to_dict(), **more})
        return fc.Trainer(model, loss=fc.InfoNCE(0.1), config=settings).fit(data, validation)

    with pytest.raises(ValueError, match="'7' means two files"):
        fit()
    with pytest.raises(ValueError, match="'7' means two files"):
        fit(encoder=None if train != "fusion" else build(make(), data))
    fit(cache=False)  # where nothing is kept by id, each dataset opens its own


def test_files_that_are_not_there_count_as_unchanged(tmp_path: Path) -> None:
    train, validation = folders(tmp_path, same=True)
    cached = build(make(), train)
    for file in (tmp_path / "val").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="'0' means two files"):  # one is there, one is not
        build(cached, train, validation)
    for file in (tmp_path / "train").iterdir():
        file.unlink()
    assert torch.equal(build(cached, train, validation).image.features, cached.image.features)


def test_no_warning_where_all_is_as_it_was(tmp_path: Path) -> None:
    data, path = draw(tmp_path / "images"), tmp_path / "features"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(make(), data, path=path)
        build(make(), data, path=path)
