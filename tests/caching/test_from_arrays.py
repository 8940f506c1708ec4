"""Features from arrays: any array of numbers, names in an order, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cacheable import IDS, IMAGES, TEXTS, WORDS, cached
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from raising import own_error
from torch import Tensor, nn

from fusecomp.caching import CachedEncoder
from fusecomp.types import Encoder


def test_features_are_found_by_name_and_by_row() -> None:
    encoder = cached()
    assert isinstance(encoder, Encoder)
    rows = encoder.lookup["image"](["größer", "a", "a"])
    assert rows.tolist() == [2, 0, 0]
    assert rows.dtype == torch.int64
    expected = torch.from_numpy(IMAGES[[2, 0, 0]])
    assert torch.equal(encoder.encode_image(rows), expected)
    assert torch.equal(encoder.encode_image(["größer", "a", "a"]), expected)
    assert torch.equal(encoder.encode_text(["", "is red"]), torch.from_numpy(WORDS[[1, 0]]))
    assert torch.equal(
        encoder.encode_text(encoder.lookup["text"]([""])), torch.from_numpy(WORDS[1:2])
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_features_come_out_in_float32_at_least(given: torch.dtype, expected: torch.dtype) -> None:
    images, texts = torch.from_numpy(IMAGES).to(given), torch.from_numpy(WORDS).to(given)
    encoder = CachedEncoder.from_arrays(IDS, images, TEXTS, texts)
    assert encoder.encode_image(IDS).dtype == encoder.encode_text(TEXTS).dtype == expected
    assert torch.equal(encoder.encode_image(IDS).float(), torch.from_numpy(IMAGES))


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(ValueError, match=r"no cached features for the image 'z' \(of 3 cached\)"):
        cached().lookup["image"](["a", "z"])
    with pytest.raises(ValueError, match="for the text 'is blue'"):
        cached().encode_text(["is blue"])


def nan(features: NDArray[Any], value: float = np.nan) -> NDArray[Any]:
    features = features.copy()
    features[2, 1] = value
    return features


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_ids": ["a", "b"]}, "2 image names but 3 rows of features"),
        ({"texts": ["a", "b", "c", "d"]}, "4 text names but 3 rows"),
        ({"image_ids": ["a", "b", "a"]}, "the image 'a' occurs twice"),
        ({"texts": ["", "x", ""]}, "the text '' occurs twice"),
        ({"image_features": nan(IMAGES)}, "the features of image 'größer' hold NaN or infinity"),
        ({"text_features": nan(WORDS, np.inf)}, "of text 'has dots' hold NaN or infinity"),
        ({"image_features": IMAGES.astype(int)}, r"image features must be floating \[N, D\]"),
        ({"image_features": IMAGES[0]}, r"got torch.float32 \[4\]"),
        ({"image_ids": [], "image_features": IMAGES[:0]}, "not empty"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    good = {"image_ids": IDS, "image_features": IMAGES, "texts": TEXTS, "text_features": WORDS}
    with pytest.raises(ValueError, match=message):
        CachedEncoder.from_arrays(**{**good, **arguments})


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((1, 0, 2, 3), "image names must be a list of strings, got the ndarray "),
        ((0, 2, 1, 3), "image features must be an array of numbers .*, got list "),
        ((0, 1, 3, 2), "text names must be a list of strings, got the Tensor "),
    ],
)
def test_swapped_arguments_are_named_with_their_order(order: list[int], message: str) -> None:
    arguments: list[Any] = [IDS, IMAGES, TEXTS, torch.from_numpy(WORDS)]
    with pytest.raises(
        TypeError, match=rf"(?s){message}.*; from_arrays takes image_ids, image_features, texts"
    ):
        CachedEncoder.from_arrays(*(arguments[position] for position in order))


@pytest.mark.parametrize(
    ("names", "message"),
    [("abc", "got the string 'abc'"), ([1, "b", 2], r"got list of int: image names\[0\] is 1")],
)
def test_names_are_a_list_of_strings(names: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"image names must be a list of strings, {message};"):
        CachedEncoder.from_arrays(names, IMAGES, TEXTS, WORDS)


def test_names_and_features_may_be_any_sequence_of_strings_and_numbers() -> None:
    encoder = CachedEncoder.from_arrays(np.array(IDS), IMAGES.tolist(), tuple(TEXTS), WORDS)  # type: ignore[arg-type]
    assert torch.equal(encoder.encode_image(IDS), torch.from_numpy(IMAGES))


def memory_map(array: NDArray[Any], folder: Path, mode: Any) -> NDArray[Any]:
    np.save(folder / "array.npy", array)
    mapped: NDArray[Any] = np.load(folder / "array.npy", mmap_mode=mode)
    return mapped


class Foreign:
    """Makes an array of itself, as HDF5 datasets and data frames do."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return self.array


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


