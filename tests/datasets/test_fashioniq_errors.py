"""FashionIQ's files that are not as they should be."""

from pathlib import Path
from typing import Any

import pytest
from fashioniq_files import ROW, write

from fusecomp.datasets import FashionIQ


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


def test_a_target_that_is_left_out_of_its_own_ranking_is_refused(tiny_fashioniq: Path) -> None:
    write(tiny_fashioniq, [ROW, {**ROW, "target": ROW["candidate"]}])
    with pytest.raises(
        ValueError, match=r"cap.dress.val.json, entry 1: the target is the candidate, 'Dval00'"
    ):
        FashionIQ(tiny_fashioniq, "val", exclude_reference=True)
    assert len(FashionIQ(tiny_fashioniq, "val", ["dress"])) == 2
