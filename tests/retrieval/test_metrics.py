"""Metrics on ranks."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusecomp.retrieval import median_rank, recall_at_k, target_rank

RANKS = st.lists(st.one_of(st.just(-1), st.integers(1, 20)), min_size=1, max_size=20)
few = settings(max_examples=50)


@few
@given(RANKS, st.integers(1, 25))
def test_recall_is_the_share_of_hits_in_per_cent(ranks: list[int], k: int) -> None:
    hits = 0
    for rank in ranks:
        if rank != -1 and rank <= k:
            hits += 1
    assert recall_at_k(torch.tensor(ranks), k) == 100 * hits / len(ranks)


@few
@given(RANKS)
def test_recall_grows_with_k_to_the_share_that_was_found(ranks: list[int]) -> None:
    recalls = [recall_at_k(torch.tensor(ranks), k) for k in range(1, 21)]
    assert recalls == sorted(recalls)
    found = sum(rank > 0 for rank in ranks)
    assert recalls[-1] == 100 * found / len(ranks)


def test_what_was_not_found_is_never_a_hit() -> None:
    assert recall_at_k(torch.tensor([-1, -1]), 10**9) == 0.0


@few
@given(RANKS)
def test_the_median_counts_what_was_not_found_as_infinitely_far(ranks: list[int]) -> None:
    places = sorted(float("inf") if rank == -1 else float(rank) for rank in ranks)
    middle = len(places) // 2
    expected = places[middle] if len(places) % 2 else (places[middle - 1] + places[middle]) / 2
    assert median_rank(torch.tensor(ranks)) == expected


def test_the_median_of_an_even_number_lies_between() -> None:
    assert median_rank(torch.tensor([4, 1, 2, 9])) == 3.0


@few
@given(st.data())
def test_the_rank_of_a_target_is_its_place(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.permutations(range(5)), min_size=1, max_size=4))
    wanted = st.integers(-1, 7)
    targets = data.draw(st.lists(wanted, min_size=len(rows), max_size=len(rows)))
    rows = [row[:4] for row in rows]
    expected = [r.index(t) + 1 if t in r else -1 for r, t in zip(rows, targets, strict=True)]
    assert target_rank(torch.tensor(rows), torch.tensor(targets)).tolist() == expected
    names, wanted_names = [[str(i) for i in row] for row in rows], [str(t) for t in targets]
    assert target_rank(names, wanted_names).tolist() == expected


def test_a_target_that_is_ranked_twice_has_the_better_rank() -> None:
    assert target_rank(torch.tensor([[4, 2, 7, 2]]), torch.tensor([2])).tolist() == [2]
    assert target_rank([["a", "b", "c", "b"]], ["b"]).tolist() == [2]


def test_padding_is_never_the_target() -> None:
    assert target_rank(torch.tensor([[3, -1], [-1, -1]]), torch.tensor([-1, -1])).tolist() == [
        -1,
        -1,
    ]


def test_nothing_ranked_is_nothing_found() -> None:
    none = torch.empty(2, 0, dtype=torch.int64)
    assert target_rank(none, torch.tensor([0, 1])).tolist() == [-1, -1]
    assert target_rank([[], []], ["a", "b"]).tolist() == [-1, -1]


def test_rankings_and_targets_are_equally_many() -> None:
    with pytest.raises(ValueError, match="2 rankings but 1 targets"):
        target_rank([["a"], ["b"]], ["a"])
    with pytest.raises(ValueError, match="1 rankings but 2 targets"):
        target_rank(torch.tensor([[1]]), torch.tensor([1, 2]))


def test_rankings_and_targets_are_of_one_kind() -> None:
    with pytest.raises(ValueError, match="both be tensors or both be sequences"):
        target_rank(torch.tensor([[1]]), ["1"])
    with pytest.raises(ValueError, match="both be tensors or both be sequences"):
        target_rank([["1"]], torch.tensor([1]))


@pytest.mark.parametrize(
    "ranks", [torch.tensor([], dtype=torch.int64), torch.ones(2, 2).long(), torch.ones(2)]
)
def test_ranks_are_whole_numbers_and_at_least_one(ranks: Any) -> None:
    with pytest.raises(ValueError, match=r"ranks must be a non-empty integer \[Q\]"):
        recall_at_k(ranks, 1)
    with pytest.raises(ValueError, match=r"ranks must be a non-empty integer \[Q\]"):
        median_rank(ranks)


@pytest.mark.parametrize("k", [0, -1])
def test_k_is_at_least_one(k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be a whole number of at least 1, got {k}"):
        recall_at_k(torch.tensor([1]), k)


@pytest.mark.parametrize(
    ("ranked", "targets"),
    [
        (torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64)),
        (["abc"], ["b"]),
    ],
)
def test_rankings_have_a_row_for_each_query(ranked: Any, targets: Any) -> None:
    with pytest.raises(ValueError, match=r"^(ranked|targets)(\[0\])? must be "):
        target_rank(ranked, targets)


@pytest.mark.parametrize("metric", [median_rank, lambda ranks: recall_at_k(ranks, k=1)])
def test_ranks_are_a_tensor(metric: Any) -> None:
    with pytest.raises(TypeError, match="ranks must be a torch tensor, got list"):
        metric([1, 2])
