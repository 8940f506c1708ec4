"""The plain records."""

import pickle
from dataclasses import FrozenInstanceError
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from raising import own_error, shown_id

from fusecomp.types import Batch, Task, Tokens, Triplet


def test_target_and_group_may_be_unknown() -> None:
    triplet = Triplet("q", "a", ("is red",))
    assert triplet.target_id is None
    assert triplet.group is None


@pytest.mark.parametrize(
    "texts",
    [
        *("is red", "", (), [], None, 5, b"is red", {"is red"}, {"is red": 1}),
        *([["a", "b"]], (("a",),), ("a", None), ("a", 1), [b"a"], np.array([["a"]]), iter("a")),
    ],
    ids=shown_id,
)
def test_a_triplet_needs_a_sequence_of_texts(texts: Any) -> None:
    with pytest.raises(ValueError, match="query 'q': texts must be a non-empty tuple"):
        Triplet("q", "a", texts)


@pytest.mark.parametrize(
    "group", ["abc", (), [], 5, {"a"}, ("a", None), (("a",),), [["a"]]], ids=shown_id
)
def test_a_group_is_a_sequence_of_ids(group: Any) -> None:
    with pytest.raises(ValueError, match="query 'q': group must be a non-empty tuple"):
        Triplet("q", "a", ("is red",), "b", group)


def test_a_group_names_each_image_once() -> None:
    with pytest.raises(ValueError, match="query 'q': group names an image twice: 'b'"):
        Triplet("q", "a", ("is red",), "b", ("a", "b", "c", "b"))


@pytest.mark.parametrize("value", [None, 5, b"a", ("a",), ["a"]])
def test_the_ids_of_a_triplet_are_strings(value: Any) -> None:
    ids: dict[str, Any] = {"query_id": "q", "reference_id": "a", "target_id": "b"}
    for name in ids if value is not None else ("query_id", "reference_id"):
        with pytest.raises(TypeError, match="the ids of a triplet must be strings, got Triplet"):
            Triplet(**{**ids, name: value}, texts=("is red",))


def test_lists_become_tuples() -> None:
    lists: Any = (["is red", "is long"], "b", ["a", "b"])
    assert Triplet("q", "a", *lists) == Triplet("q", "a", ("is red", "is long"), "b", ("a", "b"))
    assert len({Triplet("q", "a", *lists)}) == 1


class Words(list[str]):
    """A list of another name."""


class Pair(NamedTuple):
    first: str
    second: str


ANY_LISTS: list[Any] = [
    *(Words("ab"), Pair("a", "b"), np.array(["a", "b"]), np.array(["a", "b"], dtype=object)),
    *({"a": 1, "b": 2}.keys(), {1: "a", 2: "b"}.values()),
]


@pytest.mark.parametrize("values", ANY_LISTS, ids=lambda values: type(values).__name__)
def test_any_list_of_strings_becomes_a_plain_tuple(values: Any) -> None:
    triplet = Triplet("q", "a", values, "b", values)
    assert repr(triplet) == repr(Triplet("q", "a", ("a", "b"), "b", ("a", "b")))
    assert repr(Task("", [triplet], values).gallery) == repr(("a", "b"))


def test_an_empty_text_is_a_text() -> None:
    assert Triplet("q", "a", ("",)).texts == ("",)


def test_equal_triplets_are_one_key_and_travel_between_processes() -> None:
    triplet = Triplet("q", "a", ("is red",), "b", ("a", "b"))
    assert pickle.loads(pickle.dumps(triplet)) == triplet
    assert len({triplet, Triplet("q", "a", ("is red",), "b", ("a", "b"))}) == 1


def test_arrays_of_ids_are_taken_as_lists_are() -> None:
    made = Triplet("q", "a", np.array(["is red"]), "b", None, np.array(["c", "d"]))  # type: ignore[arg-type]
    assert made == Triplet("q", "a", ("is red",), "b", other_target_ids=("c", "d"))
    none: Any = np.array([], str)
    assert Triplet("q", "a", ("is red",), "b", other_target_ids=none).other_target_ids == ()


