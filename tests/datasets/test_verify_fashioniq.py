"""What is wrong with a FashionIQ folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from verifying import beyond_counts, image, kinds, named, reasons

from fusecomp.datasets import FashionIQ


@pytest.fixture
def fashioniq(tiny_fashioniq: Path) -> Path:
    """The tiny FashionIQ with real images."""
    for number, path in enumerate(sorted((tiny_fashioniq / "images").iterdir())):
        path.write_bytes(image(number, "PNG", (6, 8)))
    return tiny_fashioniq


def test_a_small_fashioniq_has_other_counts_and_no_other_fault(fashioniq: Path) -> None:
    report = FashionIQ.verify(fashioniq)
    assert beyond_counts(report) == []
    assert len(named(report, "counts")) == 20
    assert "11,452" in str(report)
    assert "dress.train images" in named(report, "counts")
    assert "12 in place of 11,452" in reasons(report, "counts")
    assert report.images == 108


def test_the_images_of_fashioniq_that_are_not_as_they_should_be(fashioniq: Path) -> None:
    images = fashioniq / "images"
    (images / "Dval00.png").unlink()
    (images / "Dval01.png").rename(images / "Dval01.webp")
    (images / "Dval02.png").rename(images / "Dval02.jpg")
    (images / "Dval03.jpeg").write_bytes(b"unused, as there is a .png")
    (images / "Dval04.png").write_bytes(b"")
    (images / "stray.png").write_bytes(image(900))
    (images / ".DS_Store").write_bytes(b"")
    shutil.copy(images / "Dval06.png", images / "Dval07.png")
    report = FashionIQ.verify(fashioniq)
    assert {f.kind: f.names for f in report.findings if f.kind != "counts"} == {
        "missing": ("Dval00", "Dval01"),
        "misnamed": ("Dval01.webp",),
        "empty": ("Dval04",),
        "unknown": ("stray.png",),
        "duplicate": ("Dval06 = Dval07",),
    }
    assert "images/Dval04.png" in reasons(report, "empty")
    assert [f.kind for f in report.findings if not f.fault] == ["unknown", "duplicate"]


def test_the_images_of_fashioniq_may_lie_by_category(fashioniq: Path) -> None:
    images = fashioniq / "images"
    for category in ("dress", "shirt", "toptee"):
        (images / category).mkdir()
        for path in images.glob(f"{category[0].upper()}*.png"):
            path.rename(images / category / path.name)
    assert beyond_counts(FashionIQ.verify(fashioniq)) == []
    shutil.copy(images / "dress/Dval00.png", images / "shirt/Dval00.png")
    shutil.copy(images / "dress/Dval02.png", images / "shirt/Dval01.png")
    (images / "dress/Dval03.png").rename(images / "dress/Dval03.webp")
    (images / "toptee/stray.png").write_bytes(image(900))
    report = FashionIQ.verify(fashioniq)
    assert {f.kind: f.names for f in report.findings if f.kind != "counts"} == {
        "ambiguous": ("Dval01",),
        "misnamed": ("dress/Dval03.webp",),
        "missing": ("Dval03",),
        "unknown": ("toptee/stray.png",),
    }
    assert "images/shirt/Dval01.png" in reasons(report, "ambiguous")


def test_annotations_of_fashioniq_that_are_missing_are_named(fashioniq: Path) -> None:
    (fashioniq / "captions/cap.dress.test.json").unlink()
    (fashioniq / "image_splits/split.shirt.val.json").unlink()
    report = FashionIQ.verify(fashioniq)
    assert set(named(report, "annotation")) == {
        "captions/cap.dress.test.json",
        "image_splits/split.shirt.val.json",
    }
    assert "entries of all split files" not in {count.name for count in report.counts}


def test_images_that_a_split_does_not_have_are_named(fashioniq: Path) -> None:
    split = fashioniq / "image_splits/split.dress.val.json"
    split.write_text(json.dumps(json.loads(split.read_text())[2:]))
    report = FashionIQ.verify(fashioniq)
    assert named(report, "unlisted") == ("Dval00", "Dval01")
    assert named(report, "unknown") == ("Dval00.png", "Dval01.png")


def test_what_train_and_validation_share_is_a_note(fashioniq: Path) -> None:
    path = fashioniq / "image_splits/split.shirt.train.json"
    path.write_text(json.dumps([*json.loads(path.read_text()), "Dval04", "Sval05", "Sval00"]))
    report = FashionIQ.verify(fashioniq)
    assert named(report, "overlap") == ("Dval04", "Sval00", "Sval05")
    (note,) = (finding for finding in report.findings if finding.kind == "overlap")
    assert note.message.endswith("the targets of 1 dress and 1 shirt validation queries")
    assert not note.fault


def test_broken_annotations_of_fashioniq_are_errors(fashioniq: Path) -> None:
    caption = fashioniq / "captions/cap.shirt.val.json"
    caption.write_text(json.dumps([{"candidate": "Sval00", "target": "Sval01"}]))
    with pytest.raises(ValueError, match=r"cap.shirt.val.json, entry 0: the field 'captions'"):
        FashionIQ.verify(fashioniq)
    caption.write_text("<html>")
    with pytest.raises(ValueError, match=r"cap.shirt.val.json, line 1: not valid JSON"):
        FashionIQ.verify(fashioniq)


def test_the_published_fashioniq_has_the_published_counts(shared: Callable[[str], Path]) -> None:
    report = FashionIQ.verify(shared("datasets/fashioniq"))
    assert [kind for kind in kinds(report) if kind != "missing"] == ["complete", "overlap", "blank"]
    assert len(named(report, "missing")) == 74_381
    assert len(named(report, "overlap")) == 811
    text = str(report)
    assert (
        "74,381 images are all of FashionIQ: its nine split files hold 77,683 entries, "
        "of which 74,381 are distinct." in text
    )
    assert "the targets of 140 shirt and 145 toptee validation queries, as published" in text
    assert len(report.counts) == 20
    assert not any(count.differs for count in report.counts)
    assert (report.images, report.ok) == (0, False)
