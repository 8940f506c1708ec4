"""A saved evaluation."""

from pathlib import Path

import pytest
from evaluations import random_evaluation

from fusecomp.datasets import FashionIQ


@pytest.fixture
def saved(tiny_fashioniq: Path, tmp_path: Path) -> Path:
    path = tmp_path / "evaluation.npz"
    random_evaluation(FashionIQ(tiny_fashioniq, "val", ["dress"])).save(path)
    return path
