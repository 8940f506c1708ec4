"""Two evaluations of the same queries."""

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluations import random_evaluation

import fusecomp as fc
from fusecomp._core.strict_json import read_json, write_json
from fusecomp.datasets import CIRR, FashionIQ, drop_images
from fusecomp.evaluation import ProtocolWarning, Recall, compare, compute_metrics
from fusecomp.types import Dataset


def evaluations(root: Path) -> tuple[fc.Evaluation, fc.Evaluation]:
    data = FashionIQ(root, "val")
    return random_evaluation(data, 0), random_evaluation(data, 1)


def test_it_shows_both_values_and_their_difference(tiny_fashioniq: Path) -> None:
    a, b = evaluations(tiny_fashioniq)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        comparison = compare(a, b)
    assert list(comparison.differences) == list(a)
    for name, found in comparison.differences.items():
        assert (found.a, found.b, found.difference) == (a[name], b[name], b[name] - a[name])
        assert found.low <= found.high
        assert found.clear == (not found.low <= 0 <= found.high)
    assert comparison.warnings == []


def test_an_evaluation_does_not_differ_from_itself(tiny_fashioniq: Path) -> None:
    a, _ = evaluations(tiny_fashioniq)
    comparison = compare(a, a)
    for found in comparison.differences.values():
        assert found.difference == found.low == found.high == 0
        assert not found.clear
    assert comparison.better == comparison.worse == []


def test_swapping_the_two_swaps_the_signs(tiny_cirr: Path) -> None:
    data = CIRR(tiny_cirr, "val")
    a, b = random_evaluation(data, 0), random_evaluation(data, 1)
    there, back = compare(a, b), compare(b, a)
    for name, one in there.differences.items():
        other = back.differences[name]
        assert one.difference == -other.difference
        # The kinds of queries are drawn in another order, so that only chance differs.
        width = one.high - one.low
        assert one.low == pytest.approx(-other.high, abs=0.15 * width + 1e-9)
    assert {c.query_id for c in there.better} == {c.query_id for c in back.worse}


def test_the_queries_that_changed_most_come_first(tiny_fashioniq: Path) -> None:
    a, b = evaluations(tiny_fashioniq)
    steps = {}
    for name, found in a.ranking.items():
        other = b.ranking[name]
        assert found.ranks is not None
        assert other.ranks is not None
        for row, query in enumerate(found.task.queries):
            before, after = int(found.ranks[row]), int(other.ranks[row])
            steps[query.query_id] = (math.log(after / before), before, after)
    comparison = compare(a, b, changes=4)
    for changes, sign in ((comparison.better, -1), (comparison.worse, 1)):
        expected = sorted((s[0] for s in steps.values() if s[0] * sign > 0), key=abs)[::-1][:4]
        assert [steps[change.query_id][0] for change in changes] == pytest.approx(expected)
        for change in changes:
            assert steps[change.query_id][1:] == (change.rank_a, change.rank_b)
            assert change.texts == (change.texts[0],)


def test_a_target_that_is_left_out_counts_as_last(tiny_fashioniq: Path) -> None:
    a, _ = evaluations(tiny_fashioniq)
    found = a.ranking["dress"]
    assert found.ranks is not None
    ranks = found.ranks.clone()
    ranks[:] = 1
    ranks[2] = -1
    b = compute_metrics(
        replace(
            a.ranking,
            tasks=[replace(found, ranks=ranks), a.ranking["shirt"], a.ranking["toptee"]],
        )
    )
    comparison = compare(b, a)
    change = next(c for c in comparison.better if c.query_id == "dress/2")
    assert change.rank_a == -1
    assert "dress/2: rank left out -> " in str(comparison)


def test_a_target_that_is_left_out_is_worse_than_the_last(tiny_fashioniq: Path) -> None:
    a, _ = evaluations(tiny_fashioniq)
    found = a.ranking["dress"]
    assert found.ranks is not None
    last, gone = (
        compute_metrics(replace(a.ranking, tasks=[replace(found, ranks=ranks)]))
        for ranks in (0 * found.ranks + len(found.task.gallery), 0 * found.ranks - 1)
    )
    assert len(compare(last, gone).worse) == len(found.task.queries)


