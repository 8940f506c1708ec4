"""NumPy arrays are taken where features enter, and give what their tensors give."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from composing import cached
from raising import own_error

import fusecomp as fc
from fusecomp.evaluation import feature_cosines
from fusecomp.retrieval import ExactIndex, rerank, search, search_targets

RNG = np.random.default_rng(0)
QUERY, FEATURES = RNG.standard_normal((3, 4)), RNG.standard_normal((9, 4))
SOME = np.array([[0, 3], [4, -1], [8, 2]])
IDS = [f"image {number}" for number in range(9)]


def gallery(features: Any) -> fc.Gallery:
    return fc.Gallery(IDS, features)


def changed(index: Any, more: Any, gone: Any) -> Any:
    index.add(more)
    index.remove(gone)
    return index


CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "search": lambda q, f, s: search(q, f, 4, exclude=s),
    "search among candidates": lambda q, f, s: search(q, f, 2, candidates=s),
    "search_targets": lambda q, f, s: search_targets(q, f, s[:, 0], 2, subsets=s),
    "rerank": lambda q, f, s: rerank(q, f, s, None, 2),
    "ExactIndex": lambda q, f, s: ExactIndex(f).search(q, 3, exclude=s, within=None),
    "ExactIndex within": lambda q, f, s: ExactIndex(f).search(q, 3, within=s),
    "ExactIndex changed": lambda q, f, s: changed(ExactIndex(f), f[:2], s[0]).search(q, 3),
    "Gallery": lambda q, f, s: gallery(f).search(q, 3),
    "Gallery.rerank": lambda q, f, s: gallery(f).rerank(q, s, None, 2),
    "feature_cosines": lambda q, f, s: feature_cosines(q, f, s[:, 0]).target.mean,
    "compose": lambda q, f, s: fc.ComposedEncoder(cached(), fc.Sum()).compose(q, f[:3]),
}


def as_plain(value: Any) -> Any:
    """Nested lists, so that equal results are equal."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return value.tolist()
    return [as_plain(part) for part in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CALLS)
def test_an_array_gives_what_its_tensor_gives(name: str, dtype: Any) -> None:
    query, features = QUERY.astype(dtype), FEATURES.astype(dtype)
    arrays = CALLS[name](query, features, SOME)
    tensors = CALLS[name](*map(torch.from_numpy, (query, features, SOME)))
    assert repr(as_plain(arrays)) == repr(as_plain(tensors))


def read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


FORMS: dict[str, Callable[[Any], Any]] = {
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "backward": lambda a: a[::-1].copy()[::-1],
    "by columns": np.asfortranarray,
    "read only": read_only,
    "long double": lambda a: a.astype(np.longdouble),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_array_of_any_form_counts_by_its_values(form: str) -> None:
    expected = search(QUERY, FEATURES, 3)
    found = search(FORMS[form](QUERY), FORMS[form](FEATURES), 3)
    assert as_plain(found) == as_plain(expected)


def test_writable_memory_is_shared() -> None:
    features = FEATURES.copy()
    assert gallery(features).features.data_ptr() == features.ctypes.data


def test_images_are_added_to_a_gallery() -> None:
    one, other = gallery(FEATURES), gallery(torch.from_numpy(FEATURES))
    one.add(["new"], QUERY[:1])
    other.add(["new"], torch.from_numpy(QUERY[:1]))
    found = one.search(QUERY, 2)
    assert repr(found) == repr(other.search(torch.from_numpy(QUERY), 2))
    assert "new" in found[0].ids


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((3, 4), int), "query must have a floating dtype, got torch.int64"),
        (np.ones((3, 4), complex), "query must be a torch tensor, got ndarray"),
        (np.full((3, 4), "a"), "query must be a torch tensor, got ndarray"),
        (
            np.ma.masked_array(QUERY, QUERY > 0),
            "query must be a torch tensor, got MaskedArray, whose gaps",
        ),
        (QUERY[0], "query must be [rows, D] and not empty, got [4]"),
        (np.full((3, 4), np.nan), "query row 0 holds NaN or infinity"),
        (QUERY.tolist(), "query must be a torch tensor, got list; torch.tensor(...)"),
    ],
    ids=str,
)
def test_an_array_of_something_else_is_named(value: Any, message: str) -> None:
    assert own_error(search, value, FEATURES, 2).startswith(message)


def test_two_dtypes_are_named_with_the_way_out() -> None:
    message = own_error(search, QUERY.astype("f4"), FEATURES, 2)
    assert message.endswith("bring both to one dtype, such as float32 by .float()")
    message = own_error(fc.Combiner(4), torch.from_numpy(QUERY), torch.from_numpy(QUERY))
    assert ".to(torch.float32) on the features" in message
    message = own_error(fc.InfoNCE(), QUERY, QUERY)
    assert message.endswith("torch.from_numpy(...).float() makes one of a NumPy array")


def test_a_data_frame_has_attributes() -> None:
    pandas = pytest.importorskip("pandas", reason="needs the extra report")
    columns: dict[str, Any] = {"colour": ["red", None, "blue"], "year": [0, 1, 2]}
    model, frame = fc.ComposedEncoder(cached(), fc.Sum()), pandas.DataFrame(columns, dtype=object)
    built = fc.Gallery.build(model, ["a", "b", "c"], attributes=frame)
    built.add(["new"], np.ones((1, 4)), frame[:1])
    assert built.attributes == {"colour": ["red", None, "blue", "red"], "year": [0, 1, 2, 0]}
