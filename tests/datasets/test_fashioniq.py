"""FashionIQ: its options, its texts, and where its images lie."""

import json
import os
import shutil
from pathlib import Path

import pytest
from fashioniq_files import CATEGORIES, ROW, texts_of, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from verifying import named

from fusecomp.datasets import FashionIQ


def test_a_row_s_random_text_does_not_depend_on_the_other_categories(
    tiny_fashioniq: Path,
) -> None:
    everything = FashionIQ(tiny_fashioniq, "train").triplets(epoch=2, seed=3)
    for number, category in enumerate(CATEGORIES):
        alone = FashionIQ(tiny_fashioniq, "train", [category]).triplets(epoch=2, seed=3)
        assert alone == everything[8 * number : 8 * number + 8]
    turned = FashionIQ(tiny_fashioniq, "train", ["toptee", "dress"]).triplets(epoch=2, seed=3)
    assert turned == everything[16:] + everything[:8]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


def test_a_dataset_of_the_same_layout_has_its_own_name(tiny_fashioniq: Path) -> None:
    assert FashionIQ(tiny_fashioniq, "val").protocol["dataset"] == "FashionIQ"
    assert FashionIQ(tiny_fashioniq, "val", name="Mini").protocol["dataset"] == "Mini"


def test_the_images_of_triplets_leave_out_the_rest_of_the_gallery(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "train", categories=["dress"])
    pairs = [(t.reference_id, t.target_id) for t in data.triplets()]
    assert set(data.triplet_image_ids) == {i for pair in pairs for i in pair}
    assert len(data.triplet_image_ids) == len(set(data.triplet_image_ids)) <= len(data.image_ids)


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
