"""Files that are whole or absent: written beside and renamed, read with errors that help."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import torch

from fusecomp._core.checks import as_path
from fusecomp._core.checksum import checksum, require_checksum

_CHECKSUM = "checksum"


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
    """Turn whatever fails while the content of a file is read into one error that names it.

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


def write_tensors(path: Path, content: Mapping[str, object]) -> None:
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


def _is_ours(content: Mapping[str, object]) -> bool:
    form = content.get("format")
    return isinstance(form, str) and form.startswith("fusecomp.")
