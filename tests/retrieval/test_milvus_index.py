"""Milvus, embedded and as a server: it finds what the exact index finds, and drops nothing."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_milvus import FEATURES, IDS, QUERY, SIZE, WIDTH, draw, make, names
from torch import Tensor

import fusecomp as fc
from fusecomp.fusions import ARTEMIS
from fusecomp.retrieval import ExactIndex, Gallery, MilvusIndex, _milvus_index

TEXTS = ["is blue"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_a_flat_index_finds_what_the_exact_one_finds(client: Any, dtype: torch.dtype) -> None:
    features = FEATURES.to(dtype, copy=True)
    features[7] = 0
    index, exact = make(client, features), ExactIndex(features)
    removed = torch.arange(0, SIZE, 3)
    index.remove(removed)
    exact.remove(removed)
    each = torch.rand(6, SIZE, generator=torch.Generator().manual_seed(2)).argsort()[:, :30]
    each[3] = -1
    exclude = torch.tensor([[1, 2, -1]]).expand(6, -1)
    for k in (1, 12, SIZE + 9):
        for within in (None, torch.arange(100).expand(6, -1), each):
            scores, found = index.search(QUERY, k, exclude=exclude, within=within)
            expected = exact.search(QUERY, k, exclude=exclude, within=within)
            assert torch.equal(found, expected[1])
            torch.testing.assert_close(scores, expected[0].float(), rtol=0, atol=1e-6)
    assert len(index) == SIZE


def test_many_queries_are_found_in_several_calls(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, query = make(client), draw(50, 3)
    monkeypatch.setattr(_milvus_index, "_HITS", 35)
    monkeypatch.setattr(_milvus_index, "_REMOVED", 2)
    index.remove(torch.arange(5))
    expected = ExactIndex(FEATURES).search(query, 5, exclude=torch.arange(5).expand(50, -1))
    assert torch.equal(index.search(query, 5)[1], expected[1])


HOSTILE = ["", '"', "'", "\\", '\\"', "a\nb\r\t\0", "ünï😀", '" or position >= 0 or "', "{x}", "%"]


def test_hostile_ids_and_values_are_found_as_they_are(client: Any, tmp_path: Path) -> None:
    features = FEATURES[: len(HOSTILE)]
    values = {'k"]\\ or ["': HOSTILE, "": [*range(len(HOSTILE))]}
    index = partial(MilvusIndex, client=client, collection=next(names))
    made = index(features, image_ids=HOSTILE, attributes=values)
    gallery = Gallery(HOSTILE, features, made, attributes=values, key="k")
    exact = Gallery(HOSTILE, features, attributes=values)
    for value in HOSTILE:
        found, expected = (
            of.search(QUERY, 9, where={'k"]\\ or ["': value}) for of in (gallery, exact)
        )
        assert [hits.ids for hits in found] == [hits.ids for hits in expected] == [[value]] * 6
    gallery.save(tmp_path / "gallery")
    assert isinstance(Gallery.load(tmp_path / "gallery", index=index).index, MilvusIndex)


def make_model(fusion: fc.Fusion, features: Tensor = FEATURES) -> fc.ComposedEncoder:
    return fc.ComposedEncoder(
        fc.CachedEncoder.from_arrays(IDS, features, TEXTS, draw(1, 4), "k"), fusion
    )


def test_a_dataframe_holds_attributes_too(client: Any) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"kind": [("dress", "shirt")[n % 2] for n in range(SIZE)]})
    index = make(client, collection=next(names), attributes=frame)
    found = index.search(QUERY[:1], 5, where={"kind": "shirt"})[1]
    assert (found % 2 == 1).all()


def test_a_gallery_is_built_searched_changed_and_loaded_with_it(
    client: Any, tmp_path: Path
) -> None:
    model, collection = make_model(fc.Sum()), next(names)
    attributes: dict[str, Any] = {
        "mixed": [(1, True, 1.0, "1", None, 2.5, False, 0)[n % 8] for n in range(SIZE)],
        "kind": [("dress", "shirt")[n % 2] for n in range(SIZE)],
    }
    milvus = partial(MilvusIndex, client=client, collection=collection)
    gallery = Gallery.build(model, IDS, index=milvus, attributes=attributes)
    exact = Gallery.build(model, IDS, attributes=attributes)
    query = model.encode_query(IDS[:3], TEXTS * 3)
    searches: list[dict[str, Any]] = [
        {},
        {"exclude": [[IDS[0]], [], IDS[:9]]},
        {"where": {"mixed": 1}},
        {"where": {"mixed": [True, None]}},
        {"where": {"mixed": [False, 2.5, "1"], "kind": "shirt"}},
        {"where": {"mixed": []}},
        {"where": {"mixed": np.array([0, 1])}, "exclude": [IDS[:50]] * 3},
    ]

    def require_equal(one: Gallery, other: Gallery) -> None:
        for arguments in searches:
            for found, hits in zip(
                one.search(query, 60, **arguments),
                other.search(query, 60, **arguments),
                strict=True,
            ):
                assert found.ids == hits.ids
                torch.testing.assert_close(found.scores, hits.scores, rtol=0, atol=1e-6)

    require_equal(gallery, exact)
    for of in (gallery, exact):
        of.remove(IDS[5:90:3])
        of.add(["new", IDS[5]], draw(2, 7), {"mixed": [1, "1"], "kind": ["dress", "new"]})
    require_equal(gallery, exact)
    gallery.save(tmp_path / "gallery")
    require_equal(Gallery.load(tmp_path / "gallery", model, index=milvus), exact)
    with pytest.raises(ValueError, match="'size'; this gallery has 'mixed', 'kind'"):
        gallery.search(query, 3, where={"size": 1})
    with pytest.raises(
        ValueError, match=r"MilvusIndex knows inner products only.*ExactIndex, or re"
    ):
        Gallery.build(make_model(ARTEMIS(WIDTH)), IDS, index=milvus)


def test_what_milvus_drops_is_an_error(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    index, upsert = make(client), client.upsert
    with monkeypatch.context() as patched:
        patched.setattr(client, "upsert", lambda name, rows: upsert(name, rows[1:]))
        with pytest.raises(RuntimeError, match="Milvus took 399 of 400 images"):
            make(client)
        patched.setattr(client, "upsert", lambda name, rows: {"upsert_count": len(rows)})
        with pytest.raises(RuntimeError, match="Milvus has 0 of 400 images that were written"):
            make(client)
        patched.setattr(client, "delete", lambda name, filter: None)
        with pytest.raises(RuntimeError, match="Milvus has kept 2 images"):
            index.remove(torch.tensor([3, 4]))
    search = index.collection.search
    fewer = lambda *given: [hits[:3] for hits in search(*given)]  # noqa: E731
    monkeypatch.setattr(index.collection, "search", fewer)
    with pytest.raises(RuntimeError, match="found 3 images where there are 400: raise"):
        index.search(QUERY, 5)


def test_an_approximate_index_is_made_with_its_parameters(client: Any) -> None:
    options: dict[str, Any] = {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 200}}
    index = make(client, **options, search_params={"ef": 400})
    assert torch.equal(index.search(QUERY, 10)[1], ExactIndex(FEATURES).search(QUERY, 10)[1])


@pytest.mark.parametrize("wrong", ["HSNW", "flat"])
def test_an_unknown_index_type_is_refused_and_leaves_nothing_in_the_way(
    client: Any, server: str | None, wrong: str
) -> None:
    collection = next(names)
    message = f"unknown index_type of Milvus Lite '{wrong}'; valid: 'AUTOINDEX', "
    if server:
        message = f"Milvus refuses .*invalid index type: {wrong}"
    with pytest.raises(RuntimeError if server else ValueError, match=message):
        make(client, collection=collection, index_type=wrong)
    make(client, collection=collection)


def test_without_pymilvus_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ImportError, match=r'pip install "fusecomp\[milvus\]"'):
        make(None)


def test_a_client_is_asked_for(client: Any) -> None:
    with pytest.raises(TypeError, match=r"client must be a pymilvus.MilvusClient, got str"):
        make("images.db")
    with pytest.raises(TypeError, match="index_type must be a string, got 5"):
        make(client, index_type=5)
    with pytest.raises(TypeError, match=r"^params must be a mapping such as .* got 'M=8'"):
        make(client, params="M=8")
    with pytest.raises(TypeError, match=r"^search_params must be a mapping .* got 'ef=256'"):
        make(client, search_params="ef=256")


def test_one_value_is_wanted_as_a_list_of_it_is(client: Any) -> None:
    index = make(client, attributes={"kind": ["dress", "shirt"] * (SIZE // 2)})
    expected = index.search(QUERY, 5, where={"kind": ["shirt"]})[1]
    assert torch.equal(index.search(QUERY, 5, where={"kind": "shirt"})[1], expected)
    assert (expected % 2 == 1).all()


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda c: make(c, FEATURES / 0), ValueError, "features row 0 holds NaN"),
        (lambda c: make(c, image_ids=None), ValueError, "image_ids must be a list of strings"),
        (lambda c: make(c, image_ids=IDS[1:]), ValueError, "399 image_ids but 400 rows"),
        (lambda c: make(c, image_ids=[*IDS[1:], IDS[1]]), ValueError, "'image 1' occurs twice"),
        (lambda c: make(c, image_ids=["\ud800", *IDS[1:]]), ValueError, "not in UTF-8"),
        (lambda c: make(c, attributes={"a": [1]}), ValueError, "'a' has 1 values for 400"),
        (lambda c: make(c, image_ids=["x" * 70000, *IDS[1:]]), RuntimeError, "Milvus refuses imag"),
        (lambda c: make(c).search(QUERY[:, 1:], 3), ValueError, "differ in width"),
        (lambda c: make(c).search(QUERY, 0), ValueError, "k must be"),
        (
            lambda c: make(c).search(QUERY, 3, where={"a": [1]}),
            ValueError,
            r"unknown attributes \['a'\]",
        ),
        (lambda c: make(c).remove(torch.tensor([SIZE])), ValueError, "got 400"),
        (lambda c: make(c).add(FEATURES[:1, 1:], image_ids=["n"]), ValueError, "differ in width"),
    ],
)
def test_what_does_not_fit_is_named(
    client: Any, act: Callable[[Any], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        act(client)


def test_more_than_milvus_finds_is_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_milvus_index, "_MOST", 9)
    index = make(client)
    assert index.search(QUERY, 8, exclude=torch.arange(6))[1].shape == (6, 8)
    with pytest.raises(ValueError, match="Milvus finds 9 images at most, got 10 with the excluded"):
        index.search(QUERY, 9, exclude=torch.arange(6))
