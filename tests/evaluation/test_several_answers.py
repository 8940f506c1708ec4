"""Queries with several right answers: ranked, measured, saved, compared and selected."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import random_evaluation, random_model
from hypothesis import given
from hypothesis import strategies as st
from tasks import Toy

import fusecomp as fc
from fusecomp._core.files import checksum
from fusecomp.datasets import Triplets, drop_images, split_by_group
from fusecomp.evaluation import (
    MeanAveragePrecision,
    Recall,
    SubsetRecall,
    TaskRanking,
    bootstrap,
    compare,
    compute_metrics,
    cosines,
)
from fusecomp.types import Metric, Task

IDS = [f"i{number}" for number in range(12)]
# Right answers by query, the target first.
ANSWERS = [("i1",), ("i5", "i2", "i9"), ("i3", "i4"), ("i11", "i0", "i7", "i8", "i6")]


def triplets(answers: Sequence[Sequence[str]] = ANSWERS) -> list[fc.Triplet]:
    return [
        fc.Triplet(f"q{n}", "i10", (f"text {n}",), first, other_target_ids=tuple(others))
        for n, (first, *others) in enumerate(answers)
    ]


def data_of(**options: Any) -> Triplets:
    return Triplets(triplets(), gallery=IDS, ks=(1, 3, 5), **options)


def ranked(answers: Sequence[Sequence[str]], tops: Sequence[Sequence[str]]) -> TaskRanking:
    """A ranking in which the first of the gallery are as given, and the rest follows in order."""
    task = Task("", triplets(answers), IDS, metrics=[MeanAveragePrecision(5), Recall(5)])
    orders = [[*top, *(i for i in IDS if i not in top)] for top in tops]
    places = [[order.index(i) + 1 for i in row] for order, row in zip(orders, answers, strict=True)]
    width = max(map(len, places))
    return TaskRanking(
        task,
        torch.tensor([[IDS.index(i) for i in order] for order in orders]),
        torch.linspace(1, 0, len(IDS)).expand(len(orders), -1),
        torch.tensor([row[0] for row in places]),
        relevant_ranks=torch.tensor([row + [-1] * (width - len(row)) for row in places]),
    )


def by_circo(ranks: Sequence[int], answers: int, k: int) -> float:
    """The mean precision at the hits of a list of labels, as CIRCO's evaluation has it."""
    labels = [rank in ranks for rank in range(1, k + 1)]
    hits = [sum(labels[: n + 1]) / (n + 1) for n, label in enumerate(labels) if label]
    return sum(hits) / min(answers, k)


# By hand


@pytest.mark.parametrize(
    ("ranks", "answers", "k", "expected"),
    [
        ([1], 1, 5, 1.0),
        ([2], 1, 5, 1 / 2),
        ([6], 1, 5, 0.0),
        ([], 3, 5, 0.0),
        ([1, 2, 3], 3, 5, 1.0),
        ([3, 1], 4, 5, (1 + 2 / 3) / 4),
        ([1, 2, 3, 4, 5], 7, 5, 1.0),  # five of seven fill the five places
        ([2, 4, 9], 9, 5, (1 / 2 + 2 / 4) / 5),
        ([10, 2], 2, 10, (1 / 2 + 2 / 10) / 2),
    ],
)
def test_the_average_precision_of_one_query(
    ranks: list[int], answers: int, k: int, expected: float
) -> None:
    assert MeanAveragePrecision(k).of_ranks(ranks, answers) == pytest.approx(expected, abs=1e-15)


def test_a_ranking_by_hand() -> None:
    answers = [("i1",), ("i5", "i2", "i9"), ("i11", "i0", "i7", "i8", "i6")]
    tops = [["i4", "i1"], ["i2", "i3", "i9", "i4", "i0", "i5"], ["i11", "i8", "i7", "i6", "i0"]]
    values = ranked(answers, tops).metric_values()
    assert values["map@5"].tolist() == pytest.approx([1 / 2, (1 + 2 / 3) / 3, 1.0], abs=1e-15)
    assert values["recall@5"].tolist() == [True, False, True]
    evaluation = compute_metrics(fc.Ranking([ranked(answers, tops)], {}))
    assert evaluation["map@5"] == pytest.approx(100 * (1 / 2 + 5 / 9 + 1) / 3, abs=1e-12)


# Laws


