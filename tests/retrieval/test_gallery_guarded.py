"""Galleries: what is wrong is said early and by name, and an interruption changes nothing."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from torch import Tensor

import fusecomp as fc
from fusecomp.retrieval import ExactIndex, FaissIndex, Gallery, _exact_index, _faiss_index, rerank

DIM, SIZE = 8, 30
IDS = [f"image {number}" for number in range(SIZE)]
FEATURES = 3 * torch.randn(SIZE, DIM, generator=torch.Generator().manual_seed(0))
QUERY = torch.randn(3, DIM, generator=torch.Generator().manual_seed(1))
KINDS: dict[str, Any] = {"kind": ["dress", "shirt"] * (SIZE // 2)}


def gallery_of(index: Any = None, **options: Any) -> Gallery:
    return Gallery(IDS, FEATURES, index, **({"attributes": KINDS, "key": "k"} | options))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(math.nan, "nan"), (-math.inf, "-inf"), ([1], r"\[1\]"), ({"a": 1}, "{'a'")],
)
def test_a_value_that_no_file_keeps_is_refused_at_once(value: Any, shown: str) -> None:
    with pytest.raises(ValueError, match=f"'size' must hold plain values, got {shown}"):
        Gallery(IDS[:1], FEATURES[:1], attributes={"size": [value]})


def test_no_column_of_a_dataframe_is_lost_and_missing_values_are_none() -> None:
    frame = pandas.DataFrame([[1, 2], [3, 4]], columns=["kind", "kind"])
    given: list[Any] = [frame, {1: [1, 2], "1": [3, 4]}]
    for attributes in given:
        with pytest.raises(ValueError, match=r"the attribute '(kind|1)' occurs twice"):
            Gallery(IDS[:2], FEATURES[:2], attributes=attributes)
    frame = pandas.DataFrame({"kind": ["dress", None], "size": [1.0, None]})
    with pytest.raises(ValueError, match="got nan; a missing value is None") as refused:
        Gallery(IDS[:2], FEATURES[:2], attributes=frame)
    way_out = str(refused.value).partition("by ")[2]
    made = Gallery(IDS[:2], FEATURES[:2], attributes=eval(way_out, {"frame": frame}))
    assert made.attributes == {"kind": ["dress", None], "size": [1.0, None]}


def test_the_keys_of_a_dict_are_no_values() -> None:
    with pytest.raises(ValueError, match="the attribute 'size' has 1 values for 30 images"):
        gallery_of(attributes={"size": dict.fromkeys(IDS, 1)})
    with pytest.raises(ValueError, match="'kind' holds values of str, got the dict"):
        gallery_of().search(QUERY, 3, where={"kind": {"dress": 1}})


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda g: gallery_of(attributes=["kind"]), "attributes must be a mapping .* got list"),
        (lambda g: g.search(QUERY, 3, where="kind"), "where must be a mapping .*'kind'"),
        (lambda g: g.search(None, 3, where=KINDS), "query must be a torch tensor, got NoneType"),
        (lambda g: g.search(None, 3, exclude=[]), "query must be a torch tensor, got NoneType"),
    ],
)
def test_what_is_of_another_kind_is_named(act: Callable[[Gallery], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        act(gallery_of())


@pytest.mark.parametrize("rows", [SIZE - 1, 2 * SIZE])
def test_an_index_of_other_features_is_refused(rows: int) -> None:
    index = ExactIndex(FEATURES.repeat(2, 1)[:rows])
    with pytest.raises(ValueError, match=f"the index has {rows} rows for 30 images"):
        gallery_of(index)


class Told:
    """An index that finds what it is told to."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def search(self, query: Tensor, k: int, *, exclude: Any = None, within: Any = None) -> Any:
        return torch.ones(len(query), k), self.found


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (torch.full((3, 2), SIZE), r"must lie in \[-1, 30\), got 30"),
        (torch.full((3, 2), -2), r"must lie in \[-1, 30\), got -2"),
        (torch.zeros(3, 2), "must be int64, got torch.float32"),
        (torch.zeros(2, 2).long(), r"must be \[3\] or \[3, M\], got \[2, 2\]"),
    ],
)
def test_positions_that_are_none_are_those_of_the_index(found: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"the positions that the index found {message}"):
        gallery_of(Told(found)).search(QUERY, 2)


