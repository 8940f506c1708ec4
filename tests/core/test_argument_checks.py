"""The checks of arguments that are no tensors."""

import math
from collections import UserList
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from raising import own_error, shown_id

from fusecomp._core.checks import flag, number, ordered, positive, shown, strings, whole_number

# What is no number, no flag and no list of strings.
FOREIGN: list[Any] = [
    None,
    "8",
    "",
    b"8",
    1j,
    Decimal(8),
    torch.tensor(8),
    torch.ones(1),
    np.array(8),
    np.ones(1),
    [8],
    (8,),
    {8},
    {8: 8},
    int,
    object(),
    math.sqrt,
]
NUMPY_INTEGERS = (np.int8, np.uint8, np.int32, np.uint64, np.int64)


@given(st.integers(-5, 2**63 - 1), st.integers(-5, 5), st.sampled_from(NUMPY_INTEGERS))
def test_a_whole_number_is_taken_from_its_least_value_on(value: int, least: int, kind: Any) -> None:
    if value < least:
        assert "n must be a whole number of at least" in own_error(whole_number, "n", value, least)
        return
    assert whole_number("n", value, least) == value
    if np.iinfo(kind).min <= value <= np.iinfo(kind).max:
        found = whole_number("n", kind(value), least)
        assert (type(found), found) == (int, value)


@pytest.mark.parametrize(
    "value", [*FOREIGN, True, np.True_, 2.5, 2.0, np.float64(2), math.nan, math.inf], ids=shown_id
)
def test_what_is_no_whole_number_is_named(value: Any) -> None:
    assert own_error(whole_number, "k", value, 1).startswith(
        f"k must be a whole number of at least 1, got {shown(value)}"
    )


@pytest.mark.parametrize("value", [2**63, 10**30, 10**5000], ids=["2^63", "10^30", "10^5000"])
def test_a_whole_number_that_no_tensor_can_count_to_is_named(value: int) -> None:
    assert "k must be at most 9223372036854775807, got" in own_error(whole_number, "k", value, 1)
    assert whole_number("seed", value, 0, math.inf) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3.0), (0.25, 0.25), (np.float32(0.5), 0.5), (np.int64(2), 2.0), (Fraction(1, 2), 0.5)],
    ids=shown_id,
)
@pytest.mark.parametrize("check", [number, positive])
def test_a_number_of_any_kind_is_a_float(check: Any, value: Any, expected: float) -> None:
    found = check("margin", value)
    assert (type(found), found) == (float, expected)


@pytest.mark.parametrize("value", [*FOREIGN, True, np.True_], ids=shown_id)
def test_what_is_no_number_is_named_with_its_kind(value: Any) -> None:
    expected = f"T must be an int or a float, got the {type(value).__name__} {shown(value)}"
    assert own_error(positive, "T", value) == expected
    for limits in ((), (0,), (0, 1)):
        assert own_error(number, "T", value, *limits) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, np.nan], ids=shown_id)
def test_what_is_no_finite_number_is_named(value: Any) -> None:
    got = f", got {shown(value)}"
    assert own_error(number, "bias", value) == f"bias must be finite{got}"
    assert own_error(number, "margin", value, 0) == (f"margin must be finite and not negative{got}")
    assert own_error(number, "dropout", value, 0, 1) == f"dropout must be in [0, 1){got}"
    assert own_error(positive, "T", value) == f"T must be positive and finite{got}"


@given(st.floats(-3, 3))
def test_a_range_holds_its_low_end_and_not_its_high_one(value: float) -> None:
    if 0 <= value < 1:
        assert number("dropout", value, 0, 1) == value
    else:
        assert "dropout must be in [0, 1)" in own_error(number, "dropout", value, 0, 1)
    if value <= 0:
        assert "T must be positive" in own_error(positive, "T", value)


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_], ids=shown_id)
def test_a_flag_is_a_bool(value: Any) -> None:
    assert flag("cache", value) is bool(value)


@pytest.mark.parametrize("value", [*FOREIGN, "False", "no", 0, 1, 1.0], ids=shown_id)
def test_what_is_no_flag_is_named(value: Any) -> None:
    assert own_error(flag, "cache", value) == (f"cache must be True or False, got {shown(value)}")


LISTS: list[Callable[[list[str]], Any]] = [
    list,
    tuple,
    np.array,
    lambda names: np.array(names, dtype=object),
    UserList,
    lambda names: dict.fromkeys(names).keys(),
    lambda names: dict(enumerate(names)).values(),
]


@pytest.mark.parametrize("make", LISTS)
def test_strings_may_be_in_any_list(make: Callable[[list[str]], Any]) -> None:
    assert strings("names", make(["b", "", "a"])) == ["b", "", "a"]
    assert strings("names", []) == []


@pytest.mark.parametrize(
    "values",
    [
        None,
        5,
        "abc",
        b"abc",
        {"a", "b"},
        frozenset("ab"),
        {"a": 1},
        {"a": 1}.items(),
        (name for name in "ab"),
        iter(["a"]),
        map(str, "ab"),
        np.array("a"),
        np.array([["a"]]),
        torch.zeros(2),
        object(),
    ],
    ids=lambda values: type(values).__name__,
)
def test_what_is_no_list_or_can_be_read_only_once_is_named(values: Any) -> None:
    assert own_error(strings, "names", values).startswith(
        "names must be a list of strings, got the "
    )
    assert own_error(ordered, "positions", values, "numbers").startswith(
        "positions must be a list of numbers, got the "
    )


@pytest.mark.parametrize("odd", [None, 3, b"a", ["a"], ("a", "b"), torch.tensor(1)], ids=shown_id)
def test_what_is_no_string_among_strings_is_named_with_its_place(odd: Any) -> None:
    assert own_error(strings, "names", ["a", odd]) == (
        f"names must be a list of strings, got list of {type(odd).__name__}: names[1] is "
        f"{shown(odd)}"
    )


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("half made")


def test_a_value_is_shown_in_a_line_whatever_its_repr_does() -> None:
    assert shown("x" * 200) == f"'{'x' * 76}..."
    assert shown(Broken()) == "some Broken"
    assert shown(10**5000) == "some int"
