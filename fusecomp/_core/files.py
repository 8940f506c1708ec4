"""Files that are whole or absent: written beside and renamed, read with errors that help."""

import errno
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import torch

from fusecomp._core.checks import as_path
from fusecomp._core.checksum import checksum, require_checksum

__all__ = [
    "open_atomic",
    "open_regular",
    "parse_json",
    "read_json",
    "read_list",
    "read_tensors",
    "reading",
    "replace_folder",
    "write_json",
    "write_tensors",
]

_CHECKSUM = "checksum"
# The text of a string, a bracket, or a number, true, false or null.
_TOKEN = re.compile(
    r'(?P<string>"[^"\\]*(?:\\.[^"\\]*)*")(?P<colon>\s*:)?|[\[{]|[\]}]|(?P<word>[^\s\[\]{}:,"]+)'
)
# Deeper than any file of ours; said of files that are too deep for Python's decoder.
_DEEP = 500


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its place when the block ends well.

    On any error, Ctrl-C and a full disk included, what stood at ``path`` stays untouched.

    Raises:
        ValueError: if no file can have this name.
        OSError: if writing fails; the message names ``path``. What the block raises about another
            file passes as it is.
    """
    path, name = as_path("path", path), None
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


@contextmanager
def replace_folder(path: Path, names: Collection[str]) -> Iterator[Path]:
    """Make a temporary folder next to ``path`` that takes its place when the block ends well.

    On any error, Ctrl-C and a full disk included, the folder that was at ``path`` stays. A process
    that is killed between the two renames leaves the old folder and the new one next to ``path``.

    Args:
        path: where the folder belongs.
        names: the files of such a folder; one that holds others is not replaced.

    Raises:
        OSError: if writing fails, or if ``path`` is a file or a folder of something else.
    """
    path, new = Path(os.path.realpath(path)), None
    if path.exists() and (not path.is_dir() or {part.name for part in path.iterdir()} - {*names}):
        problem = "a file or a folder of something else has this name; give another"
        raise FileExistsError(errno.EEXIST, f"cannot write {path} ({problem})")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        yield new
        new.chmod(0o777 & ~_umask())
        _rename_over(new, path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else f"{error}"
        raise _cannot_write(path, error, f"{reason}; what was there is untouched") from error
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


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
        # Names of files that are not UTF-8 get JSON's own escapes.
        file.write(text.encode(errors="backslashreplace"))


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, and refuse at once what could keep a reader waiting for ever.

    Raises:
        OSError: naming ``path``, if it cannot be opened, is a folder, a pipe, a socket or a
            device, or no file can have such a name.
    """
    # Opening a pipe would otherwise wait for somebody who writes into it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except ValueError as error:
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "this is a folder, expected a file", str(path))
    problem = "this is a pipe or a device, expected a regular file"
    raise OSError(errno.EINVAL, problem, str(path))


def read_json(path: Path) -> Any:
    """Read a JSON file; a byte order mark is read over.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it is no regular file, or cannot be opened.
        ValueError: as ``parse_json``, naming the file.
    """
    with (
        reading(path, "file", "not readable", "fetch or write it again"),
        open_regular(path) as file,
    ):
        content = file.read()
    return parse_json(content, path)


def parse_json(text: str | bytes, where: object, line: int = 1) -> Any:
    """Read JSON as strictly as its standard; Python alone takes NaN and lets the last key win.

    Args:
        text: bytes are UTF-8; a byte order mark is read over.
        where: the file, or what else errors shall name.
        line: the number of the first line of ``text`` in that file.

    Raises:
        ValueError: naming ``where``, the line and the field, if a key stands twice, a number is
            NaN or beyond 1.8e308, brackets are nested without end, or it is no JSON at all.
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        text = text.removeprefix("\ufeff")
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except UnicodeDecodeError as error:
        line += error.object.count(b"\n", 0, error.start)
        problem = f"not UTF-8: {error.reason}"
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        problem = f"{error.msg}, column {error.colno}"
    except (ValueError, RecursionError):
        place, problem = _locate(str(text))
        line += str(text).count("\n", 0, place)
    raise ValueError(f"{where}, line {line}: not valid JSON ({problem}); correct it there")


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key stands twice")
    return fields


def _whole(digits: str) -> int:
    _finite(digits)
    return int(digits)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return value


def _locate(text: str) -> tuple[int, str]:
    """The place of what JSON does not have, and a sentence; until there the text is well formed."""
    # Of each open bracket, the keys so far; a list has none.
    levels: list[dict[str, None]] = []
    for token in _TOKEN.finditer(text):
        field = next((next(reversed(keys)) for keys in reversed(levels) if keys), None)
        inside = "" if field is None else f" in the field {field!r}"
        if token["colon"]:
            key = json.loads(token["string"])
            if key in levels[-1]:
                return token.start(), f"the field {key!r} stands twice"
            levels[-1][key] = None
        elif token["word"] and token["word"] not in ("true", "false", "null"):
            if not math.isfinite(float(token["word"])):
                number = token["word"]
                number = number if len(number) <= 20 else f"{number[:20]}..."
                return token.start(), f"{number} is no finite number{inside}"
        elif token[0] in "[{":
            levels.append({})
            if len(levels) > _DEEP:
                return token.start(), f"brackets are nested more than {_DEEP} deep{inside}"
        elif token[0] in "]}":
            levels.pop()
    return 0, "brackets are nested too deep"


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
    """Write tensors and plain values with ``torch.save``, atomically.

    A checksum of it all is added where the content has a format of ours.

    Raises:
        OSError: if writing fails.
        TypeError: naming an entry that is neither a tensor nor plain.
        ValueError: naming a tensor that is not dense.
    """
    content = dict(content)
    if _is_ours(content):
        content[_CHECKSUM] = checksum(content)
    with open_atomic(path) as file:
        _as_os_error(lambda: torch.save(content, file))


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

    A file of a format of ours must have its checksum, which is verified and left out.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it is no regular file, or cannot be opened.
        ValueError: if it is torn, no such file, holds no dict, or holds anything but tensors
            and plain values (a pickle that would run code is refused, not run); if the checksum
            is missing, or another one.
    """
    problem = (
        "not a readable checkpoint: torn, of another format, or holding more than tensors and "
        "plain values"
    )
    with reading(path, "file", problem, "fetch or write it again"), open_regular(path) as file:
        content = torch.load(file, map_location="cpu", weights_only=True)
        size = os.fstat(file.fileno()).st_size
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dict")
    if _is_ours(content):
        problem = "changed, damaged or of an older fusecomp"
        with reading(path, "file", problem, "fetch or write it again"):
            require_checksum(content, content.pop(_CHECKSUM, None), size)
    return content


def _is_ours(content: Mapping[str, Any]) -> bool:
    form = content.get("format")
    return isinstance(form, str) and form.startswith("fusecomp.")
