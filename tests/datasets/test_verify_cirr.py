"""What is wrong with a CIRR folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from verifying import beyond_counts, image, kinds, named, reasons

from fusecomp.datasets import CIRR


@pytest.fixture
def cirr(tiny_cirr: Path) -> Path:
    """The tiny CIRR with real images."""
    for number, path in enumerate(sorted(tiny_cirr.rglob("*.png"))):
        path.write_bytes(image(number, "PNG", (6, 8)))
    return tiny_cirr


def write(root: Path, name: str, content: Any) -> None:
    path = root / "cirr" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def entries_of(root: Path, split: str) -> list[dict[str, Any]]:
    path = root / "cirr" / "captions" / f"cap.rc2.{split}.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text())
    return entries


def test_a_small_cirr_has_other_counts_and_no_other_fault(cirr: Path) -> None:
    report = CIRR.verify(cirr)
    assert beyond_counts(report) == []
    assert "20 in place of 28,225" in reasons(report, "counts")
    assert (len(report.counts), report.images) == (6, 180)


def test_the_annotations_of_cirr_may_stand_alone(cirr: Path) -> None:
    report = CIRR.verify(cirr / "cirr")
    assert beyond_counts(report) == ["missing"]
    assert len(named(report, "missing")) == 180


@pytest.mark.parametrize("split", ["train", "val", "test1"])
@pytest.mark.parametrize("kind", ["captions/cap", "image_splits/split"])
def test_annotations_of_cirr_that_are_missing_are_named(cirr: Path, kind: str, split: str) -> None:
    path = cirr / "cirr" / f"{kind}.rc2.{split}.json"
    path.unlink()
    report = CIRR.verify(cirr)
    assert beyond_counts(report) == ["annotation"]
    assert named(report, "annotation") == (path.relative_to(cirr).as_posix(),)


def test_pairs_of_cirr_that_are_not_as_they_should_be(cirr: Path) -> None:
    entries = entries_of(cirr, "val")
    entries[0]["img_set"]["members"] = [*entries[0]["img_set"]["members"][:5], "dev-99-0-img0"]
    entries[1]["target_hard"] = "dev-88-0-img0"
    entries[2]["pairid"] = 1021
    entries.append({**entries[0], "pairid": 77, "img_set": {"members": ["dev-1-0-img0"] * 6}})
    write(cirr, "captions/cap.rc2.val.json", entries)
    (cirr / "dev/dev-1-3-img0.png").unlink()
    (cirr / "test1/test1-1-3-img0.png").write_bytes(b"")
    report = CIRR.verify(cirr)
    assert {f.kind: f.names for f in report.findings if f.kind != "counts"} == {
        "pair": ("pair 1007", "pair 1021", "pair 77", "pair 77", "pair 77"),
        "unlisted": ("dev-99-0-img0", "dev-88-0-img0"),
        "missing": ("dev-1-3-img0",),
        "empty": ("test1-1-3-img0",),
    }
    for problem in (
        "the pairid is in the file already",
        "the target 'dev-88-0-img0' is not in its group: dev-0-0-img0 ",
        "the group must be 6 distinct images",
        "the reference 'dev-0-0-img0' is not in its group: dev-1-0-img0 ",
    ):
        assert problem in reasons(report, "pair")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pairid", "12"),
        ("reference", None),
        ("target_hard", 3),
        ("caption", ["two"]),
        ("img_set", []),
        ("img_set", {"members": "abc"}),
        ("img_set", {"members": [1]}),
    ],
)
def test_an_entry_of_cirr_that_is_none_is_an_error(cirr: Path, field: str, value: Any) -> None:
    write(cirr, "captions/cap.rc2.val.json", [{**entries_of(cirr, "val")[0], field: value}])
    with pytest.raises(
        ValueError, match=rf"cap.rc2.val.json, entry 0: '?{field}.* must be a .*got"
    ):
        CIRR.verify(cirr)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("captions/cap.rc2.val.json", {}, "must hold a list, got a dict"),
        ("captions/cap.rc2.val.json", ["pair"], "entry 0: expected an object, got 'pair'"),
        ("image_splits/split.rc2.val.json", ["dev-1"], "must hold an object, got a list"),
        ("image_splits/split.rc2.val.json", {"dev-1": 3}, "file of image 'dev-1', got 3"),
    ],
)
def test_a_file_of_cirr_that_is_none_is_an_error(
    cirr: Path, name: str, content: Any, error: str
) -> None:
    write(cirr, name, content)
    with pytest.raises(ValueError, match=f"{name}.*{error}"):
        CIRR.verify(cirr)


def test_the_published_cirr_has_the_published_counts(shared: Callable[[str], Path]) -> None:
    report = CIRR.verify(shared("datasets/cirr"))
    assert not any(count.differs for count in report.counts)
    published = {count.name: count.found for count in report.counts}
    assert published | {"train queries": 28_225} == {
        "train images": 16_939,
        "train queries": 28_225,
        "val images": 2_297,
        "val queries": 4_181,
        "test1 images": 2_315,
        "test1 queries": 4_148,
    }
    assert set(kinds(report)) <= {"annotation", "missing"}
