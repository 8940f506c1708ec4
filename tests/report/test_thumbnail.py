"""An image on a sheet or page: as it is, or a grey box where it cannot be read."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fusecomp.report._thumbnail import thumbnail

GREY = (201, 201, 201)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.png"


def test_a_image_keeps_its_shape_in_the_middle_of_a_white_square(path: Path) -> None:
    Image.new("RGB", (20, 40), "red").save(path)
    box = thumbnail(path, "a", 60)
    assert box.size == (60, 60)
    assert [box.getpixel((x, 30)) for x in (14, 15, 44, 45)] == [
        (255, 255, 255),
        (255, 0, 0),
        (255, 0, 0),
        (255, 255, 255),
    ]


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_image_beyond_pillow_s_limit_is_a_grey_box(
    path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    Image.new("RGB", (200, 400)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(share * 200 * 400))
    assert thumbnail(path, "a", 60).getpixel((1, 1)) == GREY


def fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load(self: Image.Image) -> Any:
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)


def test_whatever_decoding_raises_is_a_grey_box(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's plugins raise many things: of struct, of zlib, an EOFError, an IndexError."""
    Image.new("L", (20, 40)).save(path)
    fails(monkeypatch, IndexError("index out of range"))
    assert thumbnail(path, "a", 60).getpixel((1, 1)) == GREY


@pytest.mark.parametrize("error", [MemoryError, ImportError])
def test_what_is_not_the_image_s_fault_passes(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    Image.new("L", (20, 40)).save(path)
    fails(monkeypatch, error())
    with pytest.raises(error):
        thumbnail(path, "a", 60)


def test_a_palette_with_a_transparency_for_each_colour_is_shown(path: Path) -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 0, 0, 255])
    image.save(path, transparency=b"\x00\x80")
    assert thumbnail(path, "a", 60).getpixel((30, 30)) == (0, 0, 255)
