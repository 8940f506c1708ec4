"""Images are found whatever the Unicode form of their names; ids stay as they are written."""

import json
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pytest

from fusecomp.datasets import FashionIQ, TripletTable

NAMES = ["café", "größe", "한글", "Ångström", "ấ", "é/ü"]
Form = Literal["NFC", "NFD"]
FORMS: list[Form] = ["NFC", "NFD"]
# The sign for an angstrom: a third form of the letter, beside one and two characters.
SIGN = "\u212b"


def put(path: Path, content: bytes = b"no image") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_table(folder: Path, *rows: tuple[str, str, str]) -> Path:
    path = folder.parent / "mine.csv"
    lines = [",".join(row) for row in (("reference", "text", "target"), *rows)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("written", FORMS)
@pytest.mark.parametrize("on_disk", FORMS)
@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_a_table_finds_a_name_of_another_form(
    tmp_path: Path, name: str, written: Form, on_disk: Form, suffix: str
) -> None:
    images = tmp_path / "images"
    file = images / normalize(on_disk, f"{name}.jpg")
    put(file)
    put(images / "b.jpg")
    image_id = normalize(written, name + suffix)
    data = TripletTable(write_table(images, (image_id, "is blue", "b")), images)
    assert data.triplets()[0].reference_id == image_id
    assert set(data.image_ids) == {image_id, "b"}
    assert data.path(image_id) == file
    assert file.is_file()


@pytest.mark.parametrize("name", NAMES)
def test_two_files_that_differ_in_the_form_are_told_apart(tmp_path: Path, name: str) -> None:
    images = tmp_path / "images"
    one, other = (normalize(form, name) for form in FORMS)
    put(images / f"{one}.jpg")
    put(images / f"{other}.jpg")
    data = TripletTable(write_table(images, (one, "is blue", other)), images)
    assert data.path(one) == images / f"{one}.jpg"
    assert data.path(other) == images / f"{other}.jpg"


def test_a_name_that_may_be_either_of_two_files_is_refused(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for form in FORMS:
        put(images / f"{normalize(form, SIGN)}.jpg")
    put(images / "b.jpg")
    table = write_table(images, (SIGN, "is blue", "b"))
    files = r"may be A\\u030a.jpg or \\xc5.jpg; rename one"
    with pytest.raises(ValueError, match=f"line 2: '{SIGN}': {files}"):
        TripletTable(table, images)


def test_a_table_spells_an_image_in_one_form(tmp_path: Path) -> None:
    images = tmp_path / "images"
    one, other = (normalize(form, "é") for form in FORMS)
    put(images / f"{one}.jpg")
    put(images / "b.jpg")
    table = write_table(images, (one, "is blue", "b"), (other, "is red", "b"))
    problem = f"'{other}': the same image as " + r"\\xe9; write it in one way"
    with pytest.raises(ValueError, match=f"line 3: {problem}"):
        TripletTable(table, images)


@pytest.mark.parametrize("written", FORMS)
@pytest.mark.parametrize("on_disk", FORMS)
def test_fashioniq_finds_a_name_of_another_form(
    tiny_fashioniq: Path, written: Form, on_disk: Form
) -> None:
    image_id = normalize(written, "Dévàl")
    split = tiny_fashioniq / "image_splits/split.dress.val.json"
    split.write_text(json.dumps([*json.loads(split.read_text()), image_id]))
    file = tiny_fashioniq / "images" / normalize(on_disk, "Dévàl.jpg")
    put(file, b"here")
    data = FashionIQ(tiny_fashioniq, "val")
    assert image_id in data.image_ids
    assert data.path(image_id).read_bytes() == b"here"
    assert "unknown" not in {f.kind for f in FashionIQ.verify(tiny_fashioniq).findings}