@given(
    st.lists(st.integers(1, 60), unique=True, max_size=12), st.integers(0, 5), st.integers(1, 60)
)
def test_it_equals_the_published_rule(ranks: list[int], unfound: int, k: int) -> None:
    answers = max(1, len(ranks) + unfound)
    value = MeanAveragePrecision(k).of_ranks(ranks, answers)
    assert value == pytest.approx(by_circo(ranks, answers, k), abs=1e-12)
    assert 0 <= value <= 1 + 1e-12
    assert value == MeanAveragePrecision(k).of_ranks(ranks[::-1], answers)


def test_the_ranks_of_all_answers_are_those_of_a_sorted_gallery() -> None:
    data = data_of()
    (found,) = fc.rank(random_model(data), data, k=len(IDS)).tasks
    assert found.relevant_ranks is not None
    assert found.ranks is not None
    assert found.relevant_ranks.dtype == torch.int64
    for row, answers, places in zip(
        found.top_ids(), ANSWERS, found.relevant_ranks.tolist(), strict=True
    ):
        assert "i10" not in row  # the reference
        assert places == [row.index(i) + 1 for i in answers] + [-1] * (5 - len(answers))
    assert torch.equal(found.relevant_ranks[:, 0], found.ranks)


def test_they_are_ranked_beyond_the_results_that_are_kept() -> None:
    data = data_of()
    model = random_model(data)
    many, few = (fc.rank(model, data, k=k)[""] for k in (12, 1))
    assert few.relevant_ranks is not None
    assert many.relevant_ranks is not None
    assert torch.equal(few.relevant_ranks, many.relevant_ranks)


def test_where_each_query_has_one_answer_it_is_the_reciprocal_rank() -> None:
    rows = triplets([answers[:1] for answers in ANSWERS])
    task = Task("", rows, IDS, metrics=[MeanAveragePrecision(4)])
    data = Toy([task])
    found = fc.evaluate(random_model(data), data).ranking[""]
    assert (found.task.relevant, found.relevant_ranks) == (None, None)
    assert found.ranks is not None
    expected = torch.where(found.ranks <= 4, 1 / found.ranks.double(), 0.0)
    assert torch.equal(found.metric_values()["map@4"], expected)


# A dataset


def test_a_task_takes_the_answers_that_its_queries_name() -> None:
    (task,) = data_of().tasks()
    assert task.relevant == tuple(ANSWERS)
    names = [metric.name for metric in task.metrics]
    assert names == [*(f"map@{k}" for k in (1, 3, 5)), *(f"recall@{k}" for k in (1, 3, 5))]
    assert task.decides == "mean(map@1, map@3, map@5)"
    plain = Task("", triplets(), IDS)
    assert plain.relevant == tuple(ANSWERS)
    assert [metric.name for metric in plain.metrics] == [
        *("map@10", "map@50"),
        *("recall@10", "recall@50"),
    ]


def test_an_evaluation_has_both_and_prints_them() -> None:
    evaluation = random_evaluation(data := data_of())
    (task,) = data.tasks()
    assert list(evaluation) == [*(metric.name for metric in task.metrics), task.decides]
    maps = [evaluation[f"map@{k}"] for k in (1, 3, 5)]
    assert evaluation[evaluation.default_metric] == pytest.approx(sum(maps) / 3)
    assert f"{maps[2]:.2f}" in str(evaluation)
    assert "map@3 (%)" in evaluation.to_frame()


def test_answers_that_are_missing_are_left_out_and_said() -> None:
    data = drop_images(data_of(), ["i7", "i5"])
    (task,) = data.tasks()
    assert task.relevant == (("i1",), ("i3", "i4"), ("i11", "i0", "i8", "i6"))
    assert task.missing_queries == ("q1",)
    evaluation = fc.evaluate(random_model(data_of()), data)
    assert evaluation.protocol["missing"] == "1 of 4 queries, 2 of 12 gallery images"


def test_no_split_has_an_answer_of_another_one() -> None:
    rows = [
        fc.Triplet("q0", "a", ("t",), "b", other_target_ids=("c",)),
        fc.Triplet("q1", "d", ("t",), "c"),
        fc.Triplet("q2", "e", ("t",), "f"),
    ]
    train, val = split_by_group(rows, (0.6, 0.4))
    assert [row.query_id for row in train] == ["q0", "q1"]
    assert [row.query_id for row in val] == ["q2"]


