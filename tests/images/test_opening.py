"""Image files as they really are, and what is none."""

import io
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import drawn, pixels, plain
from PIL import Image

from fusecomp.images import SquarePad, TargetPad, clip_transform
from fusecomp.images._loading import ImageError, load_one


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_many_images_the_first_is_taken(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    path = tmp_path / f"film.{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as opened:
        assert getattr(opened, "n_frames", 1) == 3
    assert (pixels(plain(4)(path)) == (255, 0, 0)).all()


def test_a_progressive_jpeg_is_read_in_full(tmp_path: Path) -> None:
    drawn("RGB", 64, 64).save(tmp_path / "a.jpg", progressive=True)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.info["progressive"]
        assert np.array_equal(pixels(plain(64)(tmp_path / "a.jpg")), np.asarray(opened))


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.txt", "ä b.PNG"])
def test_the_content_tells_the_format(tmp_path: Path, name: str) -> None:
    drawn("RGB").save(tmp_path / name, format="PNG")
    expected = plain(8)(drawn("RGB"))
    assert torch.equal(plain(8)(tmp_path / name), expected)
    assert torch.equal(plain(8)(str(tmp_path / name)), expected)


def encoded(format_: str, **options: Any) -> bytes:
    file = io.BytesIO()
    drawn("RGB", 64, 64).save(file, format_, **options)
    return file.getvalue()


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("BMP", {}),
        ("TIFF", {}),
    ],
)
# Pillow warns of some of what it then raises.
@pytest.mark.filterwarnings("ignore:.*EXIF|Truncated File Read:UserWarning")
def test_a_truncated_file_is_named(
    tmp_path: Path, format_: str, options: dict[str, Any], kept: float
) -> None:
    path = tmp_path / "cut.jpg"
    content = encoded(format_, **options)
    path.write_bytes(content[: int(kept * len(content))])
    load = clip_transform(8, TargetPad())
    with pytest.raises(ImageError, match=r"^cannot read the image \S+cut.jpg \(.+\); replace"):
        load(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "(the file is empty)"),
        (b"<!DOCTYPE html><html>not found", "starts with b'<!DOCTYPE html><html>not'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "starts with b'version https://git-lfs."),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "page.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=re.escape(reason)) as caught:
        load_one(path, clip_transform(8))
    assert str(caught.value).startswith(f"cannot read the image {path} (")
    assert str(caught.value).count("cannot read the image") == 1


def test_an_absent_file_and_a_folder_are_the_system_s_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg"):
        clip_transform(8)(tmp_path / "absent.jpg")
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        clip_transform(8)(tmp_path)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="this is a pipe or a device, expected a regular file"):
        clip_transform(8)(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=rf"{tmp_path / 'pipe.png'}.*a pipe or a device"):
        load_one(tmp_path / "pipe.png", clip_transform(8))


def test_running_out_of_memory_is_not_the_image_s_fault(tmp_path: Path) -> None:
    def pad(image: Image.Image) -> Image.Image:
        raise MemoryError

    drawn("RGB").save(tmp_path / "a.png")
    with pytest.raises(MemoryError):
        clip_transform(8, pad)(tmp_path / "a.png")


def test_a_missing_package_is_not_the_image_s_fault(tmp_path: Path) -> None:
    def pad(image: Image.Image) -> Image.Image:
        raise ImportError("no opencv")

    drawn("RGB").save(tmp_path / "a.png")
    load = clip_transform(8, pad)
    for use in (load, lambda path: load_one(path, load)):
        with pytest.raises(ImportError, match="no opencv"):
            use(tmp_path / "a.png")


@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize("side", [11, 30])
def test_a_decompression_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, action: Any
) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (side, side)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings(), pytest.raises(ImageError) as caught:
        warnings.simplefilter(action)
        clip_transform(8)(path)
    assert "bomb.png" in str(caught.value)
    assert "raise PIL.Image.MAX_IMAGE_PIXELS" in str(caught.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert clip_transform(8)(path).shape == (3, 8, 8)


def test_without_pillow_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = drawn("RGB")
    for name in ("PIL", "PIL.Image"):
        monkeypatch.setitem(sys.modules, name, None)
    for use in (clip_transform(8), TargetPad(), SquarePad()):
        with pytest.raises(ImportError, match=r'pip install "fusecomp\[images\]"'):
            use(image)
    (tmp_path / "a.png").touch()
    with pytest.raises(ImportError, match=r'pip install "fusecomp\[images\]"'):
        load_one(tmp_path / "a.png", clip_transform(8))
