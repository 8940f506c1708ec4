"""Files that are whole or absent: written elsewhere and renamed, read with errors that help."""

import errno
import hashlib
import math
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusecomp._core.checks import as_path
from fusecomp._core.tensors import raw_bytes
from fusecomp._core.weights import kind_of

_CHECKSUM = "checksum"
_NOTHING = np.empty(0, np.uint8)
_MAX_NAME = 10_000
_PLAIN = (str, int, float, bool, bytes, type(None))


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces ``path`` if the block ends well."""
    path, opened = as_path("path", path), False
    part = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            opened = True
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        if not opened:
            raise _cannot_write(path, error, f"{error.strerror}: {error.filename}") from error
        if error.filename in (None, str(part)):
            reason = f"{error.strerror or error}; the old file is untouched"
            raise _cannot_write(path, error, reason) from error
        raise
    finally:
        if opened:
            part.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: Path, names: Collection[str]) -> Iterator[Path]:
    """Make a temporary folder that replaces ``path`` if the block ends well.

    A folder that holds other files than ``names`` is not replaced. A process that is killed between
    the two renames leaves the old folder and the new one next to ``path``.
    """
    path, new = Path(os.path.realpath(path)), None
    if path.exists() and (not path.is_dir() or {part.name for part in path.iterdir()} - {*names}):
        problem = "a file or a folder of something else has this name; give another"
        raise FileExistsError(errno.EEXIST, f"cannot write {path} ({problem})")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
        new.mkdir()
        yield new
        _rename_over(new, path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else f"{error}"
        raise _cannot_write(path, error, f"{reason}; what was there is untouched") from error
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _rename_over(new: Path, path: Path) -> None:
    old = new.with_suffix(".old")
    try:
        while True:
            try:
                new.rename(path)
                break
            except OSError as error:  # again, where another process has put a folder there
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            shutil.rmtree(old, ignore_errors=True)
            with suppress(FileNotFoundError):
                path.rename(old)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _cannot_write(path: Path, error: OSError, reason: str) -> OSError:
    return type(error)(error.errno, f"cannot write {path} ({reason})")


@contextmanager
def reading(path: Path, kind: str, problem: str, way_out: str) -> Iterator[None]:
    """Turn whatever fails while a file is read into one error that names it.

    ``kind`` may be missing, ``problem`` is what its content may be (torn, ...). OSErrors about the
    file pass; all else becomes a ValueError, as readers of archives have errors of every kind.
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


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, and refuse at once what could keep a reader waiting for ever."""
    try:
        mode = path.stat().st_mode
    except ValueError as error:
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "this is a folder, expected a file", str(path))
    if not stat.S_ISREG(mode):
        problem = "this is a pipe or a device, expected a regular file"
        raise OSError(errno.EINVAL, problem, str(path))
    return path.open("rb")


def is_workdir(path: Path) -> bool:
    """Return whether a training, of one stage or two, keeps its state in this folder."""
    return any((path / stage / "log.jsonl").is_file() for stage in ("", "stage1", "stage2"))


def write_tensors(path: Path, content: Mapping[str, object]) -> None:
    """Write tensors and plain values with ``torch.save``, atomically; with a checksum if ours."""
    content = dict(content)
    if _is_ours(content):
        content[_CHECKSUM] = checksum(content)
    with open_atomic(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's zip writer reports a full disk so
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise OSError(None, f"{error}") from error


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a file of ``torch.save`` without running code in it; verify the checksum of ours."""
    problem = (
        "not a readable checkpoint: torn, of another format, or holding more than tensors and "
        "plain values"
    )
    way_out = "fetch or write it again"
    with reading(path, "file", problem, way_out), open_regular(path) as file:
        content = torch.load(file, map_location="cpu", weights_only=True)
        size = os.fstat(file.fileno()).st_size
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dict")
    if _is_ours(content):
        with reading(path, "file", "changed, damaged or of an older fusecomp", way_out):
            if (known := content.pop(_CHECKSUM, None)) is None:
                raise ValueError("it has no checksum")
            # A file may name one tensor several times, but not without end.
            if checksum(content, 100 * size) != known:
                raise ValueError("its content is not that of its checksum")
    return content


def _is_ours(content: Mapping[str, object]) -> bool:
    form = content.get("format")
    return isinstance(form, str) and form.startswith("fusecomp.")


def checksum(content: object, max_bytes: float = math.inf) -> str:
    """Hash nested dicts, lists, tuples, dense tensors, arrays and plain values; SHA-256 in hex.

    A hostile file may hold one value many times, or itself: ``max_bytes`` and the length of a
    value's name end it.
    """
    digest, size = hashlib.sha256(), 0
    # A list in place of recursion, as files may be nested without end.
    waiting: list[tuple[str, object]] = [("", content)]
    while waiting:
        name, value = waiting.pop()
        if len(name) > _MAX_NAME:
            raise ValueError("it is nested without end")
        body = _NOTHING
        if type(value) in _PLAIN:  # most are
            head = ascii(value)
        elif isinstance(value, Mapping):
            head = f"dict {len(value)}"
            for key, entry in value.items():
                waiting += ((f"{name}/{key}", key), (f"{name}/{key}", entry))
        elif isinstance(value, list | tuple):
            head = f"{'list' if isinstance(value, list) else 'tuple'} {len(value)}"
            waiting += ((f"{name}/{position}", entry) for position, entry in enumerate(value))
        elif isinstance(value, Tensor):
            head, body = f"{value.dtype} {list(value.shape)}", bytes_of(name[1:], value)
        elif isinstance(value, np.ndarray):
            head = f"{value.dtype.str} {list(value.shape)}"
            body = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        else:
            raise TypeError(f"{name[1:]!r} is a {type(value).__name__}, no tensor or plain value")
        digest.update(f"{head}\n".encode())
        if body is not _NOTHING:
            digest.update(body.data)
        size += len(head) + body.nbytes
        if size > max_bytes:
            raise ValueError("it holds more than it has bytes: one value many times")
    return digest.hexdigest()


def bytes_of(name: str, tensor: Tensor) -> NDArray[np.uint8]:
    """Return the bytes of a tensor; ValueError that names it unless it is dense."""
    if (kind := kind_of(tensor)) != "dense":
        raise ValueError(f"{name!r} is {kind}, expected a dense tensor")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise ValueError(f"{name!r} {list(tensor.shape)} repeats its bytes; make it contiguous")
    return raw_bytes(tensor)