def test_records_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Triplet("q", "a", ("is red",)).target_id = "b"  # type: ignore[misc]


def two_rows(**values: Any) -> Batch:
    ones: Any = torch.ones(2, dtype=torch.int64)
    ids = {"text_counts": ones, "target_ids": ones, "reference_ids": ones}
    images = {"reference": ones, "target": ones}
    return Batch(**{"texts": ["a", "b"], "query_ids": ["p", "q"], **ids, **images, **values})


NO_TEXTS: list[Any] = [
    *("ab", b"ab", {"a", "b"}, frozenset("ab"), {"a": 1, "b": 2}, {"a": 1, "b": 2}.keys(), None),
    *((letter for letter in "ab"), 2, [1, None], ["a", None], ("a", b"b"), [{"a"}, "b"]),
    *([["a"], ["b"]], [("a", "b"), "c"]),
]


@pytest.mark.parametrize("value", NO_TEXTS, ids=shown_id)
@pytest.mark.parametrize("name", ["texts", "query_ids"])
def test_a_batch_takes_lists_of_strings_alone(name: str, value: Any) -> None:
    message = own_error(two_rows, **{name: value})
    assert message.startswith(f"{name} must be a list of strings, got ")


@pytest.mark.parametrize("name", ["reference", "target"])
@pytest.mark.parametrize(
    "value", [["one"], ("a", "b", "c"), np.zeros((5, 3)), np.array(1.0), []], ids=shown_id
)
def test_lists_and_arrays_of_images_are_as_many_as_the_queries(name: str, value: Any) -> None:
    assert own_error(two_rows, **{name: value}).startswith(f"{name} must have 2 rows, as there are")


@pytest.mark.parametrize("images", [["p", "q"], np.zeros((2, 3)), {"pixels": torch.ones(2, 3)}])
def test_images_may_be_what_an_encoder_of_one_s_own_takes(images: Any) -> None:
    assert len(two_rows(reference=images, target=images)) == 2


def test_the_texts_of_a_batch_are_flat() -> None:
    ones = torch.ones(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"list of strings, .*: texts\[1\] is \['b', 'c'\]"):
        Batch(ones, ["a", ["b", "c"]], ones, ones, ones, ones, ["p", "q"])


@pytest.mark.parametrize("name", ["reference", "target"])
@pytest.mark.parametrize("shape", [(3,), (1, 2), ()])
def test_the_images_of_a_batch_are_as_many_as_its_queries(
    name: str, shape: tuple[int, ...]
) -> None:
    ones = torch.ones(2, dtype=torch.int64)
    values: dict[str, Any] = {"reference": ones, "target": ones, name: torch.ones(shape)}
    with pytest.raises(ValueError, match=f"{name} must have 2 rows, as there are 2 query_ids"):
        Batch(
            texts=["a", "b"],
            text_counts=ones,
            target_ids=ones,
            reference_ids=ones,
            query_ids=["p", "q"],
            **values,
        )


def test_the_length_of_a_batch_is_its_number_of_triplets() -> None:
    ids = torch.tensor([0, 1])
    batch = Batch(ids, ["a", "b", "c"], ids, torch.tensor([2, 1]), ids, ids, ["q0", "q1"])
    assert len(batch) == 2


@pytest.mark.parametrize("name", ["text_counts", "target_ids", "reference_ids"])
@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (torch.tensor([1, 1, 1]), r"int64 \[3\]"),
        (torch.tensor([[1], [1]]), r"int64 \[2, 1\]"),
        (torch.tensor([1.0, 1.0]), r"float32 \[2\]"),
        # 260 would have become 4.
        (torch.tensor([1, 1], dtype=torch.uint8), r"uint8 \[2\]"),
    ],
)
def test_ids_of_another_length_or_type_are_named(
    name: str, wrong: torch.Tensor, found: str
) -> None:
    ones = torch.ones(2, dtype=torch.int64)
    values: dict[str, Any] = {"text_counts": ones, "target_ids": ones, "reference_ids": ones}
    with pytest.raises(ValueError, match=rf"{name} must be int64 \[2\], .* got torch\.{found}"):
        Batch(ones, ones, ones, **{**values, name: wrong}, query_ids=["q0", "q1"])


