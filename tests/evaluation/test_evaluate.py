"""The protocol run end to end, against the published numbers and against loops."""

import itertools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fusecomp.data import CIRR, FashionIQ
from fusecomp.encoders import CachedEncoder, DualEncoder, PartlyCachedEncoder
from fusecomp.evaluation import Evaluation, evaluate, metric_names, rank
from fusecomp.fusion import Combiner, Sum
from fusecomp.model import ComposedEncoder
from fusecomp.protocols import Dataset, Encoder
from fusecomp.records import Task, Triplet

Shared = Callable[[str], Path]

# The published protocol


@pytest.fixture
def published(shared: Shared) -> tuple[FashionIQ, CachedEncoder, dict[str, float]]:
    """The real validation split, random features for it, and the published code's metrics."""
    data = FashionIQ(shared("datasets/fashioniq"), "val")
    images: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    with np.load(shared("parity/protocol_features.npz")) as arrays:
        for task in data.tasks():
            rows = arrays[f"fashioniq/{task.name}/image"]
            images.update(zip(task.gallery, rows, strict=True))
            rows = arrays[f"fashioniq/{task.name}/text"]
            texts.update(zip([query.texts[0] for query in task.queries], rows, strict=True))
    encoder = CachedEncoder.from_arrays(
        list(images), np.stack(list(images.values())), list(texts), np.stack(list(texts.values()))
    )
    metrics = json.loads(shared("parity/protocol_metrics.json").read_text())
    expected = {
        f"{name.removeprefix('fashioniq/')}/{metric}": value
        for name, values in metrics.items()
        if name.startswith("fashioniq/")
        for metric, value in values.items()
    }
    return data, encoder, expected


def test_it_equals_the_published_evaluation_to_the_last_hit(
    published: tuple[FashionIQ, CachedEncoder, dict[str, float]],
) -> None:
    data, encoder, expected = published
    evaluation = evaluate(ComposedEncoder(encoder, Sum()), data)
    assert len(expected) == 6
    for name, value in expected.items():
        queries = len(evaluation.ranking[name.partition("/")[0]].task.queries)
        hits = value / 100 * queries
        assert abs(hits - round(hits)) < 0.01
        assert evaluation[name] == pytest.approx(100 * round(hits) / queries, abs=1e-9)
    for k in (10, 50):
        recalls = [expected[f"{name}/recall@{k}"] for name in ("dress", "shirt", "toptee")]
        assert evaluation[f"mean/recall@{k}"] == pytest.approx(sum(recalls) / 3, abs=1e-4)
    assert evaluation["mean"] == pytest.approx(sum(expected.values()) / 6, abs=1e-4)


def test_it_equals_the_published_evaluation_of_cirr_to_the_last_hit(
    published_cirr: Callable[[str], tuple[CIRR, ComposedEncoder]], shared: Shared
) -> None:
    data, model = published_cirr("val")
    evaluation = evaluate(model, data)
    expected = json.loads(shared("parity/protocol_metrics.json").read_text())["cirr/val"]
    names = [f"recall@{k}" for k in (1, 5, 10, 50)] + [f"recall_subset@{k}" for k in (1, 2, 3)]
    assert sorted(expected) == sorted(names)
    hits = {name: value / 100 * 4181 for name, value in expected.items()}
    assert all(abs(count - round(count)) < 0.01 for count in hits.values())
    for name, count in hits.items():
        assert evaluation[name] == pytest.approx(100 * round(count) / 4181, abs=1e-9)
    seven = list(expected.values())
    summaries = {
        "mean(recall@5, recall_subset@1)": (expected["recall@5"] + expected["recall_subset@1"]) / 2,
        "arithmetic_mean": statistics.mean(seven),
        "harmonic_mean": statistics.harmonic_mean(seven),
        "geometric_mean": statistics.geometric_mean(seven),
    }
    assert {**evaluation} == pytest.approx(expected | summaries, abs=1e-4)


def test_another_protocol_gives_other_numbers(
    published: tuple[FashionIQ, CachedEncoder, dict[str, float]],
) -> None:
    data, encoder, expected = published
    easier = FashionIQ(data.root, "val", ["dress"], gallery="val")
    metrics = evaluate(ComposedEncoder(encoder, Sum()), easier)
    assert metrics["dress/recall@10"] > expected["dress/recall@10"] + 1


# A toy data set with everything in it


