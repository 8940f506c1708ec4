import errno
import hashlib
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusecomp._core.files import open_atomic, read_tensors, remove, write_tensors
from fusecomp._core.identity import differences
from fusecomp._core.strict_json import read_json, write_json
from fusecomp._core.weights import kind_of
from fusecomp.distributed import barrier, first_alone, gather_objects
from fusecomp.images import ABSENT
from fusecomp.training._checkpoint_checks import check_like, checked

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FORMAT = "fusecomp.training/4"
# The way out where it is no setting that differs.
_WAY_BACK = {
    "config.epochs": "Only a constant schedule can go on for more epochs; keep the number",
    "frozen weights": "Load the same ones, or call torch.manual_seed before making them as then",
}
_FILES = ("train.files", "validation.files")
_SHOWN = 3
# The locks that this process holds: a forked child must let go of its copies.
_LOCKS: set[int] = set()
_NOT_WRITABLE = (errno.EACCES, errno.EROFS, errno.EPERM)
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)

# The content of a checkpoint by name, as it is in the file.
Saved = dict[str, Any]
# By "model" and "loss": weights by name.
Weights = Mapping[str, Mapping[str, Tensor]]


class Workdir:
    """The files of one stage: ``config.json``, ``last.pt``, ``best/*.pt`` and ``log.jsonl``.

    Half-written files have another name, and a later run removes them. Of many processes the first
    writes, the others wait. ``identity`` must be equal for a run to go on here.
    """

    def __init__(self, path: Path, identity: Mapping[str, object]) -> None:
        self.path = path
        self.last = path / "last.pt"
        # The best weights that ``last.pt`` needs.
        self.needed: set[str] = set()
        self._identity = dict(identity)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other run out of the folder inside; ValueError if one is in it."""
        with ExitStack() as stack:
            with first_alone() as first:
                if first:
                    stack.enter_context(only_run(self.path))
            yield

    def load_last(self) -> Saved | None:
        """Read the state to go on from; None in a new folder. ValueError if it is another run's."""
        found = gather_objects(self.last.exists())
        if any(found) and not all(found):
            blind = [rank for rank, seen in enumerate(found) if not seen]
            raise ValueError(
                f"processes {blind} do not see {self.last}, the others do: give a workdir on a "
                "disk that all share"
            )
        with first_alone() as first:
            if first:
                # What a kill has left half written.
                for folder in (self.path, self.path / "best"):
                    for path in folder.glob(".*.partial"):
                        if not path.with_suffix(".old").exists():  # a folder that it replaces
                            remove(path)
        if not found[0]:
            return None
        saved = _read(self.last)
        # The first process may soon write the next one.
        barrier()
        if not isinstance(saved.get("identity"), dict) or not isinstance(saved.get("epoch"), int):
            raise ValueError(f"{self.last} does not say which run it is of; give another workdir")
        self._require_same_run(dict(saved["identity"]), saved["epoch"])
        return saved

    def _require_same_run(self, old: Saved, epoch: int) -> None:
        new: Saved = dict(self._identity)
        for name in _FILES:
            sizes = old.pop(name, None), new.pop(name, None)
            old[name], new[name] = _changed_size(name, *sizes)
        if new["config.lr_schedule"] == "constant" and epoch <= new["config.epochs"]:
            # Whatever is still to come, the steps so far are the same.
            del old["config.epochs"], new["config.epochs"]
        found = list(differences(old, new))
        if not found:
            return
        more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
        ways = (way for name, way in _WAY_BACK.items() if any(d.startswith(name) for d in found))
        raise ValueError(
            f"{self.path} belongs to another run: {'; '.join(found[:_SHOWN])}{more}. "
            f"{next(ways, 'Go on with the old settings')}, or give another workdir"
        )

    def load_best(self, name: str, like: Weights) -> Weights:
        """Read ``best/NAME``; ValueError if it is another run's, or unlike the weights given."""
        path = self.path / "best" / name
        saved = _read(path)
        if (saved.get("run"), saved.get("name")) != (self._run, name):
            raise ValueError(
                f"{path} holds the weights of another run or epoch; give another workdir"
            )
        with checked(path):
            check_like("weights", saved.get("weights"), like)
        weights: Weights = saved["weights"]
        return weights

    @property
    def _run(self) -> str:
        """Name of the run, whatever its number of epochs and the files of its images."""
        free = ("config.epochs", *_FILES)
        fixed = {name: value for name, value in self._identity.items() if name not in free}
        return hashlib.sha256(repr(sorted(fixed.items())).encode()).hexdigest()

    def save_config(self, config: Mapping[str, object]) -> None:
        """Write the settings for people, if they differ; resuming looks at ``last.pt``."""
        path = self.path / "config.json"
        with first_alone() as first:
            if first and not (path.exists() and read_json(path) == dict(config)):
                write_json(path, config)

    def save_best(self, name: str, weights: Weights) -> None:
        content = {"format": _FORMAT, "run": self._run, "name": name, "weights": weights}
        with first_alone() as first:
            if first:
                write_tensors(self.path / "best" / name, content)

    def save_last(self, state: Saved, best: set[str]) -> None:
        """Write the log and ``last.pt``; then remove all best weights but these."""
        content = {"format": _FORMAT, "identity": self._identity, **state}
        lines = [f"{json.dumps(record)}\n".encode() for record in state["history"]]
        with first_alone() as first:
            if first:
                # Before the checkpoint: a run that has its last one does not write again.
                with open_atomic(self.path / "log.jsonl") as log:
                    log.writelines(lines)
                write_tensors(self.last, content)
        self.needed = best
        self.remove_best_but(best)

    def remove_best_but(self, best: set[str]) -> None:
        """Remove all best weights but these, and those that are needed to resume."""
        with first_alone() as first:
            if first:
                for path in (self.path / "best").glob("*.pt"):
                    # What else lies there is the user's.
                    ours = re.fullmatch(r"[\w-]+-epoch-\d+\.pt", path.name)
                    if ours and path.name not in best | self.needed:
                        path.unlink(missing_ok=True)


