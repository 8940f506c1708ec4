"""Files that are whole or absent: written beside and renamed, read with errors that help."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

__all__ = [
    "open_atomic",
    "read_json",
    "read_list",
    "read_tensors",
    "reading",
    "write_json",
    "write_tensors",
]


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its place when the block ends well.

    On any error, Ctrl-C and a full disk included, what stood at ``path`` stays untouched.

    Raises:
        OSError: if writing fails; the message names ``path``. What the block raises about another
            file passes as it is.
    """
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private to the user; the umask decides for ordinary ones.
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except OSError as error:
        if name is None:
            raise _cannot_write(path, error, f"{error.strerror}: {error.filename}") from error
        if error.filename is None or error.filename == name:
            reason = f"{error.strerror or error}; the old file is untouched"
            raise _cannot_write(path, error, reason) from error
        raise
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError, reason: str) -> OSError:
    return type(error)(error.errno, f"cannot write {path} ({reason})")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def reading(path: Path, kind: str, problem: str, way_out: str) -> Iterator[None]:
    """Whatever fails while the content of a file is read becomes one error that names the file.

    Args:
        path: the file.
        kind: what is said to be missing, such as ``"file"``.
        problem: what is said to be wrong with the content, such as ``"torn or no feature file"``.
        way_out: what to do about that.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it cannot be opened, such as a folder or the file of somebody else.
        ValueError: on every other error; readers of archives have some of every kind.
    """
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"no {kind} {path}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is {problem} ({reason}); {way_out}") from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically. NaN is refused, as JSON has none."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with open_atomic(path) as file:
        file.write(text.encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is cut off or not JSON; the message names file and place.
    """
    with reading(path, "file", "not valid JSON", "fetch or write it again"):
        return json.loads(path.read_text(encoding="utf-8"))


def read_list(path: Path) -> list[Any]:
    """Read a JSON file that holds a list.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: as ``read_json``, and on anything but a list.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(f"{path} must hold a list, got a {type(content).__name__}")
    return content


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values with ``torch.save``, atomically."""
    with open_atomic(path) as file:
        _as_os_error(lambda: torch.save(dict(content), file))


def _as_os_error(write: Callable[[], None]) -> None:
    # torch's zip writer reports a full disk as a bare RuntimeError.
    try:
        write()
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise OSError(None, f"{error}") from error


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a file written by ``torch.save`` without running any code in it.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is torn, no such file, holds no dict, or holds anything but tensors
            and plain values (a pickle that would run code is refused, not run).
    """
    problem = (
        "not a readable checkpoint: torn, of another format, or holding more than tensors and "
        "plain values"
    )
    with reading(path, "file", problem, "fetch or write it again"):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dict")
    return content