def test_the_order_of_the_queries_does_not_matter(tiny_cirr: Path) -> None:
    data = CIRR(tiny_cirr, "val")
    a, b = random_evaluation(data, 0), random_evaluation(data, 1)
    task = data.tasks()[0]
    order = list(range(len(task.queries)))[::-1]
    found = b.ranking[""]
    assert found.ranks is not None
    assert found.subset_indices is not None
    assert found.subset_ranks is not None
    assert task.exclude is not None
    assert task.subsets is not None
    turned = replace(
        found,
        task=replace(
            task,
            queries=[task.queries[row] for row in order],
            exclude=[task.exclude[row] for row in order],
            subsets=[task.subsets[row] for row in order],
        ),
        indices=found.indices[order],
        scores=found.scores[order],
        ranks=found.ranks[order],
        subset_indices=found.subset_indices[order],
        subset_ranks=found.subset_ranks[order],
    )
    other = compute_metrics(replace(b.ranking, tasks=[turned]))
    assert compare(a, other).to_dict() == compare(a, b).to_dict()


def test_queries_that_lack_a_image_are_left_out_of_both(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "val", ["dress"])
    whole, less = (
        random_evaluation(data),
        random_evaluation(drop_images(data, ["Dval00", "Dval11"])),
    )
    with pytest.warns(
        ProtocolWarning, match="'A' and 'B' do not compare: missing not said / 2 of 8"
    ):
        comparison = compare(whole, less)
    found = comparison.differences["dress/recall@10"]
    assert found.b == less["dress/recall@10"]
    ranks = whole.ranking["dress"].ranks
    assert ranks is not None
    kept = [
        row for row, q in enumerate(data.triplets()) if not {"Dval00", "Dval11"} & {*q.image_ids}
    ]
    assert found.a == pytest.approx(100 * float((ranks[kept] <= 10).double().mean()))
    assert "dress: 6 queries in 12 images" in str(comparison)


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"gallery": "val"}, "gallery original / val"),
        ({"exclude_reference": True}, "reference kept / excluded"),
        ({"captions": "reversed"}, "captions both / reversed"),
    ],
)
def test_another_protocol_is_named(
    tiny_fashioniq: Path, options: dict[str, str], difference: str
) -> None:
    a = random_evaluation(FashionIQ(tiny_fashioniq, "val"))
    b = random_evaluation(FashionIQ(tiny_fashioniq, "val", **options))  # type: ignore[arg-type]
    with pytest.warns(ProtocolWarning, match=f"'one' and 'other' do not compare: {difference}$"):
        comparison = compare(a, b, names=("one", "other"))
    assert comparison.warnings == [difference]
    assert f"NOT COMPARABLE  {difference}\n" in str(comparison)
    assert comparison.to_dict()["warnings"] == [difference]


def test_what_the_protocols_say_of_the_galleries_is_not_said_twice(tiny_fashioniq: Path) -> None:
    for category in ("dress", "shirt", "toptee"):
        path = tiny_fashioniq / f"image_splits/split.{category}.val.json"
        write_json(path, [*read_json(path), f"{category} that no pair names"])
    one, other = (
        random_evaluation(FashionIQ(tiny_fashioniq, "val", gallery=gallery))
        for gallery in ("original", "val")
    )
    with pytest.warns(ProtocolWarning, match="gallery original / val"):
        comparison = compare(one, other)
    assert comparison.warnings == ["gallery original / val"]


def test_another_gallery_under_the_same_protocol_is_named(tiny_cirr: Path) -> None:
    a = random_evaluation(CIRR(tiny_cirr, "val"))
    found = a.ranking[""]
    grown = replace(found, task=replace(found.task, gallery=[*found.task.gallery, "new"]))
    b = compute_metrics(replace(a.ranking, tasks=[grown]))
    with pytest.warns(ProtocolWarning, match="gallery 60 / 61 images, not the same ones"):
        compare(a, b)


def test_other_datasets_and_queries_are_refused(tiny_fashioniq: Path, tiny_cirr: Path) -> None:
    val = FashionIQ(tiny_fashioniq, "val")
    a = random_evaluation(val)
    others: dict[str, Dataset] = {
        "A has the dataset FashionIQ and B CIRR": CIRR(tiny_cirr, "val"),
        "FashionIQ and B MiniFashion": FashionIQ(tiny_fashioniq, "val", name="MiniFashion"),
        r"A has the tasks \['dress', 'shirt', 'toptee'\] and B \['dress'\]": FashionIQ(
            tiny_fashioniq, "val", ["dress"]
        ),
        r"query 'dress/0' of task 'dress' is \('Dval00', 'Dval04', .* in A and \('Dtrain00'": (
            FashionIQ(tiny_fashioniq, "train", captions="both")
        ),
        "only A has the query 'dress/0' of task 'dress'": FashionIQ(
            tiny_fashioniq, "val", captions="alone"
        ),
    }
    for message, data in others.items():
        with pytest.raises(ValueError, match=message):
            compare(a, random_evaluation(data))