@pytest.mark.parametrize("name", ["\0003", "3", "03", "000003"])
def test_no_id_is_taken_for_that_of_a_removed_image(tmp_path: Path, name: str) -> None:
    gallery = Gallery([name, *IDS[1:]], FEATURES, key="k")
    gallery.remove([IDS[3], IDS[7]])
    gallery.save(tmp_path / "gallery")
    loaded = Gallery.load(tmp_path / "gallery")
    assert loaded.image_ids == gallery.image_ids
    assert loaded.search(QUERY, SIZE)[0].ids == gallery.search(QUERY, SIZE)[0].ids


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_ids": [*IDS, IDS[0]]}, "the image 'image 0' occurs twice"),
        ({"image_ids": []}, "image_ids must name an image at least"),
        ({"attributes": {"kind": [1]}}, "the attribute 'kind' has 1 values for 30 images"),
        ({"key": 5}, "key must be a string, got 5"),
        ({"dtype": torch.int64}, "dtype must be floating, one of .*; got torch.int64"),
        ({"dtype": "float16"}, "dtype must be floating, one of .*; got 'float16'"),
        ({"index": "Flat"}, "'Flat' is not a callable"),
    ],
)
def test_what_is_wrong_is_said_before_images_are_encoded(
    options: dict[str, Any], message: str
) -> None:
    class NeverAsked(fc.CachedEncoder):
        def encode_image(self, images: Tensor | Sequence[str]) -> Tensor:
            raise AssertionError("images were encoded")

    encoder = NeverAsked.from_arrays(IDS, FEATURES, ["t"], torch.ones(1, DIM), "k")
    model = fc.ComposedEncoder(encoder, fc.Sum())
    with pytest.raises(AssertionError, match="images were encoded"):
        Gallery.build(model, IDS)
    with pytest.raises((TypeError, ValueError), match=message):
        Gallery.build(model, **({"image_ids": IDS} | options))


class Killed(BaseException):
    """Stands for Ctrl-C at a moment that the test chooses."""


def exact() -> ExactIndex:
    return ExactIndex(FEATURES)


def faiss(factory: str) -> FaissIndex:
    pytest.importorskip("faiss", reason="needs the extra faiss")
    return FaissIndex(FEATURES, factory=factory)


@pytest.mark.parametrize(
    ("make", "place", "name"),
    [
        (exact, _exact_index, "_factors"),
        (exact, _exact_index, "pad"),
        (lambda: faiss("Flat"), _faiss_index, "unit_array"),
        (lambda: faiss("HNSW8"), _faiss_index, "unit_array"),
    ],
)
def test_an_interrupted_add_changes_nothing(
    make: Callable[[], Any], place: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: object) -> None:
        raise Killed

    more, ids = FEATURES[:5] + 1, [f"new {number}" for number in range(5)]
    kinds = {"kind": ["dress"] * 5}
    gallery, whole = gallery_of(make()), gallery_of(make())
    for of in (gallery, whole):
        of.remove(IDS[4:6])
    before = gallery.search(QUERY, SIZE + 5)
    with monkeypatch.context() as patched:
        patched.setattr(place, name, killed)
        with pytest.raises(Killed):
            gallery.add(ids, more, kinds)
    for hits, expected in zip(gallery.search(QUERY, SIZE + 5), before, strict=True):
        assert hits.ids == expected.ids
        assert torch.equal(hits.scores, expected.scores)
    for of in (gallery, whole):
        of.add(ids, more, kinds)
    assert gallery.image_ids == whole.image_ids
    for hits, expected in zip(gallery.search(QUERY, 40), whole.search(QUERY, 40), strict=True):
        assert hits.ids == expected.ids
        assert torch.equal(hits.scores, expected.scores)


def test_a_broken_row_of_a_shortlist_has_its_own_number() -> None:
    features = FEATURES.clone()
    features[17, 2] = torch.nan
    shortlist = torch.tensor([[3, 9, 17, -1]]).expand(3, -1)
    with pytest.raises(ValueError, match="features row 17 holds NaN"):
        rerank(QUERY, features, shortlist, None, 2)
    assert rerank(QUERY, features, shortlist[:, :2], None, 2)[1].sum() > 0
