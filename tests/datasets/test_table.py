"""TripletTable: one's own triplets from CSV and JSONL."""

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import NAMES, put, row

import fusecomp as fc
from fusecomp._core.checks import is_blank
from fusecomp.datasets import TripletTable
from fusecomp.datasets._alike import is_missing_word
from fusecomp.datasets._folder import ImageFolder
from fusecomp.evaluation import Recall
from fusecomp.types import Dataset

Write = Callable[..., Path]


def test_a_table_is_a_dataset(images: Path, write: Write) -> None:
    path = write("reference,text,target", "a,is blue,b.png", 'd/e,"red, ""wide""",d/f', "a,big,")
    data = TripletTable(path, images)
    assert isinstance(data, Dataset)
    assert data.triplets(epoch=3, seed=4) == [
        fc.Triplet("0", "a", ("is blue",), "b.png"),
        fc.Triplet("1", "d/e", ('red, "wide"',), "d/f"),
        fc.Triplet("2", "a", ("big",), None),
    ]
    assert len(data) == 3
    assert "3 triplets" in repr(data)
    assert data.texts() == ["is blue", 'red, "wide"', "big"]
    (task,) = data.tasks()
    assert (task.name, list(task.queries)) == ("", data.triplets())
    assert task.metrics == tuple(map(Recall, (1, 5, 10, 50)))
    assert (task.exclude, task.subsets) == ((("a",), ("d/e",), ("a",)), None)
    assert task.gallery == data.image_ids == ("a", "b.png", "c.webp", "d/e", "d/f", "g.jpg")
    assert data.triplet_image_ids == ("a", "b.png", "d/e", "d/f")


def test_jsonl_takes_several_texts_and_ids_with_blanks(images: Path, write: Write) -> None:
    put(images, "my hat.png")
    path = write(row(text=["is blue", "has dots"], group=["a", "b", "my hat"], query_id="q7"))
    data = TripletTable(path, images)
    group = ("a", "b", "my hat")
    assert data.triplets() == [fc.Triplet("q7", "a", ("is blue", "has dots"), "b", group)]
    assert data.tasks()[0].subsets == (("b", "my hat"),)
    assert data.texts() == ["is blue", "has dots"]


def test_absent_values_may_be_null_or_empty(images: Path, write: Write) -> None:
    nulls = write(row(target=None, group=None, split=None, query_id=None))
    empty = write("reference,text,target,group,split,query_id", "a,is blue,,,,")
    assert TripletTable(nulls, images).triplets() == TripletTable(empty, images).triplets()
    assert TripletTable(empty, images).triplets() == [fc.Triplet("0", "a", ("is blue",))]


def test_images_are_found_with_and_without_suffix(images: Path, write: Write) -> None:
    path = write("reference,text,target", "d/e,is blue,./b", "c.webp,is red,g")
    data = TripletTable(path, images)
    found = {i: data.path(i).relative_to(images).as_posix() for i in data.image_ids}
    assert found == {
        "./b": "b.png",
        "a.jpg": "a.jpg",
        "c.webp": "c.webp",
        "d/e": "d/e.JPEG",
        "d/f.gif": "d/f.gif",
        "g": "g.jpg",
    }
    for unknown in ("a", "e", "../images/a", ""):
        with pytest.raises(ValueError, match=f"unknown image '{unknown}'"):
            data.path(unknown)