@dataclass
class Toy:
    """Some tasks over numbered images; whatever a task names exists."""

    task_list: Sequence[Task]
    protocol: Mapping[str, str] = field(default_factory=lambda: {"dataset": "Toy"})

    @property
    def image_ids(self) -> Sequence[str]:
        return list(dict.fromkeys(image_id for task in self.task_list for image_id in task.gallery))

    def path(self, image_id: str) -> Path:
        return Path(f"{image_id}.png")

    def triplets(self, epoch: int = 0, seed: int = 0) -> Sequence[Triplet]:
        return [query for task in self.task_list for query in task.queries]

    def texts(self) -> Sequence[str]:
        return list(dict.fromkeys(text for query in self.triplets() for text in query.texts))

    def tasks(self) -> Sequence[Task]:
        return self.task_list

    def __len__(self) -> int:
        return len(self.triplets())


def toy_task(name: str = "toy", queries: int = 12, size: int = 9) -> Task:
    rng = np.random.default_rng(queries * size)
    gallery = [f"{name}{number}" for number in rng.permutation(size)]
    rows, subsets = [], []
    for number in range(queries):
        members = [gallery[i] for i in rng.permutation(size)[:5]]
        count = 1 + number % 3
        texts = tuple(f"text {i}" for i in rng.permutation(6)[:count])
        rows.append(Triplet(f"{name}/{number}", members[0], texts, members[1]))
        subsets.append(tuple(members[1:]))
    exclude = [(row.reference_id,) for row in rows]
    return Task(name, rows, gallery, exclude, subsets, ks=(1, 2, 5))


def features_of(data: Dataset, width: int = 4) -> CachedEncoder:
    generator = torch.Generator().manual_seed(0)
    ids, texts = list(data.image_ids), list(data.texts())
    images = torch.randn(len(ids), width, generator=generator)
    return CachedEncoder.from_arrays(
        ids, images, texts, torch.randn(len(texts), width, generator=generator)
    )


def in_loops(encoder: CachedEncoder, task: Task) -> tuple[list[list[str]], list[int], list[int]]:
    """The ranked gallery, the target's rank, and its rank in the subset, for each query."""
    rankings, ranks, subset_ranks = [], [], []
    for number, query in enumerate(task.queries):
        image = encoder.encode_image([query.reference_id])[0].double().numpy()
        texts = [encoder.encode_text([text])[0].double().numpy() for text in query.texts]
        composed = image + sum(texts) / len(texts)
        scores = {}
        for image_id in task.gallery:
            if task.exclude is not None and image_id in task.exclude[number]:
                continue
            other = encoder.encode_image([image_id])[0].double().numpy()
            lengths = np.linalg.norm(composed) * np.linalg.norm(other)
            scores[image_id] = float(composed @ other / lengths)
        ranking = sorted(scores, key=lambda image_id: -scores[image_id])
        rankings.append(ranking)
        wanted = query.target_id
        ranks.append(ranking.index(wanted) + 1 if wanted in ranking else -1)
        if task.subsets is not None:
            members = [image_id for image_id in ranking if image_id in task.subsets[number]]
            subset_ranks.append(members.index(wanted) + 1 if wanted in members else -1)
    return rankings, ranks, subset_ranks


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
    return Task("", queries, gallery, exclude, subsets, (1, 2)), np.array(images), np.array(texts)


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


@settings(max_examples=200, deadline=None)
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


def test_an_excluded_target_is_never_a_hit() -> None:
    task = toy_task()
    task = replace(task, exclude=[(query.target_id or "",) for query in task.queries])
    evaluation = evaluate(ComposedEncoder(features_of(Toy([task])), Sum()), Toy([task]))
    assert set(evaluation.values()) == {0.0}


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
    task = toy_task(queries=1100)
    data = Toy([replace(task, subsets=None)])
    model = ComposedEncoder(features_of(data), Combiner(4))
    ranks = rank(model, data)["toy"].ranks
    assert ranks is not None
    assert task.exclude is not None
    for start in (0, 1000):
        part = replace(
            task,
            queries=task.queries[start : start + 100],
            exclude=task.exclude[start : start + 100],
            subsets=None,
        )
        expected = rank(model, Toy([part]))["toy"].ranks
        assert expected is not None
        assert torch.equal(ranks[start : start + 100], expected)


# Metrics


def test_the_means_weigh_tasks_equally() -> None:
    tasks = [replace(toy_task("a", 3), subsets=None), replace(toy_task("b", 20), subsets=None)]
    data = Toy(tasks)
    evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
    for k in (1, 2, 5):
        parts = [evaluation[f"{name}/recall@{k}"] for name in ("a", "b")]
        assert evaluation[f"mean/recall@{k}"] == pytest.approx(sum(parts) / 2)
    means = [evaluation[f"mean/recall@{k}"] for k in (1, 2, 5)]
    assert evaluation["mean"] == pytest.approx(sum(means) / 3)
    assert evaluation.headline in evaluation


