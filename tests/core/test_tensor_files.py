"""Files of tensors: whole or absent, checked by a checksum, and never run."""

import os
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_disk import a_disk_of
from torch import nn

from fusecomp._core.files import checksum, read_tensors, write_tensors


class Hostile:
    """Unpickling it would create the file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


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