def test_the_folder_of_the_images_may_be_a_root(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusecomp.datasets._folder._files", lambda root, hidden=False: NAMES)
    assert TripletTable(write(row()), images="/").path("a") == Path("/a.jpg")


def test_two_files_of_one_stem_are_told_apart_by_the_suffix(images: Path, write: Write) -> None:
    put(images, "a.png")
    with pytest.raises(ValueError, match=r"line 2: 'a': may be a.jpg or a.png; write the suff"):
        TripletTable(write("reference,text,target", "a,is blue,b"), images)
    data = TripletTable(write("reference,text,target", "a.png,is blue,a.jpg"), images)
    assert data.path("a.png") == images / "a.png"
    assert "a" not in data.image_ids


def test_a_full_name_goes_before_a_stem(images: Path, write: Write) -> None:
    put(images, "a.jpg.png")
    data = TripletTable(write("reference,text,target", "a.jpg,is blue,b"), images)
    assert data.path("a.jpg") == images / "a.jpg"
    assert data.path("a.jpg.png") == images / "a.jpg.png"


def test_the_gallery_of_the_split_holds_what_its_rows_name(images: Path, write: Write) -> None:
    header = "reference,text,target,group,split"
    path = write(header, "g,is blue,b,b c,val", "a,is red,d/e,d/e d/f,train")
    data = TripletTable(path, images, split="val", gallery="split")
    assert data.image_ids == ("g", "b", "c")
    assert data.triplet_image_ids == ("g", "b")
    assert data.protocol["gallery"] == "split"
    with pytest.raises(ValueError, match="unknown image 'a'"):
        data.path("a")


FAMILIES = {"dark ones": ["a", "b", "my hat"], "d": ["d/e", "d/f", "a"]}


def test_rows_may_name_a_group_that_is_listed_once(images: Path, write: Write) -> None:
    put(images, "my hat.png")
    listed = write(*(row(reference=r, target=t, group=FAMILIES[g]) for r, t, g in NAMED))
    expected = TripletTable(listed, images).triplets()
    as_jsonl = write(*(row(reference=r, target=t, group=g) for r, t, g in NAMED))
    as_csv = write("reference,text,target,group", *(f"{r},is blue,{t},{g}" for r, t, g in NAMED))
    for path in (as_jsonl, as_csv):
        data = TripletTable(path, images, groups=FAMILIES)
        assert data.triplets() == expected
        assert data.tasks()[0].subsets == (("b", "my hat"), ("d/e", "a"))
        assert TripletTable.verify(path, images, groups=FAMILIES).counts[1].found == 5


NAMED = [("a", "b", "dark ones"), ("d/f", "d/e", "d")]


@pytest.mark.parametrize(
    ("group", "error"),
    [
        ("light", r"line 1: unknown group 'light'; groups has \['dark ones', 'd'\]"),
        (["dark ones"], r"line 1: group must be a string that is not empty, got \['dark"),
        ("d", "line 1: the target 'b' is not in its group: d/e d/f a"),
    ],
)
def test_a_group_that_is_not_listed_is_named(
    images: Path, write: Write, group: Any, error: str
) -> None:
    path = write(row(group=group))
    with pytest.raises(ValueError, match=error):
        TripletTable(path, images, groups=FAMILIES)


@pytest.mark.parametrize(
    ("groups", "error"),
    [
        (["a", "b"], r"groups must map names to lists of image ids, got \['a', 'b'\]"),
        ({"d": "d/e"}, r"groups\['d'\] must be a list of strings, got the string 'd/e'"),
        ({"d": []}, r"line 1: group must be a list of strings, at least one; got \[\]"),
        ({"d": ["a", "../b"]}, "line 1: group must be a path below the folder of the images"),
    ],
)
def test_groups_are_lists_of_ids_by_name(
    images: Path, write: Write, groups: Any, error: str
) -> None:
    for read in (TripletTable, TripletTable.verify):
        with pytest.raises(ValueError, match=error):
            read(write(row(group="d")), images, groups=groups)


def test_ids_do_not_depend_on_the_split(images: Path, write: Write) -> None:
    path = write("reference,text,target,split", "a,is blue,b,train", "c,is red,d/e,val")
    train, val, both = (TripletTable(path, images, split) for split in ("train", "val", None))
    assert train.image_ids == val.image_ids == both.image_ids
    assert [t.query_id for t in (*train.triplets(), *val.triplets())] == ["0", "1"]
    assert [len(data) for data in (train, val, both)] == [1, 1, 2]


def test_what_another_split_names_may_be_missing(images: Path, write: Write) -> None:
    path = write("reference,text,target,split", "a,is blue,b,val", "no,is red,b.png,train")
    assert "b" in TripletTable(path, images, "val").image_ids
    with pytest.raises(FileNotFoundError, match="line 3: no image 'no'"):
        TripletTable(path, images, "train")


def test_the_reference_stays_in_the_ranking_where_asked(images: Path, write: Write) -> None:
    path = write(row(group=["a", "b", "c"]))
    (task,) = (kept := TripletTable(path, images, exclude_reference=False)).tasks()
    assert task.exclude is None
    assert task.subsets == (("b", "c"),)
    assert kept.protocol["reference"] == "kept"


def test_the_protocol_says_what_makes_scores_comparable(images: Path, write: Write) -> None:
    assert TripletTable(write(row(split="val")), images, "val").protocol == {
        "dataset": "mine.jsonl",
        "split": "val",
        "gallery": "all",
        "reference": "excluded",
    }
    assert TripletTable(write(row()), images).protocol["split"] == "all"


def test_other_columns_are_left_alone(images: Path, write: Write) -> None:
    path = write(",text,price,reference,target", "0,is blue,9.99,a,b")
    assert TripletTable(path, images).triplets() == [fc.Triplet("0", "a", ("is blue",), "b")]


def test_what_spreadsheets_write_is_read(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.CSV"
    lines = ("reference,text,target", "", 'a,"is blue,\r\nwith dots",b', "c,größer,b", "")
    path.write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    texts = [triplet.texts for triplet in TripletTable(path, images).triplets()]
    assert texts == [("is blue,\r\nwith dots",), ("größer",)]


def test_hidden_files_and_links_that_go_round(images: Path, write: Write, tmp_path: Path) -> None:
    put(images, ".DS_Store", "._a.jpg", ".thumbs/a.jpg", "notes.txt")
    put(tmp_path / "elsewhere", "h.png")
    (images / "linked").symlink_to(tmp_path / "elsewhere")
    (images / "d/back").symlink_to(images)
    assert ImageFolder(images).names == sorted([*NAMES, "linked/h.png"])
    assert TripletTable(write(row(target="linked/h")), images).path("linked/h").exists()


def test_a_table_is_trained_and_evaluated(images: Path, write: Write) -> None:
    group = ["a", "b", "c"]
    data = TripletTable(write(row(group=group), row(reference="c", group=group)), images, ks=(1, 2))
    count = len(data.image_ids)
    torch.manual_seed(0)
    cached = fc.CachedEncoder.from_arrays(
        data.image_ids, torch.randn(count, 8), data.texts(), torch.randn(1, 8)
    )
    config = fc.StageConfig(epochs=30, batch_size=2, lr=1e-2)
    model = fc.ComposedEncoder(cached, fc.Combiner(dim=8, dropout=0.0))
    metrics = fc.evaluate(fc.Trainer(model, loss=fc.InfoNCE(), config=config).fit(data).model, data)
    assert list(metrics) == [
        *("recall@1", "recall@2"),
        *("recall_subset@1", "recall_subset@2", "recall_subset@3"),
        *("arithmetic_mean", "harmonic_mean", "geometric_mean"),
    ]
    assert metrics["recall_subset@2"] == 100
    assert metrics.protocol == data.protocol


# CSV and JSONL say the same

# What only looks like a text is told from texts in test_alike.
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(
    lambda text: not is_blank(text) and not is_missing_word(text) and not {*text} & {*"[{("}
)
IDS = st.permutations(["a", "b.png", "c", "d/e", "g"])


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    grouped = draw(st.booleans())
    made: dict[Any, dict[str, Any]] = {}
    for _ in range(draw(st.integers(1, 6))):
        reference, other, *others = draw(IDS)
        target = other if draw(st.booleans()) else None
        made_row = {
            "reference": reference,
            "text": draw(TEXT),
            "target": target,
            "group": [reference, *(i for i in (target,) if i), *others] if grouped else None,
            "split": draw(st.sampled_from(["train", "val", None])),
        }
        made[reference, made_row["text"], target] = made_row
    return list(made.values())


def as_csv(table: Iterable[dict[str, Any]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["reference", "text", "target", "group", "split"])
    for fields in table:
        group = " ".join(fields["group"] or ())
        values = (fields["reference"], fields["text"], fields["target"], group, fields["split"])
        writer.writerow(values)
    return file.getvalue().encode()


@pytest.mark.filterwarnings("ignore:.*names no split:UserWarning")
@settings(max_examples=50)
@given(rows(), st.sampled_from(["all", "split"]))
def test_csv_and_jsonl_give_the_same_triplets(table: list[dict[str, Any]], gallery: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        put(root / "images", *NAMES)
        (root / "t.csv").write_bytes(as_csv(table))
        lines = (json.dumps(fields, ensure_ascii=len(table) % 2 == 0) for fields in table)
        (root / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
        for split in (None, *{fields["split"] for fields in table}):
            one, other = (
                TripletTable(root / file, root / "images", split, gallery=gallery)
                for file in ("t.csv", "t.jsonl")
            )
            assert one.triplets() == other.triplets()
            assert one.image_ids == other.image_ids
            assert one.tasks() == other.tasks()
            kept = [fields for fields in table if split in (None, fields["split"])]
            assert [t.texts for t in one.triplets()] == [(fields["text"],) for fields in kept]
