"""FashionIQ: the published counts, texts and options, and files that are not as they should be."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from verifying import named

from fusecomp.datasets import FashionIQ
from fusecomp.evaluation import Recall
from fusecomp.types import Triplet

Shared = Callable[[str], Path]

CATEGORIES = ("dress", "shirt", "toptee")
QUERIES = {
    "train": (5985, 5988, 6027),
    "val": (2017, 2038, 1961),
}
# Queries that each pair of captions gives.
PER_PAIR = {"both": 1, "reversed": 1, "averaged": 1, "alone": 2, "both-orders": 2, "random": 1}
GALLERIES = {
    ("train", "original"): (11452, 19036, 16121),
    ("val", "original"): (3817, 6346, 5373),
    ("val", "val"): (2628, 3089, 2902),
}


@pytest.fixture
def real(shared: Shared) -> Path:
    return shared("datasets/fashioniq")


def strip(caption: str) -> str:
    return caption.strip(".?, ")


def four_forms(c1: str, c2: str) -> list[str]:
    """What the published training draws from: both orders, each alone."""
    return [
        f"{strip(c1).capitalize()} and {strip(c2)}",
        f"{strip(c2).capitalize()} and {strip(c1)}",
        strip(c1).capitalize(),
        strip(c2).capitalize(),
    ]


def forms_of_train(root: Path) -> list[list[str]]:
    rows = []
    for category in CATEGORIES:
        content = json.loads((root / "captions" / f"cap.{category}.train.json").read_text())
        rows += [four_forms(*row["captions"]) for row in content]
    return rows


def texts_of(triplets: list[Triplet]) -> list[tuple[str, ...]]:
    return [triplet.texts for triplet in triplets]


# The published annotations


@pytest.mark.parametrize(("split", "gallery"), GALLERIES)
def test_the_counts_are_the_published_ones(real: Path, split: str, gallery: str) -> None:
    data = FashionIQ(real, split, gallery=gallery)
    tasks = data.tasks()
    assert tuple(task.name for task in tasks) == CATEGORIES
    assert tuple(len(task.queries) for task in tasks) == QUERIES[split]
    assert tuple(len(task.gallery) for task in tasks) == GALLERIES[split, gallery]
    assert len(data) == len(data.triplets()) == sum(QUERIES[split])
    assert {task.metrics for task in tasks} == {(Recall(10), Recall(50))}


@pytest.mark.parametrize("captions", PER_PAIR)
@pytest.mark.parametrize("gallery", ["original", "val"])
def test_every_variant_has_the_published_counts(real: Path, gallery: str, captions: str) -> None:
    for excluded in (False, True):
        data = FashionIQ(
            real, "val", captions=captions, gallery=gallery, exclude_reference=excluded
        )
        tasks = data.tasks()
        queries = tuple(PER_PAIR[captions] * count for count in QUERIES["val"])
        assert tuple(len(task.queries) for task in tasks) == queries
        assert tuple(len(task.gallery) for task in tasks) == GALLERIES["val", gallery]
        for task in tasks:
            references = tuple((query.reference_id,) for query in task.queries)
            assert task.exclude == (references if excluded else None)
        texts = 2 if captions == "averaged" else 1
        assert {len(query.texts) for query in data.triplets()} == {texts}


def test_every_query_s_images_stand_once_in_its_gallery(real: Path) -> None:
    for gallery in ("original", "val"):
        for task in FashionIQ(real, "val", gallery=gallery).tasks():
            assert len(set(task.gallery)) == len(task.gallery)
            images = {i for query in task.queries for i in (query.reference_id, query.target_id)}
            assert images <= set(task.gallery)
            assert (images == set(task.gallery)) == (gallery == "val")


def test_the_splits_name_the_published_number_of_images(real: Path) -> None:
    names = {split: FashionIQ(real, split).image_ids for split in ("train", "val", "test")}
    assert all(len(set(ids)) == len(ids) for ids in names.values())
    assert len(set().union(*names.values())) == 74_381
    assert len(set(names["train"]) & set(names["val"])) == 811


def test_the_validation_texts_are_the_published_ones(tiny_fashioniq: Path, shared: Shared) -> None:
    published = json.loads(shared("parity/captions.json").read_text())
    pairs = published["fashioniq_pairs"]
    write(tiny_fashioniq, [{**ROW, "captions": pair} for pair in pairs])
    texts = texts_of(FashionIQ(tiny_fashioniq, "val", ["dress"]).triplets())
    assert texts == [(text,) for text in published["fashioniq_validation_text"]]
    assert len(texts) > 100


def test_random_texts_are_each_form_a_quarter_of_the_time(real: Path) -> None:
    drawn = texts_of(FashionIQ(real, "train").triplets(epoch=3, seed=5))
    shares: Counter[int] = Counter()
    for (text,), forms in zip(drawn, forms_of_train(real), strict=True):
        assert text in forms
        if len(set(forms)) == 4:
            shares[forms.index(text)] += 1
    assert all(abs(shares[form] / shares.total() - 1 / 4) < 0.02 for form in range(4))


def test_the_draws_of_two_epochs_or_seeds_are_independent(real: Path) -> None:
    data = FashionIQ(real, "train")
    first = texts_of(data.triplets(epoch=0, seed=0))
    distinct = [len(set(forms)) == 4 for forms in forms_of_train(real)]
    for epoch, seed in ((1, 0), (0, 1), (1, 1), (2, 0)):
        other = texts_of(data.triplets(epoch=epoch, seed=seed))
        pairs = zip(first, other, distinct, strict=True)
        same = [a == b for a, b, is_distinct in pairs if is_distinct]
        assert abs(sum(same) / len(same) - 1 / 4) < 0.02


def test_texts_covers_every_epoch(real: Path) -> None:
    data = FashionIQ(real, "train")
    texts = data.texts()
    assert len(set(texts)) == len(texts)
    drawn = {text for epoch in range(4) for t in data.triplets(epoch, 9) for text in t.texts}
    assert drawn <= set(texts)
    assert set(texts) == {text for forms in forms_of_train(real) for text in forms}


# Options, on a small folder of the same form


def test_a_row_s_random_text_does_not_depend_on_the_other_categories(
    tiny_fashioniq: Path,
) -> None:
    everything = FashionIQ(tiny_fashioniq, "train").triplets(epoch=2, seed=3)
    for number, category in enumerate(CATEGORIES):
        alone = FashionIQ(tiny_fashioniq, "train", [category]).triplets(epoch=2, seed=3)
        assert alone == everything[8 * number : 8 * number + 8]
    turned = FashionIQ(tiny_fashioniq, "train", ["toptee", "dress"]).triplets(epoch=2, seed=3)
    assert turned == everything[16:] + everything[:8]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_random_texts_are_a_function_of_seed_and_epoch(
    tiny_fashioniq: Path, epoch: int, seed: int
) -> None:
    first, second = (FashionIQ(tiny_fashioniq, "train") for _ in range(2))
    second.triplets(epoch=epoch + 1, seed=seed)
    assert first.triplets(epoch, seed) == second.triplets(epoch, seed)


C1, C2 = " is val 0.", "Has dress 0?"
EXPECTED: dict[str, list[tuple[str, ...]]] = {
    "both": [("Is val 0 and Has dress 0",)],
    "reversed": [("Has dress 0 and is val 0",)],
    "averaged": [("Is val 0 and Has dress 0", "Has dress 0 and is val 0")],
    "alone": [("Is val 0",), ("Has dress 0",)],
    "both-orders": [("Is val 0 and Has dress 0",), ("Has dress 0 and is val 0",)],
}


@pytest.mark.parametrize("captions", EXPECTED)
def test_each_way_to_make_texts_of_two_captions(tiny_fashioniq: Path, captions: str) -> None:
    data = FashionIQ(tiny_fashioniq, "val", ["dress"], captions=captions)
    queries = len(EXPECTED[captions])
    assert texts_of(data.triplets())[:queries] == EXPECTED[captions]
    assert len(data) == len(data.triplets()) == 8 * queries
    assert len({triplet.query_id for triplet in data.triplets()}) == len(data)
    assert {text for texts in texts_of(data.triplets()) for text in texts} == set(data.texts())
    assert data.protocol["captions"] == captions


def test_capitalize_lowers_the_rest_of_the_first_caption_only(tiny_fashioniq: Path) -> None:
    write(tiny_fashioniq, [{**ROW, "captions": [" is V-Neck, ", "By NIKE."]}])
    texts = texts_of(FashionIQ(tiny_fashioniq, "val", "dress").triplets())
    assert texts == [("Is v-neck and By NIKE",)]


def test_captions_that_are_empty_once_stripped_are_kept(tiny_fashioniq: Path) -> None:
    write(tiny_fashioniq, [{**ROW, "captions": [" .", "?"]}])
    with pytest.warns(UserWarning, match="entry 0: nothing can be read in the captions"):
        data = FashionIQ(tiny_fashioniq, "val", ["dress"])
    assert texts_of(data.triplets()) == [(" and ",)]


def test_training_draws_texts_and_validation_does_not(tiny_fashioniq: Path) -> None:
    captions = {split: FashionIQ(tiny_fashioniq, split).captions for split in ("train", "val")}
    assert captions == {"train": "random", "val": "both"}


def test_the_test_split_has_no_targets(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "test")
    assert {triplet.target_id for triplet in data.triplets()} == {None}
    assert [len(task.gallery) for task in data.tasks()] == [12] * 3


def test_the_reference_is_left_out_where_asked(tiny_fashioniq: Path) -> None:
    kept, excluded = (
        FashionIQ(tiny_fashioniq, "val", exclude_reference=flag) for flag in (False, True)
    )
    assert [task.exclude for task in kept.tasks()] == [None] * 3
    for task in excluded.tasks():
        assert task.exclude == tuple((query.reference_id,) for query in task.queries)
    assert kept.protocol["reference"] == "kept"
    assert excluded.protocol["reference"] == "excluded"


def test_the_protocol_says_what_makes_scores_comparable(tiny_fashioniq: Path) -> None:
    assert FashionIQ(tiny_fashioniq, "val", gallery="val").protocol == {
        "dataset": "FashionIQ",
        "split": "val",
        "gallery": "val",
        "reference": "kept",
        "captions": "both",
    }


def test_the_images_are_those_of_the_galleries(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "val", ["shirt"])
    assert data.image_ids == tuple(f"Sval{number:02d}" for number in range(12))
    assert "24 triplets" in repr(FashionIQ(tiny_fashioniq, "val"))


def test_images_are_found_by_suffix_png_first(tiny_fashioniq: Path) -> None:
    images = tiny_fashioniq / "images"
    (images / "Dval01.png").rename(images / "Dval01.jpg")
    (images / "Dval02.png").rename(images / "Dval02.jpeg")
    shutil.copy(images / "Dval03.png", images / "Dval03.jpg")
    (images / "Dval04.png").unlink()
    data = FashionIQ(tiny_fashioniq, "val")
    names = [data.path(f"Dval0{number}").name for number in range(5)]
    assert names == ["Dval00.png", "Dval01.jpg", "Dval02.jpeg", "Dval03.png", "Dval04.png"]
    assert data.path("Dval00").parent == images


def test_a_path_is_given_for_known_images_only(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "val", ["dress"])
    for unknown in ("Sval00", "../secret", ""):
        with pytest.raises(ValueError, match=f"unknown image '{unknown}'"):
            data.path(unknown)


def test_no_image_is_needed_before_it_is_opened(tiny_fashioniq: Path) -> None:
    shutil.rmtree(tiny_fashioniq / "images")
    data = FashionIQ(tiny_fashioniq, "val")
    assert len(data.tasks()) == 3
    assert len(data.image_ids) == 36
    assert data.path("Dval00") == tiny_fashioniq / "images" / "Dval00.png"


# What is not as it should be

ROW = {"candidate": "Dval00", "target": "Dval01", "captions": ["is red", "has dots"]}


def write(root: Path, content: Any, name: str = "captions/cap.dress.val.json") -> None:
    (root / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("options", "valid"),
    [
        ({"split": "validation"}, "'train', 'val', 'test'"),
        ({"split": "val", "categories": ["dress", "hat"]}, "'dress', 'shirt', 'toptee'"),
        ({"split": "val", "captions": "first"}, "'random', 'both', 'reversed', 'averaged'"),
        ({"split": "val", "gallery": "all"}, "'original', 'val'"),
    ],
)
def test_an_unknown_option_is_answered_with_the_valid_ones(
    tiny_fashioniq: Path, options: dict[str, Any], valid: str
) -> None:
    with pytest.raises(ValueError, match=f"unknown .* valid: {valid}"):
        FashionIQ(tiny_fashioniq, **options)


@pytest.mark.parametrize("categories", [["dress", "dress"], []])
def test_categories_are_distinct_and_at_least_one(
    tiny_fashioniq: Path, categories: list[str]
) -> None:
    with pytest.raises(ValueError, match="categories must be distinct, at least one"):
        FashionIQ(tiny_fashioniq, "val", categories)


@pytest.mark.parametrize(
    "name", ["captions/cap.dress.val.json", "image_splits/split.dress.val.json"]
)
class TestBrokenFile:
    def test_missing(self, tiny_fashioniq: Path, name: str) -> None:
        (tiny_fashioniq / name).unlink()
        with pytest.raises(FileNotFoundError, match=name):
            FashionIQ(tiny_fashioniq, "val")

    @pytest.mark.parametrize("length", [0, 1, 20])
    def test_cut_off(self, tiny_fashioniq: Path, name: str, length: int) -> None:
        path = tiny_fashioniq / name
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ValueError, match=f"{name}, line 1: not valid JSON"):
            FashionIQ(tiny_fashioniq, "val")

    @pytest.mark.parametrize("content", [b"<html>404</html>", b"\x89PNG\r\n\xff"])
    def test_not_json(self, tiny_fashioniq: Path, name: str, content: bytes) -> None:
        (tiny_fashioniq / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}, line 1: not valid JSON"):
            FashionIQ(tiny_fashioniq, "val")

    @pytest.mark.parametrize("content", [{"a": 1}, "text", 3, None])
    def test_not_a_list(self, tiny_fashioniq: Path, name: str, content: Any) -> None:
        write(tiny_fashioniq, content, name)
        with pytest.raises(ValueError, match=f"{name} must hold a list, got a"):
            FashionIQ(tiny_fashioniq, "val")


@pytest.mark.parametrize("field", ["candidate", "target", "captions"])
def test_a_missing_field_is_named(tiny_fashioniq: Path, field: str) -> None:
    write(tiny_fashioniq, [ROW, {key: ROW[key] for key in ROW if key != field}])
    with pytest.raises(ValueError, match=f"entry 1: the field '{field}' is missing"):
        FashionIQ(tiny_fashioniq, "val")


@pytest.mark.parametrize(
    "captions", [["is red"], ["a", "b", "c"], [], "is red", ["a", None], ["a", 1], None, {"a": "b"}]
)
def test_captions_are_two_strings(tiny_fashioniq: Path, captions: Any) -> None:
    write(tiny_fashioniq, [{**ROW, "captions": captions}])
    with pytest.raises(
        ValueError, match=r"entry 0: '?captions'? must be (two strings|a list), got"
    ):
        FashionIQ(tiny_fashioniq, "val")


@pytest.mark.parametrize("field", ["candidate", "target"])
def test_an_image_outside_the_split_is_named(tiny_fashioniq: Path, field: str) -> None:
    write(tiny_fashioniq, [{**ROW, field: "Dtrain00"}])
    with pytest.raises(ValueError, match=r"entry 0: image 'Dtrain00' is not in .*split.dress.val"):
        FashionIQ(tiny_fashioniq, "val")


@pytest.mark.parametrize("field", ["candidate", "target"])
@pytest.mark.parametrize("value", [3, None, ["Dval00"]])
def test_an_image_that_is_no_string_is_refused(
    tiny_fashioniq: Path, field: str, value: Any
) -> None:
    write(tiny_fashioniq, [{**ROW, field: value}])
    with pytest.raises(ValueError, match=f"entry 0: '{field}' must be a str, got"):
        FashionIQ(tiny_fashioniq, "val")


@pytest.mark.parametrize("row", ["text", None, ["Dval00", "Dval01"]])
def test_a_row_that_is_no_object_is_refused(tiny_fashioniq: Path, row: Any) -> None:
    write(tiny_fashioniq, [ROW, row])
    with pytest.raises(ValueError, match="entry 1: expected an object"):
        FashionIQ(tiny_fashioniq, "val")


@pytest.mark.parametrize("entry", ["", None, 7, ["Dval00"]])
def test_a_split_holds_image_ids(tiny_fashioniq: Path, entry: Any) -> None:
    write(tiny_fashioniq, ["Dval00", entry], "image_splits/split.dress.val.json")
    with pytest.raises(ValueError, match="entry 1: expected an image id"):
        FashionIQ(tiny_fashioniq, "val")


def test_a_dataset_of_the_same_layout_has_its_own_name(tiny_fashioniq: Path) -> None:
    assert FashionIQ(tiny_fashioniq, "val").protocol["dataset"] == "FashionIQ"
    assert FashionIQ(tiny_fashioniq, "val", name="Mini").protocol["dataset"] == "Mini"


def test_the_images_of_triplets_leave_out_the_rest_of_the_gallery(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "train", categories=["dress"])
    pairs = [(t.reference_id, t.target_id) for t in data.triplets()]
    assert set(data.triplet_image_ids) == {i for pair in pairs for i in pair}
    assert len(data.triplet_image_ids) == len(set(data.triplet_image_ids)) <= len(data.image_ids)


def test_a_target_that_is_left_out_of_its_own_ranking_is_refused(tiny_fashioniq: Path) -> None:
    write(tiny_fashioniq, [ROW, {**ROW, "target": ROW["candidate"]}])
    with pytest.raises(
        ValueError, match=r"cap.dress.val.json, entry 1: the target is the candidate, 'Dval00'"
    ):
        FashionIQ(tiny_fashioniq, "val", exclude_reference=True)
    assert len(FashionIQ(tiny_fashioniq, "val", ["dress"])) == 2


def test_captions_that_were_printed_by_a_program(tiny_fashioniq: Path) -> None:
    pairs = [["nan", "is red"], ["is blue", "None"], ["none", "n/a"]]
    write(tiny_fashioniq, [{**ROW, "captions": pair} for pair in pairs])
    with pytest.warns(UserWarning, match=r"entry 0: a caption is 'nan', .* there are 2 such"):
        FashionIQ(tiny_fashioniq, "val")
    write(tiny_fashioniq, [{**ROW, "captions": ["is red", "['is blue']"]}])
    with pytest.raises(ValueError, match=r"entry 0: a caption is a list that was printed"):
        FashionIQ(tiny_fashioniq, "val")


# Where the images lie


def in_folders(root: Path) -> Path:
    """Move the images of each category into a folder of its own; FashionIQ's come that way too."""
    images = root / "images"
    for category in CATEGORIES:
        (images / category).mkdir()
        for path in images.glob(f"{category[0].upper()}*.png"):
            path.rename(images / category / path.name)
    return images


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".JPG", ".Png"])
def test_images_in_a_folder_for_each_category_are_found(tiny_fashioniq: Path, suffix: str) -> None:
    images = in_folders(tiny_fashioniq)
    for path in list(images.rglob("*.png")):
        path.rename(path.with_suffix(suffix))
    for split in ("train", "val", "test"):
        data = FashionIQ(tiny_fashioniq, split)
        for image_id in data.image_ids:
            assert data.path(image_id).read_bytes() == image_id.encode()
    assert data.path("Stest03") == images / "shirt" / f"Stest03{suffix}"


