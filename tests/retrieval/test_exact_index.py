"""The exact index: the same answer whatever is searched together, equal rows included."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from searching import in_loops, problems
from torch import Tensor

from fusecomp._core.indices import index_pairs
from fusecomp._core.similarity import normalize
from fusecomp.fusions import ARTEMIS
from fusecomp.retrieval import ExactIndex, _exact_index, search
from fusecomp.types import Index

few = settings(max_examples=50, deadline=None)


def draw(queries: int, size: int, width: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = 3 * torch.rand(size, 1, generator=generator) + 0.1
    features = torch.randn(size, width, generator=generator) * lengths
    return torch.randn(queries, width, generator=generator), features


def by_float64(query: Tensor, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    rows, wide = query.double(), features.double()
    cosines = rows @ wide.T / rows.norm(dim=1, keepdim=True) / wide.norm(dim=1)
    found = cosines.sort(dim=1, descending=True, stable=True)
    return found.values[:, :k], found.indices[:, :k]


def near_copies(size: int, noise: float, width: int = 64) -> Tensor:
    """Rows around ten directions, so that cosines of neighbours differ by less than roundings."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(10, width, generator=generator).repeat(size // 10, 1)
    return directions + noise * torch.randn(size, width, generator=generator)


@few
@given(problems())
def test_it_finds_what_loops_find(problem: dict[str, Any]) -> None:
    expected_scores, expected = in_loops(**problem)
    query, gallery, k, exclude, within = problem.values()
    scores, positions = ExactIndex(gallery).search(query, k, exclude=exclude, within=within)
    assert positions.tolist() == expected
    np.testing.assert_allclose(scores.numpy(), expected_scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-5, 1e-3])
def test_near_copies_stand_in_the_order_of_float64(noise: float) -> None:
    query, features = draw(6, 1)[0], near_copies(600, noise)
    scores, positions = ExactIndex(features).search(query, 30)
    expected_scores, expected = by_float64(query, features, 30)
    torch.testing.assert_close(scores.double(), expected_scores, rtol=0, atol=1e-6)
    if noise:
        assert torch.equal(positions, expected)
    else:  # sixty copies of each direction, in the order of the gallery
        assert (positions.diff(dim=1) == 10).all()


