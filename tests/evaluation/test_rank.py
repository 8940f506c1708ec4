"""Ranks against loops: ties, exclusions, subsets, and targets that are not public."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import features_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks import Toy, in_loops, toy_task
from torch import Tensor

from fusecomp.caching import CachedEncoder
from fusecomp.datasets import FashionIQ
from fusecomp.evaluation import Recall, evaluate, metric_names, rank
from fusecomp.fusions import Combiner, Sum
from fusecomp.model import ComposedEncoder
from fusecomp.types import Task, Triplet


def test_rankings_and_metrics_equal_loops() -> None:
    task = toy_task()
    data = Toy([task])
    encoder = features_of(data)
    rankings, ranks, subset_ranks = in_loops(encoder, task)
    evaluation = evaluate(ComposedEncoder(encoder, Sum()), data)
    result = evaluation.ranking["toy"]
    assert result.top_ids() == rankings
    assert result.ranks is not None
    assert result.ranks.tolist() == ranks
    assert result.subset_ranks is not None
    assert result.subset_ranks.tolist() == subset_ranks
    for k in (1, 2, 5):
        share = 100 * sum(0 < rank <= k for rank in ranks) / len(ranks)
        assert evaluation[f"toy/recall@{k}"] == pytest.approx(share)
    for k in (1, 2, 3):
        share = 100 * sum(0 < rank <= k for rank in subset_ranks) / len(subset_ranks)
        assert evaluation[f"toy/recall_subset@{k}"] == pytest.approx(share)


# Vectors of length 0 or 2 in whole numbers: their cosines are exact, so ties are true ties.
EXACT = st.sampled_from([(0, 0, 0, 0), *itertools.product((1, -1), repeat=4)])


@st.composite
def tied_tasks(draw: st.DrawFn) -> tuple[Task, np.ndarray, np.ndarray]:
    """A task with whatever tasks may have, and the features of its gallery and of its texts."""
    images = draw(st.lists(EXACT, min_size=1, max_size=9))
    texts = draw(st.lists(EXACT, min_size=1, max_size=5))
    gallery = [f"image {number}" for number in range(len(images))]
    some = st.lists(st.sampled_from(gallery), max_size=4)
    queries = [
        Triplet(str(n), gallery[0], (f"text {n}",), draw(st.sampled_from([None, *gallery])))
        for n in range(len(texts))
    ]
    exclude, subsets = (
        draw(st.none() | st.lists(some, min_size=len(texts), max_size=len(texts))) for _ in range(2)
    )
    # A target that its own task leaves out is refused, which test_checks tells.
    targets = [query.target_id for query in queries]
    exclude = exclude and [
        [i for i in row if i != t] for row, t in zip(exclude, targets, strict=True)
    ]
    subsets = subsets and [
        row if t is None or t in row else [*row, t] for row, t in zip(subsets, targets, strict=True)
    ]
    return Task("", queries, gallery, exclude, subsets), np.array(images), np.array(texts)


def places_in_loops(scores: np.ndarray, allowed: Sequence[bool]) -> list[int]:
    """The place of each image: 1 and how many are ahead of it, or -1 if it is not allowed."""
    places = []
    for own, score in enumerate(scores):
        ahead = 0
        for other, value in enumerate(scores):
            if allowed[other] and (value > score or (value == score and other < own)):
                ahead += 1
        places.append(1 + ahead if allowed[own] else -1)
    return places


@settings(max_examples=60)
@given(tied_tasks(), st.integers(1, 10))
def test_ranks_with_ties_exclusions_and_subsets_equal_loops(
    problem: tuple[Task, np.ndarray, np.ndarray], k: int
) -> None:
    task, images, texts = problem
    names = [query.texts[0] for query in task.queries]
    encoder = CachedEncoder.from_arrays(
        task.gallery, images.astype(np.float32), names, texts.astype(np.float32)
    )
    found = rank(ComposedEncoder(encoder, lambda image, text: text), Toy([task]), k)[""]
    full, subset = [], []
    for row, scores in enumerate(texts @ images.T):
        out = set() if task.exclude is None else set(task.exclude[row])
        allowed = [image_id not in out for image_id in task.gallery]
        full.append(places_in_loops(scores, allowed))
        if task.subsets is not None:
            members = task.subsets[row]
            inside = [i in members and i not in out for i in task.gallery]
            subset.append(places_in_loops(scores, inside))

    def best_first(places: list[int]) -> list[str]:
        by_place = dict(zip(places, task.gallery, strict=True))
        return [by_place[place] for place in sorted(by_place) if place > 0]

    def of_targets(rows: list[list[int]]) -> list[int]:
        return [
            -1 if query.target_id is None else places[task.gallery.index(query.target_id)]
            for query, places in zip(task.queries, rows, strict=True)
        ]

    assert found.top_ids() == [best_first(places)[:k] for places in full]
    assert found.subset_ids() == (
        None if task.subsets is None else [best_first(places) for places in subset]
    )
    if all(query.target_id is None for query in task.queries):
        assert found.ranks is found.subset_ranks is None
        return
    assert found.ranks is not None
    assert found.ranks.tolist() == of_targets(full)
    if task.subsets is not None:
        assert found.subset_ranks is not None
        assert found.subset_ranks.tolist() == of_targets(subset)


def test_subsets_are_ranked_best_first() -> None:
    task = toy_task()
    data = Toy([task])
    encoder = features_of(data)
    ranking = rank(ComposedEncoder(encoder, Sum()), data)["toy"]
    assert task.subsets is not None
    assert ranking.subset_ids() == [
        [image_id for image_id in full if image_id in members]
        for full, members in zip(ranking.top_ids(), task.subsets, strict=True)
    ]


def test_an_excluded_image_is_never_found() -> None:
    task = toy_task()
    ranking = rank(ComposedEncoder(features_of(Toy([task])), Sum()), Toy([task]))["toy"]
    for found, query in zip(ranking.top_ids(), task.queries, strict=True):
        assert query.reference_id not in found
        assert len(found) == len(task.gallery) - 1


def test_k_bounds_what_is_kept_and_not_the_ranks() -> None:
    task = toy_task()
    model = ComposedEncoder(features_of(Toy([task])), Sum())
    few, many = (rank(model, Toy([task]), k)["toy"] for k in (2, 50))
    assert few.indices.shape == few.scores.shape == (12, 2)
    assert torch.equal(few.indices, many.indices[:, :2])
    assert few.ranks is not None
    assert many.ranks is not None
    assert torch.equal(few.ranks, many.ranks)


def test_many_queries_are_the_same_as_few() -> None:
    task = toy_task(queries=1100, with_subsets=False)
    data = Toy([task])
    model = ComposedEncoder(features_of(data), Combiner(4))
    ranks = rank(model, data)["toy"].ranks
    assert ranks is not None
    for start in (0, 1000):
        part = task.select(range(start, start + 100))
        expected = rank(model, Toy([part]))["toy"].ranks
        assert expected is not None
        assert torch.equal(ranks[start : start + 100], expected)


# Targets that are not public


def test_rank_works_without_targets_and_evaluate_points_to_it(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "test")
    model = ComposedEncoder(features_of(data), Sum())
    ranking = rank(model, data, k=5)
    assert len(ranking) == 3
    for result in ranking.values():
        assert result.ranks is None
        assert all(len(found) == 5 for found in result.top_ids())
    with pytest.raises(ValueError, match=r"has no target.*rank\(model, dataset\)"):
        evaluate(model, data)
    assert ranking.protocol == data.protocol


def test_subsets_are_ranked_without_targets_too() -> None:
    task = toy_task()
    hidden = replace(task, queries=[replace(query, target_id=None) for query in task.queries])
    encoder = features_of(Toy([task]))
    known, unknown = (
        rank(ComposedEncoder(encoder, Sum()), Toy([t]))["toy"] for t in (task, hidden)
    )
    assert unknown.subset_ranks is None
    assert unknown.subset_indices is not None
    assert known.subset_indices is not None
    assert torch.equal(unknown.subset_indices, known.subset_indices)


def test_a_target_known_for_some_queries_only_is_ranked_for_those() -> None:
    task = toy_task()
    some = [
        replace(query, target_id=None) if i % 2 else query for i, query in enumerate(task.queries)
    ]
    encoder = features_of(Toy([task]))
    full = rank(ComposedEncoder(encoder, Sum()), Toy([task]))["toy"].ranks
    half = rank(ComposedEncoder(encoder, Sum()), Toy([replace(task, queries=some)]))["toy"].ranks
    assert full is not None
    assert half is not None
    assert half[1::2].tolist() == [-1] * 6
    assert torch.equal(half[::2], full[::2])


# What does not fit


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "there is no task to evaluate"),
        (
            [toy_task("a"), replace(toy_task("b", with_subsets=False), metrics=[Recall(3)])],
            "must have the same metrics, summaries and decides, but 'a' and 'b' differ",
        ),
        ([toy_task("a"), toy_task("b", with_subsets=False)], "must have the same metrics"),
        ([toy_task("a"), replace(toy_task("b"), decides="recall@1")], "metrics, summaries and dec"),
    ],
)
def test_tasks_that_give_no_metrics_are_refused(tasks: list[Task], message: str) -> None:
    encoder = features_of(Toy([toy_task()]))
    with pytest.raises(ValueError, match=message):
        evaluate(ComposedEncoder(encoder, Sum()), Toy(tasks))


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([toy_task("a"), toy_task("b"), toy_task("a")], "two tasks are named 'a'"),
        ([toy_task("a"), toy_task("mean")], "a task is named 'mean'"),
        ([toy_task("mean")], "a task is named 'mean'"),
        ([toy_task("a"), toy_task("")], "one of 2 tasks has the name ''"),
    ],
)
@pytest.mark.parametrize("first", ["names", "rank"])
def test_tasks_that_cannot_be_told_apart_or_scored_are_named(
    first: str, tasks: list[Task], message: str
) -> None:
    data = Toy(tasks)
    with pytest.raises(ValueError, match=message):
        if first == "names":
            metric_names(data)
        else:
            rank(ComposedEncoder(features_of(data), Sum()), data)


def test_a_text_without_features_is_named() -> None:
    encoder = features_of(Toy([toy_task(queries=1)]))
    with pytest.raises(ValueError, match="no cached features for the text"):
        evaluate(ComposedEncoder(encoder, Sum()), Toy([toy_task()]))


def test_a_query_that_is_not_finite_is_named() -> None:
    data = Toy([toy_task("first"), toy_task("second", queries=1100)])
    encoder = features_of(data)
    wrong = data.task_list[1].queries[1050]

    def fuse(image: Tensor, text: Tensor) -> Tensor:
        if len(image) == 1100 - 1024:
            image[1050 - 1024] = torch.nan
        return image

    with pytest.raises(ValueError, match=f"'second': .* query {wrong.query_id!r} holds NaN or inf"):
        rank(ComposedEncoder(encoder, fuse), data)
