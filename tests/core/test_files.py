"""Files that are whole or absent."""

import codecs
import errno
import json
import os
import pickle
import socket
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_disk import a_disk_of
from hypothesis import given
from hypothesis import strategies as st
from raising import own_error
from torch import nn

from fusecomp._core.files import (
    checksum,
    open_atomic,
    open_regular,
    read_tensors,
    reading,
    write_tensors,
)
from fusecomp._core.strict_json import parse_json, read_json, write_json


class Hostile:
    """Unpickling it would create the file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


def test_open_atomic_writes_the_whole_file_and_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    with open_atomic(path) as file:
        file.write(b"first ")
        assert not path.exists()
        file.write(b"second")
    assert path.read_bytes() == b"first second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, ValueError, OSError])
def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), open_atomic(path) as file:
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_first_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_atomic(tmp_path / "file.bin") as file:
        file.write(b"new")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    with pytest.raises(PermissionError, match=f"cannot write {path}") as caught, open_atomic(path):
        raise PermissionError(errno.EACCES, "not allowed")
    assert caught.value.errno == errno.EACCES
    assert "not allowed" in str(caught.value)


def test_an_error_without_a_reason_of_the_system_is_told_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    with pytest.raises(OSError, match=rf"cannot write {path} \(no such mode"), open_atomic(path):
        raise OSError("no such mode")


@pytest.mark.parametrize("below", ["file.bin", "folder/file.bin"])
def test_a_folder_that_cannot_be_made_names_the_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").write_bytes(b"old")
    path = tmp_path / "taken" / below
    with pytest.raises(OSError, match=rf"cannot write {path} \(.*: {tmp_path / 'taken'}"):
        write_json(path, 1)
    assert (tmp_path / "taken").read_bytes() == b"old"


def test_a_temporary_file_that_cannot_be_made_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "not allowed", "temporary")

    monkeypatch.setattr(Path, "open", refuse)
    path = tmp_path / "file.bin"
    with pytest.raises(PermissionError, match=f"cannot write {path}") as caught:
        write_json(path, 1)
    assert caught.value.errno == errno.EACCES


def test_a_folder_in_the_place_of_the_file_names_it(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.mkdir()
    with pytest.raises(OSError, match=f"cannot write {path}"):
        write_json(path, 1)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "a\0b/file.bin", "a\ud800b/file.bin"])
@pytest.mark.parametrize("write", [write_json, write_tensors])
def test_a_name_that_no_file_can_have_is_named_before_it_is_written(
    tmp_path: Path, name: str, write: Callable[[Path, Any], None]
) -> None:
    message = own_error(write, tmp_path / name, {})
    assert message.startswith("path must be a path, which ")
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_passes_as_it_is(tmp_path: Path) -> None:
    other, path = tmp_path / "other.bin", tmp_path / "file.bin"
    with pytest.raises(FileNotFoundError) as caught, open_atomic(path) as file:
        file.write(other.read_bytes())
    assert caught.value.filename == str(other)
    assert "cannot write" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_file_gets_the_rights_that_the_umask_gives(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with open_atomic(tmp_path / "file.bin") as file:
            file.write(b"x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
    assert (tmp_path / "file.bin").stat().st_mode & 0o777 == 0o640


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"ids": ["B00", "größer", "caf\udce9.png"], "zero": 0.0, "none": None}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "größer" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path, value: object) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises((ValueError, TypeError)):
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


@given(value=JSON, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_all_that_json_has_is_read(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert parse_json(text, "") == value
    if ascii_only:
        assert parse_json(codecs.BOM_UTF8 + text.encode(), "") == value


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


@pytest.mark.parametrize("read", [read_json, read_tensors, open_regular])
def test_what_is_no_regular_file_is_refused_at_once(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / name for name in ("pipe", "socket", "folder", "link")):
        with pytest.raises(OSError) as caught:
            read(path)
        assert caught.value.filename == str(path)
    with pytest.raises(OSError, match="a pipe or a device"):
        read(Path("/dev/zero"))


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
@pytest.mark.parametrize("read", [read_json, read_tensors, open_regular])
def test_a_name_that_no_file_can_have_is_named(
    tmp_path: Path, name: str, read: Callable[[Path], Any]
) -> None:
    with pytest.raises(OSError, match=r"no file can have this name: .*a\\(x00|ud800)b'"):
        read(tmp_path / name)


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    content = {"w": torch.randn(3, 2), "half": torch.ones(2).bfloat16(), "epoch": 7, "name": "x"}
    write_tensors(tmp_path / "a.pt", content)
    back = read_tensors(tmp_path / "a.pt")
    assert back.keys() == content.keys()
    assert torch.equal(back["w"], content["w"])  # type: ignore[arg-type]
    assert back["half"].dtype == torch.bfloat16
    assert (back["epoch"], back["name"]) == (7, "x")


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_tensors(path, {"epoch": 1})
    with (
        pytest.raises(OSError, match=f"{path}"),
        a_disk_of(10_000),
    ):
        write_tensors(path, {"epoch": 2, "w": torch.zeros(100_000)})
    assert read_tensors(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_inside_the_writer_of_tensors_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: Any) -> None:
        raise RuntimeError("unexpected pos 64")

    monkeypatch.setattr("torch.save", save)
    path = tmp_path / "a.pt"
    with pytest.raises(OSError, match=rf"cannot write {path} \(unexpected pos 64"):
        write_tensors(path, {"epoch": 1})


def test_read_tensors_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no file {tmp_path / 'a.pt'}"):
        read_tensors(tmp_path / "a.pt")


def test_a_torn_checkpoint_is_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_tensors(path, {"w": torch.randn(40)})
    whole = path.read_bytes()
    for length in {0, 1, 7, 8, 9, *range(10, len(whole), 97), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{path} is not a readable checkpoint"):
            read_tensors(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_not_run(tmp_path: Path, zipped: bool) -> None:
    path, victim = tmp_path / "a.pt", tmp_path / "victim"
    torch.save({"w": Hostile(victim)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        read_tensors(path)
    assert not victim.exists()


def test_code_in_a_plain_pickle_is_refused_not_run(tmp_path: Path) -> None:
    path, victim = tmp_path / "a.pt", tmp_path / "victim"
    path.write_bytes(pickle.dumps(Hostile(victim)))
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        read_tensors(path)
    assert not victim.exists()


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds a list, expected a dict"):
        read_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize("read", [read_json, read_tensors])
def test_a_folder_is_no_torn_file(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        read(tmp_path)
    assert caught.value.filename == str(tmp_path)


@pytest.mark.parametrize(
    "error", [MemoryError("no room"), OSError(22, "no room"), RuntimeError("no room\nfor this")]
)
def test_whatever_fails_while_reading_names_the_file(error: Exception) -> None:
    expected = r"^f is torn or no such thing \((\[Errno 22\] )?no room\); make another$"
    with (
        pytest.raises(ValueError, match=expected),
        reading(Path("f"), "thing", "torn or no such thing", "make another"),
    ):
        raise error


def test_a_file_of_somebody_else_is_not_called_torn() -> None:
    mine = PermissionError(errno.EACCES, "not allowed", "f")
    with pytest.raises(PermissionError) as caught, reading(Path("f"), "", "torn", ""):
        raise mine
    assert caught.value is mine


OURS: dict[str, Any] = {
    "format": "fusecomp.test/1",
    "weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(0), "c": torch.tensor(1.5)},
    "plain": [1, True, None, "größer\ud800", 0.1, float("nan"), b"x", (2, 3), {4: []}],
}
# Contents that differ in one thing from the one before.
UNLIKE: list[object] = [
    1,
    1.0,
    True,
    "1",
    b"1",
    None,
    [1],
    (1,),
    [[1]],
    [1, 1],
    {},
    {1: 1},
    {"1": 1},
    {1: "1"},
    {"a": 1, "b": 2},
    {"b": 2, "a": 1},
    {"a": 2, "b": 1},
    [],
    [[], []],
    [[[]]],
    "",
    "\n1",
    ["\n"],
    torch.zeros(2),
    torch.zeros(2, 1),
    torch.zeros(1, 2),
    torch.zeros(2).half(),
    -torch.zeros(2),
    torch.zeros(2).int(),
    torch.zeros(2, dtype=torch.complex64),
    torch.zeros(0),
    torch.zeros(0, 1),
    [torch.zeros(1), torch.zeros(1)],
    torch.tensor(0.0),
    np.zeros(2),
    np.zeros(2, "<f4"),
    np.zeros((2, 1)),
    np.zeros(2, ">f8"),
    torch.arange(4).view(2, 2),
    torch.arange(4).view(2, 2).T,
]


def test_contents_that_differ_have_different_checksums() -> None:
    sums = [checksum(content) for content in UNLIKE]
    assert len(set(sums)) == len(UNLIKE)
    assert sums == [checksum(content) for content in UNLIKE]
    whole = torch.arange(12.0).view(3, 4)
    assert checksum(whole[:, 1:3]) == checksum(whole[:, 1:3].clone())
    assert checksum(nn.Parameter(whole)) == checksum(whole)


@pytest.mark.parametrize("value", [{1}, np.float64(1), torch.float32, Path("x"), object()])
def test_what_is_neither_tensor_nor_plain_is_named(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match="'a/1/b' is a"):
        write_tensors(tmp_path / "a.pt", {**OURS, "a": [0, {"b": value}]})
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_ours_has_a_checksum_that_others_lack(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_tensors(path, OURS)
    raw = torch.load(path, weights_only=True)
    assert raw.keys() - OURS.keys() == {"checksum"}
    assert read_tensors(path).keys() == OURS.keys()
    assert checksum(read_tensors(path)) == raw["checksum"]
    theirs = {"epoch": 1, "checksum": "3"}
    write_tensors(path, theirs)
    assert read_tensors(path) == torch.load(path, weights_only=True) == theirs


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no checksum": lambda content: content.pop("checksum"),
    "another checksum": lambda content: content.update(checksum="0" * 64),
    "a checksum of another kind": lambda content: content.update(checksum=[1]),
    "a value": lambda content: content["weights"]["a"].view(-1)[3].add_(1),
    "a dtype": lambda content: content["weights"].update(a=content["weights"]["a"].double()),
    "a shape": lambda content: content["weights"].update(a=content["weights"]["a"].view(3, 2)),
    "a name": lambda content: content["weights"].update(d=content["weights"].pop("c")),
    "a part missing": lambda content: content["weights"].pop("b"),
    "a part more": lambda content: content.update(epoch=1),
    "a number": lambda content: content["plain"].__setitem__(0, 2),
    "another format of ours": lambda content: content.update(format="fusecomp.model/1"),
    "one tensor without end": lambda content: content.update(
        plain=[[content["weights"]["a"]] * 1000] * 1000
    ),
    "a list in itself": lambda content: content["plain"].append(content["plain"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_of_ours_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.pt"
    write_tensors(path, deepcopy(OURS))
    content = torch.load(path, weights_only=True)
    CHANGES[change](content)
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"^{path} is changed, damaged or of an older fusecomp"):
        read_tensors(path)
