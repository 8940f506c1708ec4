"""An image of a dataset, small: None where it cannot be read."""

import pytest
from PIL import Image
from toy import Toy

from fusecomp.report._query_results import small_image


def small(data: Toy) -> tuple[int, int] | None:
    image = small_image(data, "1", 60)
    return None if image is None else image.size


@pytest.mark.parametrize(
    ("size", "expected"), [((120, 240), (30, 60)), ((20, 40), (20, 40)), ((1, 900), (1, 60))]
)
def test_an_image_keeps_its_shape_and_is_never_enlarged(
    data: Toy, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    Image.new("RGB", size, "red").save(data.path("1"))
    assert small(data) == expected


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_an_image_beyond_pillow_s_limit_is_none(
    data: Toy, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    Image.new("RGB", (200, 400)).save(data.path("1"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(share * 200 * 400))
    assert small(data) is None


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n torn"])
def test_a_missing_or_broken_image_is_none(data: Toy, content: bytes | None) -> None:
    data.path("1").unlink()
    if content is not None:
        data.path("1").write_bytes(content)
    assert small(data) is None


def test_half_an_image_is_none(data: Toy) -> None:
    whole = data.path("1").read_bytes()
    data.path("1").write_bytes(whole[: len(whole) // 2])
    assert small(data) is None


def fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load(self: Image.Image) -> None:
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)


def test_an_image_is_none_whatever_decoding_raises(
    data: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's plugins raise many things: of struct, of zlib, an EOFError, an IndexError."""
    fails(monkeypatch, IndexError("index out of range"))
    assert small(data) is None


@pytest.mark.parametrize("error", [MemoryError, ImportError])
def test_errors_that_are_not_about_the_file_pass(
    data: Toy, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    fails(monkeypatch, error())
    with pytest.raises(error):
        small(data)


def test_a_palette_with_a_transparency_for_each_colour_is_shown(data: Toy) -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 0, 0, 255])
    image.save(data.path("1"), transparency=b"\x00\x80")
    found = small_image(data, "1", 60)
    assert found is not None
    assert found.getpixel((10, 10)) == (0, 0, 255)
