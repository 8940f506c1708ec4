import errno
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# The folders that this process holds: a lock of the system is the whole process's.
_held: set[str] = set()
_guard = threading.Lock()
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextmanager
def only_run(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold a folder for one run, in this process and among all; ValueError if another holds it.

    The system's lock ends with the process that took it, however that ends; workers that it has
    forked do not keep it. Whoever closes the file in this process, as a copy of the folder does,
    gives it away: the function that is yielded takes it again.
    """
    name = os.path.realpath(folder)
    with _guard:
        if name in _held:
            raise _busy(folder, "this process")
        _held.add(name)
    handle = None
    try:
        handle = _open(folder)

        def take() -> None:
            if handle is not None:
                _lock(folder, handle)

        take()
        yield take
    finally:
        if handle is not None:
            os.close(handle)
        with _guard:
            _held.discard(name)


def _open(folder: Path) -> int | None:
    """Open the file that is locked; None in a folder that nobody can write to."""
    path = folder / "lock"
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            return None
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "this is no regular file; remove it", str(path))


def _lock(folder: Path, handle: int) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            raise _busy(folder, "another process") from None
        # Some network disks know no locks: there the user must see to it.


def _busy(folder: Path, holder: str) -> ValueError:
    return ValueError(
        f"a run in {holder} is training in {folder} at this moment: wait for its end, or give "
        "another workdir"
    )