def test_one_query_more_is_named(tiny_cirr: Path) -> None:
    a = random_evaluation(CIRR(tiny_cirr, "val"))
    found = a.ranking[""]
    task = found.task
    renamed = replace(task.queries[3], query_id="9999")
    queries = [*task.queries[:3], renamed, *task.queries[4:]]
    b = compute_metrics(
        replace(a.ranking, tasks=[replace(found, task=replace(task, queries=queries))])
    )
    name = task.queries[3].query_id
    with pytest.raises(ValueError, match=f"only A has the query '{name}'"):
        compare(a, b)
    with pytest.raises(ValueError, match=f"only B has the query '{name}'|only A has .*9999"):
        compare(b, a)


def test_other_texts_are_other_queries(tiny_cirr: Path) -> None:
    a = random_evaluation(CIRR(tiny_cirr, "val"))
    found = a.ranking[""]
    task = found.task
    changed = replace(task.queries[0], texts=("something else",))
    queries = [changed, *task.queries[1:]]
    b = compute_metrics(
        replace(a.ranking, tasks=[replace(found, task=replace(task, queries=queries))])
    )
    with pytest.raises(ValueError, match=r"'something else'.* these are not the same queries"):
        compare(a, b)


@pytest.mark.parametrize(
    ("field", "words"), [("exclude", "what is excluded"), ("subsets", "the subsets")]
)
def test_another_ranking_of_the_same_queries_is_told(
    tiny_cirr: Path, field: str, words: str
) -> None:
    """A dataset of one's own may say the same protocol and mean another."""
    a = random_evaluation(CIRR(tiny_cirr, "val"))
    found = a.ranking[""]
    rows = [tuple(row[1:]) for row in getattr(found.task, field)]
    if field == "subsets":  # the target stays among them
        rows = [(*row, q.target_id) for row, q in zip(rows, found.task.queries, strict=True)]
    changed: dict[str, Any] = {field: rows}
    task = replace(found.task, **changed)
    b = replace(a, ranking=replace(a.ranking, tasks=[replace(found, task=task)]))
    with pytest.warns(ProtocolWarning, match=f"{words}, not the same images"):
        compare(a, b)


def test_the_metrics_must_be_the_same(tiny_cirr: Path) -> None:
    a = random_evaluation(CIRR(tiny_cirr, "val"))
    found = a.ranking[""]
    b = compute_metrics(
        replace(
            a.ranking,
            tasks=[
                replace(
                    found, task=replace(found.task, metrics=[Recall(1)], summaries=[], decides="")
                )
            ],
        )
    )
    with pytest.raises(ValueError, match="A has the metrics"):
        compare(a, b)


def test_it_prints_a_table_and_gives_json(tiny_fashioniq: Path) -> None:
    a, b = evaluations(tiny_fashioniq)
    comparison = compare(a, b, names=("runs/a", "runs/b"), resamples=300, seed=2)
    lines = str(comparison).splitlines()
    assert lines[:2] == ["A  runs/a", "B  runs/b"]
    assert lines[3].strip().startswith("dataset FashionIQ, split val, gallery original")
    assert "300 resamples, seed 2" in str(comparison)
    for name, found in comparison.differences.items():
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert line.split()[1:4] == [
            f"{found.a:.2f}",
            f"{found.b:.2f}",
            f"{found.difference:+.2f}",
        ]
        assert line.endswith("*") == found.clear
    content = json.loads(json.dumps(comparison.to_dict()))
    assert content["names"] == ["runs/a", "runs/b"]
    assert content["differences"]["mean"]["difference"] == b["mean"] - a["mean"]
    assert len(content["better"]) == len(comparison.better) > 0
    assert {"query_id", "rank_a", "rank_b", "texts"} <= set(content["better"][0])


def test_fewer_changes_than_none_are_refused(tiny_fashioniq: Path) -> None:
    a, b = evaluations(tiny_fashioniq)
    none = compare(a, b, changes=0)
    assert not none.better and not none.worse
    with pytest.raises(ValueError, match="changes must be a whole number of at least 0, got -1"):
        compare(a, b, changes=-1)
