"""The metrics that tasks have: their names, their means, the headline, and how they print."""

import statistics
from pathlib import Path

import pytest
import torch
from evaluations import CIRR_METRICS, features_of
from tasks import Toy, toy_task

from fusecomp.caching import CachedEncoder
from fusecomp.datasets import CIRR, FashionIQ
from fusecomp.evaluation import Recall, SubsetRecall, evaluate, metric_names, rank
from fusecomp.fusions import Sum
from fusecomp.model import ComposedEncoder
from fusecomp.types import Task


def test_the_means_weigh_tasks_equally() -> None:
    tasks = [toy_task("a", 3, with_subsets=False), toy_task("b", 20, with_subsets=False)]
    data = Toy(tasks)
    evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
    for k in (1, 2, 5):
        parts = [evaluation[f"{name}/recall@{k}"] for name in ("a", "b")]
        assert evaluation[f"mean/recall@{k}"] == pytest.approx(sum(parts) / 2)
    means = [evaluation[f"mean/recall@{k}"] for k in (1, 2, 5)]
    assert evaluation["mean"] == pytest.approx(sum(means) / 3)
    assert evaluation.default_metric in evaluation


@pytest.mark.parametrize("names", [("a", "b"), ("a",), ("",)])
@pytest.mark.parametrize("with_subsets", [True, False])
def test_the_names_known_in_advance_are_those_given(
    names: tuple[str, ...], with_subsets: bool
) -> None:
    data = Toy([toy_task(name, with_subsets=with_subsets) for name in names])
    evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
    assert list(evaluation) == metric_names(data)
    assert len(evaluation) == len(set(evaluation))


def test_cirr_has_the_published_metrics_and_three_means(tiny_cirr: Path) -> None:
    data = CIRR(tiny_cirr, "val")
    evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
    assert list(evaluation) == metric_names(data) == CIRR_METRICS
    assert evaluation.default_metric == "mean(recall@5, recall_subset@1)"
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
        assert evaluation.default_metric in evaluation
        return evaluation.default_metric

    task = toy_task()
    assert headline(toy_task(with_subsets=False)) == "mean"
    assert headline(task) == "mean(recall@5, recall_subset@1)"
    parts = task.queries, task.gallery, task.exclude, task.subsets
    assert headline(Task("", *parts, [Recall(1), SubsetRecall(1)])) == "arithmetic_mean"


# What is printed


def test_cirr_prints_one_metric_a_line(tiny_cirr: Path) -> None:
    data = CIRR(tiny_cirr, "val")
    evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
    lines = str(evaluation).splitlines()
    assert [line.rsplit(maxsplit=1) for line in lines[:11]] == [
        [name, f"{evaluation[name]:.2f}"] for name in CIRR_METRICS
    ]
    assert {len(line) for line in lines[:11]} == {len(lines[0])}
    assert lines[11:] == [
        "all: 20 queries in 60 images",
        "dataset CIRR, split val, gallery split, reference excluded",
    ]


def test_a_task_without_a_name_has_metrics_without_a_prefix() -> None:
    data = Toy([toy_task("", with_subsets=False)])
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
    assert "dress: 8 queries in 12 images, shirt: 8 queries in 12 images" in str(evaluation)
    assert "gallery original, reference kept, captions both" in str(evaluation)


def test_what_is_shown_at_the_prompt_is_short(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "val", ["dress", "shirt"])
    evaluation = evaluate(ComposedEncoder(features_of(data), Sum()), data)
    assert repr(evaluation) == str(evaluation)
    sizes = "dress: 8 queries in 12 images, shirt: 8 queries in 12 images"
    protocol = "dataset FashionIQ, split val, gallery original, reference kept, captions both"
    for shown in (repr(evaluation.ranking), str(evaluation.ranking)):
        assert shown == f"Ranking({sizes}; {protocol})"
    expected = "TaskRanking(dress: 8 queries in 12 images; the best 50, targets known)"
    assert repr(evaluation.ranking["dress"]) == expected
    test = FashionIQ(tiny_fashioniq, "test", ["dress"])
    hidden = rank(ComposedEncoder(features_of(test), Sum()), test, k=5)["dress"]
    assert repr(hidden) == "TaskRanking(dress: 8 queries in 12 images; the best 5, targets unknown)"
