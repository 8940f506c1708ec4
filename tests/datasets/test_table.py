"""TripletTable: one's own triplets from CSV and JSONL, and tables that are not as they must be."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fusecomp as fc
from fusecomp.datasets import TripletTable
from fusecomp.datasets._alike import is_blank, is_missing_word
from fusecomp.datasets._folder import ImageFolder
from fusecomp.evaluation import Recall
from fusecomp.types import Dataset

NAMES = ("a.jpg", "b.png", "c.webp", "d/e.JPEG", "d/f.gif", "g.jpg")
Write = Callable[..., Path]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of six files that are no images, as none may be opened."""
    folder = tmp_path / "images"
    put(folder, *NAMES)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a table: lines of CSV, or objects as JSONL."""

    def write(*lines: Any) -> Path:
        as_csv = isinstance(lines[0], str)
        path = tmp_path / ("mine.csv" if as_csv else "mine.jsonl")
        text = "\n".join(line if as_csv else json.dumps(line) for line in lines)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    return write


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no image")


def row(**fields: Any) -> dict[str, Any]:
    return {"reference": "a", "text": "is blue", "target": "b"} | fields


# What a table becomes


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
@settings(max_examples=50, deadline=None)
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


# What is not as it should be


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"gallery": "original"}, "unknown gallery 'original'; valid: 'all', 'split'"),
        ({"ks": ()}, r"ks must be whole numbers above 0, at least one; got \(\)"),
        ({"ks": (1, 0)}, r"ks must be whole numbers above 0, at least one; got \(1, 0\)"),
        ({"split": "dev"}, "unknown split 'dev'; .*mine.jsonl has 'val', 'train'"),
    ],
)
def test_an_unknown_option_is_answered_with_the_valid_ones(
    images: Path, write: Write, options: dict[str, Any], error: str
) -> None:
    path = write(row(split="val"), row(text="is red", split="train"), row(text="no split"))
    with pytest.raises(ValueError, match=error):
        TripletTable(path, images, **options)


def test_a_table_without_splits_has_none(images: Path, write: Write) -> None:
    with pytest.raises(ValueError, match=r"mine.jsonl has no column 'split', so .* 'val'"):
        TripletTable(write(row()), images, "val")


@pytest.mark.parametrize("name", ["mine.tsv", "mine.json", "mine", "mine.csv.gz"])
def test_another_kind_of_file_is_refused(images: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("reference,text,target\n")
    with pytest.raises(ValueError, match=f"{name} must be a .csv or a .jsonl file, got '"):
        TripletTable(tmp_path / name, images)


def test_files_and_folders_that_are_not_there(images: Path, write: Write, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*none.csv"):
        TripletTable(tmp_path / "none.csv", images)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere; images must be the folder"):
        TripletTable(write(row()), tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty has no images; .* end in .png, .jpg"):
        TripletTable(write(row()), tmp_path / "empty")


def test_a_folder_that_may_not_be_read_is_no_empty_one(
    images: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def scan_some(folder: str) -> Any:
        if folder.endswith("d"):
            raise PermissionError(13, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scan_some)
    with pytest.raises(PermissionError, match="images/d"):
        TripletTable(write(row()), images)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_pipe_and_a_folder_are_refused_at_once(images: Path, tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    (tmp_path / f"folder.{suffix}").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match=f"expected a .*{name}.{suffix}"):
            TripletTable(tmp_path / f"{name}.{suffix}", images)


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_empty_file_is_named(images: Path, tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"empty.{suffix}"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"empty.{suffix} holds no rows"):
        TripletTable(path, images)


def test_a_header_alone_is_no_row(images: Path, write: Write) -> None:
    with pytest.raises(ValueError, match="holds no rows"):
        TripletTable(write("reference,text,target"), images)


@pytest.mark.parametrize(
    "encoding", ["latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_another_encoding_is_named_with_its_line(
    images: Path, tmp_path: Path, suffix: str, encoding: str
) -> None:
    path = tmp_path / f"mine.{suffix}"
    path.write_bytes("reference,text,target\na,is blue,b\na,größer,b\n".encode(encoding))
    line = 3 if encoding == "latin-1" else 1
    guess = "" if encoding == "latin-1" else r"\(but UTF-16, or .* starts with b'.*'\); "
    with pytest.raises(ValueError, match=f"line {line}: not UTF-8 .*{guess}save .* UTF-8"):
        TripletTable(path, images)


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "compressed with gzip": gzip.compress,
    "compressed with bzip2": bz2.compress,
    "compressed with xz": lzma.compress,
    "a zip archive or a spreadsheet": lambda content: b"PK\x03\x04\x14\0" + content,
    "a Parquet file": lambda content: b"PAR1\x15\0" + content + b"PAR1",
}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_file_that_is_no_text_is_named(
    images: Path, tmp_path: Path, suffix: str, kind: str
) -> None:
    path = tmp_path / f"mine.{suffix}"
    path.write_bytes(PACKED[kind](b"reference,text,target\na,is blue,b\n"))
    with pytest.raises(ValueError, match=rf"mine.{suffix}, line 1: not UTF-8 .* UTF-8"):
        TripletTable(path, images)


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (["ref,text,target", "a,b,c"], "line 1: no 'reference'; there are 'ref', 'text', 'tar"),
        (["caption", "a"], "no 'reference' and 'text'; .* needed are reference, text and"),
        (["reference;text;target", "a;b;c"], "there are 'reference;text;target'; .* by commas"),
        (["reference,text,text", "a,b,c"], "line 1: the column 'text' is there twice"),
        (["reference,text,Target", "a,b,c"], "line 1: write 'target' in place of 'Target'"),
        (["reference,text, target", "a,b,c"], "line 1: write 'target' in place of ' target'"),
        (["reference,text,target", "a,b"], "line 2: 2 cells under 3 columns; .* between quotes"),
        (["reference,text,target", "a,blue, dots,b"], "line 2: 4 cells under 3 columns"),
        (["reference,text,target", "a,x,b", '"a,y,b', "a,z,b"], "line 3: not CSV"),
        (["reference,text,target", 'a,"b"c,b'], "line 2: not CSV .* write a quote inside"),
        (["reference,text,target", f"a,{'x' * 200_000},b"], "line 2: not CSV .*limit"),
        (["reference,text,target", f"a,{'x' * 131_073},b"], "cell may have more .* as JSONL"),
        (["reference,text,query id", "a,b,c"], "line 1: write 'query_id' in place of 'query id'"),
        (["reference,text,Query-ID", "a,b,c"], "line 1: write 'query_id' in place of 'Query-ID'"),
        (["reference,text,\u200btarget", "a,b,c"], r"write 'target' in place of '\\u200btarget'"),
        (["reference,text,\uff54arget", "a,b,c"], "write 'target' in place of '\uff54arget'"),
        (["reference,text,target", "a,b,  "], "line 2: target must be a string that is not empty"),
        (["reference,text,split", "a,b, \t"], "line 2: split must be a string that is not empty"),
        (["reference,text,target", '"a\n",x,b', ",y,b"], "line 4: reference must be a string th"),
    ],
)
def test_csv_that_cannot_be_read(images: Path, write: Write, lines: Any, error: str) -> None:
    with pytest.raises(ValueError, match=rf"mine.csv, {error}" if error[0] == "l" else error):
        TripletTable(write(*lines), images)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ('{"reference": "a", "text"', "not valid JSON .*one object a line, such as"),
        ("[" * 100_000, "not valid JSON"),
        ('{"reference": "a", "reference": "b", "text": "x"}', "the field 'reference' occurs twice"),
        ('{"reference": "a", "text": "x", "target": NaN}', "NaN is no .* in the field 'target'"),
        (f'{{"reference": "a", "text": "x", "z": {"1" * 5000}}}', "no finite .* in the field 'z'"),
        ('{"reference": "a", "text": "x", "price": 1e999}', "1e999 is no finite number in the"),
        ("[1, 2]", r"expected an object, got \[1, 2\]"),
        ('"text"', "expected an object, got 'text'"),
        ('{"reference": "a", "txt": "b"}', "no 'text'; there are 'reference', 'txt'"),
        ('{"text": "b"}', "no 'reference'; .* needed are reference, text and"),
        ('{"reference": "a", "text": "b", "TARGET": "b"}', "write 'target' in place of 'TARGET'"),
        ('{"reference": 7, "text": "b"}', "reference must be a string that is not empty, got 7"),
        ('{"reference": "", "text": "b"}', "reference must be a string that is not empty, got ''"),
        ('{"reference": "a", "text": null}', "text must be a list .* or a string; got None"),
        ('{"reference": "a", "text": []}', r"text must be a list of strings, .*; got \[\]"),
        ('{"reference": "a", "text": ["b", 1]}', r"text must be a list .* got \['b', 1\]"),
        ('{"reference": "a", "text": "b", "group": "a b"}', "group must be a list .* got 'a b'"),
        ('{"reference": "a", "text": "b", "target": ["b"]}', "target must be a string"),
        ('{"reference": "a", "text": "b", "split": 1}', "split must be a string"),
        ('{"reference": "a", "text": "b", "query_id": 12}', "query_id must be a string"),
    ],
)
def test_jsonl_that_cannot_be_read(images: Path, tmp_path: Path, content: str, error: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{json.dumps(row(text='first'))}\n\n{content}\n")
    with pytest.raises(ValueError, match=rf"mine.jsonl, line 3: .*{error}"):
        TripletTable(path, images)


@pytest.mark.parametrize(
    ("second", "error"),
    [
        ({"text": " \t"}, "the text is blank; say what is different"),
        ({"text": ["is red", ""]}, "the text is blank"),
        ({"text": "\u200b"}, "the text is blank"),
        ({"text": ["is red", "\u2060 \ufeff\u3000"]}, "the text is blank"),
        ({"text": "x", "target": "a"}, "the target is the reference, 'a'"),
        ({"text": "x", "query_id": "q"}, "the query_id 'q' is on line 1 already"),
        ({}, "reference, text and target are those of line 1; remove one"),
        ({"text": "x", "group": None}, "the group is missing, though other rows have one"),
        ({"text": "x", "group": ["b", "c", "b"]}, "the group names an image twice: b c b"),
        ({"text": "x", "group": ["a", "c"]}, "the target 'b' is not in its group: a c"),
        ({"text": "x", "target": None, "group": ["a"]}, "the group holds the reference alone"),
    ],
)
def test_rows_that_make_no_sense(
    images: Path, write: Write, second: dict[str, Any], error: str
) -> None:
    first = row(group=["a", "b"], query_id="q")
    table = write(first, row(**{"group": ["a", "b"], "query_id": "r"} | second))
    with pytest.raises(ValueError, match=f"mine.jsonl, line 2: {error}"):
        TripletTable(table, images)


def test_a_default_query_id_may_not_be_another_s(images: Path, write: Write) -> None:
    with pytest.raises(ValueError, match="line 2: the query_id '1' is on line 1 already"):
        TripletTable(write(row(query_id="1"), row(text="is red")), images)


def test_the_same_row_may_stand_in_two_splits(images: Path, write: Write) -> None:
    path = write(row(split="train"), row(split="val"))
    assert len(TripletTable(path, images, "val")) == 1
    with pytest.raises(ValueError, match="are those of line 1"):
        TripletTable(path, images)


def test_unknown_images_are_counted_and_the_first_is_named(images: Path, write: Write) -> None:
    header = "reference,text,target,group"
    path = write(header, "a,x,b,a b", "a,y,e,e b", "d,z,b,b e.jpg", "e,z,b,b c")
    error = (
        r"mine.csv, line 3: no image 'e' in .*images; 3 of the 6 images that are named .*"
        r"An id is a path below that folder, with or without suffix, such as 'a.jpg'"
    )
    with pytest.raises(FileNotFoundError, match=error):
        TripletTable(path, images)


def test_one_image_has_one_id(images: Path, write: Write) -> None:
    path = write("reference,text,target", "a,x,b", "a.jpg,y,c")
    with pytest.raises(ValueError, match=r"line 3: 'a.jpg': the same image as a; write it in one"):
        TripletTable(path, images)
