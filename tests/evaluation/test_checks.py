"""What does not fit is said before any image is read; scores are never of half the queries."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluations import random_model
from torch import Tensor

from fusecomp.encoders import DualEncoder
from fusecomp.evaluation import Evaluation, Recall, compute_metrics, cosines, evaluate, rank
from fusecomp.fusions import Sum
from fusecomp.model import ComposedEncoder
from fusecomp.types import Task, Triplet

IMAGES = tuple(f"i{number}" for number in range(6))


class OneTask:
    """A dataset of one task, whose images are nowhere."""

    protocol = {"dataset": "one"}  # noqa: RUF012 - it stays as it is

    def __init__(self, task: Task) -> None:
        self.task = task
        self.image_ids = IMAGES

    def path(self, image_id: str) -> Path:
        return Path("nowhere") / image_id

    def triplets(self, epoch: int = 0, seed: int = 0) -> list[Triplet]:
        return list(self.task.queries)

    def texts(self) -> list[str]:
        return ["is blue"]

    def tasks(self) -> list[Task]:
        return [self.task]

    def __len__(self) -> int:
        return len(self.task.queries)


QUERIES = [Triplet(f"q{n}", IMAGES[n], ("is blue",), IMAGES[n + 1]) for n in range(4)]
TASK = Task("", QUERIES, IMAGES, metrics=[Recall(1), Recall(2)])
HIDDEN = [replace(QUERIES[0], target_id=None), *QUERIES[1:]]


def refuse(*_: object) -> Tensor:
    raise AssertionError("an image was read or encoded")


# It may be asked for anything but to compute.
UNTOUCHED = ComposedEncoder(DualEncoder(refuse, refuse, refuse), Sum())


@pytest.mark.parametrize("tasks", [{"a": TASK}, (TASK for _ in range(1)), ["task"], TASK])
@pytest.mark.parametrize("call", [rank, evaluate])
def test_the_tasks_of_a_dataset_are_a_list_of_tasks(call: Callable[..., Any], tasks: Any) -> None:
    data = OneTask(TASK)
    data.tasks = lambda: tasks  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"tasks\(\) of a dataset must be a list of tasks, got"):
        call(UNTOUCHED, data)


@pytest.mark.parametrize("k", [0, -1, 2.5, "10", None])
def test_a_k_that_is_none_is_refused_first(k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be a whole number of at least 1, got {k!r}"):
        rank(UNTOUCHED, OneTask(TASK), k)


@pytest.mark.parametrize("call", [evaluate, cosines])
def test_a_hidden_target_is_refused_first(
    call: Callable[[ComposedEncoder, OneTask], object],
) -> None:
    with pytest.raises(ValueError, match=r"query 'q0' has no target.* rank\(model, dataset\)"):
        call(UNTOUCHED, OneTask(replace(TASK, queries=HIDDEN)))


@pytest.mark.parametrize("call", [rank, evaluate, cosines])
@pytest.mark.parametrize("model", [UNTOUCHED, random_model(OneTask(TASK))])
def test_a_misspelt_on_error_is_refused_whatever_the_encoder(
    model: ComposedEncoder, call: Callable[..., object]
) -> None:
    with pytest.raises(ValueError, match="unknown on_error 'skipp'; valid: 'raise', 'skip'"):
        call(model, OneTask(TASK), on_error="skipp")


def test_where_some_targets_are_unknown_there_is_no_score(tmp_path: Path) -> None:
    data = OneTask(replace(TASK, queries=HIDDEN))
    ranking = rank(random_model(data), data)
    with pytest.raises(ValueError, match="query 'q0' has no target"):
        compute_metrics(ranking)
    Evaluation({}, ranking).save(tmp_path / "evaluation.npz")
    with pytest.raises(ValueError, match="query 'q0' has no target"):
        Evaluation.load(tmp_path / "evaluation.npz")


def test_a_query_named_as_one_of_another_task_is_fine() -> None:
    class Two(OneTask):
        def tasks(self) -> list[Task]:
            return [replace(self.task, name="a"), replace(self.task, name="b")]

    data = Two(TASK)
    assert torch.equal(*(found.indices for found in rank(random_model(data), data).values()))
