"""Triplets: a dataset of given triplets, with files in a folder, in a mapping, or without."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fusecomp as fc
from fusecomp.datasets import Triplets, drop_images
from fusecomp.evaluation import Recall
from fusecomp.types import Dataset

ROWS = [
    fc.Triplet("q0", "a", ("is blue",), "b"),
    fc.Triplet("q1", "b", ("is red", "has dots"), "c"),
    fc.Triplet("q2", "a", ("is blue",)),
]
GROUPED = [replace(row, group=("a", "b", "c", "d")) for row in ROWS]


def test_a_list_of_triplets_is_a_dataset() -> None:
    data = Triplets(ROWS)
    assert isinstance(data, Dataset)
    assert data.triplets(epoch=3, seed=4) == ROWS
    assert (len(data), repr(data)) == (3, "Triplets(3 triplets, 3 images)")
    assert data.texts() == ["is blue", "is red", "has dots"]
    assert data.image_ids == data.triplet_image_ids == ("a", "b", "c")
    assert data.protocol == {"dataset": "Triplets", "reference": "excluded"}
    (task,) = data.tasks()
    assert (task.name, task.queries, task.gallery) == ("", tuple(ROWS), ("a", "b", "c"))
    assert (task.exclude, task.subsets) == ((("a",), ("b",), ("a",)), None)
    assert [metric.name for metric in task.metrics] == [f"recall@{k}" for k in (1, 5, 10, 50)]


def test_the_options_reach_task_and_protocol() -> None:
    data = Triplets(ROWS, ks=[3, 1], gallery=["x", "c"], exclude_reference=False, name="mine")
    (task,) = data.tasks()
    assert (task.exclude, data.ks) == (None, (3, 1))
    assert task.metrics == (Recall(3), Recall(1))
    assert data.image_ids == task.gallery == ("x", "c", "a", "b")
    assert data.triplet_image_ids == ("a", "b", "c")
    assert data.protocol == {"dataset": "mine", "reference": "kept"}
    assert repr(data) == "mine(3 triplets, 4 images)"


def test_the_members_of_a_group_are_ranked_without_the_reference() -> None:
    (task,) = Triplets(GROUPED).tasks()
    assert task.gallery == ("a", "b", "c", "d")
    assert task.subsets == (("b", "c", "d"), ("a", "c", "d"), ("b", "c", "d"))


def test_files_of_a_folder_are_found_with_and_without_suffix(folder: Path) -> None:
    data = Triplets(ROWS, folder, gallery=["d.gif"])
    names = [data.path(image_id).name for image_id in data.image_ids]
    assert names == ["d.gif", "a.jpg", "b.png", "c.webp"]
    assert Triplets(ROWS, str(folder)).path("a") == folder / "a.jpg"


def test_files_of_a_mapping_may_lie_anywhere(tmp_path: Path) -> None:
    files: dict[str, str | Path] = {"a": "x/1.jpg", "b": tmp_path, "c": "2", "unused": "3"}
    data = Triplets(ROWS, files)
    paths = [data.path(image_id) for image_id in data.image_ids]
    assert paths == [Path("x/1.jpg"), tmp_path, Path("2")]
    assert pickle.loads(pickle.dumps(data)).path("a") == Path("x/1.jpg")


def test_without_images_only_a_path_is_missing(folder: Path) -> None:
    data = Triplets(ROWS)
    with pytest.raises(FileNotFoundError, match=r"of image 'a': .* pass images=, a folder"):
        data.path("a")
    for dataset in (data, Triplets(ROWS, folder)):
        with pytest.raises(ValueError, match="unknown image 'd': not in the gallery of Triplets"):
            dataset.path("d")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"triplets": []}, "triplets must hold one triplet at least, got none"),
        ({"triplets": None}, "triplets must be a list of triplets, got the NoneType None"),
        ({"triplets": iter(ROWS)}, "triplets must be a list of triplets, got the list_iterator"),
        ({"triplets": [*ROWS, "q3"]}, "triplets must be a list of triplets, got 'q3' in it"),
        ({"triplets": [*ROWS, ROWS[0]]}, "two triplets have the query_id 'q0'"),
        ({"triplets": [*GROUPED[:2], ROWS[2]]}, "query 'q2' has no group, though others have one"),
        ({"images": {"a": "1", "c": "2"}}, "query 'q0': images has no file of 'b'; 1 of the 3 im"),
        ({"images": {}, "gallery": ["x"]}, "gallery: images has no file of 'x'; 4 of the 4"),
        ({"ks": (5, 5)}, "ks must be whole numbers above 0"),
        ({"gallery": "abc"}, "gallery must be a list of strings, got the string 'abc'"),
        ({"gallery": ["a", 3]}, "gallery must be a list of strings, got list of int"),
        ({"exclude_reference": "no"}, "exclude_reference must be True or False, got 'no'"),
    ],
)
def test_what_makes_no_dataset_is_named(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Triplets(**{"triplets": ROWS, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"images": 5}, "images must be a path, got 5"),
        ({"images": dict.fromkeys("abc")}, r"images\['a'\] must be a path, got None"),
        ({"name": None}, "name must be a string, got None"),
    ],
)
def test_what_is_of_another_kind_is_named(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(TypeError, match=error):
        Triplets(ROWS, **arguments)


def test_ids_without_one_file_in_the_folder_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        Triplets(ROWS, tmp_path / "nowhere")
    stray = [*ROWS, fc.Triplet("q3", "e", ("x",), "a")]
    with pytest.raises(FileNotFoundError, match=r"query 'q3': no image 'e' in .*; 1 of the 4"):
        Triplets(stray, folder)
    twice = [*ROWS, fc.Triplet("q3", "a.jpg", ("x",), "b")]
    with pytest.raises(ValueError, match=r"query 'q3': 'a.jpg': the same image as a; write it in"):
        Triplets(twice, folder)
    (folder / "a.png").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"query 'q0': 'a': may be a.jpg or a.png; write the suff"):
        Triplets(ROWS, folder)


def test_it_is_trained_evaluated_and_reduced() -> None:
    ids = [f"i{number}" for number in range(6)]
    rows = [
        fc.Triplet(i, i, (f"text {i}",), j) for i, j in zip(ids, [*ids[1:], ids[0]], strict=True)
    ]
    data = Triplets(rows, ks=(1, 2))
    torch.manual_seed(0)
    features = torch.randn(6, 8), data.texts(), torch.randn(6, 8)
    cached = fc.CachedEncoder.from_arrays(data.image_ids, *features)
    model = fc.ComposedEncoder(cached, fc.Combiner(dim=8, dropout=0.0))
    config = fc.StageConfig(epochs=30, batch_size=6, lr=1e-2)
    run = fc.Trainer(model, loss=fc.InfoNCE(), config=config).fit(data)
    metrics = fc.evaluate(run.model, data)
    assert metrics["recall@1"] == 100
    assert metrics.protocol == data.protocol
    assert len(drop_images(data, ["i0"])) == 4
