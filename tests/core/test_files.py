"""Files that are whole or absent, and what is no regular file."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raising import own_error

from fusecomp._core.files import open_atomic, open_regular, read_tensors, reading, write_tensors
from fusecomp._core.strict_json import read_json, write_json


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