@pytest.mark.parametrize("names", [("a", "b"), ("a",), ("",)])
@pytest.mark.parametrize("with_subsets", [True, False])
def test_the_names_known_in_advance_are_those_given(
    names: tuple[str, ...], with_subsets: bool
) -> None:
    tasks = [toy_task(name) for name in names]
    data = Toy(tasks if with_subsets else [replace(task, subsets=None) for task in tasks])
    evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
    assert list(evaluation) == metric_names(data)
    assert len(evaluation) == len(set(evaluation))


CIRR_METRICS = [
    *(f"recall@{k}" for k in (1, 5, 10, 50)),
    *(f"recall_subset@{k}" for k in (1, 2, 3)),
    "mean(recall@5, recall_subset@1)",
    "arithmetic_mean",
    "harmonic_mean",
    "geometric_mean",
]


def test_cirr_has_the_published_metrics_and_three_means(tiny_cirr: Path) -> None:
    data = CIRR(tiny_cirr, "val")
    evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
    assert list(evaluation) == metric_names(data) == CIRR_METRICS
    assert evaluation.headline == "mean(recall@5, recall_subset@1)"
    seven = [evaluation[name] for name in CIRR_METRICS[:7]]
    assert evaluation[CIRR_METRICS[7]] == pytest.approx((seven[1] + seven[4]) / 2)
    assert evaluation["arithmetic_mean"] == pytest.approx(statistics.mean(seven))
    assert evaluation["harmonic_mean"] == pytest.approx(statistics.harmonic_mean(seven))


def test_a_recall_of_zero_makes_two_of_the_means_zero(tiny_cirr: Path) -> None:
    data = CIRR(tiny_cirr, "val")
    encoder = CachedEncoder.from_arrays(
        data.image_ids, -torch.eye(60), data.texts(), torch.zeros(20, 60)
    )
    # The query is the negated reference: equally far from every other image, gallery order decides.
    evaluation = evaluate(ComposedEncoder(encoder, lambda image, text: -image), data)
    assert evaluation["recall@1"] == 0
    assert evaluation["harmonic_mean"] == evaluation["geometric_mean"] == 0
    seven = [evaluation[name] for name in CIRR_METRICS[:7]]
    assert evaluation["arithmetic_mean"] == pytest.approx(statistics.mean(seven))
    assert evaluation["arithmetic_mean"] > 0


def test_the_three_means_are_ordered_and_of_all_recalls() -> None:
    tasks = [toy_task("a", 11), toy_task("b", 30)]
    data = Toy(tasks)
    evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
    ks = [f"recall@{k}" for k in (1, 2, 5)] + [f"recall_subset@{k}" for k in (1, 2, 3)]
    values = [evaluation[f"mean/{metric}"] for metric in ks]
    assert min(values) > 0
    assert evaluation["arithmetic_mean"] == pytest.approx(statistics.mean(values))
    assert evaluation["harmonic_mean"] == pytest.approx(statistics.harmonic_mean(values))
    assert evaluation["geometric_mean"] == pytest.approx(statistics.geometric_mean(values))


def test_the_headline_is_a_metric_that_the_tasks_have() -> None:
    def headline(task: Task) -> str:
        data = Toy([task])
        evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
        assert evaluation.headline in evaluation
        return evaluation.headline

    task = toy_task()
    assert headline(replace(task, subsets=None)) == "mean"
    assert headline(task) == "mean(recall@5, recall_subset@1)"
    assert headline(replace(task, ks=(1, 10))) == "arithmetic_mean"


def test_cirr_prints_one_metric_a_line(tiny_cirr: Path) -> None:
    data = CIRR(tiny_cirr, "val")
    evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
    lines = str(evaluation).splitlines()
    assert [line.rsplit(maxsplit=1) for line in lines[:11]] == [
        [name, f"{evaluation[name]:.2f}"] for name in CIRR_METRICS
    ]
    assert {len(line) for line in lines[:11]} == {len(lines[0])}
    assert lines[11:] == [
        "all: 20 queries in 60",
        "dataset CIRR, split val, gallery split, reference excluded",
    ]


def test_a_task_without_a_name_has_metrics_without_a_prefix() -> None:
    data = Toy([replace(toy_task(""), subsets=None)])
    assert metric_names(data) == ["recall@1", "recall@2", "recall@5", "mean"]


