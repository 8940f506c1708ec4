"""No metric of a task is lost, and nothing else is taken for tasks, rankings and protocols."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from evaluations import random_evaluation, random_model
from hypothesis import given
from hypothesis import strategies as st
from raising import own_error
from tasks import Toy, toy_task
from torch import Tensor

from fusecomp import evaluation
from fusecomp.evaluation import Mean, TaskFeatures, average_tasks

DATA = Toy([toy_task(queries=4, size=6)])
MODEL = random_model(DATA)
FOUND = random_evaluation(DATA)
ONE = torch.tensor(1.0)


def recalls(*metrics: str) -> dict[str, Tensor]:
    return dict.fromkeys(metrics, ONE)


LOST: list[tuple[Any, str]] = [
    ({}, "metrics must hold at least one task, got none"),
    ({"a": {}}, "'a' has []"),
    ({"a": recalls("recall@1"), "b": {}}, "'a' has ['recall@1'] and 'b' has []"),
    (
        {"a": recalls("recall@1"), "b": recalls("recall@5")},
        "'a' has ['recall@1'] and 'b' has ['recall@5']",
    ),
    (
        {"a": recalls("recall@1"), "b": recalls("recall@1", "recall@5")},
        "'a' has ['recall@1'] and 'b' has ['recall@1', 'recall@5']",
    ),
    (
        {"a": recalls("recall@1", "recall@5"), "b": recalls("recall@1")},
        "'a' has ['recall@1', 'recall@5'] and 'b' has ['recall@1']",
    ),
    ({"mean": recalls("recall@1"), "b": recalls("recall@1")}, "a task is named 'mean'"),
    ({"mean": recalls("recall@1")}, "a task is named 'mean'"),
    ({"": recalls("recall@1"), "b": recalls("recall@1")}, "one of 2 tasks has the name ''"),
    ({1: recalls("recall@1")}, "metrics must map tasks to their metrics, but 1 has "),
    (
        {"a": recalls("b/recall@1", "recall@1"), "a/b": recalls("b/recall@1", "recall@1")},
        "two metrics would be named 'a/b/recall@1'",
    ),
]


def test_a_summary_that_is_named_as_a_metric_is_refused() -> None:
    message = own_error(average_tasks, {"": recalls("recall@1", "mean")}, [Mean("mean")])
    assert "two metrics would be named 'mean'" in message


@pytest.mark.parametrize(("given", "message"), LOST)
def test_what_would_lose_a_metric_is_named(given: Any, message: str) -> None:
    assert message in own_error(average_tasks, given)


NAMES = st.text("ab/", max_size=3) | st.just("mean")


METRICS = st.lists(st.sampled_from(["recall@1", "recall@5", "mean", "a/b"]), unique=True)


@given(st.dictionaries(NAMES, METRICS, max_size=3))
def test_every_metric_of_every_task_is_there_or_an_error(tasks: Mapping[str, list[str]]) -> None:
    numbers = iter(range(100))
    given = {
        task: {metric: torch.tensor(float(next(numbers))) for metric in metrics}
        for task, metrics in tasks.items()
    }
    try:
        found = average_tasks(given)
    except ValueError:
        own_error(average_tasks, given)
        return
    for task, metrics in given.items():
        for metric, value in metrics.items():
            assert found[f"{task}/{metric}" if task else metric] == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor(1), "must have a floating dtype, got torch.int64"),
        (torch.tensor(True), "must have a floating dtype, got torch.bool"),
        (1.0, "must be a torch tensor, got float"),
        (None, "must be a torch tensor, got NoneType"),
        (torch.ones(2), "is [2], but the first one []"),
    ],
)
def test_a_recall_that_is_no_number_like_the_others_is_named(value: Any, message: str) -> None:
    given = {"a": recalls("recall@1"), "b": {"recall@1": value}}
    assert own_error(average_tasks, given).startswith(f"metrics['b']['recall@1'] {message}")


OBJECTS: list[tuple[Callable[[Any], Any], str]] = [
    (average_tasks, "metrics must map tasks to "),
    (
        lambda value: average_tasks({"a": value}),
        "metrics must map tasks to their metrics, but 'a' has ",
    ),
    (evaluation.compute_metrics, "ranking must be a Ranking, as rank returns it, got "),
    (evaluation.metric_names, "dataset "),
    (evaluation.default_metric, "dataset "),
    (evaluation.describe_protocol, "protocol must be a protocol, a mapping of options, got "),
    (lambda value: evaluation.protocol_differences(value, {}), "one must be a protocol"),
    (lambda value: evaluation.protocol_differences({}, value), "other must be a protocol"),
    *(
        (getattr(TaskFeatures(MODEL, DATA), method), "task must be one of the dataset's tasks, got")
        for method in ("queries", "gallery", "indices")
    ),
]


@pytest.mark.parametrize(("call", "message"), OBJECTS)
def test_an_object_in_the_place_of_another_is_named(
    call: Callable[[Any], Any], message: str
) -> None:
    for value in (None, 0, "dress", [DATA], MODEL, object(), Toy, iter("a")):
        assert own_error(call, value).startswith(message), value


@pytest.mark.parametrize("call", [evaluation.metric_names, evaluation.default_metric])
def test_a_ranking_is_no_dataset(call: Callable[[Any], Any]) -> None:
    for value in (FOUND, FOUND.ranking):
        assert "dataset must be a Dataset, got " in own_error(call, value)
    assert own_error(call, Toy([])).endswith("has no task to evaluate")


def test_an_evaluation_is_no_ranking() -> None:
    message = own_error(evaluation.compute_metrics, FOUND)
    assert re.search(r"got Evaluation; an Evaluation holds one as \.ranking", message)
    assert dict(evaluation.compute_metrics(FOUND.ranking)) == dict(FOUND)
