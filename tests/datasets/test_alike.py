"""Names that look alike, lists and missing values that were printed: nothing of it goes unsaid."""

import json
import math
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from verifying import check, named, reasons

from fusecomp.datasets import CIRR, FashionIQ, TripletTable
from fusecomp.datasets._alike import folded, require_no_list

ROW = {"reference": "a", "text": "is blue", "target": "b"}


def write(folder: Path, rows: Iterable[dict[str, Any]], suffix: str = "jsonl") -> Path:
    path = folder.parent / f"mine.{suffix}"
    rows = list(rows)
    lines = [json.dumps(row) for row in rows]
    if suffix == "csv":
        cells = ['"' + str(v).replace('"', '""') + '"' for row in rows for v in row.values()]
        width = len(rows[0])
        lines = [",".join(rows[0])]
        lines += [",".join(cells[at : at + width]) for at in range(0, len(cells), width)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


# Splits

ALIKE = ["Train", "train ", " train", "TRAIN", "tr ain", "\uff54rain", "train\u200b", "\ufefftrain"]


def of_splits(*splits: str | None) -> list[dict[str, Any]]:
    return [ROW | {"text": f"text {n}", "split": split} for n, split in enumerate(splits)]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("asked", ["train", "val"])
def test_splits_that_look_alike_are_refused(
    folder: Path, asked: str, name: str, suffix: str
) -> None:
    table = write(folder, of_splits("val", "train", name), suffix)
    line = 3 if suffix == "csv" else 2
    problem = rf"line {line + 1}: split '.*' looks like 'train' of line {line}; write it in one way"
    with pytest.raises(ValueError, match=problem):
        TripletTable(table, folder, asked)


@pytest.mark.parametrize("splits", [("café", "cafe\u0301"), ("Straße", "STRASSE"), ("ﬁt", "fit")])
def test_names_of_splits_that_print_alike_are_told_apart_in_the_error(
    folder: Path, splits: tuple[str, str]
) -> None:
    table = write(folder, of_splits(*splits))
    with pytest.raises(ValueError, match="looks like") as error:
        TripletTable(table, folder, splits[0])
    own, other = str(error.value).split(" looks like ")
    assert own.rpartition("split ")[2] != other.partition(" of line")[0]


def test_all_rows_are_read_whatever_their_splits_are_called(folder: Path) -> None:
    assert len(TripletTable(write(folder, of_splits("train", *ALIKE)), folder)) == 1 + len(ALIKE)


@pytest.mark.parametrize("splits", [("train", "val"), ("train-1", "train-2")])
def test_other_names_of_splits_are_fine(folder: Path, splits: tuple[str, str | None]) -> None:
    assert len(TripletTable(write(folder, of_splits(*splits)), folder, splits[0])) == 1


@pytest.mark.parametrize("rows", ["cells", "keys"])
def test_rows_without_a_split_are_counted_where_one_is_asked_for(folder: Path, rows: str) -> None:
    table = of_splits("train", "", "train", "") if rows == "cells" else of_splits("train", None)
    path = write(folder, table, "csv" if rows == "cells" else "jsonl")
    counted = "line 3: .*; 2 of the 4" if rows == "cells" else "line 2: .*; 1 of the 2"
    with pytest.warns(UserWarning, match=f"{counted} rows are in no split"):
        TripletTable(path, folder, "train")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(TripletTable(path, folder)) == len(table)
        assert len(TripletTable(write(folder, of_splits(None, None)), folder)) == 2


NEARLY = {
    "target": ["targets", "target_id", "target_ids", "tagret", "targt", "Targets ", "TARGET-ID"],
    "group": ["groups", "gruop", "grup", "Groups"],
    "split": ["splits", "spilt", "splt", "SPILT"],
    "query_id": ["query_ids", "qeury_id", "query_idx"],
}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("meant", "name"), [(meant, name) for meant, names in NEARLY.items() for name in names]
)
def test_a_name_that_nearly_is_an_optional_column_is_refused(
    folder: Path, meant: str, name: str, suffix: str
) -> None:
    full = ROW | {"target": "b", "group": "a b", "split": "val", "query_id": "q"}
    odd = {name if key == meant else key: value for key, value in full.items()}
    odd = {key: value for key, value in odd.items() if key != "group" or suffix == "csv"}
    rows = [odd] if suffix == "csv" else [ROW | {"text": "first"}, odd]
    line = 1 if suffix == "csv" else 2
    for read in (lambda path: TripletTable(path, folder), lambda _: check(folder, suffix=suffix)):
        with pytest.raises(ValueError, match=f"line {line}: there is no '{meant}' but '{name}', "):
            read(write(folder, rows, suffix))
    # Beside the column itself, nothing of it is lost.
    assert len(TripletTable(write(folder, [full | {name: "other"}], "csv"), folder)) == 1


