"""Query algebra: parts add up by direction and weight; how rounds become one query."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from raising import own_error
from torch import Tensor

from fusecomp.retrieval import LastRound, MeanOfRounds, Rocchio, Strategy, compose_parts

NONE = torch.empty(0, 2)
ROUNDS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
ONES = torch.ones(2)
LIKED = torch.tensor([[0.0, 4.0], [0.0, 0.5]])
DISLIKED = torch.tensor([[3.0, 0.0]])


def close(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float32))


def test_the_sum_of_directions_by_hand() -> None:
    images, texts = torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 3.0]]), torch.tensor([[0.0, 7.0, 0]])
    # 5 (1, 0, 0) + 10 (0, 0.8, 0.6) - 8 (0, 1, 0) = (5, 0, 6)
    length = math.sqrt(61)
    close(compose_parts(images, texts, [5, 10, -8]), [5 / length, 0, 6 / length])
    close(compose_parts(images[:1], weights=[-2]), [-1, 0, 0])
    close(compose_parts(texts=texts), [0, 1, 0])
    both = compose_parts(images, weights=torch.tensor([5.0, 0.0]))
    torch.testing.assert_close(both, compose_parts(images[:1]))


# Weights of 1e-6 of the largest are lost in its rounding.
numbers = st.floats(-100, 100).filter(lambda w: w == 0 or abs(w) > 0.01)


@given(st.lists(numbers, min_size=5, max_size=5), st.integers(0, 99), st.floats(0.001, 1000))
def test_neither_order_nor_scale_matter(weights: list[float], seed: int, scale: float) -> None:
    images, texts = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed)).split([3, 2])
    if not any(weights):
        assert "cancel out" in own_error(compose_parts, images, texts, weights)
        return
    query = compose_parts(images, texts, weights)
    torch.testing.assert_close(query.norm(dim=1), torch.ones(1))
    order = [2, 0, 1, 4, 3]
    turned = compose_parts(scale * images[order[:3]], texts.flip(0), [weights[n] for n in order])
    torch.testing.assert_close(turned, query, rtol=0, atol=1e-4)
    larger = compose_parts(images, texts, [scale * weight for weight in weights])
    torch.testing.assert_close(larger, query, rtol=0, atol=1e-4)
    opposite = compose_parts(images, texts, [-weight for weight in weights])
    torch.testing.assert_close(opposite, -query)


def test_a_query_of_a_pair_is_a_part_among_others() -> None:
    torch.manual_seed(0)
    once = compose_parts(torch.randn(2, 5))
    again = compose_parts(torch.cat([once, torch.randn(1, 5)]), weights=[1, -0.5])
    assert again.shape == (1, 5)
    torch.testing.assert_close(compose_parts(once), once)


def test_half_precision_is_widened_and_large_weights_do_not_overflow() -> None:
    assert compose_parts(torch.ones(1, 2, dtype=torch.float16)).dtype == torch.float32
    close(compose_parts(ROUNDS, weights=[3e300, 4e300]), [0.6, 0.8])
    close(compose_parts(ROUNDS, weights=[3e-300, 4e-300]), [0.6, 0.8])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "pass images or texts"),
        ((NONE,), "images must be .* not empty"),
        ((ROUNDS.tolist(),), "images must be a torch tensor"),
        ((ROUNDS, ROUNDS.double()), "images is torch.float32 and texts is torch.float64"),
        ((ROUNDS, torch.ones(1, 3)), "differ in width"),
        ((ROUNDS, torch.tensor([[0.0, math.nan]])), "texts row 0 holds NaN"),
        ((ROUNDS, None, [1.0]), "1 weights for 2 parts"),
        ((ROUNDS, None, [1.0, math.nan]), r"weights\[1\] must be finite, got nan"),
        ((ROUNDS, None, [True, 1.0]), r"weights\[0\] must be an int or a float"),
        ((ROUNDS, None, "12"), "weights must be a list of numbers"),
        ((ROUNDS, None, [0.0, 0]), "the parts cancel out"),
        ((torch.ones(2, 2), None, [1.0, -1.0]), "the parts cancel out.*leave a part out"),
        ((torch.zeros(2, 2),), "the parts cancel out"),
        # What is left of these is rounding.
        ((torch.tensor([[1, 0], [1, 1e-7]]), None, [1.0, -1.0]), "the parts cancel out"),
    ],
)
def test_what_gives_no_direction_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        compose_parts(*arguments)


def test_features_may_be_of_numpy() -> None:
    found = compose_parts(ROUNDS.numpy(), DISLIKED.numpy(), [1, 2, -1])
    assert torch.equal(found, compose_parts(ROUNDS, DISLIKED, [1, 2, -1]))


def test_weights_may_be_of_numpy() -> None:
    weights: Any = np.array([3, 4])
    close(compose_parts(ROUNDS, weights=weights), [0.6, 0.8])


def test_the_strategies_by_hand() -> None:
    close(LastRound().combine(ROUNDS, ONES, NONE, NONE), [0, 1])
    close(MeanOfRounds().combine(ROUNDS, ONES, NONE, NONE), [math.sqrt(0.5), math.sqrt(0.5)])
    close(MeanOfRounds().combine(ROUNDS, torch.tensor([4.0, -3]), NONE, NONE), [0.8, -0.6])
    # (1, 0) + 0.75 (0, 1) - 0.15 (1, 0) = (0.85, 0.75)
    moved, length = Rocchio().combine(ROUNDS[:1], ONES[:1], LIKED, DISLIKED), math.hypot(0.85, 0.75)
    close(moved, [0.85 / length, 0.75 / length])
    # 2 (0.8, -0.6) - (1, 0) = (0.6, -1.2)
    strategy, length = Rocchio(2, 0, 1, MeanOfRounds()), math.hypot(0.6, 1.2)
    moved = strategy.combine(ROUNDS, torch.tensor([4.0, -3]), LIKED, DISLIKED)
    close(moved, [0.6 / length, -1.2 / length])
    close(Rocchio().combine(NONE, NONE[:, 0], LIKED, NONE), [0, 1])


@pytest.mark.parametrize(
    ("strategy", "judged"),
    [
        (Rocchio(gamma=0), (NONE, NONE, DISLIKED)),
        (Rocchio(beta=0), (NONE, LIKED, NONE)),
        (Rocchio(0, 0, 0), (ROUNDS, LIKED, DISLIKED)),
    ],
)
def test_judgements_without_a_weight_alone_are_no_query(strategy: Rocchio, judged: Any) -> None:
    queries, liked, disliked = judged
    message = own_error(strategy.combine, queries, ONES[: len(queries)], liked, disliked)
    assert message.startswith(f"{strategy} leaves nothing to search by")


@pytest.mark.parametrize("rounds", [LastRound(), MeanOfRounds()], ids=repr)
def test_without_judgements_rocchio_is_the_strategy_of_its_rounds(rounds: Strategy) -> None:
    strategy = Rocchio(alpha=0.5, rounds=rounds)
    expected = rounds.combine(ROUNDS, ONES, NONE, NONE)
    assert torch.equal(strategy.combine(ROUNDS, ONES, NONE, NONE), expected)
    assert strategy.adds_rounds == rounds.adds_rounds


def test_one_round_is_the_mean_of_itself() -> None:
    unit = compose_parts(torch.randn(1, 2))
    torch.testing.assert_close(MeanOfRounds().combine(unit, ONES[:1], NONE, NONE), unit)


def test_wrong_weights_are_refused() -> None:
    for weight in (0.0, -1.0):
        weights = torch.tensor([1.0, weight])
        message = own_error(LastRound().combine, ROUNDS, weights, NONE, NONE)
        assert f"must be positive, got {weight}" in message
        message = own_error(MeanOfRounds().combine, ROUNDS, weights - 1, NONE, NONE)
        assert "no round has a positive weight" in message
    for name in ("alpha", "beta", "gamma"):
        for value in (-1, math.nan, math.inf, "1", True):
            assert f"{name} must be" in own_error(Rocchio, **{name: value})
    assert "rounds must be a strategy" in own_error(Rocchio, rounds="mean")
    assert "rounds is the class LastRound" in own_error(Rocchio, rounds=LastRound)


@pytest.mark.parametrize("strategy", [LastRound(), MeanOfRounds()], ids=repr)
def test_likes_need_rocchio(strategy: Strategy) -> None:
    for liked, disliked in ((LIKED, NONE), (NONE, DISLIKED)):
        message = own_error(strategy.combine, ROUNDS, ONES, liked, disliked)
        assert f"Rocchio(rounds={strategy}) does" in message
