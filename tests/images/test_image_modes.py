"""The published order of preprocessing in each mode of Pillow, and turned and thin images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import PIPELINES, RESIZABLE, WITHOUT_RANGE, drawn, pixels, plain
from PIL import Image, ImageOps

from fusecomp.images import SquarePad, TargetPad, clip_transform
from fusecomp.images._loading import ImageError


def test_a_palette_is_not_interpolated_and_padded_with_its_first_colour() -> None:
    image = drawn("P", 9, 40)
    palette = image.getpalette() or []
    colours = {tuple(palette[start : start + 3]) for start in range(0, 768, 3)}
    last = pixels(plain(16, pad=SquarePad())(image))
    assert {tuple(colour) for colour in last.reshape(-1, 3).tolist()} <= colours
    assert last[0, 0].tolist() == palette[:3]
    assert pixels(plain(16, pad=SquarePad(), convert="first")(image))[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("suffix", "transparency"), [("png", 3), ("png", bytes(range(0, 250, 10))), ("gif", 3)]
)
def test_a_transparent_palette_changes_nothing(
    tmp_path: Path, suffix: str, transparency: int | bytes
) -> None:
    image = drawn("P")
    image.save(tmp_path / f"without.{suffix}")
    image.save(tmp_path / f"with.{suffix}", transparency=transparency)
    with Image.open(tmp_path / f"with.{suffix}") as opened:
        assert "transparency" in opened.info
    for options in ({}, {"pad": TargetPad()}, {"convert": "first"}):  # type: dict[str, Any]
        load = clip_transform(8, **options)
        with_, without = (load(tmp_path / f"{name}.{suffix}") for name in ("with", "without"))
        assert torch.equal(with_, without)


@pytest.mark.parametrize(
    ("mode", "value", "edge"),
    [
        ("CMYK", (0, 255, 255, 0), 255),
        ("RGBA", (255, 0, 0, 255), 0),
        ("LA", (90, 255), 0),
        ("L", 90, 0),
        ("1", 255, 0),
        ("RGB", (255, 0, 0), 0),
    ],
)
def test_padding_has_the_zero_of_the_mode(mode: str, value: Any, edge: int) -> None:
    image = Image.new(mode, (10, 40), value)
    last = pixels(plain(20, pad=SquarePad())(image))
    assert (last[:, [0, -1]] == edge).all()
    first = pixels(plain(20, pad=SquarePad(), convert="first")(image))
    assert (first[:, [0, -1]] == 0).all()
    assert np.array_equal(last[:, 10], first[:, 10])


def test_invisible_colours_show_only_if_converted_first() -> None:
    image = Image.new("RGBA", (9, 9), (200, 100, 50, 0))
    assert (pixels(plain(3)(image)) == 0).all()
    assert (pixels(plain(3, convert="first")(image)) == (200, 100, 50)).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_cut_as_published_or_brought_to_eight(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep.{suffix}"
    values = np.array([[0x0000, 0x00FE], [0x1234, 0xFFFF]], dtype=np.uint16)
    Image.fromarray(values).save(path)
    assert pixels(plain(2)(path))[..., 0].tolist() == [[0, 254], [255, 255]]
    first = plain(2, convert="first")
    assert pixels(first(path))[..., 0].tolist() == [[0x00, 0x00], [0x12, 0xFF]]
    swapped = Image.frombytes("I;16B", (2, 2), values.byteswap().tobytes())
    assert torch.equal(first(swapped), first(path))


@pytest.mark.parametrize("mode", WITHOUT_RANGE)
def test_values_without_a_range_are_cut_or_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "deep.tif"
    values = np.array([[-9, 7], [255, 70_000]])
    Image.fromarray(values.astype(np.int32 if mode == "I" else np.float32)).save(path)
    assert pixels(plain(2)(path))[..., 2].tolist() == [[0, 7], [255, 255]]
    message = rf"deep.tif \(ValueError: mode {mode} has no known range.*convert='last'"
    with pytest.raises(ImageError, match=message):
        clip_transform(2, convert="first")(path)


@pytest.mark.parametrize("mode", RESIZABLE)
@pytest.mark.parametrize("convert", ["last", "first"])
def test_a_pad_of_one_s_own_gets_what_convert_says(mode: str, convert: Any) -> None:
    seen = []

    def pad(image: Image.Image) -> Image.Image:
        seen.append(image.mode)
        return image

    if convert == "last" or mode not in WITHOUT_RANGE:
        clip_transform(4, pad, convert=convert)(drawn(mode))
        assert seen == [mode if convert == "last" else "RGB"]


def test_a_mode_that_this_pillow_cannot_resize_points_to_the_other_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resize(self: Image.Image, *args: Any) -> Image.Image:
        raise ValueError("image has wrong mode")

    monkeypatch.setattr(Image.Image, "resize", resize)
    with pytest.raises(ValueError, match=r"cannot resize mode I;16 .*wrong mode.*convert='first'"):
        clip_transform(4)(drawn("I;16"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_honoured_on_request(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = drawn("RGB")
    image.save(path, exif=exif)
    assert torch.equal(plain(8)(path), plain(8)(image))
    with Image.open(path) as opened:
        turned = ImageOps.exif_transpose(opened)
    honoured = plain(8, pad=TargetPad(), exif=True)(path)
    assert torch.equal(honoured, plain(8, pad=TargetPad())(turned))
    assert torch.equal(honoured, plain(8, pad=TargetPad())(image)) == (orientation == 1)


@pytest.mark.parametrize("size", [(3_000, 10), (10, 3_000)])
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_very_thin_image(size: tuple[int, int], pipeline: str) -> None:
    tensor = plain(16, pad=PIPELINES[pipeline])(Image.new("RGB", size, "white"))
    assert tensor.shape == (3, 16, 16)
    assert tensor.max() == (1 if pipeline == "clip" else tensor[:, 8, 8].max())


def test_a_pad_that_returns_no_image_is_named(tmp_path: Path) -> None:
    def pad(image: Image.Image) -> Any:
        return np.asarray(image)

    with pytest.raises(TypeError, match=r"pad=.*pad \w+ returned ndarray, expected a PIL image"):
        clip_transform(8, pad)(drawn("RGB"))


@pytest.mark.parametrize(
    ("pad", "what", "count"),
    [
        (None, "resizing the shorter side to 8 makes it 3200 x 8 pixels", 3200 * 8),
        (SquarePad(), "padding makes it 400 x 400 pixels", 400 * 400),
        (TargetPad(), "padding makes it 400 x 320 pixels", 400 * 320),
    ],
)
def test_a_image_too_thin_for_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pad: Any, what: str, count: int
) -> None:
    path = tmp_path / "thin.png"
    Image.new("L", (400, 1 if pad is None else 2)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", count // 2)
    assert clip_transform(8, pad)(path).shape == (3, 8, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", count // 2 - 1)
    with pytest.raises(ImageError, match=f"thin.png .*{what}"):
        clip_transform(8, pad)(path)
