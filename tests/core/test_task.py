"""A task checks itself when it is made, and gives positions and parts of itself."""

import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from raising import shown_id

from fusecomp.evaluation import HarmonicMean, Mean, Recall, SubsetRecall
from fusecomp.types import Task, Triplet

IMAGES = tuple(f"i{number}" for number in range(6))
QUERIES = tuple(Triplet(f"q{n}", IMAGES[n], ("is blue",), IMAGES[n + 1]) for n in range(4))
QUERY = Triplet("q", "a", ("is red",), "b")
OTHERS = [("i0",)] * 4
OWN = [("i1",), ("i2",), ("i3",), ("i4", "i0")]
ELSEWHERE = [*OWN[:3], ("elsewhere", "i4")]
OUT = [("i5",)] * 3 + [("i3",)]
TASK = Task("dress", QUERIES, IMAGES, exclude=OUT, subsets=OWN, relevant=OWN)

NO_LISTS: list[Any] = ["ab", 5, {"a", "b"}, {"a": 1, "b": 2}, (i for i in "ab")]


@pytest.mark.parametrize("value", [*NO_LISTS, None], ids=shown_id)
@pytest.mark.parametrize(
    "name",
    ["queries", "gallery", "metrics", "summaries", "missing_queries", "missing_images"],
)
def test_the_lists_of_a_task_have_an_order(name: str, value: Any) -> None:
    values: dict[str, Any] = {"queries": [QUERY], "gallery": ["a", "b"], name: value}
    with pytest.raises(ValueError, match=f"{name} must be a list of"):
        Task("", **values)


