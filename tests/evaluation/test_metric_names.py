"""Nothing else is taken for tasks, rankings and protocols."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from evaluations import random_evaluation, random_model
from raising import own_error
from tasks import Toy, toy_task

from fusecomp import evaluation
from fusecomp.evaluation import TaskFeatures

DATA = Toy([toy_task(queries=4, size=6)])
MODEL = random_model(DATA)
FOUND = random_evaluation(DATA)


OBJECTS: list[tuple[Callable[[Any], Any], str]] = [
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
    assert own_error(call, Toy([])).endswith("there is no task to evaluate")


def test_an_evaluation_is_no_ranking() -> None:
    message = own_error(evaluation.compute_metrics, FOUND)
    assert re.search(r"got Evaluation; an Evaluation holds one as \.ranking", message)
    assert dict(evaluation.compute_metrics(FOUND.ranking)) == dict(FOUND)