def test_an_image_has_one_path_whichever_categories_are_read(tiny_fashioniq: Path) -> None:
    images = in_folders(tiny_fashioniq)
    name = "image_splits/split.dress.val.json"
    ids = json.loads((tiny_fashioniq / name).read_text())
    write(tiny_fashioniq, [*ids, "Sval03"], name)
    shutil.copy(images / "shirt/Sval03.png", images / "dress/Sval03.png")
    for categories in ("dress", "shirt"):
        data = FashionIQ(tiny_fashioniq, "val", categories)
        assert data.path("Sval03") == images / "dress/Sval03.png"


@pytest.mark.parametrize("other", ["images/shirt/Dval03.png", "images/Dval03.jpg"])
def test_two_folders_with_different_files_of_an_image_are_refused(
    tiny_fashioniq: Path, other: str
) -> None:
    in_folders(tiny_fashioniq)
    # As large and as old as the other one.
    (tiny_fashioniq / other).write_bytes(b"dVAL03")
    for name in (other, "images/dress/Dval03.png"):
        os.utime(tiny_fashioniq / name, (0, 0))
    data = FashionIQ(tiny_fashioniq, "val")
    both = r"image 'Dval03' has two files that differ: .*images/.*Dval03.* and .*/.*Dval03"
    with pytest.raises(ValueError, match=both) as error:
        data.path("Dval03")
    assert str(tiny_fashioniq / other) in str(error.value)
    assert str(tiny_fashioniq / "images/dress/Dval03.png") in str(error.value)
    assert data.path("Dval04").read_bytes() == b"Dval04"


