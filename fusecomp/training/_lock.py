import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["only_run"]

# The folders that this process holds: a lock of the system is the whole process's.
_held: set[str] = set()
_guard = threading.Lock()


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold a folder for one run, in this process and among all.

    The system's lock ends with the process that took it, however that ends; workers that it has
    forked do not keep it.

    Raises:
        ValueError: if another run holds the folder.
    """
    name = os.path.realpath(folder)
    with _guard:
        if name in _held:
            raise _busy(folder, "this process")
        _held.add(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Nobody else may open this file: closing it once would give the lock away.
        with (folder / "lock").open("a") as file:
            try:
                _lock(file.fileno())
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                    raise _busy(folder, "another process") from None
                # Some network disks know no locks: there the user must see to it.
            yield
    finally:
        with _guard:
            _held.discard(name)


def _lock(file: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _busy(folder: Path, holder: str) -> ValueError:
    return ValueError(
        f"a run in {holder} is training in {folder} at this moment: wait for its end, or give "
        "another workdir"
    )
