"""Tables whose rows have several targets, come as a DataFrame, or are there twice."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import row
from verifying import named, reasons

import fusecomp as fc
from fusecomp.datasets import TripletTable
from fusecomp.datasets._table_problems import repetitions

Write = Callable[..., Path]
HEADER = "reference,text,target"


# Several targets


def test_several_targets_in_each_kind_of_table(images: Path, write: Write) -> None:
    as_csv = write(HEADER, "a,x,b|c|d/e", "b,y,c", "c,z,", "g,x, a | b ")
    targets = [["b", "c", "d/e"], "c", None, ["a", "b"]]
    as_jsonl = write(
        *(
            row(reference=r, text=t, target=i)
            for r, t, i in zip("abcg", "xyzx", targets, strict=True)
        )
    )
    frame = pandas.DataFrame({"reference": [*"abcg"], "text": [*"xyzx"], "target": targets})
    cells = frame.assign(target=["b|c|d/e", "c", None, "a|b"])
    expected = [
        fc.Triplet("0", "a", ("x",), "b", other_target_ids=("c", "d/e")),
        fc.Triplet("1", "b", ("y",), "c"),
        fc.Triplet("2", "c", ("z",)),
        fc.Triplet("3", "g", ("x",), "a", other_target_ids=("b",)),
    ]
    for table in (as_csv, as_jsonl, frame, cells):
        data = TripletTable(table, images, ks=(1, 5))
        assert data.triplets() == expected
        (task,) = data.tasks()
        assert task.relevant == (("b", "c", "d/e"), ("c",), (), ("a", "b"))
        names = [metric.name for metric in task.metrics]
        assert names == ["map@1", "map@5", "recall@1", "recall@5"]
        report = TripletTable.verify(table, images)
        assert report.counts[1].found == 5
    assert TripletTable(as_csv, images, gallery="split").image_ids == ("a", "b", "c", "d/e", "g")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("b|c|b", "line 2: the target names an image twice: b c b"),
        ("b|a", "line 2: the reference 'a' is among the targets; a query asks for other ones"),
        ("a|b", "line 2: the target is the reference, 'a'"),
        ("b|", "line 2: target must be a string that is not empty, got ''"),
        ("|", "line 2: target must be a string that is not empty, got ''"),
        ("b|../c", "line 2: target must be a path below the folder of the images"),
        ("b|no", r"line 2: no image 'no' in .*images; 1 of the 3 images"),
        ("\"['b', 'c']\"", r"line 2: target is a list that was printed, .* several targets as b|c"),
    ],
)
def test_targets_that_make_no_query(images: Path, write: Write, target: str, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        TripletTable(write(HEADER, f"a,x,{target}"), images)


def test_a_sign_between_is_a_part_of_a_name_in_jsonl(images: Path, write: Write) -> None:
    (images / "a|b.png").write_bytes(b"no image")
    data = TripletTable(write(row(target="a|b")), images)
    assert data.triplets()[0].relevant_ids == ("a|b",)


# DataFrames


def test_a_frame_is_read_as_its_csv_file(images: Path, write: Write) -> None:
    header = "split,reference,text,target,group,query_id,price"
    path = write(
        header, "val,a,is blue,b,a b c,q0,3.5", "train,c,is red,d/e,c d/e,,", "val,g,x,b,b a,z,1"
    )
    frame = pandas.read_csv(path, dtype=str)
    for split in (None, "val"):
        one, other = (TripletTable(table, images, split) for table in (path, frame))
        assert one.tasks() == other.tasks()
        assert one.image_ids == other.image_ids
    assert other.protocol == {**one.protocol, "dataset": "DataFrame"}
    assert repr(other) == "TripletTable('DataFrame', split='val', 2 triplets)"
    assert pickle.loads(pickle.dumps(other)).triplets() == other.triplets()
    shuffled = frame.iloc[::-1]
    assert [t.reference_id for t in TripletTable(shuffled, images).triplets()] == ["g", "c", "a"]


def test_lists_and_arrays_in_a_frame(images: Path) -> None:
    fields = {"reference": ["a"], "text": [["is x", "is y"]], "target": [np.array(["b", "c"])]}
    data = TripletTable(pandas.DataFrame(fields | {"group": [["a", "b", "c"]]}), images)
    expected = fc.Triplet("0", "a", ("is x", "is y"), "b", ("a", "b", "c"), ("c",))
    assert data.triplets() == [expected]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"reference": [7, 8]},
            "'reference' is int64, expected strings; read the table with dtype",
        ),
        ({"query_id": [1.5, None]}, "the column 'query_id' is float64, expected strings"),
        ({"target": [True, False]}, "the column 'target' is bool, expected strings"),
        ({"reference": ["a", None]}, "DataFrame, row 1: reference must be a string that is not em"),
        ({"text": ["x", None]}, "DataFrame, row 1: text must be a list of strings, .* got None"),
        ({"text": ["x", 5]}, "DataFrame, row 1: text must be a list of strings, .* got 5"),
        ({"target": ["b", ["c", 5]]}, "DataFrame, row 1: target must be a list of strings"),
        ({"target": ["b", {"c": 1}]}, "DataFrame, row 1: target must be a list of strings"),
        ({"targets": ["b", "c"], "target": None}, "there is no 'target' but 'targets'"),
        ({"Target": ["b", "c"]}, "DataFrame: write 'target' in place of 'Target'"),
        ({"text": None}, "DataFrame: no 'text'; there are 'reference', 'target'"),
        ({"text": ["x", " "]}, "DataFrame, row 1: the text is blank"),
        ({"reference": ["a", "no"]}, "DataFrame, row 1: no image 'no' in"),
    ],
)
def test_a_frame_that_cannot_be_read(images: Path, columns: Any, message: str) -> None:
    fields = {"reference": ["a", "b"], "text": ["x", "y"], "target": ["b", "c"]} | columns
    frame = pandas.DataFrame({name: v for name, v in fields.items() if v is not None})
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        TripletTable(frame, images)


def test_frames_of_another_form(images: Path) -> None:
    frame = pandas.DataFrame({"reference": ["a"], "text": ["x"], "target": ["b"]})
    with pytest.raises(ValueError, match="DataFrame holds no rows"):
        TripletTable(frame.iloc[:0], images)
    twice = pandas.DataFrame(
        [["a", "x", "b", "c"]], columns=["reference", "text", "target", "target"]
    )
    with pytest.raises(ValueError, match="DataFrame: the column 'target' is there twice"):
        TripletTable(twice, images)
    with pytest.raises(TypeError, match="path must be a path, got"):
        TripletTable(frame["text"], images)
    assert len(TripletTable(frame.assign(split=np.nan), images)) == 1


# Rows that are there twice


def test_all_repeated_rows_are_told_at_once(images: Path, write: Write) -> None:
    path = write(HEADER, "a,x,b", "c,x,b", "a,x,b", "a,x,c", "c,x,b", "a,x,b")
    error = (
        r"3 of 6 rows have the reference, text and target of another one: line 4 \(line 2\), "
        r'line 6 \(line 3\), line 7 \(line 2\); remove them, or pass on_repeated="drop"'
    )
    with pytest.raises(ValueError, match=error):
        TripletTable(path, images)
    data = TripletTable(path, images, on_repeated="drop")
    assert [t.query_id for t in data.triplets()] == ["0", "1", "3"]
    assert data.protocol["repeated rows"] == "3 left out"
    assert "repeated rows" not in TripletTable(write(HEADER, "a,x,b"), images).protocol
    with pytest.raises(ValueError, match="unknown on_repeated 'skip'; valid: 'raise', 'drop'"):
        TripletTable(path, images, on_repeated="skip")


def test_many_repeated_rows_are_counted(images: Path, write: Write) -> None:
    with pytest.raises(ValueError, match=r"14 of 15 rows .* line 12 \(line 2\) and 4 more; remove"):
        TripletTable(write(HEADER, *["a,x,b"] * 15), images)


def test_rows_with_other_right_answers_are_not_repeated(images: Path, write: Write) -> None:
    assert len(TripletTable(write(HEADER, "a,x,b|c", "a,x,b", "a,x,c|b"), images)) == 3


def test_what_is_dropped_may_have_a_query_id_of_its_own(images: Path, write: Write) -> None:
    path = write(f"{HEADER},query_id", "a,x,b,q", "a,x,b,q", "a,x,b,r")
    assert len(TripletTable(path, images, on_repeated="drop")) == 1


def test_verify_lists_repeated_rows_of_each_split(images: Path, write: Write) -> None:
    lines = ("a,x,b,train", "a,x,b,val", "a,x,b,val", "a,x,b,train")
    report = TripletTable.verify(write(f"{HEADER},split", *lines), images)
    assert named(report, "repeated") == ("line 4", "line 5")
    assert reasons(report, "repeated") == "line 3 line 2"
    assert not report.ok


# Rows that are there before


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), max_size=6))
def test_repeated_rows_are_told_with_the_first_of_their_kind(keys: list[tuple[str, str]]) -> None:
    found = repetitions(keys)
    assert len(keys) - len(found) == len({*keys})
    for later, first in found.items():
        assert keys.index(keys[later]) == first < later


def test_lines_are_counted_over_breaks_inside_of_cells(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f'{HEADER}\n\na,"x\ny",b\n\nno,z,b\n')
    with pytest.raises(FileNotFoundError, match="line 6: no image 'no'"):
        TripletTable(path, images)
    assert json.dumps(TripletTable.verify(path, images).to_dict())


def test_the_order_of_further_targets_tells_no_rows_apart(images: Path, write: Write) -> None:
    table = write(HEADER, "a,x,b|c|d/e", "a,x,b|d/e|c", "a,x,c|b|d/e")
    with pytest.raises(ValueError, match=r"1 of 3 rows have .*: line 3 \(line 2\); remove"):
        TripletTable(table, images)
    kept = TripletTable(table, images, on_repeated="drop").triplets()
    assert [row.target_id for row in kept] == ["b", "c"]


def test_the_first_problem_is_that_of_the_first_row(images: Path, write: Write) -> None:
    table = write(HEADER, "a,x,b", "a,x,a", "b, ,c", "c,y,c|b")
    with pytest.raises(ValueError, match="line 3: the target is the reference, 'a'"):
        TripletTable(table, images)


def test_the_first_wrong_text_of_a_row_is_named(images: Path, write: Write) -> None:
    wrong = [f"['is {number}', 'is long']" for number in range(9)]
    path = write(row(reference="a", text=["is fine", *wrong], target="b"))
    with pytest.raises(ValueError, match="is 0"):
        TripletTable(path, images)