@pytest.mark.parametrize("place", ["", "dress/"])
@pytest.mark.parametrize("suffix", [".webp", ".GIF", ".bmp", ".tiff", ".jfif", ".avif"])
def test_a_file_of_a_suffix_that_is_not_read_is_named(
    tiny_fashioniq: Path, suffix: str, place: str
) -> None:
    data = FashionIQ(tiny_fashioniq, "val", ["dress"])
    image_id = data.image_ids[0]
    images = tiny_fashioniq / "images"
    (images / place).mkdir(parents=True, exist_ok=True)
    for path in images.rglob(f"{image_id}.*"):
        path.unlink()
    (images / f"{place}{image_id}{suffix}").write_bytes(b"an image")
    with pytest.raises(ValueError, match=rf"{image_id}{suffix}, whose suffix is none of .png, .j"):
        FashionIQ(tiny_fashioniq, "val", ["dress"]).path(image_id)
    report = FashionIQ.verify(tiny_fashioniq)
    assert f"{place}{image_id}{suffix}" in named(report, "misnamed")
    assert image_id in named(report, "missing")
    (images / f"{image_id}.png").write_bytes(b"an image")
    read = FashionIQ(tiny_fashioniq, "val", ["dress"]).path(image_id)
    assert read == images / f"{image_id}.png"