ARRAYS: dict[str, Callable[[NDArray[Any], Path], Any]] = {
    "big-endian": lambda a, _: a.astype(a.dtype.newbyteorder(">")),
    "reversed rows": lambda a, _: a[::-1].copy()[::-1],
    "reversed columns": lambda a, _: a[:, ::-1].copy()[:, ::-1],
    "every other row": lambda a, _: np.repeat(a, 2, axis=0)[::2],
    "Fortran's order": lambda a, _: np.asfortranarray(a),
    "broadcast rows": lambda a, _: np.broadcast_to(a[:1], a.shape),
    "read only": lambda a, _: read_only(a),
    "read only and big-endian": lambda a, _: read_only(a.astype(a.dtype.newbyteorder(">"))),
    "a memory map": lambda a, folder: memory_map(a, folder, "r"),
    "a copy-on-write map": lambda a, folder: memory_map(a, folder, "c"),
    "a big-endian map": lambda a, folder: memory_map(a.astype(">f4"), folder, "r"),
    "half precision": lambda a, _: a.astype("f2"),
    "double precision": lambda a, _: a.astype("f8"),
    "long doubles": lambda a, _: a.astype(np.longdouble),
    "an array-like object": lambda a, _: Foreign(a.astype(">f8")),
    "lists": lambda a, _: a.tolist(),
    "a list of arrays": lambda a, _: list(a),
    "a tuple of tensors": lambda a, _: torch.from_numpy(a).unbind(),
    "a tensor with a graph": lambda a, _: torch.from_numpy(a).requires_grad_() * 1,
    "a parameter": lambda a, _: nn.Parameter(torch.from_numpy(a)),
    "a transposed tensor": lambda a, _: torch.from_numpy(a).T.contiguous().T,
}


@pytest.mark.parametrize("kind", ARRAYS)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 4), width=st.integers(1, 5), seed=st.integers(0, 99))
def test_any_array_of_numbers_is_read_as_numpy_reads_it(
    kind: str, tmp_path: Path, rows: int, width: int, seed: int
) -> None:
    array = np.random.default_rng(seed).normal(size=(rows, width)).astype("f2").astype("f4")
    names = [f"image {row}" for row in range(rows)]
    given = ARRAYS[kind](array, tmp_path)
    encoder = CachedEncoder.from_arrays(names, given, names, given)
    expected = array if kind != "broadcast rows" else array[[0] * rows]
    for features in (encoder.encode_image(names), encoder.encode_text(names[::-1]).flip(0)):
        np.testing.assert_array_equal(features.numpy(), expected)
        assert not features.requires_grad
        assert type(features) is Tensor


NO_ARRAYS: dict[str, Any] = {
    "text": np.array([["a", "b"]] * 3),
    "objects": np.array([[1.0, None]] * 3, dtype=object),
    "dates": np.zeros((3, 2), "M8[s]"),
    "records": np.zeros(3, dtype=[("a", "f4")]),
    "complex numbers": np.ones((3, 2), complex),
    "flags": np.ones((3, 2), bool),
    "whole numbers": np.ones((3, 2), int),
    "a number": np.array(1.0),
    "a mask": np.ma.masked_array(np.ones((3, 2)), mask=np.eye(3, 2, dtype=bool)),
    "rows of unequal length": [[1.0], [1.0, 2.0], [1.0]],
    "a mapping": {"a": [1.0]},
    "a set": {1.0},
    "a generator": iter([[1.0]] * 3),
    "nothing": None,
    "a path": "features.npy",
    "eight bits": torch.ones(3, 2).to(torch.float8_e4m3fn),
    "a sparse tensor": torch.ones(3, 2).to_sparse(),
    "a tensor without values": torch.ones(3, 2, device="meta"),
}


@pytest.mark.parametrize("kind", NO_ARRAYS)
def test_what_is_no_array_of_numbers_is_named(kind: str) -> None:
    wrong = NO_ARRAYS[kind]
    for arguments in ((IDS, wrong, TEXTS, WORDS), (IDS, IMAGES, TEXTS, wrong)):
        side = "image" if arguments[1] is wrong else "text"
        assert own_error(CachedEncoder.from_arrays, *arguments).startswith(f"{side} features ")


@pytest.mark.parametrize(
    "names", [set(IDS), frozenset(IDS), dict.fromkeys(IDS), (i for i in IDS), iter(IDS), None, 3]
)
def test_names_without_an_order_or_to_be_read_once_are_refused(names: Any) -> None:
    for arguments in ((names, IMAGES, TEXTS, WORDS), (IDS, IMAGES, names, WORDS)):
        side = "image" if arguments[0] is names else "text"
        message = own_error(CachedEncoder.from_arrays, *arguments)
        assert message.startswith(f"{side} names must be a list of strings, got the ")


@pytest.mark.parametrize("key", [None, 3, b"key", ["key"]])
def test_a_key_is_a_string(key: Any) -> None:
    message = own_error(CachedEncoder.from_arrays, IDS, IMAGES, TEXTS, WORDS, key)
    assert message.startswith("key must be a string, got ")


def test_both_sides_are_on_one_device(cuda: torch.device) -> None:
    images, texts = torch.from_numpy(IMAGES), torch.from_numpy(WORDS)
    message = own_error(CachedEncoder.from_arrays, IDS, images.to(cuda), TEXTS, texts)
    assert "image features are on cuda:0, text features on cpu" in message
    encoder = CachedEncoder.from_arrays(IDS, images.to(cuda), TEXTS, texts.to(cuda))
    assert torch.equal(encoder.encode_image(torch.tensor([2, 0])).cpu(), images[[2, 0]])


def test_features_are_no_weights() -> None:
    assert cached().state_dict() == {}
    assert list(cached().parameters()) == []


def test_the_key_is_the_fingerprint() -> None:
    assert cached(key="clip").fingerprint() == "clip"
    with pytest.raises(ValueError, match="no key"):
        cached(key="").fingerprint()
