"""Feature files that are none, and names that only some systems have."""

import os
from pathlib import Path

import pytest
import torch

from fusecomp.caching import CachedEncoder


def test_a_folder_is_not_called_torn(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="this is a folder, expected a file"):
        CachedEncoder.load(tmp_path)


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