def test_an_evaluation_is_a_mapping_that_names_what_there_is() -> None:
    data = Toy([toy_task()])
    evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
    assert dict(evaluation) == evaluation.metrics
    with pytest.raises(KeyError, match="no metric 'recall@3'; there are toy/recall@1"):
        evaluation["recall@3"]
    with pytest.raises(KeyError, match="dress"):
        evaluation.ranking["dress"]
    assert list(evaluation.ranking) == ["toy"]


def test_it_prints_a_table_with_counts_and_protocol(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "val", ["dress", "shirt"])
    evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
    lines = str(evaluation).splitlines()
    assert lines[0].split() == ["dress", "shirt", "mean"]
    for k, line in zip((10, 50), lines[1:3], strict=True):
        values = [evaluation[f"{name}/recall@{k}"] for name in ("dress", "shirt", "mean")]
        assert line.split() == [f"recall@{k}", *(f"{value:.2f}" for value in values)]
    assert lines[3].split() == ["mean", f"{evaluation['mean']:.2f}"]
    assert {len(line) for line in lines[:4]} == {len(lines[0])}
    assert "dress: 8 queries in 12, shirt: 8 queries in 12" in str(evaluation)
    assert "gallery original, reference kept, captions both" in str(evaluation)


def test_what_is_shown_at_the_prompt_is_short(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "val", ["dress", "shirt"])
    evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
    assert repr(evaluation) == str(evaluation)
    sizes = "dress: 8 queries in 12, shirt: 8 queries in 12"
    protocol = "dataset FashionIQ, split val, gallery original, reference kept, captions both"
    for shown in (repr(evaluation.ranking), str(evaluation.ranking)):
        assert shown == f"Ranking({sizes}; {protocol})"
    expected = "TaskRanking(dress: 8 queries in 12; the best 50, targets known)"
    assert repr(evaluation.ranking["dress"]) == expected
    test = FashionIQ(tiny_fashioniq, "test", ["dress"])
    hidden = rank(ComposedEncoder(features_of(test), Sum()), test, k=5)["dress"]
    assert repr(hidden) == "TaskRanking(dress: 8 queries in 12; the best 5, targets unknown)"


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


@pytest.mark.parametrize("what", ["target", "exclude", "subsets"])
def test_an_image_outside_the_gallery_is_named(what: str) -> None:
    task = toy_task()
    encoder = features_of(Toy([task]))
    if what == "target":
        wrong = replace(task.queries[3], target_id="elsewhere")
        task = replace(task, queries=[*task.queries[:3], wrong, *task.queries[4:]])
    else:
        rows = [("toy1",)] * 3 + [("elsewhere",)] + [("toy1",)] * 8
        task = replace(task, exclude=rows) if what == "exclude" else replace(task, subsets=rows)
    with pytest.raises(
        ValueError, match="query 'toy/3': image 'elsewhere' is not in the gallery of task 'toy'"
    ):
        evaluate(ComposedEncoder(encoder, Sum()), Toy([task]))


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "has no task to evaluate"),
        ([replace(toy_task(), queries=[])], "task 'toy' has no queries"),
        ([toy_task("a"), replace(toy_task("b"), ks=(3,))], "must have the same metrics"),
        ([toy_task("a"), replace(toy_task("b"), subsets=None)], "must have the same metrics"),
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
        ([toy_task("a"), replace(toy_task("b"), ks=())], r"task 'b' has ks=\(\)"),
        ([replace(toy_task("a"), ks=(1, 0))], r"task 'a' has ks=\(1, 0\), .* each at least 1"),
        (
            [replace(toy_task("a"), exclude=[("a0",)] * 11)],
            "task 'a' has 12 queries but 11 rows of exclude",
        ),
        (
            [toy_task("b"), replace(toy_task("a"), subsets=[("a0",)] * 13)],
            "task 'a' has 12 queries but 13 rows of subsets",
        ),
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


def test_a_gallery_with_an_image_twice_is_refused() -> None:
    task = toy_task()
    twice = replace(task, gallery=[*task.gallery, task.gallery[0]])
    encoder = features_of(Toy([task]))
    with pytest.raises(ValueError, match="'toy' holds an image twice"):
        rank(ComposedEncoder(encoder, Sum()), Toy([twice]))


def test_ranking_a_task_without_queries_names_it() -> None:
    encoder = features_of(Toy([toy_task()]))
    with pytest.raises(ValueError, match="task 'toy' has no queries"):
        rank(
            ComposedEncoder(encoder, Sum()),
            Toy([replace(toy_task(), queries=[], exclude=None, subsets=None)]),
        )


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


