"""The plain records."""

import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch

from fusecomp.records import Batch, Task, Triplet


def test_target_and_group_may_be_unknown() -> None:
    triplet = Triplet("q", "a", ("is red",))
    assert triplet.target_id is None
    assert triplet.group is None


@pytest.mark.parametrize("texts", ["is red", "", (), []])
def test_a_triplet_needs_a_sequence_of_texts(texts: Any) -> None:
    with pytest.raises(ValueError, match="query 'q': texts must be a non-empty tuple"):
        Triplet("q", "a", texts)


def test_an_empty_text_is_a_text() -> None:
    assert Triplet("q", "a", ("",)).texts == ("",)


def test_equal_triplets_are_one_key_and_travel_between_processes() -> None:
    triplet = Triplet("q", "a", ("is red",), "b", ("a", "b"))
    assert pickle.loads(pickle.dumps(triplet)) == triplet
    assert len({triplet, Triplet("q", "a", ("is red",), "b", ("a", "b"))}) == 1


def test_records_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Triplet("q", "a", ("is red",)).target_id = "b"  # type: ignore[misc]


def test_a_task_keeps_everything_in_the_ranking_by_default() -> None:
    task = Task("dress", [], ["a"])
    assert (task.exclude, task.subsets, task.ks) == (None, None, (10, 50))


def test_the_length_of_a_batch_is_its_number_of_triplets() -> None:
    ids = torch.tensor([0, 1])
    batch = Batch(ids, ["a", "b", "c"], ids, torch.tensor([2, 1]), ids, ids, ["q0", "q1"])
    assert len(batch) == 2


def test_a_task_prints_its_size_and_not_its_queries() -> None:
    queries = [Triplet(f"{number}", "a", ("is red",)) for number in range(1000)]
    assert repr(Task("dress", queries, ["a", "b"])) == "Task(dress: 1000 queries in 2)"
    assert str(Task("", queries, ["a"])) == "all: 1000 queries in 1"
