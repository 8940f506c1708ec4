"""Exact search: against loops, with ties, in any chunks."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from searching import WIDTH, in_loops, problems
from torch import Tensor

from fusecomp.retrieval import search, search_targets

few = settings(max_examples=50)


@few
@given(problems())
def test_it_equals_a_full_sort_in_loops(problem: dict[str, Any]) -> None:
    scores, indices = search(**problem)
    expected_scores, expected_indices = in_loops(**problem)
    assert indices.tolist() == expected_indices
    assert scores.tolist() == expected_scores


@few
@given(problems(), st.integers(1, 4))
def test_neither_chunks_nor_single_queries_change_ties(problem: dict[str, Any], chunk: int) -> None:
    scores, indices = search(**problem)
    again = search(**problem, chunk=chunk)
    assert torch.equal(again[0], scores)
    assert torch.equal(again[1], indices)


@few
@given(problems(), st.data())
def test_the_rank_is_the_place_in_the_full_ranking(
    problem: dict[str, Any], data: st.DataObject
) -> None:
    count, size = len(problem["query"]), len(problem["gallery"])
    index = st.integers(-1, size - 1)
    targets = torch.tensor(data.draw(st.lists(index, min_size=count, max_size=count)))
    subsets = problem.pop("candidates")
    ranked = search_targets(targets=targets, subsets=subsets, **problem)
    scores, indices = search(**problem)
    assert torch.equal(ranked.scores, scores)
    assert torch.equal(ranked.indices, indices)

    def places(rows: Tensor) -> list[int]:
        return [
            row.index(target) + 1 if target >= 0 and target in row else -1
            for row, target in zip(rows.tolist(), targets.tolist(), strict=True)
        ]

    assert ranked.ranks.tolist() == places(search(**{**problem, "k": size})[1])
    if subsets is None:
        assert ranked.subset_indices is ranked.subset_ranks is None
        return
    assert ranked.subset_indices is not None
    assert ranked.subset_ranks is not None
    width = subsets.shape[1] if subsets.ndim == 2 else 1
    assert ranked.subset_indices.shape == (count, width)
    among = search(**{**problem, "k": max(1, width)}, candidates=subsets)[1]
    assert torch.equal(ranked.subset_indices, among[:, :width])
    assert ranked.subset_ranks.tolist() == places(among)


@few
@given(problems(), st.data())
def test_the_lengths_of_features_do_not_matter(
    problem: dict[str, Any], data: st.DataObject
) -> None:
    def scaled(features: Tensor) -> Tensor:
        powers = data.draw(st.lists(st.integers(-9, 9), min_size=len(features)))
        return features * torch.tensor(powers[: len(features)]).float().exp2().unsqueeze(1)

    scores, indices = search(**problem)
    again = search(
        **{**problem, "query": scaled(problem["query"]), "gallery": scaled(problem["gallery"])}
    )
    assert torch.equal(again[0], scores)
    assert torch.equal(again[1], indices)


def test_lengths_whose_squares_overflow_do_not_matter() -> None:
    query, gallery = random_problem(3, 50, 640)
    scores, indices = search(query, gallery, k=10)
    again = search(query * 2.0**100, gallery * 2.0**80, k=10)
    assert torch.equal(again[1], indices)
    torch.testing.assert_close(again[0], scores, rtol=0, atol=1e-6)


@few
@given(problems())
def test_the_first_of_many_are_the_first_of_few(problem: dict[str, Any]) -> None:
    more = search(**{**problem, "k": problem["k"] + 3})
    fewer = search(**problem)
    assert torch.equal(more[0][:, : problem["k"]], fewer[0])
    assert torch.equal(more[1][:, : problem["k"]], fewer[1])


SIZES = [
    (queries, size, width)
    for queries in (2, 63, 64, 130)
    for size, width in ((1, 64), (3, 17), (5, 63), (7, 640), (16, 17), (100, 63), (1000, 64))
]


def random_problem(queries: int, size: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(queries * 7919 + size * 31 + width)
    query = torch.randn(queries, width, generator=generator)
    return query, torch.randn(size, width, generator=generator)


@pytest.mark.parametrize(("queries", "size", "width"), SIZES)
def test_chunks_are_invisible_to_the_bit(queries: int, size: int, width: int) -> None:
    query, gallery = random_problem(queries, size, width)
    scores, indices = search(query, gallery, k=20)
    for chunk in (40, 64, 100):
        again = search(query, gallery, k=20, chunk=chunk)
        assert torch.equal(again[0], scores)
        assert torch.equal(again[1], indices)


@pytest.mark.parametrize(("queries", "size", "width"), SIZES)
def test_a_query_alone_gets_the_same_answer_to_the_bit(queries: int, size: int, width: int) -> None:
    query, gallery = random_problem(queries, size, width)
    scores, indices = search(query, gallery, k=20)
    for row in {0, queries // 2, queries - 1}:
        alone = search(query[row : row + 1], gallery, k=20)
        assert torch.equal(alone[0][0], scores[row])
        assert torch.equal(alone[1][0], indices[row])


@pytest.mark.parametrize(("queries", "size", "width"), [s for s in SIZES if s[1] > 1])
def test_equal_gallery_rows_stand_in_the_order_of_the_gallery(
    queries: int, size: int, width: int
) -> None:
    query, gallery = random_problem(queries, size, width)
    twins = torch.randperm(size, generator=torch.Generator().manual_seed(0))[: max(2, size // 3)]
    twins = twins.sort().values
    gallery[twins] = gallery[twins[0]].clone()
    indices = search(query, gallery, k=size)[1]
    place = indices.argsort(dim=1)[:, twins]
    assert (place.diff(dim=1) == 1).all()
    ranks = search_targets(query, gallery, twins[-1].expand(queries), k=1).ranks
    assert torch.equal(ranks, place[:, -1] + 1)


def test_what_is_asked_for_may_exceed_the_gallery() -> None:
    scores, indices = search(torch.ones(1, 2), torch.ones(2, 2), k=4)
    assert indices.tolist() == [[0, 1, -1, -1]]
    assert scores.isfinite().tolist() == [[True, True, False, False]]
    assert (scores[0, 2:] == -torch.inf).all()


def test_with_everything_excluded_nothing_is_found() -> None:
    ranked = search_targets(
        torch.ones(1, 2), torch.ones(2, 2), torch.tensor([1]), 2, exclude=torch.tensor([[0, 1]])
    )
    assert ranked.indices.tolist() == [[-1, -1]]
    assert ranked.ranks.tolist() == [-1]


def test_excluding_wins_over_choosing() -> None:
    one = torch.tensor([1])
    assert search(torch.ones(1, 2), torch.ones(2, 2), 1, exclude=one, candidates=one)[1] == -1


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_scores_are_float32_at_least(dtype: torch.dtype, expected: torch.dtype) -> None:
    query, gallery = (features.to(dtype) for features in random_problem(3, 9, 8))
    scores, indices = search(query, gallery, k=9)
    assert scores.dtype == expected
    exact = search(query.double(), gallery.double(), k=9)
    assert torch.equal(indices, exact[1])
    torch.testing.assert_close(scores.double(), exact[0], rtol=0, atol=1e-6)


def test_autocast_does_not_lower_the_scores() -> None:
    query, gallery = random_problem(5, 50, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores, indices = search(query, gallery, k=10)
    expected = search(query, gallery, k=10)
    assert torch.equal(scores, expected[0])
    assert torch.equal(indices, expected[1])


def test_the_inputs_stay_as_they_were() -> None:
    query, gallery = random_problem(3, 9, 8)
    before = query.clone(), gallery.clone()
    search(query, gallery, 3, exclude=torch.tensor([0, 1, 2]))
    assert torch.equal(query, before[0])
    assert torch.equal(gallery, before[1])


GOOD = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        (torch.ones(3), GOOD, r"query must be \[rows, D\]"),
        (GOOD, torch.ones(1, 2, 3), r"gallery must be \[rows, D\] and not empty, got \[1, 2, 3\]"),
        (torch.ones(0, 3), GOOD, "query must be .* not empty"),
        (GOOD, torch.ones(0, 3), "gallery must be .* not empty"),
        (torch.ones(2, 0), torch.ones(2, 0), "not empty"),
        (GOOD.long(), GOOD.long(), "query must have a floating dtype, got torch.int64"),
        (GOOD, GOOD.double(), "query is torch.float32 and gallery is torch.float64: bring both"),
        (GOOD, torch.ones(2, 4), r"\[2, 3\] and gallery \[2, 4\] differ in width"),
        (GOOD, torch.tensor([[1.0, 1, 1], [1, torch.nan, 1]]), "gallery row 1 holds NaN"),
        (torch.tensor([[torch.inf, 1, 1]]), GOOD, "query row 0 holds NaN or infinity"),
    ],
)
def test_features_that_do_not_fit_are_refused(query: Tensor, gallery: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(query, gallery, k=1)


@pytest.mark.parametrize("name", ["k", "chunk"])
@pytest.mark.parametrize("number", [0, -1])
def test_numbers_below_one_are_refused(name: str, number: int) -> None:
    with pytest.raises(
        ValueError, match=f"{name} must be a whole number of at least 1, got {number}"
    ):
        search(GOOD, GOOD, k=number if name == "k" else 1, chunk=number if name == "chunk" else 1)


BAD_INDICES = {
    "too large": (torch.tensor([0, 2]), r"must lie in \[-1, 2\), got 0 to 2"),
    "too small": (torch.tensor([0, -2]), r"must lie in \[-1, 2\), got -2 to 0"),
    "int32": (torch.tensor([0, 1], dtype=torch.int32), "must be int64, got torch.int32"),
    "floating": (torch.tensor([0.0, 1.0]), "must be int64"),
    "too few": (torch.tensor([0]), r"must be \[2\] or \[2, M\], got \[1\]"),
    "three axes": (torch.zeros(2, 1, 1, dtype=torch.int64), r"must be .* got \[2, 1, 1\]"),
}


@pytest.mark.parametrize("bad", BAD_INDICES)
@pytest.mark.parametrize("name", ["exclude", "candidates", "subsets", "targets", "relevant"])
def test_indices_that_do_not_fit_are_refused(name: str, bad: str) -> None:
    indices, message = BAD_INDICES[bad]
    arguments: dict[str, Any] = {"targets": torch.tensor([0, 1]), name: indices}
    with pytest.raises(ValueError, match=f"{name} {message}"):
        if name == "candidates":
            search(GOOD, GOOD, k=1, candidates=indices)
        else:
            search_targets(GOOD, GOOD, k=1, **arguments)


@pytest.mark.parametrize("chunk", [3, 512])
def test_all_right_answers_are_ranked_as_a_target_is(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, gallery = (torch.randn(n, 4, generator=generator) for n in (7, 20))
    gallery[5] = gallery[3]  # a tie
    relevant = torch.stack([torch.randperm(20, generator=generator)[:3] for _ in range(7)])
    relevant[2, 1:] = relevant[4, 2] = -1
    relevant[0] = torch.tensor([5, 3, 9])
    exclude = torch.tensor([[9]] * 7)
    found = search_targets(
        query, gallery, relevant[:, 0], 4, exclude, relevant=relevant, chunk=chunk
    )
    for column in range(3):
        targets = relevant[:, column]
        alone = search_targets(query, gallery, targets, 4, exclude)
        assert found.relevant_ranks is not None
        assert torch.equal(found.relevant_ranks[:, column], alone.ranks)
    assert found.relevant_ranks is not None
    assert found.relevant_ranks[0, 2] == -1
    flat = search_targets(query, gallery, relevant[:, 0], 4, exclude, relevant=relevant[:, 0])
    assert flat.relevant_ranks is not None
    assert torch.equal(flat.relevant_ranks, found.ranks)


def test_one_target_a_query() -> None:
    with pytest.raises(ValueError, match=r"targets must be \[Q\], got \[2, 1\]"):
        search_targets(GOOD, GOOD, torch.tensor([[0], [1]]), k=1)


@pytest.mark.parametrize("name", ["query", "gallery", "exclude", "subsets", "targets", "relevant"])
def test_what_is_no_tensor_is_named(name: str) -> None:
    arguments: dict[str, Any] = {
        "query": torch.ones(2, 3),
        "gallery": torch.ones(4, 3),
        "k": 1,
        **{what: torch.zeros(2).long() for what in ("exclude", "subsets", "targets", "relevant")},
    }
    arguments[name] = arguments[name].tolist()
    with pytest.raises(TypeError, match=f"{name} must be a torch tensor, got list"):
        search_targets(**arguments)


def test_candidates_that_are_no_tensor_are_named() -> None:
    with pytest.raises(TypeError, match="candidates must be a torch tensor, got list"):
        search(GOOD, GOOD, k=1, candidates=[0, 1])  # type: ignore[arg-type]


# On a GPU


def moved(problem: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {n: v.to(device) if isinstance(v, Tensor) else v for n, v in problem.items()}


@few
@given(problem=problems())
def test_a_gpu_finds_what_a_cpu_finds_with_every_tie(
    cuda: torch.device, problem: dict[str, Any]
) -> None:
    scores, indices = search(**moved(problem, cuda))
    expected_scores, expected_indices = search(**problem)
    assert torch.equal(indices.cpu(), expected_indices)
    assert torch.equal(scores.cpu(), expected_scores)


def test_a_gpu_ranks_large_galleries_as_a_cpu_does(cuda: torch.device) -> None:
    """In float64, where rounding swaps no neighbours."""
    generator = torch.Generator().manual_seed(0)
    query, gallery = (
        torch.randn(rows, 32, dtype=torch.float64, generator=generator) for rows in (600, 5000)
    )
    targets = torch.randint(-1, 5000, (600,), generator=generator)
    exclude = torch.randint(-1, 5000, (600, 3), generator=generator)
    problem: dict[str, Any] = {"query": query, "gallery": gallery, "targets": targets, "k": 50}
    problem["exclude"] = exclude
    here, there = search_targets(**problem), search_targets(**moved(problem, cuda))
    assert torch.equal(there.indices.cpu(), here.indices)
    assert torch.equal(there.ranks.cpu(), here.ranks)
    torch.testing.assert_close(there.scores.cpu(), here.scores)


def test_features_with_a_graph_are_searched_without_it() -> None:
    query, gallery = (torch.randn(3, WIDTH, requires_grad=True) for _ in range(2))
    targets = torch.arange(3)
    for find in (
        lambda q, g: search(q, g, 2),
        lambda q, g: search_targets(q, g, targets, 2, exclude=targets, subsets=targets)[:3],
    ):
        found = find(query, gallery)
        assert not any(part.requires_grad for part in found)
        plain = find(query.detach(), gallery.detach())
        assert all(torch.equal(*pair) for pair in zip(found, plain, strict=True))
