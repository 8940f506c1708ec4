"""Numbers of an evaluation's file: how wide they are, and those that were written compressed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import assert_equal, random_evaluation

import fusecomp as fc
from fusecomp._core.files import checksum
from fusecomp.datasets import CIRR
from fusecomp.evaluation import TaskRanking, compute_metrics
from fusecomp.types import Task


def test_a_compressed_file_with_wider_numbers_is_read_too(tiny_cirr: Path, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.npz"
    evaluation = random_evaluation(CIRR(tiny_cirr, "val"))
    evaluation.save(path)
    with np.load(path) as arrays:
        content = dict(arrays)
    assert content["0/indices"].dtype == np.int16
    narrow = [name for name, array in content.items() if array.dtype == np.int16]
    content |= {name: content[name].astype(np.int32) for name in narrow}
    del content["checksum"]
    known = checksum(dict(sorted(content.items())))
    np.savez_compressed(path, checksum=np.array(known), **content)
    assert_equal(evaluation, fc.Evaluation.load(path))


@pytest.mark.parametrize("name", ["indices", "scores", "subset_indices", "exclude"])
def test_arrays_without_columns_are_named(tiny_cirr: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "evaluation.npz"
    random_evaluation(CIRR(tiny_cirr, "val")).save(path)
    with np.load(path) as arrays:
        content = dict(arrays)
    content[f"0/{name}"] = content[f"0/{name}"][:, :0]
    del content["checksum"]
    np.savez(path, checksum=np.array(checksum(dict(sorted(content.items())))), **content)
    rows = len(content["0/ranks"])
    with pytest.raises(
        ValueError, match=rf"{name} of task '' are \[{rows}, 0\] for {rows} queries"
    ):
        fc.Evaluation.load(path)


@pytest.mark.parametrize("size", [2**15, 2**15 + 1])
def test_positions_in_a_large_gallery_come_back(tmp_path: Path, size: int) -> None:
    gallery = [str(number) for number in range(size)]
    queries = [fc.Triplet("q", "0", ("is big",), gallery[-1])]
    found = TaskRanking(
        Task("", queries, gallery),
        torch.tensor([[size - 1, 7]]),
        torch.tensor([[1.0, 0.5]]),
        torch.tensor([1]),
    )
    evaluation = compute_metrics(fc.Ranking([found], {}))
    evaluation.save(tmp_path / "evaluation.npz")
    assert_equal(evaluation, fc.Evaluation.load(tmp_path / "evaluation.npz"))
