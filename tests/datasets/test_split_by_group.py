"""split_by_group: no image and no group in two splits, near the fractions, fixed by the seed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecomp.datasets import split_by_group
from fusecomp.types import Triplet


def row(number: int, reference: str, target: str | None, *group: str) -> Triplet:
    return Triplet(f"q{number}", reference, ("x",), target, group or None)


def pairs(count: int) -> list[Triplet]:
    return [row(n, f"a{n}", f"b{n}") for n in range(count)]


def names(triplet: Triplet) -> set[str]:
    return {*triplet.image_ids, *(triplet.group or ())}


IDS = st.sampled_from([f"i{n}" for n in range(30)])


@given(
    st.lists(st.tuples(IDS, IDS | st.none(), st.sets(IDS, max_size=3)), min_size=1, max_size=30),
    st.sampled_from([(0.5, 0.5), (0.8, 0.1, 0.1), (1.0,)]),
    st.integers(0, 2**40),
)
def test_no_image_is_in_two_splits(
    rows: list[tuple[str, str | None, set[str]]], fractions: tuple[float, ...], seed: int
) -> None:
    triplets = [row(n, a, b, *sorted(group)) for n, (a, b, group) in enumerate(rows)]
    try:
        splits = split_by_group(triplets, fractions, seed)
    except ValueError as error:
        assert "gets no triplet" in str(error)
        return
    assert len(splits) == len(fractions)
    assert sorted((t for part in splits for t in part), key=triplets.index) == triplets
    assert all(part == sorted(part, key=triplets.index) for part in splits)
    images = [set().union(*map(names, part)) for part in splits]
    assert sum(map(len, images)) == len(set().union(*images))


def test_triplets_hang_together_by_way_of_a_group_alone() -> None:
    triplets = [row(0, "a", "b", "a", "b", "x"), row(1, "c", "d", "c", "d", "x"), *pairs(6)[2:]]
    for seed in range(20):
        parts = split_by_group(triplets, (0.5, 0.5), seed)
        assert any({"q0", "q1"} <= {t.query_id for t in part} for part in parts)


def test_the_splits_are_near_the_fractions_and_fixed_by_the_seed() -> None:
    triplets = pairs(1000)
    splits = split_by_group(triplets, (0.7, 0.2, 0.1), seed=3)
    assert [len(part) for part in splits] == [700, 200, 100]
    assert splits == split_by_group(triplets, (0.7, 0.2, 0.1), seed=3)
    assert splits != split_by_group(triplets, (0.7, 0.2, 0.1), seed=4)
    # Another machine must get this very split.
    half, _ = split_by_group(pairs(8), (0.5, 0.5), seed=1)
    assert [triplet.query_id for triplet in half] == [
        "q1",
        "q2",
        "q3",
        "q5",
    ]


def test_a_long_chain_of_shared_images_is_one_family() -> None:
    chain = [row(n, f"i{n}", f"i{n + 1}") for n in range(5000)]
    splits = split_by_group([*chain, row(5000, "x", "y")], (0.9, 0.1))
    assert [len(part) for part in splits] == [5000, 1]
    with pytest.raises(ValueError, match=r"split 1 .* gets no triplet: the 5000 triplets are 1"):
        split_by_group(chain, (0.9, 0.1))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"triplets": "abc"}, "triplets must be a list of triplets, got the string 'abc'"),
        ({"triplets": [5]}, "triplets must be a list of triplets, got 5 in it"),
        ({"triplets": []}, "split 0 of fractions .* gets no triplet"),
        ({"fractions": 0.5}, "fractions must be a list of numbers, got the float 0.5"),
        ({"fractions": ()}, r"fractions must be above 0 and sum to 1, got \(\)"),
        ({"fractions": (0.5, 0.4)}, r"fractions must be above 0 and sum to 1, got \(0.5, 0.4\)"),
        ({"fractions": (1.0, 0.0)}, r"fractions must be above 0 and sum to 1, got \(1.0, 0.0\)"),
        ({"fractions": (1.5, -0.5)}, "each of fractions must be finite and not negative, got -0.5"),
        ({"fractions": ("1",)}, "each of fractions must be an int or a float, got the str '1'"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
    ],
)
def test_what_cannot_be_split_is_named(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        split_by_group(**{"triplets": pairs(4), "fractions": (0.5, 0.5), **arguments})