@pytest.mark.parametrize("name", ["query", "price", "group_id", "budget", "id", "context", "test"])
def test_another_column_is_no_misspelt_one(folder: Path, name: str) -> None:
    assert len(TripletTable(write(folder, [{"reference": "a", "text": "x", name: "y"}]), folder))


def test_splits_that_look_alike_are_listed_by_verify(folder: Path) -> None:
    write(folder, of_splits("train", "val", "Train", "val ", "Train"), "csv")
    report = check(folder)
    assert named(report, "split") == ("line 4", "line 5")
    assert "split 'Train' looks like 'train' of line 2" in reasons(report, "split")
    assert not report.ok


@given(st.text(max_size=8))
def test_what_is_not_seen_does_not_count(name: str) -> None:
    for other in (f" {name}\u200b", f"{name}\n", name.casefold(), f"{name}\ufeff\xad"):
        assert folded(other) == folded(name)


# Lists that were printed

LISTS = [["is blue"], ["is blue", "is long"], ["it's", 'so "blue"'], ("is blue", "is long")]
PRINTED = [*map(str, LISTS), '["is blue", "is long"]', "{'is blue'}", "['is' 'blue']", "[]"]
WITH_GAPS = [
    *("['is blue', nan]", "[nan, 'is blue']", "[None]", "[nan]", "['is blue' None]", "[<NA>, 'a']"),
    *('["is blue", null]', "['a' 'b' ... 'z']", "('is blue', None)", "{'is blue', nan}"),
]
CALLS = [
    *(
        "array(['a', 'b'], dtype=object)",
        "array(['is blue'],\n      dtype='<U7')",
        "frozenset({'a'})",
    ),
    *("[np.str_('is blue'), np.str_('has dots')]", "Index(['a', 'b'], dtype='object')", "set()"),
    *("OrderedDict([('a', 1)])", "deque(['a'], maxlen=3)", "dict_keys(['a'])", "Counter({'a': 2})"),
    *("array([nan, 'a'], dtype=object)", "array([], dtype=object)", "np.array(['a'])", "{'a': 1}"),
    *("()", "[['a', 'b'], ['c']]", "[b'a']", r"['a\d']"),
]


def object_array(values: list[Any]) -> Any:
    return np.array(values, dtype=object)


@pytest.mark.parametrize("text", [*PRINTED, *WITH_GAPS, *CALLS])
def test_a_list_that_was_printed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="file: text is a list that was printed, "):
        require_no_list("file", "text", text, "")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("text", [PRINTED[0], CALLS[0]])
@pytest.mark.parametrize("column", ["text", "reference", "target", "split", "query_id"])
def test_a_list_in_any_column_is_refused(folder: Path, column: str, text: str, suffix: str) -> None:
    table = write(folder, [ROW | {column: text}], suffix)
    problem = rf"line {2 if suffix == 'csv' else 1}: {column} is a list that was printed, .* JSONL"
    with pytest.raises(ValueError, match=problem):
        TripletTable(table, folder)


@pytest.mark.parametrize("group", ["['a', 'b']", "['a' 'b']", "('a', 'b')", '["a"]'])
def test_a_group_that_was_printed_is_refused(folder: Path, group: str) -> None:
    table = write(folder, [ROW | {"group": group}], "csv")
    with pytest.raises(ValueError, match="line 2: group is a list that was printed"):
        TripletTable(table, folder)


@pytest.mark.parametrize(
    "text",
    [
        *("(blue)", "[blue]", '"blue"', "it's", "is ['a']", '("blue")', "'a', 'b'", "(a, b)"),
        *('("like this", but red)', '["SALE"] print instead of ["NEW"]', '("a"), ("b")', "dress()"),
        *('["SALE"] or ["NEW"]', "dress(red)", "same(but 'blue')", "[1, 2]", "[" * 9999 + "]", "["),
        *("np.str_('is blue')", '["a", but blue]', "[it's blue]", "(none)", "[None of it]", "(\0)"),
        *('("SALE") and ("NEW")', "['a'] ['b']", "{red}", "[a, 'b']", "['a': 'b']", "1)", "None"),
    ],
    ids=lambda text: text[:20].replace("\0", "NUL"),
)
def test_a_text_with_brackets_is_a_text(text: str) -> None:
    require_no_list("file", "text", text, "")


