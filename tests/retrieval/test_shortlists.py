"""Shortlists, scored exactly."""

from typing import Any

import pytest
import torch
from small_gallery import COLOURS, DIM, IDS, MODEL, SIZE, TEXTS, make_model, query

import fusecomp as fc
from fusecomp.fusions import ARTEMIS
from fusecomp.retrieval import Gallery, _rerank, rerank


@pytest.fixture
def gallery() -> Gallery:
    return Gallery.build(MODEL, IDS, attributes=COLOURS)


def test_shortlists_are_scored_without_images_that_were_removed(gallery: Gallery) -> None:
    model = make_model(ARTEMIS(DIM)).eval()
    compared = Gallery.build(model, IDS)
    shortlists = gallery.search(query(), 20)  # by inner products
    gone = shortlists[0].ids[:3]
    expected = [
        [name for name in hits.ids if name in shortlist.ids and name not in gone][:5]
        for hits, shortlist in zip(compared.search(query(model), SIZE), shortlists, strict=True)
    ]
    gallery.remove(gone)
    positions = [hits.positions for hits in shortlists]
    for given in (positions, torch.stack(positions)):
        found = gallery.rerank(query(model), given, model.similarity, 5)
        assert [hits.ids for hits in found] == expected
    assert (
        gallery.rerank(query()[:1], gallery.index.search(query()[:1], 1)[1], None, 5)[0].scores > 0
    )
    none = gallery.rerank(query(), [shortlists[0].positions[:2], torch.tensor([-1])], None, 5)
    assert [hits.ids for hits in none] == [[], []]
    wrong: Any = [[1], [2]]
    with pytest.raises(TypeError, match="positions must be a torch tensor, got list"):
        gallery.rerank(query(), wrong, None, 5)


@pytest.mark.parametrize("fusion", [fc.Sum(), ARTEMIS(DIM)], ids=["cosine", "similarity"])
def test_shortlists_are_scored_together_as_alone(
    fusion: fc.Fusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, generator = make_model(fusion), torch.Generator().manual_seed(5)
    features, queries = Gallery.build(model, IDS).features, model.encode_query(IDS, TEXTS * 15)
    shortlists = torch.randint(-1, SIZE, (SIZE, 9), generator=generator)
    monkeypatch.setattr(_rerank, "_QUERIES", 7)
    scores, found = rerank(queries, features, shortlists, model.similarity, 6)
    for row, listed in enumerate(shortlists.split(1)):
        one = rerank(queries[row : row + 1], features, listed, model.similarity, 6)
        assert torch.equal(found[row], one[1][0])
        torch.testing.assert_close(scores[row], one[0][0], rtol=0, atol=1e-6)
        assert {*found[row].tolist()} <= {*listed[0].tolist(), -1}


def test_a_short_shortlist_is_padded() -> None:
    gallery = Gallery.build(MODEL, IDS)
    shortlist = torch.tensor([[4, 4, -1], [-1, -1, -1]])
    scores, positions = rerank(query(), gallery.features, shortlist, None, 2)
    assert positions.tolist() == [[4, -1], [-1, -1]]
    assert scores.isfinite().tolist() == [[True, False], [False, False]]
