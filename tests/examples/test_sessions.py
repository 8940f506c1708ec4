"""Strategies in rounds: users tell the truth, chains fit together, a quick run goes on."""

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sessions
from drawn import minicirr, minifashion, users
from intervals import student

from fusecomp.datasets import CIRR, FashionIQ
from fusecomp.evaluation import User

Make = tuple[Path, Callable[..., User], list[str]]


@pytest.fixture(scope="module", params=["fashion", "cirr"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Make:
    root = tmp_path_factory.mktemp("drawn") / "set"
    if request.param == "fashion":
        sizes = {"train_images": 30, "val_images": 40, "train_triplets": 10, "val_queries": 20}
        minifashion.render(root, 3, **sizes)
        return root, users.fashion_user, list(FashionIQ(root, "val").image_ids)
    minicirr.render(root, 3, train_groups=2, val_groups=4, test_groups=1)
    return root, users.cirr_user, list(CIRR(root, "val").image_ids)


def test_users_know_every_image_and_write_the_same_again(made: Make) -> None:
    root, make, names = made
    quiet, judge = (make(root, judges=judges) for judges in (False, True))
    for shown, target in zip(names, names[1:] + names[:1], strict=True):
        reply = quiet([shown, target], target)
        assert reply == quiet([shown], target)
        assert reply.reference == shown
        assert reply.text.strip()
        assert not reply.liked
        assert not reply.disliked
        again = judge([shown], target)
        assert (again.text, [*again.liked, *again.disliked]) == (reply.text, [shown])
    assert judge(names[:1], names[0]).liked == [names[0]]


def test_chains_go_from_image_to_image(made: Make) -> None:
    root, make, _ = made
    data = FashionIQ(root, "val") if make is users.fashion_user else CIRR(root, "val")
    chains = sessions.Chains(data, "drawn")
    known = {(q.reference_id, q.target_id, q.texts) for q in data.triplets()}
    queries = {query.query_id: query for query in chains.triplets()}
    assert chains.sessions()
    for ids in chains.sessions():
        rounds = [queries[query_id] for query_id in ids]
        shown = [query.reference_id for query in rounds] + [str(rounds[0].target_id)]
        assert len({*shown}) == 4
        for query, following in zip(rounds, shown[1:], strict=True):
            assert (query.reference_id, following, query.texts) in known
            assert query.target_id == shown[-1]
    assert [*chains.tasks()[0].gallery] == [*data.image_ids]
    some = sessions.some_queries(data, "drawn", 7)
    assert 4 <= len(some) <= 7


def test_the_table_has_students_interval_of_differences() -> None:
    of = {"one": [10.0, 20.0, 30.0], "two": [11.0, 23.0, 32.0]}
    scores = {title: [{"m": value} for value in values] for title, values in of.items()}
    first, second = sessions.table(scores, ["m"]).rows
    assert first[:2] == ["one", "20.0"]
    assert first[2] == ""
    half = 4.303 / math.sqrt(3)  # the differences 1, 3 and 2 deviate by 1
    assert second == ["two", "22.0", f"+2.0 [{2 - half:+.1f}, {2 + half:+.1f}]"]
    assert student([1.0, 3.0, 2.0]) == pytest.approx((2 - half, 2 + half))


@pytest.mark.heavy
def test_a_quick_run_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["sessions.py", "--quick", "--seeds", "0", "--datasets", "MiniCIRR", "--queries", "9"]
    monkeypatch.setattr(sys, "argv", [*argv, "--workdir", str(tmp_path)])
    sessions.main()
    content = json.loads((tmp_path / "sessions.json").read_text())
    assert list(content["MiniCIRR, goal"]) == list(sessions.GOAL)
    assert list(content["MiniCIRR, chain"]) == list(sessions.CHAIN)
    assert "MiniCIRR, chain, in per cent" in capsys.readouterr().out

    def fail(name: str, seed: int, args: argparse.Namespace) -> None:
        raise AssertionError("what is there is not computed again")

    monkeypatch.setattr(sessions, "prepare", fail)
    sessions.main()
    assert json.loads((tmp_path / "sessions.json").read_text()) == content
