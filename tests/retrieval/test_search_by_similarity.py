"""Search by a fusion's own similarity: in tiles that nobody sees."""

from typing import Any

import pytest
import torch
from largest import Largest
from torch import Tensor

from fusecomp._core import tiles
from fusecomp.fusions import ARTEMIS
from fusecomp.retrieval import search, search_targets

DIM = 16


def max_sim(query: Tensor, gallery: Tensor) -> Tensor:
    """The sum of the best products of three query vectors with four of each image."""
    parts, rows = query.unflatten(1, (3, 4)), gallery.unflatten(1, (4, 4))
    return torch.einsum("qad,nbd->qnab", parts, rows).amax(dim=3).sum(dim=2)


def artemis(queries: int) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    fusion = ARTEMIS(DIM)
    return fusion.similarity, fusion(torch.randn(queries, DIM), torch.randn(queries, DIM)).detach()


def late(queries: int) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    return max_sim, torch.randn(queries, 12)


every_similarity = pytest.mark.parametrize("make", [artemis, late])


@every_similarity
@pytest.mark.parametrize("size", [1, 17, 100, 1500])
def test_neither_chunks_nor_single_queries_change_a_bit(make: Any, size: int) -> None:
    similarity, query = make(70)
    gallery = torch.randn(size, DIM)
    scores, indices = search(query, gallery, 20, similarity=similarity)
    for chunk in (1, 40, 64):
        again = search(query, gallery, 20, similarity=similarity, chunk=chunk)
        assert torch.equal(again[0], scores)
        assert torch.equal(again[1], indices)


@every_similarity
def test_tiles_of_the_gallery_are_those_of_one_call(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    similarity, query = make(70)
    gallery, targets = torch.randn(200, DIM), torch.arange(70)
    twins = torch.tensor([3, 70, 199])
    gallery[twins] = gallery[3].clone()  # in three tiles
    expected = similarity(query, gallery).sort(dim=1, descending=True, stable=True)
    monkeypatch.setattr(tiles, "_TILE_ROWS", 65)
    found = search_targets(query, gallery, targets, 200, similarity=similarity)
    torch.testing.assert_close(found.scores, expected.values)
    place = found.indices.argsort(dim=1)
    assert (place[:, twins].diff(dim=1) == 1).all()
    assert torch.equal(found.ranks, place.gather(1, targets[:, None]).flatten() + 1)


@pytest.mark.parametrize(
    ("chunk", "most"), [(5, 2 * 64 * 1024), (50, 50 * 3000)], ids=["tile", "scores"]
)
def test_no_tensor_is_larger_than_a_tile_or_the_scores_of_a_chunk(chunk: int, most: int) -> None:
    similarity, query = artemis(50)
    with Largest() as largest:
        search(query, torch.randn(3000, DIM), 10, similarity=similarity, chunk=chunk)
    assert largest.numbers == most


def test_a_similarity_sees_few_images_at_once() -> None:
    seen: list[int] = []

    def similarity(query: Tensor, images: Tensor) -> Tensor:
        seen.append(len(images))
        return query @ images.T

    search(torch.randn(3, DIM), torch.randn(2050, DIM), 10, similarity=similarity)
    assert seen == [1024, 1024, 64, 1]  # the last two, and repetitions; one shows the order


def test_scores_of_float64_are_those_of_one_pair_at_a_time() -> None:
    torch.manual_seed(0)
    fusion = ARTEMIS(DIM).double()
    image, text = torch.randn(2, 30, DIM).double()
    query, gallery = fusion(image, text).detach(), torch.randn(80, DIM).double()
    scores, indices = search(query, gallery, 80, similarity=fusion.similarity)
    pairs = [[float(fusion.similarity(q[None], g[None])) for g in gallery] for q in query]
    expected = torch.tensor(pairs, dtype=torch.float64).gather(1, indices)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)
