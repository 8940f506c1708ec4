"""A transform loads in worker processes, prints, pickles, compares and checks its arguments."""

import math
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import drawn
from PIL import Image

import fusecomp.images._transforms
from fusecomp._core.identity import describe
from fusecomp.images import SquarePad, TargetPad, clip_transform
from fusecomp.images._loading import ImageError, load_available
from fusecomp.images._opening import ImageLoader


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


CHANNELS = ((0.5, 0.5), 0.5, (0.5, 0.5, math.nan), "abc", "123", (1, 1, True), None)
# By argument: values that it cannot have, and what is said of them.
WRONG: dict[str, tuple[tuple[Any, ...], str]] = {
    "size": ((0, 2.5, "224", (224, 224), None), "size must be a whole number of at least 1, got"),
    "mean": (CHANNELS, "mean must be three finite numbers, one a channel, got"),
    "std": ((*CHANNELS, (0.5, 0.5, 0)), "std must be three positive numbers, one a channel, got"),
    "convert": (("middle", None), "unknown convert .*; valid: 'last', 'first'"),
    "pad": ((1.25, "square"), r"pad must be callable or None, got .*; .*TargetPad\(\)"),
    "exif": (("false", 1, None), "exif must be True or False, got"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_named(name: str) -> None:
    values, message = WRONG[name]
    for value in values:
        with pytest.raises((ValueError, TypeError), match=message):
            clip_transform(**{"size": 8, name: value})


def test_a_bad_ratio_is_refused() -> None:
    ratios: list[Any] = [0.99, 0, -1.25, math.nan, math.inf, 10**400, "1.25", True, None, (2, 1)]
    for ratio in (*ratios, 2j, torch.ones(2)):
        with pytest.raises(ValueError, match=r"ratio must be .*, got"):
            TargetPad(ratio)


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
