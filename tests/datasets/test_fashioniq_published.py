"""FashionIQ's published annotations: counts, texts and draws."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fashioniq_files import CATEGORIES, ROW, texts_of, write

from fusecomp.datasets import FashionIQ
from fusecomp.evaluation import Recall

Shared = Callable[[str], Path]

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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def train(real: Path) -> FashionIQ:
    return FashionIQ(real, "train")


@pytest.fixture(scope="module")
def forms_of_train(real: Path) -> list[list[str]]:
    rows = []
    for category in CATEGORIES:
        content = json.loads((real / "captions" / f"cap.{category}.train.json").read_text())
        rows += [four_forms(*row["captions"]) for row in content]
    return rows


@pytest.mark.parametrize(("split", "gallery"), GALLERIES)
def test_the_counts_are_the_published_ones(
    real: Path, train: FashionIQ, split: str, gallery: str
) -> None:
    data = FashionIQ(real, split, gallery=gallery) if split == "val" else train
    tasks = data.tasks()
    assert tuple(task.name for task in tasks) == CATEGORIES
    assert tuple(len(task.queries) for task in tasks) == QUERIES[split]
    assert tuple(len(task.gallery) for task in tasks) == GALLERIES[split, gallery]
    assert len(data) == len(data.triplets()) == sum(QUERIES[split])
    assert {task.metrics for task in tasks} == {(Recall(10), Recall(50))}


@pytest.mark.parametrize("captions", PER_PAIR)
def test_every_variant_has_the_published_counts(real: Path, captions: str) -> None:
    for gallery, excluded in (("original", False), ("val", True)):
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


def test_the_splits_name_the_published_number_of_images(real: Path, train: FashionIQ) -> None:
    names = {split: FashionIQ(real, split).image_ids for split in ("val", "test")}
    names["train"] = train.image_ids
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


def test_random_texts_are_each_form_a_quarter_of_the_time(
    train: FashionIQ, forms_of_train: list[list[str]]
) -> None:
    drawn = texts_of(train.triplets(epoch=3, seed=5))
    shares: Counter[int] = Counter()
    for (text,), forms in zip(drawn, forms_of_train, strict=True):
        assert text in forms
        if len(set(forms)) == 4:
            shares[forms.index(text)] += 1
    assert all(abs(shares[form] / shares.total() - 1 / 4) < 0.02 for form in range(4))


def test_the_draws_of_two_epochs_or_seeds_are_independent(
    train: FashionIQ, forms_of_train: list[list[str]]
) -> None:
    first = texts_of(train.triplets(epoch=0, seed=0))
    distinct = [len(set(forms)) == 4 for forms in forms_of_train]
    for epoch, seed in ((1, 0), (0, 1), (1, 1), (2, 0)):
        other = texts_of(train.triplets(epoch=epoch, seed=seed))
        pairs = zip(first, other, distinct, strict=True)
        same = [a == b for a, b, is_distinct in pairs if is_distinct]
        assert abs(sum(same) / len(same) - 1 / 4) < 0.02


def test_texts_covers_every_epoch(train: FashionIQ, forms_of_train: list[list[str]]) -> None:
    texts = train.texts()
    assert len(set(texts)) == len(texts)
    drawn = {text for epoch in range(4) for t in train.triplets(epoch, 9) for text in t.texts}
    assert drawn <= set(texts)
    assert set(texts) == {text for forms in forms_of_train for text in forms}
