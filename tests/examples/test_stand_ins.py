"""Drawn images under the names of a dataset, for a rehearsal without its own."""

import shutil
from pathlib import Path

import pytest
import stand_ins
from PIL import Image

import fusecomp as fc

pytestmark = pytest.mark.heavy  # each draws all images of a dataset


@pytest.mark.parametrize("name", ["fashioniq", "cirr"])
def test_each_name_of_each_split_has_an_image(
    name: str, tiny_fashioniq: Path, tiny_cirr: Path, tmp_path: Path
) -> None:
    annotations = {"fashioniq": tiny_fashioniq, "cirr": tiny_cirr}[name]
    for path in annotations.rglob("*.png"):
        path.unlink()
    root = stand_ins.render(tmp_path / "set", annotations, name)
    reader, splits = stand_ins.READERS[name]
    seen = set()
    for split in splits:
        data = reader(root, split)
        assert len(data) == len(reader(annotations, split))
        for image_id in data.image_ids:
            with Image.open(data.path(image_id)) as image:
                image.load()
                assert (image.format, image.size) == ("PNG", (300, 400))
            seen.add(data.path(image_id).read_bytes())
    assert len(seen) > 20
    # Only the annotations were copied, and nothing was put beside them.
    assert not list(annotations.rglob("*.png"))
    shutil.rmtree(annotations)
    assert stand_ins.render(root, annotations, name) == root


def test_a_folder_with_images_is_left_alone(tiny_fashioniq: Path) -> None:
    before = sorted(tiny_fashioniq.rglob("*"))
    with pytest.raises(FileExistsError, match="does not hold the dataset"):
        stand_ins.render(tiny_fashioniq, tiny_fashioniq, "fashioniq")
    assert sorted(tiny_fashioniq.rglob("*")) == before
    assert fc.datasets.FashionIQ(tiny_fashioniq, "val").image_ids


def test_a_folder_without_annotations_is_named_as_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no file {tmp_path / 'empty'}/image_splits"):
        stand_ins.render(tmp_path / "set", tmp_path / "empty", "fashioniq")
    assert not (tmp_path / "set").exists()
