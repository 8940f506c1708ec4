import json
from pathlib import Path

import minifashion
import pytest

from fusecomp.data import FashionIQ

SIZES = {"train_images": 40, "val_images": 30, "train_triplets": 30, "val_queries": 12}


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_the_same_seed_draws_the_same_files(tmp_path: Path) -> None:
    one, two, other = (
        minifashion.render(tmp_path / name, seed, **SIZES)
        for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )
    assert contents(one) == contents(two)
    assert contents(one) != contents(other)


def test_it_reads_as_fashioniq(tmp_path: Path) -> None:
    root = minifashion.render(tmp_path / "mini", **SIZES)
    train, val = (FashionIQ(root, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (3 * 30, 3 * 12)
    assert [len(task.gallery) for task in val.tasks()] == [30, 30, 30]
    assert not set(train.image_ids) & set(val.image_ids)
    assert all(data.path(i).is_file() for data in (train, val) for i in data.image_ids)
    assert all(t.reference_id != t.target_id for data in (train, val) for t in data.triplets())
    described = json.loads((root / "descriptions.json").read_text())
    assert set(described) == set(train.image_ids)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        minifashion.render(tmp_path, **SIZES)
    assert contents(tmp_path) == {"letter.txt": b"dear"}