def test_other_answers_count_neither_as_targets_nor_as_others() -> None:
    data = data_of()
    found = cosines(random_model(data), data)
    assert found.target.pairs == len(ANSWERS)
    # The gallery without the reference and without all right answers.
    assert found.others.pairs == sum(len(IDS) - 1 - len(answers) for answers in ANSWERS)


# Files, intervals, comparisons


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    random_evaluation(data_of()).save(tmp_path / "evaluation.npz")
    return tmp_path / "evaluation.npz"


def test_a_file_holds_all_of_it(saved: Path) -> None:
    evaluation, back = random_evaluation(data_of()), fc.Evaluation.load(saved)
    assert dict(back) == dict(evaluation)
    one, other = evaluation.ranking[""], back.ranking[""]
    assert one.task == other.task
    assert other.task.queries[1].other_target_ids == ("i2", "i9")
    assert one.relevant_ranks is not None
    assert other.relevant_ranks is not None
    assert torch.equal(one.relevant_ranks, other.relevant_ranks)
    assert bootstrap(back, resamples=50) == bootstrap(evaluation, resamples=50)
    back.save(again := saved.with_name("again.npz"))
    assert again.read_bytes() == saved.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: np.where(a > 0, 1, a), "the relevant ranks .* refute"),
        (lambda a: np.roll(a, 1, axis=1), "ranks of other images than its relevant ones"),
        (lambda a: a[:, :2], "ranks of other images than its relevant ones"),
        (lambda a: np.where(a > 0, a, 3), "ranks of other images than its relevant ones"),
        (lambda a: a[:, 0], r"relevant_ranks of task '' are \[4\] for 4 queries"),
        (lambda a: a + 50, "relevant_ranks of task '' point outside its gallery of 12"),
        (lambda a: a[:, [1, 0, 2, 3, 4]], "ranks of other images than its relevant ones"),
        (lambda a: a.astype(float), "relevant_ranks of task '' are torch.float64"),
        (None, "relevant_ranks"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(saved: Path, change: Any, message: str) -> None:
    with np.load(saved) as arrays:
        content = dict(arrays)
    del content["checksum"]
    ranks = content.pop("0/relevant_ranks")
    if change is not None:
        content["0/relevant_ranks"] = change(ranks)
    np.savez(saved, checksum=np.array(checksum(dict(sorted(content.items())))), **content)
    with pytest.raises(ValueError, match=message):
        fc.Evaluation.load(saved)


def test_intervals_hold_the_value() -> None:
    evaluation = random_evaluation(data_of())
    low, high = bootstrap(evaluation, resamples=500)["map@5"]
    assert low <= evaluation["map@5"] <= high
    assert low < high


def test_two_models_are_compared_and_other_answers_are_named() -> None:
    one, other = (random_evaluation(data_of(), seed) for seed in (0, 1))
    found = compare(one, other, resamples=20)
    assert found.differences["map@5"].difference == other["map@5"] - one["map@5"]
    assert found.warnings == []
    fewer = [replace(query, other_target_ids=query.other_target_ids[:2]) for query in triplets()]
    less = random_evaluation(Triplets(fewer, gallery=IDS, ks=(1, 3, 5)))
    with pytest.warns(fc.evaluation.ProtocolWarning, match="the relevant images, not the same"):
        compare(one, less, resamples=20)


def test_some_queries_are_an_evaluation_too() -> None:
    evaluation = random_evaluation(data_of())
    values = evaluation.ranking[""].metric_values()["map@5"]
    some = evaluation.select(["q3", "q1"])
    assert [query.query_id for query in some.ranking[""].task.queries] == ["q1", "q3"]
    assert some["map@5"] == pytest.approx(100 * float(values[[1, 3]].mean()))
    assert str(some).splitlines()[-2] == "all: 2 queries in 12 images"
    every = evaluation.select([query.query_id for query in triplets()])
    assert dict(every) == dict(evaluation)


def test_tasks_without_any_of_the_queries_are_left_out() -> None:
    tasks = [
        Task(name, triplets()[rows], IDS) for name, rows in (("a", slice(2)), ("b", slice(2, 4)))
    ]
    evaluation = random_evaluation(Toy(tasks))
    assert list(evaluation.select(["q0", "q1"]).ranking) == ["a"]


@pytest.mark.parametrize(
    ("query_ids", "message"),
    [
        (["q0", "q9"], "query_ids: there is no query 'q9' in Ranking"),
        ([], "there is no task"),
        ("q0", "query_ids must be a list of strings, got the string 'q0'"),
        ([3], "query_ids must be a list of strings"),
    ],
)
def test_queries_that_there_are_not_are_named(query_ids: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_evaluation(data_of()).select(query_ids)


# Bad input


@pytest.mark.parametrize(
    ("ranks", "answers", "message"),
    [
        ([1, 1], 3, "ranks must be distinct"),
        ([1, 2], 1, "at most as many as the 1 answers"),
        ([0], 1, "each of ranks must be a whole number of at least 1, got 0"),
        ([-1], 1, "each of ranks must be a whole number of at least 1, got -1"),
        ([1.5], 1, "each of ranks must be a whole number"),
        ([True], 1, "each of ranks must be a whole number"),
        ("12", 3, "ranks must be a list of ranks, got the string '12'"),
        ([1], 0, "answers must be a whole number of at least 1, got 0"),
        ([1], None, "answers must be a whole number of at least 1, got None"),
    ],
)
def test_ranks_that_are_none_are_named(ranks: Any, answers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeanAveragePrecision(5).of_ranks(ranks, answers)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, None, "5"])
def test_k_is_a_whole_number(k: Any) -> None:
    with pytest.raises(ValueError, match="k must be a whole number of at least 1"):
        MeanAveragePrecision(k)


def test_a_ranking_without_these_ranks_is_refused() -> None:
    found = replace(ranked(ANSWERS[:1] * 2 + ANSWERS[1:2], [[], [], []]), relevant_ranks=None)
    with pytest.raises(ValueError, match=r"map@5 needs the ranks of all right answers"):
        found.metric_values()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"target_id": ("a", "b")}, TypeError, r"\('a', 'b'\).*beyond the target are other_ta"),
        ({"target_id": ["a"]}, TypeError, "the target are other_target_ids"),
        ({"target_id": None}, ValueError, "has other_target_ids but no target_id"),
        (
            {"other_target_ids": "ab"},
            ValueError,
            "other_target_ids must be a non-empty tuple of st",
        ),
        ({"other_target_ids": [1]}, ValueError, "other_target_ids must be a non-empty tuple of st"),
        ({"other_target_ids": None}, ValueError, "other_target_ids must be a non-empty tuple of"),
        ({"other_target_ids": ["x", "x"]}, ValueError, "its targets name an image twice: 'x'"),
        ({"other_target_ids": ["x", "t"]}, ValueError, "its targets name an image twice: 't'"),
    ],
)
def test_answers_that_make_no_triplet(fields: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        fc.Triplet(
            **{"query_id": "q", "reference_id": "r", "texts": ("t",), "target_id": "t"}
            | {"other_target_ids": ("x",)}
            | fields
        )


def test_a_list_of_answers_becomes_a_tuple() -> None:
    one = fc.Triplet("q", "r", ("t",), "t", other_target_ids=["x", "y"])  # type: ignore[arg-type]
    assert one == fc.Triplet("q", "r", ("t",), "t", None, ("x", "y"))
    assert one.relevant_ids == ("t", "x", "y")
    plain = fc.Triplet("q", "r", ("t",), "t", other_target_ids=[])  # type: ignore[arg-type]
    assert (plain.relevant_ids, plain.other_target_ids) == (("t",), ())
    assert fc.Triplet("q", "r", ("t",)).relevant_ids == ()


def test_a_reference_among_the_answers_is_refused_where_it_is_left_out() -> None:
    rows = [fc.Triplet("q", "r", ("t",), "t", other_target_ids=("r",))]
    with pytest.raises(ValueError, match="query 'q' excludes a relevant image: 'r'; keep it"):
        Triplets(rows).tasks()
    (task,) = Triplets(rows, exclude_reference=False).tasks()
    assert task.relevant == (("t", "r"),)


def test_subsets_and_several_answers_go_together() -> None:
    rows = [replace(query, group=("i10", *query.relevant_ids)) for query in triplets()]
    (task,) = Triplets(rows, gallery=IDS, ks=(1,)).tasks()
    expected: list[Metric] = [MeanAveragePrecision(1), Recall(1), *map(SubsetRecall, (1, 2, 3))]
    assert [*task.metrics] == expected
    data = Triplets(rows, gallery=IDS, ks=(1,))
    assert random_evaluation(data)["recall_subset@3"] <= 100
