import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from drawn import minicirr
from drawn.common import SIDE
from drawn.minicirr_images import draw_scene
from drawn.minicirr_scenes import GROUNDS, KINDS, Scene, Toy

from fusecomp.datasets import CIRR

SIZES = {"train_groups": 4, "val_groups": 3, "test_groups": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return minicirr.render(tmp_path_factory.mktemp("drawn") / "mini", **SIZES)


def test_it_reads_as_cirr(root: Path) -> None:
    train, val, test1 = (CIRR(root, split) for split in ("train", "val", "test1"))
    assert [len(data) for data in (train, val, test1)] == [4 * 9, 3 * 9, 2 * 9]
    assert [len(data.image_ids) for data in (train, val, test1)] == [4 * 6, 3 * 6, 2 * 6]
    ids = [i for data in (train, val, test1) for i in data.image_ids]
    assert len(set(ids)) == len(ids)
    assert all(data.path(i).is_file() for data in (train, val, test1) for i in data.image_ids)
    assert all(t.target_id is None for t in test1.triplets())
    described = json.loads((root / "descriptions.json").read_text())
    assert set(described) == set(train.image_ids)


def test_the_entries_are_those_of_rc2(root: Path) -> None:
    for split in ("val", "test1"):
        entries = json.loads((root / f"cirr/captions/cap.rc2.{split}.json").read_text())
        fields = ["pairid", "reference", "target_hard", "target_soft", "caption", "img_set"]
        ranks = ["id", "members", "reference_rank", "target_rank"]
        if split == "test1":
            fields, ranks = [f for f in fields if "target" not in f], ranks[:-1]
        assert all(list(entry) == fields for entry in entries)
        assert all(list(entry["img_set"]) == ranks for entry in entries)
        assert len({entry["pairid"] for entry in entries}) == len(entries)
        # One image of each group is the reference of four captions, as in CIRR.
        counts = Counter(Counter(entry["reference"] for entry in entries).values())
        assert counts[4] * 5 == counts[1]


@pytest.mark.parametrize("ground", GROUNDS)
def test_a_toy_is_seen_at_its_place_and_nowhere_else(ground: str) -> None:
    empty = Scene(ground, ())
    for number, kind in enumerate(KINDS):
        toy = Toy(kind, "orange", "plain", "big", number % 3, number // 3)
        images = [
            np.asarray(draw_scene(np.random.default_rng(number), scene), dtype=float)
            for scene in (empty, empty._replace(toys=(toy,)))
        ]
        rows, columns = np.nonzero(np.abs(images[0] - images[1]).sum(2) > 30)
        assert len(rows) > 60
        for pixels, place in ((rows, toy.row), (columns, toy.column)):
            middle = SIDE / 2 + (place - 1) * 0.3 * SIDE
            assert abs(pixels.mean() - middle) < 6
            assert np.abs(pixels - middle).max() < 18
