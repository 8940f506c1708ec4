"""Feature files that are none, and names that only some systems have."""

from pathlib import Path

import pytest

from fusecomp.encoders import CachedEncoder


def test_a_folder_is_not_called_torn(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        CachedEncoder.load(tmp_path)


def test_a_header_of_endless_length_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "features"
    with path.open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(100_000_100)  # takes no room on the disk
    with pytest.raises(ValueError, match="its header should be 100000001 bytes long"):
        CachedEncoder.load(path)
