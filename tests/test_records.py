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


@pytest.mark.parametrize("name", ["text_counts", "target_ids", "reference_ids"])
@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (torch.tensor([1, 1, 1]), r"int64 \[3\]"),
        (torch.tensor([[1], [1]]), r"int64 \[2, 1\]"),
        (torch.tensor([1.0, 1.0]), r"float32 \[2\]"),
        # 260 would have become 4.
        (torch.tensor([1, 1], dtype=torch.uint8), r"uint8 \[2\]"),
    ],
)
def test_ids_of_another_length_or_type_are_named(
    name: str, wrong: torch.Tensor, found: str
) -> None:
    ones = torch.ones(2, dtype=torch.int64)
    values: dict[str, Any] = {"text_counts": ones, "target_ids": ones, "reference_ids": ones}
    with pytest.raises(ValueError, match=rf"{name} must be int64 \[2\], .* got torch\.{found}"):
        Batch(ones, ones, ones, **{**values, name: wrong}, query_ids=["q0", "q1"])


def test_a_batch_needs_rows_and_their_texts() -> None:
    ones, none = torch.ones(2, dtype=torch.int64), torch.ones(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="a batch needs a row at least"):
        Batch(none, [], none, none, none, none, [])
    with pytest.raises(ValueError, match="text_counts sum to 2, but there are 3 texts"):
        Batch(ones, ["a", "b", "c"], ones, ones, ones, ones, ["q0", "q1"])


def test_a_task_prints_its_size_and_not_its_queries() -> None:
    queries = [Triplet(f"{number}", "a", ("is red",)) for number in range(1000)]
    assert repr(Task("dress", queries, ["a", "b"])) == "Task(dress: 1000 queries in 2)"
    assert str(Task("", queries, ["a"])) == "all: 1000 queries in 1"
