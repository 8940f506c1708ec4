"""A metric of one's own is printed, compared, decides and reloads without its code."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy as training
from eight_steps import fit
from evaluations import random_evaluation, random_model
from tasks import Toy, toy_task
from torch import Tensor

import fusecomp as fc
from fusecomp.evaluation import (
    GeometricMean,
    HarmonicMean,
    Mean,
    Recall,
    TaskRanking,
    bootstrap,
    compare,
    default_metric,
    metric_names,
)
from fusecomp.types import Metric, Task


@dataclass(frozen=True)
class ReciprocalRank:
    """Mean reciprocal rank."""

    name: str = "mrr"

    def __call__(self, ranking: TaskRanking) -> Tensor:
        assert ranking.ranks is not None
        return torch.where(ranking.ranks > 0, 1 / ranking.ranks, 0.0)


@dataclass(frozen=True)
class RelevantFound:
    """The share of the relevant images among the results, in half precision of its own."""

    name: str = "share"

    def __call__(self, ranking: TaskRanking) -> Tensor:
        rows = zip(ranking.top_ids(), ranking.task.relevant or (), strict=True)
        shares = [len({*relevant}.intersection(top[:2])) / len(relevant) for top, relevant in rows]
        return torch.tensor(shares)


class Other(ReciprocalRank):
    """A metric that has the name of a recall, and another value."""

    def __init__(self) -> None:
        super().__init__("recall@1")


def measured(task: Task, *metrics: Metric) -> Task:
    return replace(task, metrics=metrics, summaries=[Mean("mean")], decides="")


def with_own_metrics() -> Toy:
    tasks = []
    for task in (toy_task(name, 30) for name in ("a", "b")):
        targets = [query.target_id or "" for query in task.queries]
        last = [row[-1] for row in task.subsets or ()]
        metrics: list[Metric] = [Recall(1), ReciprocalRank(), RelevantFound()]
        summaries = [HarmonicMean("both", ["mrr", "recall@1"]), GeometricMean("all")]
        summaries.append(Mean("mean", ["share"]))
        tasks.append(
            replace(
                task,
                metrics=metrics,
                summaries=summaries,
                decides="mrr",
                relevant=list(zip(targets, last, strict=True)),
            )
        )
    return Toy(tasks)


def test_it_is_named_printed_and_decides() -> None:
    data = with_own_metrics()
    evaluation = random_evaluation(data)
    names = ("recall@1", "mrr", "share")
    expected = [f"{group}/{name}" for group in ("a", "b", "mean") for name in names]
    assert list(evaluation) == metric_names(data) == [*expected, "both", "all", "mean"]
    assert evaluation.default_metric == default_metric(data) == "mean/mrr"
    ranks = evaluation.ranking["a"].ranks
    assert ranks is not None
    assert evaluation["a/mrr"] == pytest.approx(100 * float((1 / ranks.double()).mean()))
    one, two = (evaluation[f"mean/{name}"] for name in ("recall@1", "mrr"))
    assert evaluation["both"] == pytest.approx(2 / (1 / one + 1 / two))
    assert evaluation["mean"] == evaluation["mean/share"] > 0
    lines = str(evaluation).splitlines()
    assert lines[2].split() == [
        "mrr",
        *(f"{evaluation[f'{g}/mrr']:.2f}" for g in ("a", "b", "mean")),
    ]


def test_a_task_alone_decides_by_the_metric_itself() -> None:
    data = Toy([measured(toy_task(""), ReciprocalRank(), Recall(2))])
    data.task_list = [replace(data.task_list[0], decides="mrr")]
    assert default_metric(data) == random_evaluation(data).default_metric == "mrr"


def test_it_reloads_without_its_code(tmp_path: Path) -> None:
    data = with_own_metrics()
    evaluation, other = random_evaluation(data), random_evaluation(data, 1)
    evaluation.save(tmp_path / "evaluation.npz")
    back = fc.Evaluation.load(tmp_path)
    assert list(back.items()) == list(evaluation.items())
    assert str(back) == str(evaluation)
    assert back.default_metric == "mean/mrr"
    task = back.ranking["b"].task
    assert task.relevant == data.task_list[1].relevant
    assert task.summaries == data.task_list[1].summaries
    assert task.metrics[0] == Recall(1)
    assert not isinstance(task.metrics[1], ReciprocalRank)
    assert bootstrap(back, resamples=50) == bootstrap(evaluation, resamples=50)
    # What was read can be saved, compared and cut as what was measured.
    back.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "evaluation.npz").read_bytes()
    for first in (evaluation, back):
        assert (
            compare(first, other, resamples=50).to_dict()
            == compare(evaluation, other, resamples=50).to_dict()
        )
    assert compare(back, evaluation, resamples=50).differences["mean/mrr"].clear is False


def test_it_follows_the_queries_that_two_evaluations_share(tmp_path: Path) -> None:
    task = measured(toy_task("", 30), ReciprocalRank())
    some = replace(
        task.select(range(0, 30, 2)), missing_queries=[q.query_id for q in task.queries[1::2]]
    )
    model = random_model(Toy([task]))
    every, half = (fc.evaluate(model, Toy([each])) for each in (task, some))
    assert every["mrr"] != half["mrr"]
    every.save(tmp_path / "evaluation.npz")
    for evaluation in (every, fc.Evaluation.load(tmp_path)):
        found = compare(evaluation, half, resamples=20).differences["mrr"]
        assert (found.a, found.difference) == (half["mrr"], 0)


def test_a_metric_with_the_name_of_a_recall_keeps_its_values(tmp_path: Path) -> None:
    data = Toy([measured(toy_task(""), Other())])
    evaluation = random_evaluation(data)
    evaluation.save(tmp_path / "evaluation.npz")
    back = fc.Evaluation.load(tmp_path)
    assert back["recall@1"] == evaluation["recall@1"]
    plain = random_evaluation(Toy([measured(toy_task(""), Recall(1))]))
    assert back["recall@1"] != plain["recall@1"]


def test_intervals_of_values_between_0_and_1_equal_those_of_loops() -> None:
    data = Toy([measured(toy_task("", 40), ReciprocalRank())])
    evaluation = random_evaluation(data)
    values = evaluation.ranking[""].metric_values()["mrr"].numpy()
    rng = np.random.default_rng(1)
    drawn = 100 * values[rng.integers(len(values), size=(4000, len(values)))].mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    interval = bootstrap(evaluation, resamples=4000)["mrr"]
    assert interval == pytest.approx((low, high), abs=0.1 * (high - low))


WRONG: list[tuple[Callable[[TaskRanking], Any], type[Exception], str]] = [
    (lambda ranking: [1.0] * 12, TypeError, "the metric 'mine' must be a torch tensor, got list"),
    (lambda ranking: torch.ones(11), ValueError, r"floating \[12\], one value for each .* \[11\]"),
    (lambda ranking: torch.ones(12, 1), ValueError, r"got torch.float32 \[12, 1\]"),
    (lambda ranking: ranking.ranks, ValueError, r"bool or floating \[12\].* got torch.int64"),
    (lambda ranking: torch.ones(12) / 0, ValueError, "'mine' of query 'toy/0' must be finite, got"),
]


@pytest.mark.parametrize(("values", "error", "message"), WRONG)
def test_values_that_are_none_are_named(
    values: Callable[[TaskRanking], Any], error: type[Exception], message: str
) -> None:
    class Mine:
        name = "mine"

        def __call__(self, ranking: TaskRanking) -> Tensor:
            found: Tensor = values(ranking)
            return found

    with pytest.raises(error, match=message):
        random_evaluation(Toy([measured(toy_task(), Mine())]))


class Validation(training.Toy):
    """Validated by a metric of its own."""

    metric: Metric = ReciprocalRank()

    def tasks(self) -> list[Task]:
        return [measured(task, self.metric) for task in super().tasks()]


@dataclass(frozen=True)
class Shifted(ReciprocalRank):
    """The same name, another setting."""

    shift: float = 0.5


def test_it_picks_the_best_weights_and_belongs_to_the_run(tmp_path: Path) -> None:
    data, folder = Validation(tmp_path), tmp_path / "run"
    config = replace(training.CONFIG, epochs=2, metric="mrr")
    run = fit(tmp_path, config, validation=data, workdir=folder)
    assert all({"mrr", "mean"} <= record.keys() for record in run.history)
    assert max(record["mrr"] for record in run.history) == run.metrics["mrr"]
    assert fit(tmp_path, config, validation=data, workdir=folder).history == run.history
    other = Validation(tmp_path)
    other.metric = Shifted()
    with pytest.raises(ValueError, match=r"validation\.tasks was"):
        fit(tmp_path, config, validation=other, workdir=folder)