def _changed_size(name: str, old: object, new: object) -> tuple[object, object]:
    """Return the first size of an image file that differs; missing files count as unchanged."""
    if not isinstance(old, Tensor) or not isinstance(new, Tensor) or _form(old) != _form(new):
        return _form(old), _form(new)
    absent = (old == ABSENT) | (new == ABSENT)
    if (absent & (old != new)).any():
        warnings.warn(
            f"{name}: some images are not there now, or were not before; they count as unchanged",
            stacklevel=2,
        )
    for row in torch.nonzero((old != new) & ~absent)[:1].flatten().tolist():
        return f"{int(old[row])} bytes for image number {row}", f"{int(new[row])} bytes"
    return None, None


def _form(sizes: Any) -> str:
    kind = kind_of(sizes)
    return f"{sizes.dtype} {list(sizes.shape)}" if kind == "dense" else kind


def _read(path: Path) -> Saved:
    saved = read_tensors(path)
    if saved.get("format") != _FORMAT:
        raise ValueError(f"{path} is no training checkpoint of this version")
    return saved


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold a folder for one run; ValueError if another holds it.

    The system's lock ends with the process that took it, however that ends.
    """
    handle = _open_lock(folder)
    if handle is None:
        yield
        return
    _LOCKS.add(handle)
    try:
        _lock(folder, handle)
        yield
    finally:
        if handle in _LOCKS:
            _LOCKS.remove(handle)
            if sys.platform != "win32":
                with suppress(OSError):  # of a disk that knows no locks
                    # A child just forked may still have a copy of the handle.
                    fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


def _open_lock(folder: Path) -> int | None:
    """Open the file that is locked; None in a folder that nobody can write to."""
    path = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "this is no regular file; remove it", str(path))
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        with suppress(OSError):  # the lock file of another user can be locked all the same
            return os.open(path, os.O_RDONLY)
        return None


def _lock(folder: Path, handle: int) -> None:
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            raise ValueError(
                f"another run is training in {folder} at this moment: wait for its end, or give "
                "another workdir"
            ) from None
        # Some network disks know no locks: there the user must see to it.


def _let_go() -> None:
    while _LOCKS:
        os.close(_LOCKS.pop())


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)