def test_a_batch_needs_rows_and_their_texts() -> None:
    ones, none = torch.ones(2, dtype=torch.int64), torch.ones(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="a batch needs a row at least"):
        Batch(none, [], none, none, none, none, [])
    with pytest.raises(ValueError, match="text_counts sum to 2, but there are 3 texts"):
        Batch(ones, ["a", "b", "c"], ones, ones, ones, ones, ["q0", "q1"])


def test_tokens_show_their_size_and_do_not_change() -> None:
    tokens = Tokens(torch.zeros(2, 3, 4), torch.tensor([[True, True, False], [True] * 3]))
    assert len(tokens) == 2
    assert repr(tokens) == "Tokens(values [2, 3, 4], 5 of 6 positions used)"
    with pytest.raises(FrozenInstanceError):
        tokens.mask = tokens.mask  # type: ignore[misc]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_tokens_keep_what_they_are_given(dtype: torch.dtype) -> None:
    values = torch.zeros(2, 3, 4, dtype=dtype, requires_grad=True)
    mask = torch.ones(2, 3, dtype=torch.bool)
    tokens = Tokens(values, mask)
    assert tokens.values is values
    assert tokens.mask is mask


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (torch.zeros(2, 3), "must be [B, L, W] and not empty, got [2, 3]"),
        (torch.zeros(2, 3, 4, 5), "must be [B, L, W] and not empty, got [2, 3, 4, 5]"),
        (torch.zeros(0, 3, 4), "must be [B, L, W] and not empty, got [0, 3, 4]"),
        (torch.zeros(2, 0, 4), "must be [B, L, W] and not empty, got [2, 0, 4]"),
        (torch.zeros(2, 3, 0), "must be [B, L, W] and not empty, got [2, 3, 0]"),
        (torch.zeros(2, 3, 4).long(), "must have a floating dtype, got torch.int64"),
        (torch.zeros(2, 3, 4).to_sparse(), "must be dense, got torch.sparse_coo"),
        (np.zeros((2, 3, 4)), "must be a torch tensor, got ndarray"),
        ([[[0.0]]], "must be a torch tensor, got list"),
        (None, "must be a torch tensor, got NoneType"),
    ],
    ids=shown_id,
)
def test_tokens_need_values(values: Any, found: str) -> None:
    message = own_error(Tokens, values, torch.ones(2, 3, dtype=torch.bool))
    assert message.startswith(f"values {found}")


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (
            torch.ones(2, 3),
            "must be bool [2, 3], as values are [2, 3, 4], got torch.float32 [2, 3]",
        ),
        (torch.ones(2, 3).long(), "must be bool [2, 3]"),
        (torch.ones(2, 4).bool(), "must be bool [2, 3]"),
        (torch.ones(2, 3, 4).bool(), "must be bool [2, 3]"),
        (torch.ones(3).bool(), "must be bool [2, 3]"),
        (torch.tensor([[True] * 3, [False] * 3]), "row 1 has no token, but every row needs one"),
        (torch.tensor([[True] * 3, [False, True, True]]), "row 1 has padding before or between"),
        (torch.tensor([[True, False, True], [True] * 3]), "row 0 has padding before or between"),
        (torch.ones(2, 3).bool().to("meta"), "is on meta: move both to one"),
        (np.ones((2, 3), bool), "must be a torch tensor, got ndarray"),
        (None, "must be a torch tensor, got NoneType"),
    ],
    ids=shown_id,
)
def test_tokens_need_a_mask(mask: Any, found: str) -> None:
    assert f"mask {found}" in own_error(Tokens, torch.zeros(2, 3, 4), mask)
