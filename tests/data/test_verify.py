"""verify: every fault that is planted is found, and nothing else."""

import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fusecomp.data import TripletTable, VerifyReport, verify
from fusecomp.data._verify_report import Count, Finding

Shared = Callable[[str], Path]


def picture(
    seed: int, kind: str = "JPEG", size: tuple[int, int] = (24, 36), **options: Any
) -> bytes:
    """The bytes of a picture of noise, which fills a file and differs for each seed."""
    pixels = random.Random(seed).randbytes(3 * size[0] * size[1])
    file = io.BytesIO()
    Image.frombytes("RGB", size, pixels).save(file, kind, **options)
    return file.getvalue()


def named(report: VerifyReport, kind: str) -> tuple[str, ...]:
    return next((f.names for f in report.findings if f.kind == kind), ())


def reasons(report: VerifyReport, kind: str) -> str:
    return " ".join(next(f.reasons for f in report.findings if f.kind == kind))


def kinds(report: VerifyReport) -> list[str]:
    return [finding.kind for finding in report.findings]


# Pictures, in a table's folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures and a table that names two of them."""
    root = tmp_path / "images"
    root.mkdir()
    for number, (name, kind) in enumerate(
        {"a.jpg": "JPEG", "b.png": "PNG", "c.webp": "WEBP", "d.gif": "GIF"}.items()
    ):
        (root / name).write_bytes(picture(number, kind))
    (tmp_path / "mine.csv").write_text("reference,text,target\na,is blue,b\n")
    return root


def check(folder: Path, **options: Any) -> VerifyReport:
    return verify("table", folder.parent / "mine.csv", images=folder, **options)


@pytest.mark.parametrize("decode", [False, True])
def test_sound_pictures_of_every_kind_are_fine(folder: Path, decode: bool) -> None:
    for number, (name, kind) in enumerate(
        {"e.bmp": "BMP", "f.tiff": "TIFF", "g.jpg": "PNG", "h.png": "WEBP"}.items(), 10
    ):
        (folder / name).write_bytes(picture(number, kind))
    (folder / "progressive.jpg").write_bytes(picture(20, progressive=True))
    (folder / "l.jpg").write_bytes(picture(21, exif=b"Exif\0\0" + picture(22, size=(8, 8))))
    report = check(folder, decode=decode)
    assert report.findings == ()
    assert report.ok
    assert (report.pictures, report.decoded) == (10, decode)
    assert "10 pictures opened" in str(report)
    assert str(report).endswith("no fault")


