"""Tables of triplets and the images that they name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tables import NAMES, put


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of six files that are no images, as none may be opened."""
    folder = tmp_path / "images"
    put(folder, *NAMES)
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a table: lines of CSV, or objects as JSONL."""

    def write(*lines: Any) -> Path:
        as_csv = isinstance(lines[0], str)
        path = tmp_path / ("mine.csv" if as_csv else "mine.jsonl")
        text = "\n".join(line if as_csv else json.dumps(line) for line in lines)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    return write
