"""What the protocol of rounds says: the strategy by its settings, and the sessions left out."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from raising import own_error
from torch import Tensor
from toy_sessions import DATA, IDS, MODEL, OPTIONS, Sessions

import fusecomp as fc
from fusecomp.datasets import drop_images
from fusecomp.evaluation import Reply, evaluate_rounds, simulate_rounds


def nobody(shown: Sequence[str], target: str) -> Reply:
    raise AssertionError("the target was shown, and the user asked on")


class Settled:
    """A strategy without a repr of its own."""

    adds_rounds = False

    def __init__(self, place: int) -> None:
        self.place = place

    def combine(self, queries: Tensor, weights: Tensor, liked: Tensor, disliked: Tensor) -> Tensor:
        return queries[self.place].unsqueeze(0)


def test_a_strategy_is_named_by_its_settings_in_every_process() -> None:
    for score in (evaluate_rounds, partial(simulate_rounds, user=nobody, shown=20)):
        named = [score(MODEL, DATA, strategy=Settled(n)).protocol["strategy"] for n in (0, 0, -1)]
        assert named[0] == named[1] != named[2]
        assert "0x" not in named[0]


def test_ids_are_looked_up_and_never_listed_for_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = dict(evaluate_rounds(MODEL, DATA, exclude_seen=True))
    monkeypatch.delattr(fc.Gallery, "image_ids")  # a list of the whole gallery
    assert dict(evaluate_rounds(MODEL, DATA, exclude_seen=True)) == expected
    gallery = fc.Gallery.build(MODEL, IDS)
    assert "0" in gallery
    gallery.remove(["0"])
    assert "0" not in gallery


class Untold:
    adds_rounds = property(lambda self: False)
    combine = Settled.combine


def test_a_strategy_that_tells_nothing_is_refused() -> None:
    message = "does not tell its settings"
    assert message in own_error(evaluate_rounds, MODEL, DATA, Untold())
    assert message in own_error(simulate_rounds, MODEL, DATA, nobody, Untold())


def test_sessions_that_lack_an_image_are_left_out_and_said() -> None:
    reduced: Any = drop_images(DATA, ["2"])
    found = evaluate_rounds(MODEL, reduced, ks=(1, 3))
    assert found.protocol["missing sessions"] == "1 of 5"
    assert found.protocol["missing"] == "1 of 10 queries, 2 of 40 gallery images"
    rest = [i for i in IDS if i != "2"]
    first, second = DATA.tasks()
    first = replace(first, queries=first.queries[2:])  # without the session 1, 2 -> 3
    left = Sessions([replace(task, gallery=rest) for task in (first, second)], OPTIONS)
    expected = evaluate_rounds(MODEL, left, ks=(1, 3))
    assert dict(found) == dict(expected)
    assert "missing sessions" not in expected.protocol


def test_a_task_whose_sessions_all_lack_an_image_is_named() -> None:
    message = "no session is of task 'b': each lacks an image that was dropped"
    assert message in own_error(evaluate_rounds, MODEL, drop_images(DATA, ["9", "3"]))