@pytest.mark.parametrize("noise", [1e-7, 1e-5, 1e-3])
def test_search_lists_another_order_only_of_images_within_rounding(noise: float) -> None:
    """It orders by float32, so that near copies may change places, and nothing else."""
    query, features = draw(40, 1)[0], near_copies(600, noise)
    exact, placed = ExactIndex(features).search(query, 30)[1], search(query, features, 30)[1]
    wide, unit = (normalize(part.double()) for part in (features, query))
    cosines = unit @ wide.T
    behind = cosines.gather(1, exact) - cosines.gather(1, placed)
    assert behind.abs().max() < 1e-6
    assert not torch.equal(placed, exact)


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_a_query_alone_and_any_tiles_find_the_same(
    noise: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, features = draw(40, 1, 33)[0], near_copies(2000, noise, 33).to(dtype)
    index = ExactIndex(features)
    scores, positions = index.search(query, 20)
    for row in range(0, 40, 7):
        alone = index.search(query[row : row + 1], 20)
        assert torch.equal(alone[1][0], positions[row])
        torch.testing.assert_close(alone[0][0], scores[row], rtol=0, atol=1e-6)
    for name, size in (("_QUERIES", 7), ("_SCORES", 700), ("_WIDENED", 300), ("_PAIRS", 5)):
        monkeypatch.setattr(_exact_index, name, size)
    again = index.search(query, 20)
    assert torch.equal(again[1], positions)
    torch.testing.assert_close(again[0], scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("queries", [1, 3, 9])
def test_however_few_queries_are_multiplied(threads: int, queries: int) -> None:
    query, features = draw(queries, 500)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        scores, positions = ExactIndex(features).search(query, 10)
    finally:
        torch.set_num_threads(before)
    expected = by_float64(query, features, 10)
    assert torch.equal(positions, expected[1])
    torch.testing.assert_close(scores.double(), expected[0], rtol=0, atol=1e-6)


def test_a_gallery_of_equal_rows_is_searched_to_its_end() -> None:
    features = torch.ones(3000, 8)
    assert ExactIndex(features).search(torch.ones(2, 8), 5)[1].tolist() == [[0, 1, 2, 3, 4]] * 2
    assert ExactIndex(features).search(torch.zeros(1, 8), 3)[1].tolist() == [[0, 1, 2]]


def test_lengths_do_not_matter_and_short_rows_score_zero() -> None:
    query, features = draw(4, 300, 640)
    expected = ExactIndex(features).search(query, 10)
    for down, up in ((2.0**100, 2.0**80), (2.0**-12, 2.0**-12)):
        found = ExactIndex(features * up).search(query * down, 10)
        assert torch.equal(found[1], expected[1])
        torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-6)
    features[7] = 1e-9
    scores, positions = ExactIndex(features).search(query, 300)
    assert (scores[positions == 7] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_stored_and_not_computed_in(dtype: torch.dtype) -> None:
    query, features = draw(5, 400)
    stored = features.to(dtype)
    index = ExactIndex(stored)
    assert index.features.data_ptr() == stored.data_ptr()
    scores, positions = index.search(query, 20)
    assert scores.dtype == torch.float32
    expected = ExactIndex(stored.float()).search(query, 20)
    assert torch.equal(positions, expected[1])
    torch.testing.assert_close(scores, expected[0], rtol=0, atol=1e-6)


def test_mapped_features_are_searched_where_they_are(tmp_path: Path) -> None:
    query, features = draw(3, 200)
    features.numpy().tofile(tmp_path / "features")
    mapped = np.memmap(tmp_path / "features", np.float32, "c", shape=(200, 64))
    index = ExactIndex(torch.from_numpy(mapped))
    assert index.features.data_ptr() == mapped.ctypes.data
    assert torch.equal(index.search(query, 9)[1], ExactIndex(features).search(query, 9)[1])


def test_a_similarity_compares_in_place_of_the_cosine() -> None:
    fusion = ARTEMIS(8)
    features = torch.randn(50, 8, generator=torch.Generator().manual_seed(2))
    features[30] = features[3]
    query = fusion(features[:5], features[5:10]).detach()
    index = ExactIndex(features, fusion.similarity)
    scores, positions = index.search(query, 50, exclude=torch.arange(5))
    expected = search(query, features, 50, torch.arange(5), similarity=fusion.similarity)
    torch.testing.assert_close(scores, expected[0])
    assert torch.equal(positions, expected[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_a_similarity_gets_the_tiles_that_search_gives_it(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2500, 4, generator=generator).to(dtype)
    query, shapes = torch.randn(600, 4, generator=generator), set()

    def similarity(query: Tensor, images: Tensor) -> Tensor:
        shapes.add((len(query), len(images)))
        return query @ images.T

    found = ExactIndex(features, similarity).search(query, 9)
    assert shapes == {(512, 1024), (512, 452), (88, 1024), (88, 452)}
    expected = search(query, features.float(), 9, similarity=similarity)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    one = ExactIndex(features, similarity).search(query[:1], 9)
    assert torch.equal(one[0][0], expected[0][0])
    with pytest.raises(ValueError, match="the similarity returned NaN or infinity"):
        ExactIndex(features, lambda a, b: torch.full((len(a), len(b)), torch.nan)).search(query, 1)


def test_positions_that_all_queries_share_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    query, features = draw(200, 5000, 8)
    features[10:500:7] = features[3]
    some = torch.arange(3, 5000, 7)
    shared = some.expand(200, -1)
    expected = ExactIndex(features).search(query, 80, within=shared.contiguous())
    rows = []

    def counted(positions: Tensor) -> tuple[Tensor, Tensor]:
        rows.append(len(positions))
        return index_pairs(positions)

    monkeypatch.setattr(_exact_index, "index_pairs", counted)
    found = ExactIndex(features).search(query, 80, within=shared)
    assert torch.equal(found[1], expected[1])
    assert {*rows} == {1}


def test_known_lengths_are_not_measured_again() -> None:
    query, features = draw(3, 100)
    index = ExactIndex(features)
    again = ExactIndex(features, lengths=index.lengths)
    assert torch.equal(again.search(query, 5)[1], index.search(query, 5)[1])
    for wrong in (index.lengths[1:], index.lengths.float()):
        with pytest.raises(ValueError, match=r"lengths must be float64 \[100\], got"):
            ExactIndex(features, lengths=wrong)


def test_rows_come_and_go_and_positions_stay() -> None:
    query, features = draw(3, 100)
    index = ExactIndex(features[:60])
    best = index.search(query, 1)[1][:, 0]
    index.remove(best)
    index.add(features[60:])
    assert len(index) == 100
    found = index.search(query, 200)[1]
    expected = ExactIndex(features).search(query, 200, exclude=best.expand(3, -1))[1]
    assert torch.equal(found, expected)
    assert not torch.isin(best, found).any()


def test_it_is_an_index_and_leaves_its_inputs_alone() -> None:
    query, features = draw(3, 50)
    before = query.clone(), features.clone()
    index: Index = ExactIndex(features.requires_grad_())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores, _ = index.search(query.double().requires_grad_(), 4)
    assert not scores.requires_grad
    assert scores.dtype == torch.float32
    assert all(part.is_contiguous() for part in index.search(query, 4))
    torch.testing.assert_close(scores.double(), by_float64(query, features, 4)[0].detach())
    assert torch.equal(query, before[0])
    assert torch.equal(features, before[1])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.ones(3), r"features must be \[N, D\] and not empty"),
        (torch.ones(0, 3), "not empty"),
        (torch.ones(2, 3).long(), "must have a floating dtype"),
        (torch.tensor([[1.0, 1], [torch.nan, 1]]), "features row 1 holds NaN or infinity"),
        (torch.tensor([[torch.inf, 1], [1, 1]]), "features row 0 holds NaN or infinity"),
    ],
)
def test_features_that_cannot_be_searched_are_refused(features: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExactIndex(features)


INDEX = ExactIndex(torch.eye(4, 3) + 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": torch.ones(3)}, r"query must be \[Q, D\]"),
        ({"query": torch.ones(1, 4)}, r"query \[1, 4\] and gallery \[4, 3\] differ in width"),
        ({"query": torch.tensor([[1, torch.nan, 1]])}, "query row 0 holds NaN"),
        ({"k": 0}, "k must be a whole number of at least 1, got 0"),
        ({"k": 2**20 + 1}, "k must be at most 1048576"),
        ({"exclude": torch.tensor([4])}, r"exclude must lie in \[-1, 4\), got 4"),
        ({"within": torch.tensor([-2])}, r"within must lie in \[-1, 4\), got -2"),
        ({"within": torch.tensor([0, 1])}, r"within must be \[1\] or \[1, M\], got \[2\]"),
    ],
)
def test_what_does_not_fit_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        INDEX.search(**{"query": torch.ones(1, 3), "k": 2, **arguments})


def test_positions_that_are_none_are_not_removed() -> None:
    index = ExactIndex(torch.ones(4, 3))
    for wrong, message in (
        (torch.tensor([4]), r"positions must lie in \[0, 4\), got 4"),
        (torch.tensor([-1]), "got -1"),
        (torch.tensor([1.0]), "positions must be int64"),
    ):
        with pytest.raises(ValueError, match=message):
            index.remove(wrong)
    with pytest.raises(ValueError, match="differ in width"):
        index.add(torch.ones(1, 2))
    with pytest.raises(ValueError, match="bring both to one dtype"):
        index.add(torch.ones(1, 3).double())
    assert len(index) == 4


@few
@given(problem=problems())
def test_a_gpu_finds_what_a_cpu_finds_with_every_tie_in_order(
    cuda: torch.device, problem: dict[str, Any]
) -> None:
    query, gallery, k, exclude, within = problem.values()
    expected = ExactIndex(gallery).search(query, k, exclude=exclude, within=within)
    there = ExactIndex(gallery.to(cuda)).search(query.to(cuda), k, exclude=exclude, within=within)
    assert torch.equal(there[1].cpu(), expected[1])
    torch.testing.assert_close(there[0].cpu(), expected[0], rtol=0, atol=1e-6)
