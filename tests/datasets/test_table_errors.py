"""Tables that are not as they should be: the file, the line and the way out are named."""

import bz2
import gzip
import json
import lzma
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tables import row

from fusecomp.datasets import TripletTable

Write = Callable[..., Path]


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
        (
            '{"reference": "a", "text": "b", "target": ["b", 1]}',
            r"target must be a list .* got \['b', 1\]",
        ),
        ('{"reference": "a", "text": "b", "target": []}', "target must be a list .*, or a string"),
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


def test_the_first_of_several_wrong_texts_is_named(images: Path, write: Write) -> None:
    texts = ["['a']", "['b']", "is red", "['c']", "['d']"]
    for first in range(5):
        turned = texts[first:] + texts[:first]
        wrong = next(text for text in turned if text != "is red")
        error = f'line 2: text is a list that was printed, "{wrong}"; write'
        with pytest.raises(ValueError, match=re.escape(error)):
            TripletTable(write(row(), row(text=turned)), images)


def test_a_wrong_value_is_told_once_with_its_row(images: Path, write: Write) -> None:
    path = write("reference,text,target", "a,is blue,b", "../a,is red,b")
    with pytest.raises(ValueError, match=r"line 3: reference must be a path below") as raised:
        TripletTable(path, images)
    assert raised.value.__context__ is None  # such as the same of another line


def test_a_default_query_id_may_not_be_another_s(images: Path, write: Write) -> None:
    with pytest.raises(ValueError, match="line 2: the query_id '1' is on line 1 already"):
        TripletTable(write(row(query_id="1"), row(text="is red")), images)


def test_the_same_row_may_stand_in_two_splits(images: Path, write: Write) -> None:
    path = write(row(split="train"), row(split="val"))
    assert len(TripletTable(path, images, "val")) == 1
    repeated = r"1 of 2 rows have the reference, text and target of another one: line 2 \(line 1\)"
    with pytest.raises(ValueError, match=repeated):
        TripletTable(path, images)


def test_unknown_images_are_counted_and_the_first_is_named(images: Path, write: Write) -> None:
    header = "reference,text,target,group"
    path = write(header, "a,x,b,a b", "a,y,e,e b", "d,z,b,b e.jpg", "e,z,b,b c")
    error = (
        r"mine.csv, line 3: no image 'e' in .*images; 3 of the 6 images that are named .*"
        r"An id is a path below that folder, with or without suffix, such as 'a.jpg'; "
        r"put the file there, or leave out the rows that name it"
    )
    with pytest.raises(FileNotFoundError, match=error):
        TripletTable(path, images)


def test_one_image_has_one_id(images: Path, write: Write) -> None:
    path = write("reference,text,target", "a,x,b", "a.jpg,y,c")
    with pytest.raises(ValueError, match=r"line 3: 'a.jpg': the same image as a; write it in one"):
        TripletTable(path, images)
