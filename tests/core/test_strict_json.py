"""JSON is written whole and read strictly."""

import codecs
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusecomp._core.strict_json import parse_json, read_json, write_json


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"ids": ["B00", "größer", "caf\udce9.png"], "zero": 0.0, "none": None}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "größer" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "not JSON compliant"),
        (float("inf"), "not JSON compliant"),
        ({1, 2}, "set is not JSON serializable"),
    ],
)
def test_what_json_cannot_hold_leaves_the_old_file(
    tmp_path: Path, value: object, message: str
) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises((ValueError, TypeError), match=message):
        write_json(path, [value])
    assert read_json(path) == 1


def test_read_json_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no file {tmp_path / 'a.json'}"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "content",
    [b"", b'["a", "b', b"\xff\xfe[]", b"[1] x", b"[" * 100_000],
    ids=["empty", "cut off", "not UTF-8", "more after it", "endless nesting"],
)
def test_read_json_names_a_broken_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}, line 1: not valid JSON"):
        read_json(path)


# A text, the line at which it is refused, and what must be said.
NO_JSON = {
    "a key twice": ('{"a": 1,\n"b": 2, "a": 3}', 2, "'a' occurs twice"),
    "a key twice, spelled otherwise": ('{"a": 1,\n\n"\\u0061" : 3}', 3, "'a' occurs twice"),
    "a key twice further in": ('[{}, {"a": {"b": 1,\n"b": [1]}}]', 2, "'b' occurs twice"),
    "NaN": ('{"a": "NaN",\n"b": [1, NaN]}', 2, "NaN is no finite number in the field 'b'"),
    "minus infinity": ('{"b":\n{"c": -Infinity}}', 2, "-Infinity is .* in the field 'c'"),
    "a number without a field": ("[1,\nInfinity]", 2, "Infinity is no finite number"),
    "1e999": ('{"lr": {"a": 1, "b": 1e999}}', 1, "1e999 is no finite number in the field 'b'"),
    "400 digits": (f'{{"lr": [{{}}, -1{"0" * 400}]}}', 1, "-10+... is .* in the field 'lr'"),
    "5000 digits": (f'{{"lr": 1{"0" * 5000}}}', 1, "in the field 'lr'"),
    "lists in lists": ('{"a": 1,\n"b": ' + "[" * 100_000, 2, "nested .* in the field 'b'"),
    "objects in objects": ('\n{"a": ' * 100_000, 502, "nested .* in the field 'a'"),
    "cut off": ('{"a":\n1, "b', 2, "Unterminated string"),
    "more after it": ("[1]\n\n x", 3, "Extra data"),
    "nothing": (" ", 1, "Expecting value"),
}


@pytest.mark.parametrize("case", NO_JSON)
def test_json_is_read_strictly_and_errors_name_line_and_field(case: str) -> None:
    text, line, message = NO_JSON[case]
    expected = rf"^the file, line {{}}: not valid JSON \(.*{message}"
    with pytest.raises(ValueError, match=expected.format(line)):
        parse_json(text, "the file")
    with pytest.raises(ValueError, match=expected.format(line + 6)):
        parse_json(text.encode(), "the file", line=7)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=40)
@given(value=JSON, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_all_that_json_has_is_read(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert parse_json(text, "") == value
    if ascii_only:
        assert parse_json(codecs.BOM_UTF8 + text.encode(), "") == value


@settings(max_examples=40)
@given(
    value=JSON, field=st.text(), odd=st.sampled_from(["NaN", "1E400", "-Infinity", '{"":1,"":2}'])
)
def test_an_odd_value_is_found_wherever_it_stands(value: object, field: str, odd: str) -> None:
    before = json.dumps({"first": value, f"{field}.": [1, value]}, indent=1)
    text = f'{before[:-1]},\n\n"{"last"}": [{odd}]}}'
    line = text.count("\n") + 1
    with pytest.raises(
        ValueError, match=rf"^f, line {line}: not valid JSON \(.*({odd[:3]}.*last|'')"
    ):
        parse_json(text, "f")


def test_no_utf8_is_named_with_its_line() -> None:
    with pytest.raises(ValueError, match=r"^f, line 3: not valid JSON \(not UTF-8"):
        parse_json(b'{"a":\n1,\n"\xff": 2}', "f")
