"""Galleries: ids in and out, attributes, changes, files, and whose queries they take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_gallery import COLOURS, DIM, IDS, MODEL, SIZE, TEXTS, make_model, query
from torch import Tensor

import fusecomp as fc
from fusecomp.fusions import ARTEMIS
from fusecomp.retrieval import ExactIndex, Gallery, rerank, search
from fusecomp.types import Similarity


@pytest.fixture
def gallery() -> Gallery:
    return Gallery.build(MODEL, IDS, attributes=COLOURS)


def test_it_finds_the_ids_that_search_finds(gallery: Gallery) -> None:
    scores, positions = search(query(), MODEL.encode_gallery(IDS), 5)
    for hits, expected, row in zip(gallery.search(query(), 5), scores, positions, strict=True):
        assert hits.ids == [IDS[position] for position in row]
        assert torch.equal(hits.positions, row)
        torch.testing.assert_close(hits.scores, expected, rtol=0, atol=1e-6)


def test_a_stored_image_is_the_next_reference_as_its_file_would_be(gallery: Gallery) -> None:
    again = MODEL.compose(gallery.features_of(IDS[:2]), MODEL.encoder.encode_text(TEXTS))
    assert torch.equal(again, query())


def test_excluded_ids_and_other_attributes_are_not_found(gallery: Gallery) -> None:
    first, second = gallery.search(query(), SIZE, exclude=[[IDS[3], IDS[4]], []])
    assert {*IDS} - {*first.ids} == {IDS[3], IDS[4]}
    assert len(second.ids) == SIZE
    found = gallery.search(query(), SIZE, where={"colour": ["red", None], "year": [0, 1, 2, 3]})
    assert {*found[0].ids} == {IDS[0], IDS[2], IDS[3]}
    assert gallery.search(query(), 3, where={"colour": "green"})[1].ids == []


def test_what_is_not_in_the_gallery_is_not_found_anyway(gallery: Gallery) -> None:
    gallery.remove(IDS[3:4])
    expected = gallery.search(query(), SIZE, exclude=[[], IDS[4:5]])
    found = gallery.search(query(), SIZE, exclude=[["uploaded"], IDS[3:5]])
    assert [hits.ids for hits in found] == [hits.ids for hits in expected]


YEARS = [1, 2, 4]


@pytest.mark.parametrize(
    "wanted",
    [
        YEARS,
        {*YEARS},
        dict.fromkeys(YEARS).keys(),
        np.array(YEARS),
        torch.tensor(YEARS),
        [*map(np.int64, YEARS)],
        [1.0, 2, 4, None],
    ],
    ids=lambda wanted: type(wanted).__name__,
)
def test_any_collection_tells_the_values_that_are_wanted(gallery: Gallery, wanted: Any) -> None:
    found = gallery.search(query(), SIZE, where={"year": wanted})[0].ids
    assert {*found} == {IDS[year] for year in YEARS}
    assert len(gallery.search(query(), SIZE, where={"year": range(1, 20, 3)})[0].ids) == 7
    year: Any = np.int64(2)
    assert gallery.search(query(), 3, where={"year": year})[1].ids == [IDS[2]]


def test_true_is_not_one() -> None:
    mixed = {"worn": [True, 1, 1.0, False, 0, *range(2, SIZE - 3)]}
    gallery = Gallery(IDS, MODEL.encoder.encode_image(torch.arange(SIZE)), attributes=mixed)
    for wanted, rows in ((True, [0]), (1, [1, 2]), ([False, 0.0], [3, 4])):
        found = gallery.search(query(), SIZE, where={"worn": wanted})[0].ids
        assert {*found} == {IDS[row] for row in rows}


def test_images_come_and_go_and_keep_their_positions(gallery: Gallery) -> None:
    best = gallery.search(query()[:1], 1)[0].ids
    place = gallery.positions(best)
    features = gallery.features_of(best)
    gallery.remove(best)
    assert best[0] not in gallery.search(query()[:1], SIZE)[0].ids
    assert best[0] not in gallery.image_ids
    assert len(gallery) == SIZE - 1
    gallery.add(best, features, {"colour": ["new"], "year": [2026]})
    hits = gallery.search(query()[:1], 1, where={"colour": "new"})[0]
    assert hits.ids == best
    assert hits.positions.tolist() == [SIZE] != place.tolist()
    assert gallery.image_ids[SIZE] == best[0]
    assert gallery.image_ids[int(place)] is None
    assert [gallery.attributes["year"][p] for p in (SIZE - 1, SIZE)] == [SIZE - 1, 2026]
    assert len(gallery.image_ids) == len(gallery.attributes["year"]) == len(gallery.features)
    assert len(gallery) == SIZE
    assert isinstance(gallery.index, ExactIndex)
    assert gallery.features is gallery.index.features


def test_what_was_saved_is_mapped_and_finds_the_same(gallery: Gallery, tmp_path: Path) -> None:
    gallery.remove([IDS[5], IDS[0]])
    gallery.save(tmp_path / "gallery")
    for check in (False, True):
        again = Gallery.load(tmp_path / "gallery", MODEL, check=check)
        assert again.image_ids == gallery.image_ids
        assert again.attributes == gallery.attributes
        for hits, expected in zip(
            again.search(query(), 9), gallery.search(query(), 9), strict=True
        ):
            assert hits.ids == expected.ids
            assert torch.equal(hits.scores, expected.scores)
    again.add([IDS[5]], gallery.features[5:6], {"colour": ["red"], "year": [1]})
    assert again.image_ids[-1] == IDS[5]


def test_half_precision_is_kept_in_memory_and_in_the_file(tmp_path: Path) -> None:
    Gallery.build(MODEL, IDS, dtype=torch.float16).save(tmp_path / "gallery")
    gallery = Gallery.load(tmp_path / "gallery")
    assert gallery.features.dtype == torch.float16
    assert gallery.search(query(), 1)[0].ids == Gallery.build(MODEL, IDS).search(query(), 1)[0].ids
    gallery.add(["copy"], gallery.features_of(IDS[:1]))
    assert torch.equal(gallery.features[SIZE], gallery.features[0])
    assert repr(gallery) == "Gallery(31 images of 8 x float16, ExactIndex)"


def test_another_encoder_is_refused(gallery: Gallery, tmp_path: Path) -> None:
    gallery.save(tmp_path / "gallery")
    other = make_model(fc.Sum(), "another encoder")
    message = "features under the key 'an encoder', but the model's encoder is 'another encoder'"
    with pytest.raises(ValueError, match=message):
        Gallery.load(tmp_path / "gallery", other)
    Gallery.load(tmp_path / "gallery", make_model(ARTEMIS(DIM)))  # another fusion on the same
    with pytest.raises(ValueError, match=r"no key.*set gallery.key"):
        Gallery(IDS, gallery.features).save(tmp_path / "other")


def test_a_gallery_without_a_key_asks_the_encoder_for_none(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object) -> str:
        raise AssertionError("a fingerprint takes long")

    monkeypatch.setattr(fc.CachedEncoder, "fingerprint", refuse)
    with pytest.raises(AssertionError, match="takes long"):
        gallery.require_model(MODEL)
    Gallery(IDS, gallery.features).require_model(MODEL)


def test_a_torn_file_is_named(gallery: Gallery, tmp_path: Path) -> None:
    path = tmp_path / "gallery"
    gallery.save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    with pytest.raises(ValueError, match="is torn or no gallery"):
        Gallery.load(path)
    with pytest.raises(FileNotFoundError, match="no gallery"):
        Gallery.load(tmp_path / "none")


def test_a_fusion_with_a_similarity_compares_by_it_and_shortlists_are_scored_by_it() -> None:
    model = make_model(ARTEMIS(DIM)).eval()
    gallery = Gallery.build(model, IDS)
    expected = search(query(model), gallery.features, 5, similarity=model.similarity)
    assert [hits.positions.tolist() for hits in gallery.search(query(model), 5)] == (
        expected[1].tolist()
    )
    shortlist = torch.cat([expected[1].flip(1), torch.tensor([[-1, 29], [28, -1]])], dim=1)
    scores, positions = rerank(query(model), gallery.features, shortlist, model.similarity, 3)
    assert torch.equal(positions, expected[1][:, :3])
    torch.testing.assert_close(scores, expected[0][:, :3])


def test_images_are_loaded_where_they_are_not_looked_up(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{row}.pt" for row, name in enumerate(IDS)}
    for row, path in enumerate(paths.values()):
        torch.save(torch.full((DIM,), float(row + 1)), path)
    encoder = fc.DualEncoder(
        torch.nn.Identity(), lambda texts: torch.ones(len(texts), DIM), torch.load
    )
    gallery = Gallery.build(
        fc.ComposedEncoder(encoder, fc.Sum()), IDS, paths.__getitem__, batch_size=7, key="mine"
    )
    assert gallery.features[:, 0].tolist() == [row + 1 for row in range(SIZE)]
    assert gallery.key == "mine"
    with pytest.raises(ValueError, match="DualEncoder has no features by id: pass path="):
        Gallery.build(fc.ComposedEncoder(encoder, fc.Sum()), IDS)
    paths[IDS[3]].unlink()
    with pytest.raises(FileNotFoundError, match=r"3\.pt"):
        Gallery.build(fc.ComposedEncoder(encoder, fc.Sum()), IDS, paths.__getitem__)


class Smallest:
    """An index with ``search`` alone."""

    def __init__(self, features: Tensor, similarity: Similarity | None = None) -> None:
        self.features = features

    def search(
        self, query: Tensor, k: int, *, exclude: Tensor | None = None, within: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return search(query, self.features, k, exclude, within)


def test_an_index_of_ones_own_is_searched_and_cannot_change() -> None:
    gallery = Gallery.build(MODEL, IDS, index=Smallest)
    expected = Gallery.build(MODEL, IDS).search(query(), 3)
    assert [hits.ids for hits in gallery.search(query(), 3)] == [hits.ids for hits in expected]
    refused = pytest.raises(ValueError, match="Smallest has no add and remove: build the gallery")
    with refused:
        gallery.remove(IDS[:1])
    with refused:
        gallery.add(["new"], torch.ones(1, DIM))


class Bare:
    """An index that cannot exclude."""

    def __init__(self, features: Tensor, similarity: Similarity | None = None) -> None: ...

    def search(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def test_an_index_that_cannot_be_searched_is_refused_when_it_is_made() -> None:
    make: Any = Bare
    with pytest.raises(
        TypeError, match=r"Bare\.search must take \(query, k, \*, exclude=None, with"
    ):
        Gallery.build(MODEL, IDS, index=make)
    make = lambda features, similarity: features  # noqa: E731
    with pytest.raises(TypeError, match=r"index must be an index, see types\.Index, got Tensor"):
        Gallery.build(MODEL, IDS, index=make)


class Listed(Smallest):
    """An index that cannot take no positions at all."""

    def search(
        self, query: Tensor, k: int, *, exclude: Tensor | None = None, within: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        for positions in (exclude, within):
            assert positions is None or positions.numel()
        return super().search(query, k, exclude=exclude, within=within)


def test_an_index_always_gets_a_position() -> None:
    gallery = Gallery.build(MODEL, IDS, attributes=COLOURS, index=Listed)
    assert len(gallery.search(query(), SIZE, exclude=[[], []])[0].ids) == SIZE
    assert gallery.search(query(), 3, where={"colour": "green"})[0].ids == []


NO_VALUES: list[Any] = [[]] * SIZE


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g: Gallery(IDS[1:], g.features), "29 image_ids but 30 rows of features"),
        (lambda g: Gallery([*IDS[1:], IDS[4]], g.features), "the image 'image 4' occurs twice"),
        (lambda g: Gallery(IDS, g.features, attributes={"a": [1]}), "'a' has 1 values for 30"),
        (lambda g: Gallery(IDS, g.features, attributes={"a": NO_VALUES}), "hold plain values"),
        (lambda g: g.features_of(["none"]), "'none' is not in the gallery of 30 images"),
        (lambda g: g.search(query(), 3, exclude=["none", ""]), r"exclude\[0\] must be a list of"),
        (
            lambda g: g.search(query(), 3, where={"year": "1"}),
            "'year' holds values of int, got the ",
        ),
        (lambda g: g.search(query(), 3, where={"year": [1, True]}), "got the bool True"),
        (
            lambda g: g.search(query(), 3, where={"colour": iter("ab")}),
            "NoneType and str, got the ",
        ),
        (lambda g: g.search(query(), 3, where={"colour": [["red"]]}), r"got the list \['red'\]"),
        (lambda g: g.search(query(), 3, where={"colour": range(1)}), "got the int 0"),
        (lambda g: g.search(query(), 3, exclude=[IDS[:1]]), r"exclude must be \[2\]"),
        (lambda g: g.search(query(), 3, where={"size": 1}), "'size'; this gallery has 'colour'"),
        (lambda g: g.search(torch.ones(1, 3), 3), "differ in width"),
        (lambda g: g.add(["new"], torch.ones(1, DIM)), r"attributes are \[\], the gallery's"),
        (lambda g: g.add(IDS[:1], torch.ones(1, DIM), {"colour": [""], "year": [1]}), "twice"),
        (lambda g: g.positions("image 1"), "must be a list of strings"),
    ],
)
def test_what_does_not_fit_is_named(
    gallery: Gallery, make: Callable[[Gallery], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(gallery)


def test_an_image_that_is_named_twice_is_removed_once() -> None:
    gallery = Gallery(["a", "None", "c"], torch.eye(3))
    gallery.remove(["a", "a"])
    assert gallery.image_ids == [None, "None", "c"]
    assert len(gallery) == 2
    assert gallery.positions(["None"]).tolist() == [1]
    with pytest.raises(ValueError, match="image_ids must be a list of strings"):
        gallery.remove("c")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.full((1, DIM), torch.nan), "features row 0 holds NaN"),
        (torch.ones(1, DIM + 1), r"features \[1, 9\] and the gallery \[30, 8\] differ in width"),
    ],
)
def test_features_that_do_not_fit_are_refused_before_anything_changes(
    gallery: Gallery, features: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gallery.add(["new"], features, {"colour": ["red"], "year": [1]})
    assert len(gallery) == len(gallery.features) == SIZE


def test_features_that_were_kept_in_half_precision_are_of_the_same_encoder() -> None:
    """A cache in float16 has a longer key than its encoder."""
    kept = Gallery(["a"], torch.eye(1, DIM), key="an encoder, stored as torch.float16")
    kept.require_model(MODEL)
    other = Gallery(["a"], torch.eye(1, DIM), key="an encoder 2")
    with pytest.raises(ValueError, match="'an encoder 2'"):
        other.require_model(MODEL)