@pytest.mark.parametrize("name", ["a.jpg", "b.png", "c.webp", "d.gif"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("decode", [False, True])
def test_a_picture_that_is_cut_off_is_found(
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
def test_the_end_of_a_thumbnail_is_not_that_of_the_picture(folder: Path, tail: bytes) -> None:
    thumbnail = picture(7, size=(8, 8))
    content = picture(8, exif=b"Exif\0\0" + thumbnail)
    assert content.count(b"\xff\xd9") == 2
    (folder / "a.jpg").write_bytes(content[:-40] + tail)
    assert named(check(folder), "truncated") == ("a.jpg",)


@pytest.mark.parametrize("fill", [b"\xff", b"\xff\xff\xff", b"\xff\x00junk"])
def test_fill_bytes_and_junk_between_segments_are_passed_over(folder: Path, fill: bytes) -> None:
    content = picture(9)
    (folder / "a.jpg").write_bytes(content[:2] + fill + content[2:] + b"behind")
    assert check(folder).findings == ()


def test_every_fault_has_its_kind(folder: Path) -> None:
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_bytes(b"<!DOCTYPE html><title>404</title>")
    (folder / "dot.gif").write_bytes(picture(3, "GIF", (1, 1)))
    (folder / "line.png").write_bytes(picture(3, "PNG", (1, 40)))
    (folder / "head.jpg").write_bytes(picture(4)[:30])
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
    assert "not a picture that Pillow can open; the file starts with b'<!D" in reasons(
        report, "unreadable"
    )
    assert report.pictures == 10


def test_a_file_that_may_not_be_read_is_unreadable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def open_some(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "b.png":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", open_some)
    assert reasons(check(folder), "unreadable") == "Permission denied"


@pytest.mark.parametrize("factor", [0.4, 0.8])
def test_a_picture_beyond_pillow_s_limit_is_unreadable(
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


def test_equal_pictures_are_a_note(folder: Path) -> None:
    twin = picture(30)
    (folder / "e.jpg").write_bytes(twin)
    (folder / "f.jpg").write_bytes(twin)
    os.link(folder / "f.jpg", folder / "g.jpg")
    shutil.copy(folder / "b.png", folder / "h.png")
    # As long as the twins and with their last bytes, but another picture.
    other = bytearray(picture(31) if len(picture(31)) == len(twin) else twin)
    other[200] ^= 1
    (folder / "i.jpg").write_bytes(other)
    report = check(folder)
    (finding,) = report.findings
    assert (finding.kind, finding.fault) == ("duplicate", False)
    assert finding.names == ("e.jpg = f.jpg = g.jpg", "b.png = h.png")
    assert finding.message.startswith("5 pictures are 2, byte for byte; the largest group has 3")
    assert report.ok


def test_the_number_of_threads_is_invisible(folder: Path) -> None:
    for number in range(300):
        (folder / f"{number:03d}.jpg").write_bytes(picture(number, size=(4, 4)))
        if number % 50 == 7:
            (folder / f"{number:03d}.jpg").write_bytes(b"")
    one, many = (check(folder, workers=workers) for workers in (1, 5))
    assert one.findings == many.findings
    assert len(named(one, "empty")) == 6
    assert one.pictures == 304


def test_without_pillow_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r'pip install "fusecomp\[images\]"'):
        check(folder)


# Tables


def write_table(folder: Path, *lines: str) -> None:
    (folder.parent / "mine.csv").write_text("\n".join(lines) + "\n")


def test_all_that_is_wrong_with_a_table_is_listed(folder: Path) -> None:
    (folder / "a.png").write_bytes(picture(5, "PNG"))
    header = "reference,text,target,query_id"
    lines = ("a,x,b,0", "b.png, ,c,1", "c,y,c,2", "d,z,no,2", "nowhere,z,d,4")
    write_table(folder, header, *lines)
    report = check(folder)
    found = {finding.kind: finding.names for finding in report.findings}
    assert found == {
        "row": ("line 3", "line 4", "line 5"),
        "ambiguous": ("a", "b.png"),
        "missing": ("no", "nowhere"),
    }
    assert "may be a.jpg or a.png" in reasons(report, "ambiguous")
    assert "line 3: the same picture as b" in reasons(report, "ambiguous")
    assert "the query_id '2' stands on line 4 already" in reasons(report, "row")


def test_images_of_two_splits_are_a_note_and_rows_of_two_splits_no_fault(folder: Path) -> None:
    header = "reference,text,target,split"
    write_table(folder, header, "a,x,b,train", "a,x,b,val", "c,y,d,val")
    report = check(folder)
    (finding,) = report.findings
    assert (finding.kind, finding.names, finding.reasons[0]) == (
        "overlap",
        ("a.jpg", "b.png"),
        "train, val",
    )
    assert report.ok
    assert {count.name: count.found for count in report.counts} == {
        "train queries": 1,
        "val queries": 2,
        "images in the table": 4,
        "pictures in the folder": 4,
    }
    assert check(folder, split="val").findings == ()
    assert len(TripletTable(folder.parent / "mine.csv", folder, "val")) == 2


def test_a_table_that_cannot_be_read_is_an_error(folder: Path) -> None:
    write_table(folder, "reference,text,target", "a,b")
    with pytest.raises(ValueError, match=r"mine.csv, line 2: 2 cells under 3 columns"):
        check(folder)
    write_table(folder, "reference,text,target,split", "a,x,b,val")
    with pytest.raises(ValueError, match=r"unknown split 'dev'; .* has 'val'"):
        check(folder, split="dev")


# FashionIQ


@pytest.fixture
def fashioniq(tiny_fashioniq: Path) -> Path:
    """The tiny FashionIQ with real pictures."""
    for number, path in enumerate(sorted((tiny_fashioniq / "images").iterdir())):
        path.write_bytes(picture(number, "PNG", (6, 8)))
    return tiny_fashioniq


def beyond_counts(report: VerifyReport) -> list[str]:
    """What was found but that the tiny dataset does not have the published size."""
    return [kind for kind in kinds(report) if kind != "counts"]


def test_a_small_fashioniq_has_other_counts_and_no_other_fault(fashioniq: Path) -> None:
    report = verify("fashioniq", fashioniq)
    assert beyond_counts(report) == []
    assert len(named(report, "counts")) == 20
    assert "11,452" in str(report)
    assert "dress.train images" in named(report, "counts")
    assert "12 in place of 11,452" in reasons(report, "counts")
    assert report.pictures == 108


def test_the_pictures_of_fashioniq_that_are_not_as_they_should_be(fashioniq: Path) -> None:
    images = fashioniq / "images"
    (images / "Dval00.png").unlink()
    (images / "Dval01.png").rename(images / "Dval01.webp")
    (images / "Dval02.png").rename(images / "Dval02.jpg")
    (images / "Dval03.jpeg").write_bytes(b"unused, as there is a .png")
    (images / "Dval04.png").write_bytes(b"")
    (images / "stray.png").write_bytes(picture(900))
    (images / ".DS_Store").write_bytes(b"")
    shutil.copy(images / "Dval06.png", images / "Dval07.png")
    report = verify("fashioniq", fashioniq)
    assert {f.kind: f.names for f in report.findings if f.kind != "counts"} == {
        "missing": ("Dval00", "Dval01"),
        "misnamed": ("Dval01.webp",),
        "empty": ("Dval04",),
        "unknown": ("stray.png",),
        "duplicate": ("Dval06 = Dval07",),
    }
    assert "images/Dval04.png" in reasons(report, "empty")
    assert [f.kind for f in report.findings if not f.fault] == ["unknown", "duplicate"]


def test_annotations_of_fashioniq_that_are_missing_are_named(fashioniq: Path) -> None:
    (fashioniq / "captions/cap.dress.test.json").unlink()
    (fashioniq / "image_splits/split.shirt.val.json").unlink()
    report = verify("fashioniq", fashioniq)
    assert set(named(report, "annotation")) == {
        "captions/cap.dress.test.json",
        "image_splits/split.shirt.val.json",
    }
    assert "entries of all split files" not in {count.name for count in report.counts}


def test_images_that_a_split_does_not_have_are_named(fashioniq: Path) -> None:
    split = fashioniq / "image_splits/split.dress.val.json"
    split.write_text(json.dumps(json.loads(split.read_text())[2:]))
    report = verify("fashioniq", fashioniq)
    assert named(report, "unlisted") == ("Dval00", "Dval01")
    assert named(report, "unknown") == ("Dval00.png", "Dval01.png")


def test_what_train_and_validation_share_is_a_note(fashioniq: Path) -> None:
    path = fashioniq / "image_splits/split.shirt.train.json"
    path.write_text(json.dumps([*json.loads(path.read_text()), "Dval04", "Sval05", "Sval00"]))
    report = verify("fashioniq", fashioniq)
    assert named(report, "overlap") == ("Dval04", "Sval00", "Sval05")
    (note,) = (finding for finding in report.findings if finding.kind == "overlap")
    assert note.message.endswith("the targets of 1 dress and 1 shirt validation queries")
    assert not note.fault


def test_broken_annotations_of_fashioniq_are_errors(fashioniq: Path) -> None:
    caption = fashioniq / "captions/cap.shirt.val.json"
    caption.write_text(json.dumps([{"candidate": "Sval00", "target": "Sval01"}]))
    with pytest.raises(ValueError, match=r"cap.shirt.val.json, entry 0: the field 'captions'"):
        verify("fashioniq", fashioniq)
    caption.write_text("<html>")
    with pytest.raises(ValueError, match=r"cap.shirt.val.json is not valid JSON"):
        verify("fashioniq", fashioniq)


def test_a_folder_that_is_no_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no FashionIQ in .*image_splits is missing; give"):
        verify("fashioniq", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no CIRR in .* fetch the annotations from https"):
        verify("cirr", tmp_path)


def test_the_published_fashioniq_has_the_published_counts(shared: Shared) -> None:
    report = verify("fashioniq", shared("datasets/fashioniq"))
    assert [kind for kind in kinds(report) if kind != "missing"] == ["complete", "overlap", "blank"]
    assert len(named(report, "missing")) == 74_381
    assert len(named(report, "overlap")) == 811
    text = str(report)
    assert (
        "74,381 pictures are all of FashionIQ: its nine split files hold 77,683 entries, "
        "of which 74,381 are distinct." in text
    )
    assert "the targets of 140 shirt and 145 toptee validation queries, as published" in text
    assert len(report.counts) == 20
    assert not any(count.differs for count in report.counts)
    assert (report.pictures, report.ok) == (0, False)


# CIRR


@pytest.fixture
def cirr(tiny_cirr: Path) -> Path:
    """The tiny CIRR with real pictures."""
    for number, path in enumerate(sorted(tiny_cirr.rglob("*.png"))):
        path.write_bytes(picture(number, "PNG", (6, 8)))
    return tiny_cirr


def write(root: Path, name: str, content: Any) -> None:
    path = root / "cirr" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def entries_of(root: Path, split: str) -> list[dict[str, Any]]:
    path = root / "cirr" / "captions" / f"cap.rc2.{split}.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text())
    return entries


def test_a_small_cirr_has_other_counts_and_no_other_fault(cirr: Path) -> None:
    report = verify("cirr", cirr)
    assert beyond_counts(report) == []
    assert "20 in place of 28,225" in reasons(report, "counts")
    assert (len(report.counts), report.pictures) == (6, 180)


def test_the_annotations_of_cirr_may_stand_alone(cirr: Path) -> None:
    report = verify("cirr", cirr / "cirr")
    assert beyond_counts(report) == ["missing"]
    assert len(named(report, "missing")) == 180


@pytest.mark.parametrize("split", ["train", "val", "test1"])
@pytest.mark.parametrize("kind", ["captions/cap", "image_splits/split"])
def test_annotations_of_cirr_that_are_missing_are_named(cirr: Path, kind: str, split: str) -> None:
    path = cirr / "cirr" / f"{kind}.rc2.{split}.json"
    path.unlink()
    report = verify("cirr", cirr)
    assert beyond_counts(report) == ["annotation"]
    assert named(report, "annotation") == (path.name,)
    assert ("training needs" in str(report)) == (split == "train")


def test_pairs_of_cirr_that_are_not_as_they_should_be(cirr: Path) -> None:
    entries = entries_of(cirr, "val")
    entries[0]["img_set"]["members"] = [*entries[0]["img_set"]["members"][:5], "dev-99-0-img0"]
    entries[1]["target_hard"] = "dev-88-0-img0"
    entries[2]["pairid"] = 1021
    entries.append({**entries[0], "pairid": 77, "img_set": {"members": ["dev-1-0-img0"] * 6}})
    write(cirr, "captions/cap.rc2.val.json", entries)
    (cirr / "dev/dev-1-3-img0.png").unlink()
    (cirr / "test1/test1-1-3-img0.png").write_bytes(b"")
    report = verify("cirr", cirr)
    assert {f.kind: f.names for f in report.findings if f.kind != "counts"} == {
        "pair": ("pair 1007", "pair 1021", "pair 77", "pair 77", "pair 77"),
        "unlisted": ("dev-99-0-img0", "dev-88-0-img0"),
        "missing": ("dev-1-3-img0",),
        "empty": ("test1-1-3-img0",),
    }
    for problem in (
        "the pairid stands in the file already",
        "the target 'dev-88-0-img0' is not in its group: dev-0-0-img0 ",
        "the group must be 6 distinct images",
        "the reference 'dev-0-0-img0' is not in its group: dev-1-0-img0 ",
    ):
        assert problem in reasons(report, "pair")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pairid", "12"),
        ("reference", None),
        ("target_hard", 3),
        ("caption", ["two"]),
        ("img_set", []),
        ("img_set", {"members": "abc"}),
        ("img_set", {"members": [1]}),
    ],
)
def test_an_entry_of_cirr_that_is_none_is_an_error(cirr: Path, field: str, value: Any) -> None:
    write(cirr, "captions/cap.rc2.val.json", [{**entries_of(cirr, "val")[0], field: value}])
    with pytest.raises(
        ValueError, match=rf"cap.rc2.val.json, entry 0: '?{field}.* must be a .*got"
    ):
        verify("cirr", cirr)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("captions/cap.rc2.val.json", {}, "must hold a list, got a dict"),
        ("captions/cap.rc2.val.json", ["pair"], "entry 0: expected an object, got 'pair'"),
        ("image_splits/split.rc2.val.json", ["dev-1"], "must hold an object, got a list"),
        ("image_splits/split.rc2.val.json", {"dev-1": 3}, "file of image 'dev-1', got 3"),
    ],
)
def test_a_file_of_cirr_that_is_none_is_an_error(
    cirr: Path, name: str, content: Any, error: str
) -> None:
    write(cirr, name, content)
    with pytest.raises(ValueError, match=f"{name}.*{error}"):
        verify("cirr", cirr)


def test_the_published_cirr_has_the_published_counts(shared: Shared) -> None:
    report = verify("cirr", shared("datasets/cirr"))
    assert not any(count.differs for count in report.counts)
    published = {count.name: count.found for count in report.counts}
    assert published | {"train queries": 28_225} == {
        "train images": 16_939,
        "train queries": 28_225,
        "val images": 2_297,
        "val queries": 4_181,
        "test1 images": 2_315,
        "test1 queries": 4_148,
    }
    assert set(kinds(report)) <= {"annotation", "missing"}


# The call and the report


@pytest.mark.parametrize(
    ("dataset", "options", "error"),
    [
        ("FashionIQ", {}, "unknown dataset 'FashionIQ'; valid: 'fashioniq', 'cirr', 'table'"),
        ("fashioniq", {"images": "images"}, "images is for tables; fashioniq has its own"),
        ("cirr", {"split": "val"}, "split is for tables; cirr has its own, got 'val'"),
        ("table", {}, "images must be the folder of the table's pictures, got None"),
        ("cirr", {"workers": 0}, "workers must be at least 1, or None, got 0"),
    ],
)
def test_bad_arguments_are_refused(
    tmp_path: Path, dataset: str, options: dict[str, Any], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        verify(dataset, tmp_path, **options)


def report_of(*findings: Finding, counts: Iterable[Count] = ()) -> VerifyReport:
    return VerifyReport("mine", Path("here"), tuple(counts), findings, 1234, False, 2.0)


def test_the_report_shows_ten_names_of_a_fault_and_three_of_a_note() -> None:
    names = tuple(f"image {number:02d}" for number in range(12))
    text = str(
        report_of(
            Finding("unknown", "12 files are strange", names, fault=False),
            Finding("empty", "12 files are empty", names, tuple(f"why {n}" for n in names)),
        )
    )
    fault, note = text.split("note   unknown: 12 files are strange")
    assert "FAULT  empty: 12 files are empty" in fault
    assert "image 09 (why image 09)" in fault
    assert "image 10" not in fault
    assert "and 2 more" in fault
    assert "image 02\n" in note
    assert "image 03" not in note
    assert "and 9 more" in note
    assert text.startswith("mine in here\n1,234 pictures opened in 2.0 s; headers and ends read")
    assert text.endswith("\n1 kind of fault")


def test_the_report_marks_counts_that_differ() -> None:
    counts = [Count("queries", 5, 5), Count("images", 12_345, 12_346), Count("files", 7)]
    lines = str(report_of(counts=counts)).splitlines()
    assert [line.split() for line in lines[3:7]] == [
        ["found", "published"],
        ["queries", "5", "5"],
        ["images", "12,345", "12,346", "<-", "differs"],
        ["files", "7"],
    ]


def test_a_report_is_fine_with_notes_and_not_with_faults() -> None:
    note, fault = Finding("a", "b", fault=False), Finding("c", "d")
    assert report_of().ok
    assert report_of(note).ok
    assert not report_of(note, fault).ok


def test_the_dictionary_has_every_name_and_goes_through_json() -> None:
    names = tuple(f"image {number}" for number in range(40))
    report = report_of(Finding("empty", "all", names), counts=[Count("queries", 5, 6)])
    content = json.loads(json.dumps(report.to_dict()))
    assert content["findings"][0]["names"] == list(names)
    assert content["counts"] == [{"name": "queries", "found": 5, "published": 6}]
    assert (content["ok"], content["dataset"], content["root"]) == (False, "mine", "here")
