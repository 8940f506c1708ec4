"""CIRR: the published counts and protocol, both layouts, and files that are not as they should."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusecomp._core.metrics import recalls
from fusecomp.datasets import CIRR

Shared = Callable[[str], Path]

CAPTIONS, SPLIT = "captions/cap.rc2.val.json", "image_splits/split.rc2.val.json"
COUNTS = {"val": (4_181, 2_297), "test1": (4_148, 2_315)}


def read(root: Path, name: str = CAPTIONS) -> Any:
    return json.loads((root / "cirr" / name).read_text())


def write(root: Path, content: Any, name: str = CAPTIONS) -> None:
    (root / "cirr" / name).write_text(json.dumps(content))


# The published annotations


@pytest.mark.parametrize("split", COUNTS)
def test_the_counts_and_the_protocol_are_the_published_ones(shared: Shared, split: str) -> None:
    root = shared("datasets/cirr")
    data = CIRR(root, split)
    rows = read(root, f"captions/cap.rc2.{split}.json")
    (task,) = data.tasks()
    assert (len(data), len(task.gallery)) == COUNTS[split]
    assert list(task.gallery) == list(read(root, f"image_splits/split.rc2.{split}.json"))
    assert task.metrics == recalls((1, 5, 10, 50), subsets=True)
    assert task.exclude is not None
    assert task.subsets is not None
    for row, query, exclude, subset in zip(
        rows, task.queries, task.exclude, task.subsets, strict=True
    ):
        assert query.query_id == str(row["pairid"])
        assert query.texts == (row["caption"],)
        assert query.target_id == row.get("target_hard")
        assert tuple(exclude) == (query.reference_id,) == (row["reference"],)
        assert list(query.group or ()) == row["img_set"]["members"]
        assert {*subset, row["reference"]} == set(row["img_set"]["members"])
        assert len(subset) == 5


def test_both_published_layouts_are_the_same_data(shared: Shared) -> None:
    root = shared("datasets/cirr")
    one, other = CIRR(root, "val"), CIRR(root / "cirr", "val")
    assert one.triplets() == other.triplets()
    assert one.image_ids == other.image_ids


# A small folder of the same form


@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("val", "dev")])
def test_a_pair_becomes_a_triplet(tiny_cirr: Path, split: str, prefix: str) -> None:
    data = CIRR(tiny_cirr, split)
    query = data.triplets()[3]
    members = tuple(
        f"{prefix}-1-{n}" for n in ("0-img0", "1-img0", "2-img0", "3-img0", "0-img1", "1-img1")
    )
    assert query.query_id == {"train": "21", "val": "1021"}[split]
    assert query.texts == ("Has 1 dogs, 1 cats.",)
    assert (query.reference_id, query.target_id, query.group) == (members[1], members[4], members)
    (task,) = data.tasks()
    assert task.subsets is not None
    assert task.subsets[3] == (members[0], *members[2:])
    assert data.triplets(epoch=3, seed=9) == data.triplets()
    assert data.texts() == [text for triplet in data.triplets() for text in triplet.texts]
    assert (len(data), len(data.image_ids)) == (20, 60)


def test_every_image_is_found_where_the_split_file_says(tiny_cirr: Path) -> None:
    for split in ("train", "val", "test1"):
        data = CIRR(tiny_cirr, split)
        for image_id in data.image_ids:
            assert data.path(image_id).read_bytes() == image_id.encode()
    assert data.path("test1-3-1-img1") == tiny_cirr / "test1" / "test1-3-1-img1.png"


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("images", ["", "img_raw"])
def test_each_layout_has_its_own_place_for_images(
    tiny_cirr: Path, nested: bool, images: str
) -> None:
    annotations = tiny_cirr / "cirr"
    if images:
        (annotations / images).mkdir()
        (tiny_cirr / "dev").rename(annotations / images / "dev")
    elif not nested:
        (tiny_cirr / "dev").rename(annotations / "dev")
    data = CIRR(tiny_cirr if nested else annotations, "val")
    assert data.path("dev-2-0-img1").read_bytes() == b"dev-2-0-img1"


def test_no_image_is_needed_before_it_is_opened(tiny_cirr: Path) -> None:
    shutil.rmtree(tiny_cirr / "dev")
    data = CIRR(tiny_cirr, "val")
    assert data.path("dev-0-0-img0") == tiny_cirr / "dev" / "dev-0-0-img0.png"


def test_a_path_is_given_for_images_of_the_split_only(tiny_cirr: Path) -> None:
    data = CIRR(tiny_cirr, "val")
    for unknown in ("test1-0-0-img0", "dev-0-0-img0.png", ""):
        with pytest.raises(ValueError, match=rf"unknown image '{unknown}': not in .*CIRR.* 'val'"):
            data.path(unknown)


def test_the_targets_of_test1_are_hidden(tiny_cirr: Path) -> None:
    data = CIRR(tiny_cirr, "test1")
    assert {triplet.target_id for triplet in data.triplets()} == {None}
    assert data.tasks()[0].subsets is not None


def test_the_targets_of_test1_are_used_where_somebody_has_them(tiny_cirr: Path) -> None:
    name = "captions/cap.rc2.test1.json"
    rows = [{**row, "target_hard": row["img_set"]["members"][5]} for row in read(tiny_cirr, name)]
    write(tiny_cirr, rows, name)
    targets = {triplet.target_id for triplet in CIRR(tiny_cirr, "test1").triplets()}
    assert targets == {f"test1-{group}-1-img1" for group in range(10)}


def test_the_images_of_triplets_leave_out_the_rest_of_the_gallery(tiny_cirr: Path) -> None:
    data = CIRR(tiny_cirr, "train")
    named = {i for t in data.triplets() for i in (t.reference_id, t.target_id)}
    assert set(data.triplet_image_ids) == named
    assert len(data.triplet_image_ids) == len(named) == 40


def test_the_protocol_says_what_makes_scores_comparable(tiny_cirr: Path) -> None:
    expected = {"split": "val", "gallery": "split", "reference": "excluded"}
    assert CIRR(tiny_cirr, "val").protocol == {"dataset": "CIRR", **expected}
    assert CIRR(tiny_cirr, "val", name="Mini").protocol == {"dataset": "Mini", **expected}
    assert repr(CIRR(tiny_cirr, "val")) == f"CIRR({str(tiny_cirr)!r}, 'val', 20 triplets)"


# What is not as it should be


def test_an_unknown_split_is_answered_with_the_valid_ones(tiny_cirr: Path) -> None:
    with pytest.raises(ValueError, match="unknown split 'dev'; valid: 'train', 'val', 'test1'"):
        CIRR(tiny_cirr, "dev")


def test_a_folder_that_is_no_cirr_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no CIRR in .*image_splits is missing, and cirr/image_splits too"
    ):
        CIRR(tmp_path, "val")


@pytest.mark.parametrize("name", [CAPTIONS, SPLIT])
class TestBrokenFile:
    def test_missing(self, tiny_cirr: Path, name: str) -> None:
        (tiny_cirr / "cirr" / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"no file .*{name}"):
            CIRR(tiny_cirr, "val")

    @pytest.mark.parametrize("length", [0, 1, 200])
    def test_cut_off(self, tiny_cirr: Path, name: str, length: int) -> None:
        path = tiny_cirr / "cirr" / name
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ValueError, match=f"{name}, line 1: not valid JSON"):
            CIRR(tiny_cirr, "val")

    @pytest.mark.parametrize("content", [b"<html>404</html>", b"\x89PNG\r\n\xff"])
    def test_not_json(self, tiny_cirr: Path, name: str, content: bytes) -> None:
        (tiny_cirr / "cirr" / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}, line 1: not valid JSON"):
            CIRR(tiny_cirr, "val")

    @pytest.mark.parametrize("content", ["text", 3, None])
    def test_another_content(self, tiny_cirr: Path, name: str, content: Any) -> None:
        write(tiny_cirr, content, name)
        kind = type(content).__name__
        with pytest.raises(ValueError, match=f"{name} must hold an? (list|object), got a {kind}"):
            CIRR(tiny_cirr, "val")


@pytest.mark.parametrize("field", ["pairid", "reference", "target_hard", "caption", "img_set"])
def test_a_missing_field_is_named(tiny_cirr: Path, field: str) -> None:
    rows = read(tiny_cirr)
    del rows[4][field]
    write(tiny_cirr, rows)
    with pytest.raises(ValueError, match=rf"{CAPTIONS}, entry 4: the field '{field}' is missing"):
        CIRR(tiny_cirr, "val")


def test_a_target_that_is_null_is_one_that_nobody_knows(tiny_cirr: Path) -> None:
    name = CAPTIONS.replace("val", "test1")
    write(tiny_cirr, [{**row, "target_hard": None} for row in read(tiny_cirr, name)], name)
    assert {query.target_id for query in CIRR(tiny_cirr, "test1").triplets()} == {None}


@pytest.mark.parametrize("value", [True, "7", 7.0, None])
def test_a_pair_id_of_another_type_is_named(tiny_cirr: Path, value: Any) -> None:
    rows = read(tiny_cirr)
    rows[4]["pairid"] = value
    write(tiny_cirr, rows)
    with pytest.raises(ValueError, match=f"entry 4: 'pairid' must be a int, got {value!r}"):
        CIRR(tiny_cirr, "val")


def test_missing_members_are_named(tiny_cirr: Path) -> None:
    rows = read(tiny_cirr)
    del rows[4]["img_set"]["members"]
    write(tiny_cirr, rows)
    with pytest.raises(ValueError, match=r"entry 4: img_set.members must be a list .*got None"):
        CIRR(tiny_cirr, "val")


MEMBERS = ["0-img0", "1-img0", "2-img0", "3-img0", "0-img1", "1-img1"]
GROUP = [f"dev-2-{member}" for member in MEMBERS]
BAD_PAIRS: dict[str, tuple[dict[str, Any], str]] = {
    "pair id twice": ({"pairid": 1000}, "pair 1000: the pairid is in the file already"),
    "group of five": (
        {"img_set": {"members": GROUP[:5]}},
        "pair 1028: the group must be 6 distinct images, got dev-2-0-img0 dev-2-1-img0 ",
    ),
    "group of seven": (
        {"img_set": {"members": [*GROUP, "dev-3-0-img0"]}},
        "pair 1028: the group must be 6 distinct images",
    ),
    "member twice": (
        {"img_set": {"members": [*GROUP[:5], GROUP[0]]}},
        "pair 1028: the group must be 6 distinct images",
    ),
    "target outside the split": (
        {"target_hard": "test1-0-0-img0"},
        rf"pair 1028: image 'test1-0-0-img0' is not in .*{SPLIT}; fetch both files again",
    ),
    "target is the reference": (
        {"target_hard": "dev-2-0-img0"},
        "pair 1028: the target is the reference, 'dev-2-0-img0'",
    ),
    "target outside the group": (
        {"target_hard": "dev-3-0-img0"},
        "pair 1028: the target 'dev-3-0-img0' is not in its group: dev-2-0-img0 ",
    ),
    "reference outside the group": (
        {"reference": "dev-3-0-img0"},
        "pair 1028: the reference 'dev-3-0-img0' is not in its group: dev-2-0-img0 ",
    ),
    "reference outside the split": (
        {"reference": "dev-77-0-img0"},
        rf"pair 1028: image 'dev-77-0-img0' is not in .*{SPLIT}",
    ),
    "member outside the split": (
        {"img_set": {"members": [*GROUP[:5], "dev-77-0-img0"]}},
        rf"pair 1028: image 'dev-77-0-img0' is not in .*{SPLIT}",
    ),
}


@pytest.mark.parametrize("bad", BAD_PAIRS)
def test_a_pair_that_makes_no_query_is_named(tiny_cirr: Path, bad: str) -> None:
    changes, message = BAD_PAIRS[bad]
    rows = read(tiny_cirr)
    assert rows[4]["pairid"] == 1028
    write(tiny_cirr, [*rows[:4], {**rows[4], **changes}, *rows[5:]])
    with pytest.raises(ValueError, match=f"{CAPTIONS}, {message}"):
        CIRR(tiny_cirr, "val")


def test_a_caption_file_without_pairs_is_named(tiny_cirr: Path) -> None:
    write(tiny_cirr, [])
    with pytest.raises(ValueError, match=f"{CAPTIONS} holds no pairs; fetch it again"):
        CIRR(tiny_cirr, "val")


def test_split_files_of_another_split_are_named(tiny_cirr: Path) -> None:
    write(tiny_cirr, read(tiny_cirr, "image_splits/split.rc2.test1.json"), SPLIT)
    with pytest.raises(ValueError, match=rf"pair 1000: image 'dev-0-0-img0' is not in .*{SPLIT}"):
        CIRR(tiny_cirr, "val")


def test_captions_that_were_printed_by_a_program(tiny_cirr: Path) -> None:
    rows = read(tiny_cirr)
    write(tiny_cirr, [*rows[:2], {**rows[2], "caption": "nan"}, *rows[3:]])
    with pytest.warns(UserWarning, match=r"pair 1014: the caption is 'nan', .* there are 1 such"):
        CIRR(tiny_cirr, "val")
    write(tiny_cirr, [*rows[:2], {**rows[2], "caption": "['two dogs']"}, *rows[3:]])
    with pytest.raises(ValueError, match=r"entry 2: caption is a list that was printed"):
        CIRR(tiny_cirr, "val")
