"""The published preprocessing: its numbers, its rounding, and every mode."""

import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import drawn, pixels, plain
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL import __version__ as pillow_version

import fusecomp.images._transforms
from fusecomp._core.identity import describe
from fusecomp.images import SquarePad, TargetPad, clip_transform
from fusecomp.images._loading import ImageError, load_available
from fusecomp.images._opening import ImageLoader

NAMES = ("0_RGB", "1_RGB", "2_RGB", "3_L", "4_RGBA", "5_RGB", "6_P", "7_CMYK")
PIPELINES = {"clip": None, "targetpad": TargetPad(1.25), "squarepad": SquarePad()}
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16")
WITHOUT_RANGE = ("I", "F")
PILLOW = int(pillow_version.partition(".")[0])
# Pillow 11 is the first that interpolates 16 bits.
RESIZABLE = tuple(mode for mode in MODES if PILLOW >= 11 or mode != "I;16")

sides = st.integers(1, 60)


# The published numbers


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_pixel_is_the_published_one(
    pipeline: str, name: str, shared: Callable[[str], Path]
) -> None:
    [path] = shared("parity/images").glob(f"{name}.*")
    with np.load(shared("parity/preprocessing.npz")) as published:
        expected = published[f"{pipeline}/{name}"]
    load = clip_transform(32, pad=PIPELINES[pipeline])
    # Before version 13 Pillow resized tall images in another order; two grey levels here.
    old = PILLOW < 13 and (pipeline, name) == ("clip", "0_RGB")
    assert np.abs(load(path).numpy() - expected).max() < (0.031 if old else 1e-5)
    with Image.open(path) as image:
        assert torch.equal(load(image), load(path))


def test_the_order_shows_in_all_but_rgb_and_grey(shared: Callable[[str], Path]) -> None:
    for name in NAMES:
        [path] = shared("parity/images").glob(f"{name}.*")
        last, first = (clip_transform(32, SquarePad(), convert=c)(path) for c in ("last", "first"))
        assert torch.equal(last, first) == (name.endswith(("_RGB", "_L")))


@pytest.mark.parametrize(
    ("size", "padded"),
    [
        ((100, 80), (100, 80)),  # exactly 1.25
        ((80, 100), (80, 100)),
        ((101, 80), (101, 80)),  # 80.8 wanted, less than a pixel for each edge
        ((97, 77), (97, 77)),
        ((37, 90), (71, 90)),  # 72 wanted, 17.5 for each edge
        ((200, 33), (200, 159)),
        ((10_000, 10), (10_000, 8_000)),
        ((1, 1), (1, 1)),
        ((2, 1), (2, 1)),
        ((3, 1), (3, 1)),
        ((4, 1), (4, 3)),
    ],
)
def test_target_pad_rounds_each_edge_down(size: tuple[int, int], padded: tuple[int, int]) -> None:
    assert TargetPad()(Image.new("1", size)).size == padded


@pytest.mark.parametrize(("longer", "left"), [(8, 0), (9, 0), (10, 1), (11, 2), (12, 2), (13, 2)])
def test_the_crop_rounds_a_half_to_the_even_number(longer: int, left: int) -> None:
    image = drawn("RGB", longer, 8)  # the shorter side has its size already
    expected = np.asarray(image)[:, left : left + 8]
    assert np.array_equal(pixels(plain(8)(image)), expected)
    upright = image.transpose(Image.Transpose.TRANSPOSE)
    assert np.array_equal(pixels(plain(8)(upright)), expected.transpose(1, 0, 2))


