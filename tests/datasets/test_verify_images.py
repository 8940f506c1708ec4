"""Every fault of an image is found, and nothing else; in the folder of a table."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from verifying import check, image, named, reasons

from fusecomp.datasets._verify import check_images


@pytest.mark.parametrize("decode", [False, True])
def test_sound_images_of_every_kind_are_fine(folder: Path, decode: bool) -> None:
    for number, (name, kind) in enumerate(
        {"e.bmp": "BMP", "f.tiff": "TIFF", "g.jpg": "PNG", "h.png": "WEBP"}.items(), 10
    ):
        (folder / name).write_bytes(image(number, kind))
    (folder / "progressive.jpg").write_bytes(image(20, progressive=True))
    (folder / "l.jpg").write_bytes(image(21, exif=b"Exif\0\0" + image(22, size=(8, 8))))
    report = check(folder, decode=decode)
    assert report.findings == ()
    assert report.ok
    assert (report.images, report.decoded) == (10, decode)
    assert "10 images opened" in str(report)
    assert str(report).endswith("no fault")


@pytest.mark.parametrize("name", ["a.jpg", "b.png", "c.webp", "d.gif"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("decode", [False, True])
def test_a_image_that_is_cut_off_is_found(
    folder: Path, name: str, share: float, decode: bool
) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    report = check(folder, decode=decode)
    (finding,) = report.findings
    assert finding.kind == "truncated"
    assert finding.names == (name,)
    assert not report.ok


@pytest.mark.parametrize("name", ["a.jpg", "b.png", "c.webp"])
@pytest.mark.parametrize("garbage", [b"\r\n", b"\0" * 5000, b"<!-- shop -->" * 500])
def test_bytes_behind_the_end_harm_nobody(folder: Path, name: str, garbage: bytes) -> None:
    with (folder / name).open("ab") as file:
        file.write(garbage)
    assert check(folder).findings == ()


@pytest.mark.parametrize("tail", [b"", b"\0" * 3000])
def test_the_end_of_a_thumbnail_is_not_that_of_the_image(folder: Path, tail: bytes) -> None:
    thumbnail = image(7, size=(8, 8))
    content = image(8, exif=b"Exif\0\0" + thumbnail)
    assert content.count(b"\xff\xd9") == 2
    (folder / "a.jpg").write_bytes(content[:-40] + tail)
    assert named(check(folder), "truncated") == ("a.jpg",)


@pytest.mark.parametrize("fill", [b"\xff", b"\xff\xff\xff", b"\xff\x00junk"])
def test_fill_bytes_and_junk_between_segments_are_passed_over(folder: Path, fill: bytes) -> None:
    content = image(9)
    (folder / "a.jpg").write_bytes(content[:2] + fill + content[2:] + b"behind")
    assert check(folder).findings == ()


def test_every_fault_has_its_kind(folder: Path) -> None:
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_bytes(b"<!DOCTYPE html><title>404</title>")
    (folder / "dot.gif").write_bytes(image(3, "GIF", (1, 1)))
    (folder / "line.png").write_bytes(image(3, "PNG", (1, 40)))
    (folder / "head.jpg").write_bytes(image(4)[:30])
    (folder / "noise.jpg").write_bytes(b"\xff\xd8\xff" + bytes(90) + b"\xff\xd9")
    (folder / "folder.png").symlink_to(folder.parent / "nowhere")
    (folder.parent / "mine.csv").write_text("reference,text,target\na,x,b\na,y,none\n")
    report = check(folder)
    assert "- empty.jpg\n" in str(report)
    assert "- dot.gif (1 x 1)\n" in str(report)
    assert {finding.kind: finding.names for finding in report.findings} == {
        "missing": ("folder.png", "none"),
        "empty": ("empty.jpg",),
        "placeholder": ("dot.gif", "line.png"),
        "truncated": ("head.jpg",),
        "unreadable": ("noise.jpg", "page.jpg"),
    }
    assert "1 x 40" in reasons(report, "placeholder")
    assert "not an image that Pillow can open; the file starts with b'<!D" in reasons(
        report, "unreadable"
    )
    assert report.images == 10


def test_a_file_that_may_not_be_read_is_unreadable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def open_some(path: Path, mode: str) -> Any:
        if path.name == "b.png":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, mode)

    monkeypatch.setattr(Path, "open", open_some)
    assert reasons(check(folder), "unreadable") == "Permission denied"


@pytest.mark.parametrize("factor", [0.4, 0.8])
def test_a_image_beyond_pillow_s_limit_is_unreadable(
    folder: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(factor * 24 * 36))
    report = check(folder)
    assert len(named(report, "unreadable")) == 4
    assert "raise PIL.Image.MAX_IMAGE_PIXELS" in reasons(report, "unreadable")


def test_only_decoding_finds_damage_inside(folder: Path) -> None:
    content = bytearray((folder / "b.png").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    (folder / "b.png").write_bytes(content)
    assert check(folder).ok
    assert named(check(folder, decode=True), "unreadable") == ("b.png",)


def test_equal_images_are_a_note(folder: Path) -> None:
    twin = image(30)
    (folder / "e.jpg").write_bytes(twin)
    (folder / "f.jpg").write_bytes(twin)
    os.link(folder / "f.jpg", folder / "g.jpg")
    shutil.copy(folder / "b.png", folder / "h.png")
    # As long as the twins and with their last bytes, but another image.
    other = bytearray(image(31) if len(image(31)) == len(twin) else twin)
    other[200] ^= 1
    (folder / "i.jpg").write_bytes(other)
    report = check(folder)
    (finding,) = report.findings
    assert (finding.kind, finding.fault) == ("duplicate", False)
    assert finding.names == ("e.jpg = f.jpg = g.jpg", "b.png = h.png")
    assert finding.message.startswith("5 images are 2, byte for byte; the largest group has 3")
    assert report.ok


def test_the_number_of_threads_is_invisible(folder: Path) -> None:
    for number in range(300):
        (folder / f"{number:03d}.jpg").write_bytes(image(number, size=(4, 4)))
        if number % 50 == 7:
            (folder / f"{number:03d}.jpg").write_bytes(b"")
    one, many = (check(folder, num_workers=num_workers) for num_workers in (1, 5))
    assert one.findings == many.findings
    assert len(named(one, "empty")) == 6
    assert one.images == 304


def test_without_pillow_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r'pip install "fusecomp\[images\]"'):
        check(folder)


def test_pipes_and_names_that_no_file_can_have_are_listed(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    names = ["pipe.png", "nul\0.png", "half\ud800.png", "a/\0/b.png"]
    images = {f"id {name}": folder / name for name in ["a.jpg", *names]}
    (finding,) = check_images(images, folder, decode=False, num_workers=2)
    assert finding.kind == "unreadable"
    assert list(finding.names) == [f"id {name}" for name in names]
    assert "pipe.png: this is a pipe or a device" in finding.reasons[0]
    assert all("no file can have this name" in reason for reason in finding.reasons[1:])
