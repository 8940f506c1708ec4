"""Only one run at a time trains in a workdir."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import Processes
from runs import fit
from stopping import Stop, StopAt
from torch import Tensor

import fusecomp as fc
from fusecomp.distributed import get_rank
from fusecomp.training import _workdir
from fusecomp.training._workdir import only_run


class Meanwhile:
    """Does something after the first step."""

    def __init__(self, job: Callable[[], Any]) -> None:
        self.job = job

    def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
        if trainer.steps == 1:
            self.job()


def test_a_second_run_of_this_process_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    refused = []

    def second() -> None:
        with pytest.raises(ValueError, match=f"another run is training in {link}"):
            fit(link)
        refused.append(True)

    callbacks = [Meanwhile(second)]
    fit(tmp_path, callbacks=callbacks)
    assert refused == [True]
    fit(tmp_path, callbacks=callbacks)  # afterwards it is free


def take(folder: Path) -> str:
    """The first process takes the folder; what it is told if it may not."""
    if get_rank() > 0:
        return ""
    try:
        with only_run(folder):
            return "taken"
    except ValueError as error:
        return str(error)


def test_a_run_of_another_process_is_refused(tmp_path: Path, two: Processes) -> None:
    found = []
    fit(tmp_path, callbacks=[Meanwhile(lambda: found.append(two.run(take, tmp_path / "run")[0]))])
    assert "another run is training in" in found[0]
    assert two.run(take, tmp_path / "run")[0] == "taken"


def test_neither_an_error_nor_a_forked_worker_keeps_the_folder(
    tmp_path: Path, two: Processes
) -> None:
    children = []

    def fork() -> None:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:  # a worker that outlives the run
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os.close(reader)
        children.append((child, writer))

    with pytest.raises(Stop):
        fit(tmp_path, loss=StopAt(2), callbacks=[Meanwhile(fork)])
    assert two.run(take, tmp_path / "run")[0] == "taken"
    fit(tmp_path, loss=StopAt(-1))
    for child, writer in children:
        os.close(writer)
        os.waitpid(child, 0)


def test_a_copy_of_the_folder_does_not_give_the_lock_away(tmp_path: Path, two: Processes) -> None:
    found = []

    class Backup:
        """Copies the folder, and so opens and closes the file that is locked."""

        def on_checkpoint(self, trainer: fc.Trainer, path: Path) -> None:
            shutil.copytree(path.parent, tmp_path / "backup", dirs_exist_ok=True)

        def on_step(self, trainer: fc.Trainer, loss: Tensor) -> None:
            if trainer.steps == 2:
                found.append(two.run(take, tmp_path / "run")[0])

    fit(tmp_path, callbacks=[Backup()], save_every_steps=1)
    assert "another run" in found[0]


def test_a_lock_that_is_no_file_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "lock")
    with pytest.raises(OSError, match=r"no regular file.*lock"):
        fit(tmp_path)


def test_a_child_that_was_just_forked_does_not_keep_the_lock(tmp_path: Path) -> None:
    """Until it closes its copy of the handle, which takes it a moment."""
    with only_run(tmp_path):
        copies = [os.dup(handle) for handle in _workdir._LOCKS]
    with only_run(tmp_path):
        pass
    for copy in copies:
        os.close(copy)


def test_the_lock_file_of_another_user_is_honoured(
    tmp_path: Path, two: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_own(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, *mode)

    opened = os.open
    with only_run(tmp_path):
        pass
    monkeypatch.setattr(os, "open", open_own)
    with only_run(tmp_path):
        assert "another run is training in" in two.run(take, tmp_path)[0]
