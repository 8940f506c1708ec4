"""An index of faiss: what it may lose is measured, and what it may not find it never finds."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from searching import in_loops, problems
from torch import Tensor

import fusecomp as fc
from fusecomp.fusions import ARTEMIS
from fusecomp.retrieval import ExactIndex, FaissIndex, Gallery
from fusecomp.types import ChangingIndex

few = settings(max_examples=50, deadline=None)
WIDTH, SIZE = 16, 400
# Flat, by lists, by a graph; behind a rotation, with a second pass; one that cannot choose rows.
KINDS = {
    "Flat": "",
    "IVF8,Flat": "nprobe=8",
    "HNSW16": "efSearch=200",
    "PCA16,IVF4,SQ8": "nprobe=4",
    "SQ8,RFlat": "k_factor_rf=2",
    "NSG16": "",
}


@pytest.fixture(autouse=True)
def faiss() -> Any:
    return pytest.importorskip("faiss", reason="needs the extra faiss")


def draw(rows: int, seed: int, width: int = WIDTH) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    lengths = 3 * torch.rand(rows, 1, generator=generator) + 0.1
    return torch.randn(rows, width, generator=generator) * lengths


QUERY, FEATURES = draw(6, 1), draw(SIZE, 0)


@few
@given(problems())
def test_a_flat_index_finds_scores_as_loops_do_and_nothing_forbidden(
    problem: dict[str, Any],
) -> None:
    scores, allowed = in_loops(**{**problem, "k": 15})
    query, gallery, k, exclude, within = problem.values()
    index = FaissIndex(gallery, factory="Flat")
    found_scores, found = index.search(query, k, exclude=exclude, within=within)
    expected = np.array(scores)[:, :k]
    np.testing.assert_allclose(found_scores.numpy(), expected, rtol=0, atol=1e-6)
    for row, may in zip(found.tolist(), allowed, strict=True):
        there = [position for position in row if position >= 0]
        assert len({*there}) == len(there)
        assert {*there} <= {*may}


@pytest.mark.parametrize("factory", KINDS)
def test_every_kind_is_full_and_finds_only_what_is_left(factory: str) -> None:
    index = FaissIndex(FEATURES, factory=factory, parameters=KINDS[factory])
    index.remove(torch.arange(0, SIZE, 3))
    some = torch.arange(100).expand(6, -1)
    each = torch.rand(6, SIZE, generator=torch.Generator().manual_seed(2)).argsort()[:, :50]
    exclude = torch.tensor([[1, 2, -1]]).expand(6, -1)
    for within in (None, some, each):
        scores, found = index.search(QUERY, 12, exclude=exclude, within=within)
        expected = index.exact.search(QUERY, 12, exclude=exclude, within=within)
        assert (scores.diff(dim=1) <= 0).all()
        assert (found >= 0).all()
        assert ((found % 3 != 0) & (found != 1) & (found != 2)).all()
        if within is not None:
            assert all(torch.isin(*pair).all() for pair in zip(found, within, strict=True))
        right = [torch.isin(*pair).float().mean() for pair in zip(found, expected[1], strict=True)]
        assert min(right) > 0.8
    assert ((index.search(QUERY, SIZE)[1] >= 0).sum(1) == SIZE - len(range(0, SIZE, 3))).all()


@pytest.mark.parametrize("factory", [kind for kind in KINDS if kind != "NSG16"])
def test_faiss_itself_chooses_the_rows_where_it_can(
    factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = FaissIndex(FEATURES, factory=factory, parameters=KINDS[factory])
    monkeypatch.setattr(index.exact, "search", None)
    assert index.search(QUERY, 12, within=torch.arange(100).expand(6, -1))[1].max() < 100


def test_recall_against_exact_is_that_of_a_loop_and_grows_with_the_parameters() -> None:
    features, query = draw(3000, 2, 32), draw(20, 3, 32)
    index = FaissIndex(features, factory="IVF64,Flat")
    low = index.recall_against_exact(query, ks=(5,))[5]
    found, best = index.search(query, 5)[1], ExactIndex(features).search(query, 5)[1]
    shares = [
        100 * len({*a} & {*b}) / 5 for a, b in zip(found.tolist(), best.tolist(), strict=True)
    ]
    assert low.mean == pytest.approx(np.mean(shares))
    assert low.worst == min(shares) < low.mean < 80
    index.set_parameters("nprobe=64")
    assert {*index.recall_against_exact(query)} == {10, 50}
    assert index.recall_against_exact(query)[10] == (100, 100)


def test_equal_rows_are_found_whichever_they_are() -> None:
    index = FaissIndex(FEATURES[:1].repeat(60, 1), factory="Flat")
    assert index.recall_against_exact(QUERY)[10] == (100, 100)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_rows_are_searched_at_unit_length_in_any_dtype(dtype: torch.dtype) -> None:
    features = FEATURES.to(dtype)
    index: ChangingIndex = FaissIndex(features, factory="HNSW16", parameters="efSearch=400")
    scores, found = index.search(QUERY, 10)
    expected = ExactIndex(features).search(QUERY, 10)
    assert torch.equal(found, expected[1])
    torch.testing.assert_close(scores, expected[0].float(), rtol=0, atol=1e-6)


def test_rows_that_are_added_get_the_next_positions() -> None:
    index = FaissIndex(FEATURES[:300], factory="IVF4,Flat", parameters="nprobe=4")
    index.remove(torch.tensor([7]))
    index.add(FEATURES[300:])
    expected = ExactIndex(FEATURES)
    expected.remove(torch.tensor([7]))
    assert torch.equal(index.search(QUERY, 20)[1], expected.search(QUERY, 20)[1])
    assert len(index) == SIZE


def test_an_index_that_cannot_grow_says_so_and_stays() -> None:
    index = FaissIndex(FEATURES[:300], factory="NSG16")
    expected = index.search(QUERY, 9)[1]
    with pytest.raises(ValueError, match=r"faiss refuses to add rows: .*incremental addition"):
        index.add(FEATURES[300:])
    assert len(index) == 300
    assert torch.equal(index.search(QUERY, 9)[1], expected)


def test_an_index_made_with_faiss_itself_is_filled(faiss: Any) -> None:
    made = FaissIndex(FEATURES, factory=faiss.IndexFlatIP(WIDTH))
    assert torch.equal(made.search(QUERY, 9)[1], ExactIndex(FEATURES).search(QUERY, 9)[1])
    with pytest.raises(ValueError, match="400 rows are indexed, but features have 300"):
        FaissIndex(FEATURES[:300], factory=made.index)


def test_what_was_saved_finds_the_same(tmp_path: Path) -> None:
    index = FaissIndex(FEATURES, factory="IVF16,Flat", parameters="nprobe=3")
    index.remove(torch.tensor([3, 5]))
    index.save(tmp_path / "index")
    again = FaissIndex.load(tmp_path / "index", FEATURES)
    for found, expected in zip(again.search(QUERY, 9), index.search(QUERY, 9), strict=True):
        assert torch.equal(found, expected)
    assert again.index.nprobe == 3
    for others in (FEATURES[1:], FEATURES + 1):
        with pytest.raises(ValueError, match="is an index of other features"):
            FaissIndex.load(tmp_path / "index", others)
    content = (tmp_path / "index").read_bytes()
    (tmp_path / "index").write_bytes(content[:-1] + b"?")
    with pytest.raises(ValueError, match="torn or no index"):
        FaissIndex.load(tmp_path / "index", FEATURES)


IDS, TEXTS = [f"image {number}" for number in range(SIZE)], ["is blue"]


def make_model(fusion: fc.Fusion) -> fc.ComposedEncoder:
    texts = draw(1, 4)
    return fc.ComposedEncoder(
        fc.CachedEncoder.from_arrays(IDS, FEATURES, TEXTS, texts, "k"), fusion
    )


def test_a_gallery_is_built_changed_and_saved_with_it(tmp_path: Path) -> None:
    model = make_model(fc.Sum())
    kinds = {"kind": [number % 2 for number in range(SIZE)]}
    make = partial(FaissIndex, factory="IVF16,Flat", parameters="nprobe=5")
    gallery = Gallery.build(model, IDS, index=make, attributes=kinds)
    gallery.remove(IDS[:9])
    gallery.add(["new"], FEATURES[:1], {"kind": [1]})
    assert isinstance(gallery.index, FaissIndex)
    assert gallery.features is gallery.index.features
    gallery.save(tmp_path / "gallery")
    again = Gallery.load(tmp_path / "gallery", model)
    assert isinstance(again.index, FaissIndex)
    query = model.encode_query(IDS[:3], TEXTS * 3)
    for where in (None, {"kind": 1}):
        assert [hits.ids for hits in again.search(query, 7, where=where)] == (
            [hits.ids for hits in gallery.search(query, 7, where=where)]
        )
    exact = Gallery.load(tmp_path / "gallery", model, index=ExactIndex)
    assert isinstance(exact.index, ExactIndex)
    with pytest.raises(ValueError, match=r"use ExactIndex, or rerank\(query"):
        Gallery.build(make_model(ARTEMIS(WIDTH)), IDS, index=make)


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r'pip install "fusecomp\[faiss\]"'):
        FaissIndex(FEATURES, factory="Flat")


def test_what_is_no_index_of_faiss_is_refused() -> None:
    wrong: list[Any] = [None, 3, FaissIndex]
    for factory in wrong:
        with pytest.raises(TypeError, match="factory"):
            FaissIndex(FEATURES, factory=factory)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: FaissIndex(FEATURES, factory="Flatt"),
            r"factory='Flatt' .*could not parse",
        ),
        (
            lambda: FaissIndex(FEATURES, factory="IVF999,Flat"),
            r"features \[400, 16\]: .*points",
        ),
        (lambda: FaissIndex(FEATURES, factory="HNSW8_PQ16x2"), "is no index of inner products"),
        (lambda: FaissIndex(FEATURES, factory="Flat", parameters="nprobe=3"), "could not set"),
        (lambda: FaissIndex(FEATURES / 0, factory="Flat"), "row 0 holds NaN"),
        (lambda: FaissIndex(FEATURES, factory="Flat").search(QUERY[:, 1:], 3), "differ in width"),
        (lambda: FaissIndex(FEATURES, factory="Flat").search(QUERY, 0), "k must be"),
        (lambda: FaissIndex(FEATURES, factory="Flat").remove(torch.tensor([SIZE])), "got 400"),
    ],
)
def test_what_does_not_fit_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