@pytest.mark.parametrize("value", [*NO_LISTS, ["a", "b"], [iter("a"), ["b"]], [5, 6]], ids=shown_id)
@pytest.mark.parametrize("name", ["exclude", "subsets", "relevant"])
def test_what_a_task_has_for_each_query_is_a_list(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a list of lists of image ids, got"):
        Task("", [QUERY, QUERY], ["a", "b"], **{name: value})


def test_rows_without_an_order_are_sorted() -> None:
    gallery = [f"i{number:03}" for number in range(100)]
    query = Triplet("q", gallery[1], ("is blue",), gallery[0])
    for name, ids in (("exclude", gallery[1:]), ("subsets", gallery), ("relevant", gallery)):
        listed, unordered = (Task("", [query], gallery, **{name: [r]}) for r in (ids, {*ids}))  # type: ignore[arg-type]
        assert unordered == listed, name


class OwnMean(Mean):
    """A file of an evaluation could not name it."""


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": None}, "the name of a task must be a string, got None"),
    ({"queries": [{"query_id": "q"}]}, r"queries must be a list of triplets, got \{'query_id'"),
    ({"gallery": ["a", 5]}, "gallery must be a list of strings"),
    ({"queries": []}, "task '' has no queries"),
    ({"queries": [*QUERIES[:3], replace(QUERIES[3], query_id="q0")]}, "the id 'q0'"),
    ({"gallery": (*IMAGES, "i0")}, "the gallery of task '' holds an image twice: 'i0'"),
    ({"gallery": IMAGES[:4]}, "query 'q3': image 'i4' is not in the gallery of task ''"),
    ({"exclude": OTHERS[1:]}, "task '' has 4 queries but 3 rows of exclude; give one for each"),
    ({"subsets": [*OWN, ()]}, "task '' has 4 queries but 5 rows of subsets"),
    ({"relevant": []}, "task '' has 4 queries but 0 rows of relevant"),
    *(
        ({name: ELSEWHERE}, "query 'q3': image 'elsewhere' is not in the gallery of task ''")
        for name in ("exclude", "subsets", "relevant")
    ),
    (
        {"exclude": [*OTHERS[:3], ("i0", "i4")]},
        "query 'q3' of task '': its target 'i4' is excluded from its ranking",
    ),
    (
        {"name": "dress", "subsets": [*OWN[:2], ("i4",), OWN[3]]},
        "query 'q2' of task 'dress': its target 'i3' is not in its subset",
    ),
    ({"subsets": [(), *OWN[1:]]}, "query 'q0' of task '': its target 'i1' is not in its"),
    ({"relevant": [(), *OWN[1:]]}, "'q0' .* its target 'i1' is not the first of its relevant"),
    ({"relevant": [("i2", "i1"), *OWN[1:]]}, "'q0' .* 'i1' is not the first of its relevant"),
    ({"relevant": [*OWN[:3], ("i4", "i0", "i0")]}, "'q3' names a relevant image twice: 'i0'"),
    ({"relevant": OWN, "exclude": OTHERS}, "query 'q3' excludes a relevant image: 'i0'"),
    ({"metrics": []}, "task '' has no metrics, expected one or more such as"),
    ({"metrics": [1, 5]}, r"metrics must be a list of metrics such as Recall\(10\), got 1 in it"),
    ({"metrics": [Recall]}, r"such as Recall\(10\), got <class .*Recall'> in it"),
    ({"metrics": [Recall(5), Recall(5)]}, "two metrics of task '' are named 'recall@5'"),
    ({"metrics": [SubsetRecall(1)]}, "task '' has the metric 'recall_subset@1' but no subsets"),
    ({"summaries": ["mean"]}, r"summaries must be a list of means such as Mean\(\"mean\"\), got"),
    ({"summaries": [OwnMean("mine")]}, "'mine' of task '' is none of Mean, HarmonicMean, Geom"),
    ({"summaries": [Mean("recall@10")]}, "two metrics of task '' are named 'recall@10'"),
    ({"summaries": [Mean("mean", ["recall@1"])]}, "'mean' of task '' combines 'recall@1', none of"),
    ({"summaries": [Mean("a/b")]}, "a metric of task '' is named 'a/b', expected words without"),
    ({"summaries": [Mean("")]}, "a metric of task '' is named '', expected words without"),
    ({"decides": "recall@1"}, "has decides='recall@1', valid: recall@10, recall@50, mean"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_what_does_not_fit_is_refused_when_the_task_is_made(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Task(**{"name": "", "queries": QUERIES, "gallery": IMAGES, **values})


def test_where_the_target_is_unknown_the_relevant_images_may_be_any() -> None:
    hidden = replace(QUERY, target_id=None)
    for relevant in ([()], [("b", "a")]):
        assert Task("", [hidden], ["a", "b"], relevant=relevant).relevant == tuple(relevant)


@pytest.mark.parametrize("k", [0, -1, True, 1.0, "5", None])
@pytest.mark.parametrize("kind", [Recall, SubsetRecall])
def test_the_k_of_a_recall_is_a_whole_number(kind: type[Recall], k: Any) -> None:
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got"):
        kind(k)


def test_what_a_task_measures_by_default() -> None:
    plain = Task("", QUERIES, IMAGES)
    assert plain.metrics == (Recall(10), Recall(50))
    assert plain.summaries == (Mean("mean"),)
    assert plain.decides == "mean"
    grouped = Task("", QUERIES, IMAGES, subsets=OWN)
    assert grouped.metrics == (*plain.metrics, *map(SubsetRecall, (1, 2, 3)))
    assert [mean.name for mean in grouped.summaries] == [
        "arithmetic_mean",
        "harmonic_mean",
        "geometric_mean",
    ]
    cirr = Task("", QUERIES, IMAGES, subsets=OWN, metrics=[Recall(5), SubsetRecall(1)])
    assert cirr.decides == "mean(recall@5, recall_subset@1)"


def test_without_summaries_the_first_metric_decides() -> None:
    assert Task("", QUERIES, IMAGES, summaries=[]).decides == "recall@10"
    mine = [HarmonicMean("mine", ["recall@50"])]
    assert Task("", QUERIES, IMAGES, summaries=mine, decides="recall@50").decides == "recall@50"
    assert Task("", QUERIES, IMAGES, summaries=mine).decides == "mine"


def test_all_lists_become_tuples_that_nobody_changes() -> None:
    gallery, queries, rows = list(IMAGES), list(QUERIES), [["i0"] for _ in range(4)]
    task = Task("", queries, gallery, exclude=rows, metrics=[Recall(1)])
    gallery.reverse()
    queries.clear()
    rows[0].append("i5")
    assert (task.gallery, task.queries, task.exclude) == (IMAGES, QUERIES, (("i0",),) * 4)
    assert task.positions(["i5"]).tolist() == [5]
    with pytest.raises(FrozenInstanceError):
        task.name = "other"  # type: ignore[misc]
    views: Any = {"q": QUERY}.values(), {"a": 1, "b": 2}.keys()
    task = Task("", *views)
    assert (task.queries, task.gallery) == ((QUERY,), ("a", "b"))


def test_a_task_travels_between_processes() -> None:
    back = pickle.loads(pickle.dumps(TASK))
    assert back == TASK
    assert torch.equal(back.positions(["i3"]), TASK.positions(["i3"]))


def test_positions_are_those_of_the_gallery() -> None:
    found = TASK.positions(["i3", "i0", "i3"])
    assert found.dtype == torch.int64
    assert found.tolist() == [3, 0, 3]
    assert TASK.positions([]).shape == (0,)
    assert replace(TASK, gallery=IMAGES[::-1]).positions(["i3"]).tolist() == [2]
    with pytest.raises(ValueError, match="image 'x' is not in the gallery of task 'dress'"):
        TASK.positions(["i0", "x", "y"])


def test_some_queries_keep_all_that_belongs_to_them() -> None:
    some = TASK.select([3, 1])
    assert some.queries == (QUERIES[3], QUERIES[1])
    assert some.exclude == (OUT[3], OUT[1])
    assert some.subsets == some.relevant == (OWN[3], OWN[1])
    assert (some.gallery, some.metrics, some.decides) == (TASK.gallery, TASK.metrics, TASK.decides)
    plain = Task("", QUERIES, IMAGES).select([2])
    assert (plain.exclude, plain.subsets, plain.relevant) == (None, None, None)
    with pytest.raises(ValueError, match="task 'dress' has no queries"):
        TASK.select([])


def test_images_are_dropped_from_every_list() -> None:
    task = Task(
        "dress",
        QUERIES,
        IMAGES,
        exclude=[("i0", "i5")] * 4,
        subsets=[(q.target_id or "", "i5") for q in QUERIES],
        relevant=[(q.target_id or "",) for q in QUERIES],
        missing_queries=["earlier"],
        missing_images=["before"],
    )
    less = task.drop_images({"i5", "i1", "of another task"})
    assert less.queries == QUERIES[2:]
    assert less.gallery == ("i0", "i2", "i3", "i4")
    assert less.exclude == (("i0",),) * 2
    assert less.subsets == less.relevant == (("i3",), ("i4",))
    assert less.missing_queries == ("earlier", "q0", "q1")
    assert less.missing_images == ("before", "i1", "i5")
    assert str(less) == "dress: 2 queries in 4 images (missing: 3 queries, 3 images)"
    with pytest.raises(ValueError, match="task 'dress' has no queries"):
        task.drop_images(IMAGES[1:4])


def test_a_relevant_image_that_is_dropped_is_no_longer_relevant() -> None:
    task = Task("", QUERIES, IMAGES, relevant=OWN).drop_images(["i0"])
    assert task.relevant == (("i2",), ("i3",), ("i4",))


def test_a_task_prints_its_size_and_not_its_queries() -> None:
    queries = [Triplet(f"{number}", "a", ("is red",)) for number in range(1000)]
    assert repr(Task("dress", queries, ["a", "b"])) == "Task(dress: 1000 queries in 2 images)"
    assert str(Task("", queries, ["a"])) == "all: 1000 queries in 1 images"


@pytest.mark.parametrize("row", [-1, 4, 1.0, True, "1"], ids=shown_id)
def test_a_row_that_no_query_has_is_named(row: Any) -> None:
    with pytest.raises(
        ValueError, match=r"rows\[1\] must be (a whole number of at least 0|at most 3)"
    ):
        TASK.select([0, row])


def test_a_string_is_no_list_of_images_to_drop() -> None:
    with pytest.raises(
        ValueError, match="image_ids must be a list of strings, got the string 'i1'"
    ):
        Task("", QUERIES, IMAGES).drop_images("i1")