@pytest.mark.parametrize(("width", "height"), [(30, 19), (19, 30), (100, 64), (31, 31)])
def test_the_longer_side_is_cut_not_rounded(width: int, height: int) -> None:
    image = drawn("RGB", width, height)
    sides = [8 * side // min(width, height) for side in (width, height)]
    resized = image.resize((sides[0], sides[1]), Image.Resampling.BICUBIC)
    left, top = (round((side - 8) / 2) for side in sides)
    expected = np.asarray(resized)[top : top + 8, left : left + 8]
    assert np.array_equal(pixels(plain(8)(image)), expected)


def test_the_default_is_clip_s_mean_and_std() -> None:
    tensor = clip_transform(1)(Image.new("RGB", (1, 1), (0, 255, 51))).flatten()
    expected = [-0.48145466 / 0.26862954, 0.5421725 / 0.26130258, -0.20821073 / 0.27577711]
    assert tensor.dtype == torch.float32
    assert tensor.tolist() == pytest.approx(expected, rel=1e-6)


def test_mean_and_std_may_be_others() -> None:
    load = clip_transform(1, mean=[0.5, 0, 0.2], std=np.array([0.5, 2, 1]))  # type: ignore[arg-type]
    tensor = load(Image.new("RGB", (1, 1), (255, 255, 51)))
    assert tensor.flatten().tolist() == pytest.approx([1, 0.5, 0], abs=1e-7)


# Laws


@example(1, 1, 16, "RGB")
@given(sides, sides, st.integers(1, 40), st.sampled_from(RESIZABLE))
def test_every_image_becomes_a_square_tensor(w: int, h: int, size: int, mode: str) -> None:
    for pad in PIPELINES.values():
        tensor = plain(size, pad=pad)(drawn(mode, w, h))
        assert tensor.shape == (3, size, size)
        assert tensor.is_contiguous()
        assert tensor.min() >= 0
        assert tensor.max() <= 1


@given(st.integers(1, 400), st.integers(1, 400), st.floats(1, 8))
def test_target_pad_brings_the_ratio_down(width: int, height: int, ratio: float) -> None:
    before = drawn("L", width, height)
    after = TargetPad(ratio)(before)
    if max(width, height) / min(width, height) <= ratio:
        assert after is before
    assert max(after.size) == max(width, height)
    wanted = max(width, height) / ratio
    assert min(after.size) <= max(wanted, min(width, height))
    assert min(after.size) > wanted - 2


# LAB stores its zero as 128.
@given(
    sides,
    sides,
    st.sampled_from([mode for mode in MODES if mode != "LAB"]),
    st.sampled_from([TargetPad(1.25), SquarePad()]),
)
def test_padding_puts_zeros_around_the_whole_image(
    width: int, height: int, mode: str, pad: Callable[[Image.Image], Image.Image]
) -> None:
    before = drawn(mode, width, height)
    after = pad(before)
    assert after.mode == mode
    left, top = (after.width - width) / 2, (after.height - height) / 2
    box = (int(left), int(top), int(left) + width, int(top) + height)
    assert box[:2] == (left, top)
    assert after.crop(box).tobytes() == before.tobytes()
    assert after.crop(box).convert("RGB").tobytes() == before.convert("RGB").tobytes()
    values = np.array(after)
    values[box[1] : box[3], box[0] : box[2]] = 0
    assert not values.any()


@given(sides, sides)
def test_square_pad_is_at_most_one_pixel_short(width: int, height: int) -> None:
    after = SquarePad()(Image.new("L", (width, height)))
    assert max(after.size) == max(width, height)
    assert min(after.size) == max(width, height) - abs(width - height) % 2


@given(sides, sides, st.sampled_from([mode for mode in MODES if mode not in WITHOUT_RANGE]))
def test_converting_first_is_converting_the_image_before(w: int, h: int, mode: str) -> None:
    image = drawn(mode, w, h)
    rgb = image.convert("RGB") if mode != "I;16" else Image.new("RGB", (w, h))
    first = plain(7, pad=TargetPad(), convert="first")(image)
    assert torch.equal(first, plain(7, pad=TargetPad())(rgb))


# What the published order means in each mode


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


# Turned and thin images


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


@pytest.mark.parametrize("size", [(10_000, 10), (10, 10_000)])
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


# A load for worker processes and caches


def test_it_runs_in_worker_processes(tmp_path: Path) -> None:
    load = clip_transform(8, TargetPad())
    files = []
    for number, mode in enumerate(("RGB", "L", "P", "RGBA")):
        files.append(tmp_path / f"{number}.png")
        drawn(mode, 10 + number).save(files[-1])
    keys, paths = list(range(4)), dict(enumerate(files))
    [batch] = load_available(paths, load, [keys], num_workers=1)
    assert batch.images is not None
    assert torch.equal(batch.images, torch.stack([load(path) for path in files]))
    files[2].write_bytes(b"<html>")
    with pytest.raises(ImageError, match=r"^cannot read the image \S+2.png \(not an image"):
        list(load_available(paths, load, [keys], num_workers=1, on_error="raise"))


@pytest.mark.parametrize(
    "load",
    [
        clip_transform(224),
        clip_transform(288, TargetPad(1.25)),
        clip_transform(8, SquarePad(), (0.5, 0.5, 0.5), (1, 1, 1), "first", exif=True),
    ],
)
def test_it_pickles_prints_and_compares(load: Any) -> None:
    copy = pickle.loads(pickle.dumps(load))
    assert copy == load
    assert hash(copy) == hash(load)
    assert torch.equal(copy(drawn("RGB")), load(drawn("RGB")))
    assert eval(repr(load), vars(fusecomp.images._transforms)) == load
    assert load != clip_transform(7)
    with pytest.raises(FrozenInstanceError):
        load.size = 3


def test_it_prints_all_that_changes_pixels() -> None:
    assert repr(clip_transform(224, TargetPad())) == (
        "clip_transform(size=224, pad=TargetPad(ratio=1.25), "
        "mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711), "
        "convert='last', exif=False)"
    )
    assert repr(clip_transform(np.int64(8), mean=torch.zeros(3))) == (  # type: ignore[arg-type]
        "clip_transform(size=8, pad=None, mean=(0.0, 0.0, 0.0), "
        "std=(0.26862954, 0.26130258, 0.27577711), convert='last', exif=False)"
    )


def test_pads_of_one_name_print_their_difference_and_no_address() -> None:
    def functions() -> list[Callable[[Any], Any]]:
        return [lambda image: image, lambda image: image.rotate(90)]

    for wrap in (lambda pad: clip_transform(8, pad), ImageLoader):  # type: Callable[[Any], Any]
        (one, other), (again, _) = ([wrap(f) for f in functions()] for _ in range(2))
        assert one != again
        assert repr(one) == repr(again) != repr(other)
        assert describe(one) == describe(again) != describe(other)


@pytest.mark.parametrize("convert", ["last", "first"])
def test_the_image_stays_as_it_was(convert: Any) -> None:
    image = drawn("P")
    image.info["transparency"] = b"\0\1\2"
    load = clip_transform(8, TargetPad(), convert=convert)
    before = image.tobytes(), image.getpalette(), dict(image.info)
    assert torch.equal(load(image), load(image))
    assert (image.tobytes(), image.getpalette(), dict(image.info)) == before


# Bad input


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "224", (224, 224), None])
def test_a_bad_size_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="size must be a whole number of at least 1, got"):
        clip_transform(size)


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize(
    "value", [(0.5, 0.5), 0.5, (0.5, 0.5, float("nan")), "abc", "123", (1, 1, True), None]
)
def test_bad_channels_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be three .* numbers, one a channel, got"):
        clip_transform(8, **{name: value})


