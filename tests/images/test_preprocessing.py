"""The published preprocessing: its numbers, its rounding, and its laws."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from drawing import MODES, PILLOW, PIPELINES, RESIZABLE, WITHOUT_RANGE, drawn, pixels, plain
from golden import PUBLISHED
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from fusecomp.images import SquarePad, TargetPad, clip_transform

NAMES = ("0_RGB", "1_RGB", "2_RGB", "3_L", "4_RGBA", "5_RGB", "6_P", "7_CMYK")


sides = st.integers(1, 60)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_pixel_is_the_published_one(pipeline: str, name: str) -> None:
    [path] = (PUBLISHED / "images").glob(f"{name}.*")
    with np.load(PUBLISHED / "preprocessing.npz") as published:
        expected = published[f"{pipeline}/{name}"]
    load = clip_transform(32, pad=PIPELINES[pipeline])
    # Before version 13 Pillow resized tall images in another order; two grey levels here.
    old = PILLOW < 13 and (pipeline, name) == ("clip", "0_RGB")
    assert np.abs(load(path).numpy() - expected).max() < (0.031 if old else 1e-5)
    with Image.open(path) as image:
        assert torch.equal(load(image), load(path))


def test_the_order_shows_in_all_but_rgb_and_grey() -> None:
    for name in NAMES:
        [path] = (PUBLISHED / "images").glob(f"{name}.*")
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
