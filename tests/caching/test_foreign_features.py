"""Feature files that are none, and names that only some systems have."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fusecomp.caching import CachedEncoder


def test_a_folder_is_not_called_torn(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="this is a folder, expected a file"):
        CachedEncoder.load(tmp_path)


def test_a_column_of_vectors_is_their_table() -> None:
    rows = np.random.default_rng(0).standard_normal((3, 4)).astype("f4")
    column = np.empty(3, dtype=object)  # a DataFrame's, where each cell holds a vector
    for number, row in enumerate(rows):
        column[number] = row
    column.flags.writeable = False  # as pandas gives it
    cached = CachedEncoder.from_arrays(["a", "b", "c"], column, ["is red"], torch.eye(1))
    assert torch.equal(cached.image.features, torch.from_numpy(rows))
    column = column.copy()
    column[1] = rows[1][:2]
    with pytest.raises(TypeError, match="must be an array of numbers"):
        CachedEncoder.from_arrays(["a", "b", "c"], column, ["is red"], torch.eye(1))


def test_a_header_of_endless_length_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "features"
    with path.open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(100_000_100)  # takes no room on the disk
    with pytest.raises(ValueError, match="its header should be 100000001 bytes long"):
        CachedEncoder.load(path)


def test_names_that_are_not_utf8_come_back(tmp_path: Path) -> None:
    names = ["größer", os.fsdecode(b"caf\xe9.png")]
    path = tmp_path / "features"
    CachedEncoder.from_arrays(names, torch.eye(2), names, torch.eye(2)).save(path)
    read = CachedEncoder.load(path)
    assert list(read.image.rows) == list(read.text.rows) == names