def test_a_zero_std_is_refused() -> None:
    with pytest.raises(ValueError, match="std must be three positive numbers"):
        clip_transform(8, std=(0.5, 0.5, 0))


def test_an_unknown_order_and_a_bad_pad_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown convert 'middle'; valid: 'last', 'first'"):
        clip_transform(8, convert="middle")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"pad must be callable or None, got 1.25; .*TargetPad\(\)"):
        clip_transform(8, pad=1.25)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "ratio",
    [
        0.99,
        0,
        -1.25,
        float("nan"),
        float("inf"),
        pytest.param(10**400, id="huge"),
        "1.25",
        True,
        None,
        (2, 1),
        2j,
        torch.ones(2),
    ],
)
def test_a_bad_ratio_is_refused(ratio: Any) -> None:
    with pytest.raises(ValueError, match=r"ratio must be .*, got"):
        TargetPad(ratio)


@pytest.mark.parametrize("exif", ["false", 1, None])
def test_an_unclear_exif_is_refused(exif: Any) -> None:
    with pytest.raises(ValueError, match="exif must be True or False, got"):
        clip_transform(8, exif=exif)


@pytest.mark.parametrize("ratio", [2, 2.0, np.float32(2), np.int64(2), torch.tensor(2)])
def test_equal_ratios_print_alike(ratio: Any) -> None:
    assert repr(TargetPad(ratio)) == "TargetPad(ratio=2.0)"
    assert hash(TargetPad(ratio)) == hash(TargetPad(2.0))


@pytest.mark.parametrize("use", [TargetPad(), SquarePad(), clip_transform(8)])
def test_what_is_no_image_is_refused(use: Any) -> None:
    with pytest.raises(TypeError, match=r"image must be a PIL image, got ndarray; .*fromarray"):
        use(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="no pixels: its size is 0 x 5"):
        use(Image.new("RGB", (0, 5)))
