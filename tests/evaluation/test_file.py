"""An evaluation in a file: the same after reading, and errors that name the file."""

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import assert_equal, random_evaluation, random_model, rewrite

import fusecomp as fc
from fusecomp.datasets import CIRR, FashionIQ, drop_images
from fusecomp.evaluation import TaskRanking, compute_metrics
from fusecomp.types import Dataset, Task


def test_what_is_read_is_what_was_written(
    tiny_fashioniq: Path, tiny_cirr: Path, tmp_path: Path
) -> None:
    plain = FashionIQ(tiny_fashioniq, "val")
    datasets: list[Dataset] = [
        plain,
        FashionIQ(tiny_fashioniq, "val", captions="averaged", exclude_reference=True),
        drop_images(plain, ["Dval03", "Sval11"]),
        CIRR(tiny_cirr, "val"),
    ]
    for data in datasets:
        evaluation = random_evaluation(data)
        path = tmp_path / "run" / "evaluation.npz"
        evaluation.save(path)
        assert_equal(evaluation, fc.Evaluation.load(path))


def test_double_precision_stays(tiny_cirr: Path, tmp_path: Path) -> None:
    data = CIRR(tiny_cirr, "val")
    model = random_model(data).double()
    evaluation = fc.evaluate(model, data)
    assert evaluation.ranking[""].scores.dtype == torch.float64
    evaluation.save(tmp_path / "evaluation.npz")
    assert_equal(evaluation, fc.Evaluation.load(tmp_path / "evaluation.npz"))


def test_names_that_are_not_utf8_come_back(tmp_path: Path) -> None:
    strange = os.fsdecode(b"caf\xe9.png")
    gallery, queries = ("größer", strange), [fc.Triplet("q", strange, ("is big",), "größer")]
    found = TaskRanking(
        Task("", queries, gallery), torch.tensor([[0]]), torch.ones(1, 1), torch.tensor([1])
    )
    evaluation = compute_metrics(fc.Ranking([found], {}))
    evaluation.save(tmp_path / "evaluation.npz")
    assert_equal(evaluation, fc.Evaluation.load(tmp_path / "evaluation.npz"))


def test_equal_evaluations_make_equal_files(tiny_cirr: Path, tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        random_evaluation(CIRR(tiny_cirr, "val")).save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_ranking_without_targets_has_no_score(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "test", ["dress"])
    with pytest.raises(ValueError, match="task 'dress' has no targets"):
        compute_metrics(fc.rank(random_model(data), data))


def test_no_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no evaluation {path}"):
            fc.Evaluation.load(path)


def test_every_torn_file_is_named(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 50)):
        saved.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"evaluation\.npz is torn or no evaluation"):
            fc.Evaluation.load(saved)


def test_flipped_bytes_are_found_or_harmless(saved: Path) -> None:
    whole = fc.Evaluation.load(saved)
    content = saved.read_bytes()
    found = 0
    for place in range(0, len(content), 37):
        changed = bytearray(content)
        changed[place] ^= 255
        saved.write_bytes(changed)
        try:
            read = fc.Evaluation.load(saved)
        except ValueError as error:
            found += "is torn or no evaluation" in str(error)
        else:  # dates and flags that nobody reads
            assert_equal(read, whole)
    assert found > 0.7 * len(content) / 37


def array_header(text: str) -> bytes:
    """An array file that says this of its content."""
    line = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<i4', 'fortran_order': False, 'shape': (",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (1000000000000000,)}",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (-2,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (8,)}",
    ],
)
def test_an_array_with_a_hostile_header_is_named(saved: Path, header: str) -> None:
    with zipfile.ZipFile(saved) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(saved, "w") as file:
        for name, part in (parts | {"0/ranks.npy": array_header(header)}).items():
            file.writestr(name, part)
    with pytest.raises(ValueError, match=r"evaluation\.npz is torn or no evaluation"):
        fc.Evaluation.load(saved)


def test_a_file_that_may_not_be_read_is_not_called_torn(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, "not allowed", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match="not allowed"):
        fc.Evaluation.load(saved)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x04N.", b"PK\x05\x06" + bytes(18)])
def test_foreign_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"foreign\.npz is torn or no evaluation"):
        fc.Evaluation.load(path)


@pytest.mark.parametrize(
    "name", ["checksum", "about", "0/indices", "0/scores", "0/ranks", "0/more"]
)
def test_a_part_that_was_changed_or_added_or_is_gone_is_noticed(saved: Path, name: str) -> None:
    with np.load(saved) as arrays:
        content = dict(arrays)
    about = content["about"].tobytes().replace(b"Dval01", b"Dval0x")
    changed = {
        "checksum": np.array("0" * 64),
        "about": np.frombuffer(about, np.uint8),
        "0/indices": content["0/indices"][:, ::-1],
        "0/scores": content["0/scores"] / 2,
        "0/ranks": content["0/ranks"] + 1,
        "0/more": np.zeros(2),
    }
    np.savez(saved, **content | {name: changed[name]})
    with pytest.raises(ValueError, match=r"npz is torn .*its content is not that of its checksum"):
        fc.Evaluation.load(saved)
    content.pop(name, None)
    np.savez(saved, **content)
    if name != "0/more":
        with pytest.raises(ValueError, match=r"evaluation\.npz is torn or no evaluation"):
            fc.Evaluation.load(saved)


def test_an_archive_that_would_fill_the_memory_is_not_unpacked(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr(
            "bomb.npy",
            array_header("{'descr': '|u1', 'fortran_order': False, 'shape': (30000000,)}")
            + bytes(30_000_000),
        )
    with pytest.raises(ValueError, match=r"it would fill 30,\d*,\d* bytes of memory"):
        fc.Evaluation.load(saved)


class Hostile:
    """Unpickling it would create the file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


def test_nothing_is_unpickled(saved: Path, tmp_path: Path) -> None:
    array = np.array([Hostile(tmp_path / "victim")], dtype=object)
    rewrite(saved, lambda _, arrays: arrays.update({"0/ranks": array}))
    with pytest.raises(ValueError, match="torn or no evaluation"):
        fc.Evaluation.load(saved)
    assert not (tmp_path / "victim").exists()
    with zipfile.ZipFile(saved) as file:
        assert "0/ranks.npy" in file.namelist()
