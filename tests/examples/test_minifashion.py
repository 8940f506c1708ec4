import json
from pathlib import Path

import pytest
import tinyclip
from drawn import minifashion

from fusecomp.datasets import FashionIQ

SIZES = {"train_images": 40, "val_images": 30, "train_triplets": 30, "val_queries": 12}


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


def test_too_few_descriptions_to_learn_from_are_counted(tmp_path: Path) -> None:
    root = minifashion.render(tmp_path / "mini", **{**SIZES, "train_images": 20})
    image, text = tinyclip.TinyImageEncoder(8), tinyclip.TinyTextEncoder(8)
    with pytest.raises(ValueError, match="has 60 descriptions, which make no batch of 128"):
        tinyclip.pretrain(image, text, root, epochs=1)
