"""A dataset without some images keeps the rest, and says what it lacks."""

import inspect
import pickle
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from typing_extensions import get_protocol_members

from fusecomp.datasets import FashionIQ, Triplets, TripletTable, drop_images
from fusecomp.types import Dataset, Triplet


def test_what_needs_the_image_goes_and_the_rest_stays(tiny_fashioniq: Path) -> None:
    full = FashionIQ(tiny_fashioniq, "val", exclude_reference=True)
    rest = drop_images(full, ["Dval05", "unknown"])
    assert isinstance(rest, Dataset)
    # Pair n leads from image n to image n + 4.
    gone = {"dress/1", "dress/5"}
    assert [t for t in full.triplets() if t.query_id not in gone] == rest.triplets()
    assert len(rest) == len(full) - 2
    assert rest.image_ids == tuple(i for i in full.image_ids if i != "Dval05")
    dress, shirt, _ = rest.tasks()
    assert dress.missing_queries == ("dress/1", "dress/5")
    assert dress.missing_images == ("Dval05",)
    assert len(dress.gallery) == 11
    assert dress.exclude == tuple((query.reference_id,) for query in dress.queries)
    assert shirt == full.tasks()[1]
    assert rest.path("Dval04") == full.path("Dval04")
    assert getattr(rest, "split", None) == "val"
    assert repr(rest) == f"{full!r} without 1 images"


def test_it_is_a_dataset_also_to_those_who_do_not_call_getattr(tiny_fashioniq: Path) -> None:
    rest = drop_images(FashionIQ(tiny_fashioniq, "val"), ["Dval05"])
    for member in get_protocol_members(Dataset):
        inspect.getattr_static(rest, member)


def test_a_plain_string_is_no_list_of_images(tiny_fashioniq: Path) -> None:
    full = FashionIQ(tiny_fashioniq, "val")
    with pytest.raises(ValueError, match="must be a list of strings, got the string 'Dval05'"):
        drop_images(full, "Dval05")


def test_random_texts_stay_those_of_their_rows(tiny_fashioniq: Path) -> None:
    full = FashionIQ(tiny_fashioniq, "train")
    rest = drop_images(full, ["Strain02"])
    for epoch in range(3):
        expected = [t for t in full.triplets(epoch, 5) if "Strain02" not in t.image_ids]
        assert rest.triplets(epoch, 5) == expected
    assert "Strain02" not in getattr(rest, "triplet_image_ids", ["Strain02"])
    assert set(rest.texts()) >= {text for t in rest.triplets() for text in t.texts}


def test_nothing_missing_is_the_dataset_itself(tiny_fashioniq: Path) -> None:
    full = FashionIQ(tiny_fashioniq, "val")
    assert drop_images(full, []) is full
    assert drop_images(full, {"unknown": "why"}) is full


def test_nothing_left_is_an_error(tiny_fashioniq: Path) -> None:
    full = FashionIQ(tiny_fashioniq, "val", categories=["dress"])
    with pytest.raises(ValueError, match=r"each of the 8 triplets .* nothing remains"):
        drop_images(full, full.image_ids)


def test_it_can_be_left_out_step_by_step_and_pickled(tiny_fashioniq: Path) -> None:
    full = FashionIQ(tiny_fashioniq, "val")
    at_once = drop_images(full, ["Dval05", "Sval06"])
    steps = drop_images(drop_images(full, ["Dval05"]), ["Sval06"])
    expected = "4 of 24 queries, 2 of 36 gallery images"
    for other in (steps, pickle.loads(pickle.dumps(at_once))):
        assert other.tasks() == at_once.tasks()
        assert getattr(other, "protocol", {})["missing"] == expected


IDS = "abcdef"
# Queries with subsets, as CIRR's.
GROUPED = Triplets([Triplet(f"{i}{j}", i, ("x",), j, tuple(IDS)) for i, j in pairwise(IDS)])


@given(st.sets(st.sampled_from("abcdef"), max_size=3))
def test_nothing_that_is_left_names_a_missing_image(missing: set[str]) -> None:
    assume(any(missing.isdisjoint(query.image_ids) for query in GROUPED.triplets()))
    rest = drop_images(GROUPED, missing)
    (task,) = rest.tasks()
    named = {i for query in task.queries for i in query.image_ids}
    named |= {i for ids in task.subsets or () for i in ids} | set(task.gallery)
    assert not named & missing
    assert len(task.subsets or ()) == len(task.queries) == len(rest)
    assert {*task.missing_images, *task.gallery} == set("abcdef")
    lost = {q.query_id for q in GROUPED.triplets()} - {q.query_id for q in task.queries}
    assert set(task.missing_queries) == lost


def test_a_table_can_lack_images_too(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(b"-")
    (tmp_path / "mine.csv").write_text("reference,text,target\na,x,b\nb,y,c\n")
    rest = drop_images(TripletTable(tmp_path / "mine.csv", images=tmp_path), ["c"])
    assert [t.target_id for t in rest.triplets()] == ["b"]