# Live encoders


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(24, 4)

    def forward(self, texts: list[str]) -> Tensor:
        codes = [[ord(letter) / 64 for letter in text[:24].ljust(24)] for text in texts]
        out: Tensor = self.layer(torch.tensor(codes, device=self.layer.weight.device))
        return out


def load(path: Path) -> Tensor:
    return torch.tensor(list(path.read_bytes().ljust(8))).float() / 64


def test_a_live_encoder_gives_what_a_cached_one_gives(tiny_fashioniq: Path) -> None:
    torch.manual_seed(0)
    data = FashionIQ(tiny_fashioniq, "val", captions="averaged", exclude_reference=True)
    live = DualEncoder(nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.5)), Words(), load)
    fusion = Combiner(4)
    model = ComposedEncoder(live, fusion).train()
    from_live = evaluate(model, data)
    assert model.training
    assert fusion.relu_dropout.training
    cached = CachedEncoder.build(live, data)
    partly = PartlyCachedEncoder.build(live, data, sides=["image"])
    for encoder in (cached, partly):
        other = evaluate(ComposedEncoder(encoder, fusion), data)
        assert dict(other) == dict(from_live)
        for name, result in from_live.ranking.items():
            assert torch.equal(other.ranking[name].indices, result.indices)


def assert_equal_evaluations(one: Evaluation, other: Evaluation) -> None:
    """Equal but for the last digits of scores."""
    assert dict(one) == dict(other)
    for name, here in one.ranking.items():
        there = other.ranking[name]
        assert torch.equal(there.indices, here.indices)
        assert here.ranks is not None
        assert there.ranks is not None
        assert torch.equal(there.ranks, here.ranks)
        torch.testing.assert_close(there.scores, here.scores)


def test_a_gpu_ranks_as_a_cpu_does(tiny_fashioniq: Path, cuda: torch.device) -> None:
    torch.manual_seed(0)
    toy = Toy([toy_task("a"), toy_task("b", queries=1100)])
    data = FashionIQ(tiny_fashioniq, "val", captions="averaged", exclude_reference=True)
    live = DualEncoder(nn.Linear(8, 4), Words(), load)
    pairs: list[tuple[Encoder, Dataset]] = [(features_of(toy), toy), (live, data)]
    for encoder, dataset in pairs:
        model = ComposedEncoder(encoder, Combiner(4))
        here = evaluate(model, dataset)
        assert_equal_evaluations(here, evaluate(model.to(cuda), dataset))


def test_features_of_functions_are_ranked_on_the_gpu_of_the_fusion(
    tiny_fashioniq: Path, cuda: torch.device
) -> None:
    torch.manual_seed(0)
    data = FashionIQ(tiny_fashioniq, "val")
    weight, words = torch.randn(8, 4), Words()
    functions = DualEncoder(lambda p: p @ weight, lambda texts: words(texts), load)
    fusion = Combiner(4)
    here = evaluate(ComposedEncoder(functions, fusion), data)
    there = evaluate(ComposedEncoder(functions, fusion.to(cuda)), data)
    assert_equal_evaluations(here, there)


def test_missing_pictures_stop_the_evaluation(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "val", ["dress"])
    data.path("Dval07").unlink()
    live = DualEncoder(nn.Linear(8, 4), Words(), load)
    with pytest.raises(FileNotFoundError, match=r"1 of 12 pictures are missing, .*Dval07"):
        evaluate(ComposedEncoder(live, Sum()), data)


def test_a_data_set_without_a_protocol_is_named_by_its_class() -> None:
    class Plain(Toy):
        pass

    data = Plain([toy_task()])
    encoder = features_of(data)
    del data.protocol
    assert rank(ComposedEncoder(encoder, Sum()), data).protocol == {"dataset": "Plain"}


@pytest.mark.parametrize("call", [evaluate, rank])
def test_swapped_or_other_arguments_are_named_with_their_order(call: Callable[..., Any]) -> None:
    data = Toy([toy_task()])
    encoder = features_of(data)
    model = ComposedEncoder(encoder, Sum())
    for arguments, message in (
        ((data, model), "model must be a ComposedEncoder, got Toy"),
        ((encoder, data), "model must be a ComposedEncoder, got CachedEncoder"),
        ((model, encoder), "dataset must be a Dataset, got CachedEncoder"),
    ):
        with pytest.raises(TypeError, match=f"{message}; the order is model, dataset"):
            call(*arguments)