KINDS: list[Any] = [
    list,
    tuple,
    set,
    frozenset,
    dict.fromkeys,
    deque,
    OrderedDict.fromkeys,
    object_array,
]


@given(
    st.lists(st.text(max_size=5) | st.sampled_from([None, math.nan]), max_size=4),
    st.sampled_from(KINDS),
    st.sampled_from([str, repr]),
)
def test_every_printed_list_of_texts_is_known(
    texts: list[Any], kind: Any, written: Callable[[Any], str]
) -> None:
    with pytest.raises(ValueError, match="is a list that was printed"):
        require_no_list("file", "text", written(kind(texts)), "")


# Missing values that were printed

WORDS = ["nan", "NaN", "NaT", "None", "null", "<NA>", " nan "]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("column", ["text", "split", "query_id"])
def test_a_missing_value_that_was_printed_is_warned_of(
    folder: Path, column: str, word: str, suffix: str
) -> None:
    rows = [ROW, ROW | {"text": "is red"}, ROW | {"text": "is long"}]
    rows = [{"split": "val", "query_id": str(n)} | row for n, row in enumerate(rows)]
    rows[1][column] = word
    table = write(folder, rows, suffix)
    line = 3 if suffix == "csv" else 2
    with pytest.warns(UserWarning, match=rf"line {line}: {column} is '{word}', as .* are 1 such"):
        data = TripletTable(table, folder)
    assert len(data) == 3


def test_the_words_are_counted_and_listed_by_verify(folder: Path) -> None:
    table = write(folder, [ROW, ROW | {"text": "nan"}, ROW | {"text": "None"}], "csv")
    with pytest.warns(UserWarning, match=r"line 3: text is 'nan', .* there are 2 such values"):
        TripletTable(table, folder)
    report = check(folder)
    assert named(report, "word") == ("line 3", "line 4")
    assert reasons(report, "word") == "text: nan text: None"
    assert report.ok


@pytest.mark.parametrize("text", ["none", "n/a", "na", "is None", "nanny", "Null set"])
def test_words_that_people_write_are_texts(folder: Path, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TripletTable(write(folder, [ROW | {"text": text}]), folder).texts() == [text]


# Halves of characters

HALVES = ["is \ud83d red", "\udc4d", "\ud83d\ud83d", "caf\udce9"]


@pytest.mark.parametrize("text", HALVES, ids=ascii)
def test_half_of_a_character_is_refused_when_it_is_read(
    folder: Path, tiny_fashioniq: Path, tiny_cirr: Path, text: str
) -> None:
    table = write(folder, [ROW, ROW | {"text": ["is red", text]}])
    for read in (lambda: TripletTable(table, folder), lambda: check(folder, "jsonl")):
        with pytest.raises(ValueError, match=r"mine.jsonl, line 2: text holds half of a character"):
            read()
    for root, file, where in (
        (tiny_fashioniq, "captions/cap.dress.val.json", "entry 0: a caption"),
        (tiny_cirr, "cirr/captions/cap.rc2.val.json", "entry 0: caption"),
    ):
        rows = json.loads((root / file).read_text())
        rows[0] |= {"captions": ["is red", text], "caption": text}
        (root / file).write_text(json.dumps(rows))
        with pytest.raises(ValueError, match=f"{where} holds half of a character, .*'"):
            CIRR(root, "val") if "cirr" in file else FashionIQ(root, "val")


def test_whole_characters_are_read_however_json_writes_them(folder: Path) -> None:
    table = write(folder, [ROW | {"text": "is \U0001f44d größer"}])
    assert "\\ud83d\\udc4d" in table.read_text()
    assert TripletTable(table, folder).texts() == ["is \U0001f44d größer"]


# Captions that say nothing

SAYING_NOTHING = ["", " ", "...", "?", "., ?", "\u200b", "\xa0.", "\u3000\u2060"]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("first", SAYING_NOTHING, ids=ascii)
def test_pairs_that_say_nothing_are_counted(tiny_fashioniq: Path, first: str, split: str) -> None:
    path = tiny_fashioniq / f"captions/cap.dress.{split}.json"
    rows = json.loads(path.read_text())
    for second in SAYING_NOTHING:
        path.write_text(json.dumps([*rows, *[rows[0] | {"captions": [first, second]}] * 2]))
        counted = rf"dress.{split}.json, entry {len(rows)}: nothing can be read .* are 2 such"
        with pytest.warns(UserWarning, match=counted):
            FashionIQ(tiny_fashioniq, split)
    path.write_text(json.dumps([*rows, rows[0] | {"captions": [first, "is red"]}]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one of two is empty in the published files too
        FashionIQ(tiny_fashioniq, split)
