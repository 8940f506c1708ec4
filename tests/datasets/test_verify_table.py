"""What is wrong with the rows of a table."""

from pathlib import Path

import pytest
from verifying import check, image, named, reasons

from fusecomp.datasets import TripletTable


def write_table(folder: Path, *lines: str) -> None:
    (folder.parent / "mine.csv").write_text("\n".join(lines) + "\n")


def test_all_that_is_wrong_with_a_table_is_listed(folder: Path) -> None:
    (folder / "a.png").write_bytes(image(5, "PNG"))
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
    assert "line 3: the same image as b" in reasons(report, "ambiguous")
    assert "the query_id '2' is on line 4 already" in reasons(report, "row")


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
        "images in the folder": 4,
    }
    assert check(folder, split="val").findings == ()
    assert len(TripletTable(folder.parent / "mine.csv", folder, "val")) == 2


def test_rows_without_a_split_are_a_note_where_others_have_one(folder: Path) -> None:
    write_table(folder, "reference,text,target,split", "a,x,b,train", "c,y,d,", "c,z,d,")
    report = check(folder)
    assert [(f.kind, f.names, f.fault) for f in report.findings] == [
        ("split", ("line 3", "line 4"), False)
    ]
    assert named(check(folder, split="train"), "split") == ("line 3", "line 4")
    write_table(folder, "reference,text,target,split", "a,x,b,")
    assert check(folder).findings == ()


def test_a_table_that_cannot_be_read_is_an_error(folder: Path) -> None:
    write_table(folder, "reference,text,target", "a,b")
    with pytest.raises(ValueError, match=r"mine.csv, line 2: 2 cells under 3 columns"):
        check(folder)
    write_table(folder, "reference,text,target,split", "a,x,b,val")
    with pytest.raises(ValueError, match=r"unknown split 'dev'; .* has 'val'"):
        check(folder, split="dev")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *(
            (name, f"'{name}' is there, but its suffix is none of .png, ")
            for name in ("e.avif", "e.jfif", "e", "x/e.heic", "e.png.txt")
        ),
        *(
            (name, f"'{name}' is there, but hidden")
            for name in (".e.png", ".x/e.png", "x/.y/e.jpg", "x/.e.gif", ".e")
        ),
    ],
)
def test_a_file_that_is_there_but_not_read_is_named_by_table_and_verify(
    folder: Path, name: str, why: str
) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(image(7))
    stem = name.rpartition(".")[0]
    for image_id in {name, stem} if stem and not stem.endswith("/") else {name}:
        write_table(folder, "reference,text,target", f"{image_id},x,b", f"nowhere,x,{image_id}")
        report = check(folder)
        assert (named(report, "misnamed"), named(report, "missing")) == ((image_id,), ("nowhere",))
        assert why in reasons(report, "misnamed")
        with pytest.raises(FileNotFoundError) as error:
            TripletTable(folder.parent / "mine.csv", folder)
        assert f"line 2: no image '{image_id}' in {folder} ({why}" in str(error.value)
        assert "2 of the 3 images that are named have none" in str(error.value)


def test_a_image_goes_before_a_file_that_is_not_read(folder: Path) -> None:
    for name in ("a.txt", ".a.jpg", "a.avif"):
        (folder / name).write_bytes(b"no image")
    assert check(folder).findings == ()
    assert len(TripletTable(folder.parent / "mine.csv", folder)) == 1
