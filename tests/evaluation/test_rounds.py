"""Sessions round by round: metrics by hand, equal to searching by hand, and a simulated user."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from composing import combiner, live
from hypothesis import given
from hypothesis import strategies as st
from raising import own_error
from tasks import Toy
from toy_sessions import CHAINS, DATA, IDS, MODEL, Sessions, make_task

import fusecomp as fc
from fusecomp.evaluation import (
    Reply,
    RoundsEvaluation,
    TaskRounds,
    evaluate_rounds,
    simulate_rounds,
)
from fusecomp.retrieval import LastRound, MeanOfRounds, Rocchio, SearchSession, Strategy
from fusecomp.types import Task, Triplet


def test_the_metrics_by_hand() -> None:
    ranks = torch.tensor([[3, 1, 1], [2, 11, 5], [-1, 4, 4], [1, 1, 1]])
    task = TaskRounds("", ranks, torch.tensor([2, 3, 2, 1]), 11)
    found = RoundsEvaluation([task], [1, 3], CHAINS)
    assert dict(found) == pytest.approx(
        {
            "round 1/recall@1": 25.0,
            "round 1/recall@3": 75.0,
            "round 1/hits@1": 25.0,
            "round 1/hits@3": 75.0,
            "round 1/percentile": 100 * (0.8 + 0.9 + 0 + 1) / 4,
            "round 2/recall@1": 50.0,
            "round 2/recall@3": 50.0,
            "round 2/hits@1": 50.0,
            "round 2/hits@3": 75.0,
            "round 2/percentile": 100 * (1 + 0 + 0.7 + 1) / 4,
            "round 3/recall@1": 50.0,
            "round 3/recall@3": 50.0,
            "round 3/hits@1": 50.0,
            "round 3/hits@3": 75.0,
            "round 3/percentile": 100 * (1 + 0.6 + 0.7 + 1) / 4,
        }
    )
    head, *rows, about = str(found).splitlines()
    assert head.split() == [
        "round",
        "asked",
        "recall@1",
        "recall@3",
        "hits@1",
        "hits@3",
        "percentile",
    ]
    assert [row.split()[:4] for row in rows] == [
        ["1", "4", "25.00", "75.00"],
        ["2", "3", "50.00", "50.00"],
        ["3", "1", "50.00", "50.00"],
    ]
    assert about == "dataset Toy, sessions chain"
    with pytest.raises(KeyError, match="no metric 'recall'; there are round 1/recall@1"):
        found["recall"]


def test_tasks_count_alike() -> None:
    tasks = [
        TaskRounds(name, torch.tensor(ranks), torch.ones(len(ranks), dtype=torch.int64), 9)
        for name, ranks in (("a", [[1], [1], [2]]), ("b", [[2]]))
    ]
    found = RoundsEvaluation(tasks, [1], {})
    assert found["a/round 1/recall@1"] == pytest.approx(200 / 3)
    assert found["mean/round 1/recall@1"] == pytest.approx(100 / 3)
    assert len(found) == 3 * 3 == len([*found])
    assert "33.33" in repr(found)


@given(st.lists(st.lists(st.integers(-1, 9).filter(bool), min_size=3, max_size=3), min_size=1))
def test_hits_add_up_and_recall_is_no_more(rows: list[list[int]]) -> None:
    task = TaskRounds("", torch.tensor(rows), torch.full((len(rows),), 3), 9)
    found = RoundsEvaluation([task], [2, 5], {})
    hits = [[found[f"round {r}/hits@{k}"] for r in (1, 2, 3)] for k in (2, 5)]
    assert hits == [sorted(of) for of in hits]
    assert all(low <= high for low, high in zip(*hits, strict=True))
    assert found["round 1/hits@2"] == found["round 1/recall@2"]
    assert all(found[f"round {r}/recall@5"] <= found[f"round {r}/hits@5"] for r in (1, 2, 3))
    assert all(0 <= value <= 100 + 1e-9 for value in found.values())


def ranks_by_hand(
    data: Sessions, model: fc.ComposedEncoder, strategy: Strategy, exclude_seen: bool
) -> list[list[int]]:
    queries = {q.query_id: q for task in data.tasks() for q in task.queries}
    gallery = fc.Gallery.build(model, IDS)
    rows = []
    for ids in data.sessions():
        session, row = SearchSession(model, gallery, strategy), []
        for query in (queries[i] for i in ids):
            session.ask(query.reference_id, query.texts[0])
            found = session.results(len(IDS), exclude_seen=exclude_seen).ids
            target = str(query.target_id)
            row.append(found.index(target) + 1 if target in found else -1)
        rows.append(row + row[-1:] * (3 - len(row)))
    return rows


@pytest.mark.parametrize("strategy", [LastRound(), MeanOfRounds(), Rocchio()], ids=repr)
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_ranks_are_those_of_searching_by_hand(strategy: Strategy, exclude_seen: bool) -> None:
    found = evaluate_rounds(MODEL, DATA, strategy, exclude_seen=exclude_seen)
    rows = [row for task in found.tasks for row in task.ranks.tolist()]
    assert rows == ranks_by_hand(DATA, MODEL, strategy, exclude_seen)
    assert [task.asked.tolist() for task in found.tasks] == [[2, 1, 3], [1, 3]]
    seen = "excluded" if exclude_seen else "kept"
    told = {"strategy": str(strategy), "reference": seen, "seen": seen}
    assert found.protocol == CHAINS | told


def test_the_first_round_is_what_evaluate_measures() -> None:
    firsts = [task.select([0]) for task in DATA.tasks()]
    data = Sessions(firsts, CHAINS)
    found, expected = evaluate_rounds(MODEL, data, ks=[10]), fc.evaluate(MODEL, Toy(firsts))
    assert found["mean/round 1/recall@10"] == expected["mean/recall@10"]


def test_a_target_that_was_shown_is_never_found_where_seen_images_are_left_out() -> None:
    data = Sessions([make_task("", "313")], CHAINS)
    assert evaluate_rounds(MODEL, data, exclude_seen=True).tasks[0].ranks.tolist() == [[-1, -1]]
    assert min(evaluate_rounds(MODEL, data).tasks[0].ranks.flatten().tolist()) > 0


@pytest.fixture
def files(tmp_path: Path) -> Callable[[str], Path]:
    for name in IDS:
        (tmp_path / name).write_text(f"{name} {int(name) ** 2 % 7} 1")
    return tmp_path.joinpath


def test_a_live_encoder_equals_a_cached_one(files: Callable[[str], Path]) -> None:
    class Files(Sessions):
        def path(self, image_id: str) -> Path:
            return files(image_id)

    data = Files(DATA.tasks(), CHAINS)
    model = fc.ComposedEncoder(live(), combiner())
    cached = fc.ComposedEncoder(fc.CachedEncoder.build(model.encoder, data), model.fusion)
    one, other = (evaluate_rounds(m, data, MeanOfRounds()) for m in (model, cached))
    assert dict(one) == dict(other)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: evaluate_rounds(MODEL, Toy([make_task("", "12")])), "dataset must be a dataset of s"),  # type: ignore[arg-type]
    (lambda: evaluate_rounds(DATA, MODEL), "model must be a ComposedEncoder"),  # type: ignore[arg-type]
    (lambda: evaluate_rounds(MODEL, Sessions(DATA.tasks())), "must be 'chain' or 'towards a goal'"),
    (lambda: evaluate_rounds(MODEL, DATA, ks=[]), "ks must be distinct numbers"),
    (lambda: evaluate_rounds(MODEL, DATA, ks=[1, 1]), "ks must be distinct numbers"),
    (lambda: evaluate_rounds(MODEL, DATA, ks=[0]), "k must be a whole number"),
    (lambda: evaluate_rounds(MODEL, DATA, exclude_seen=1), "exclude_seen must be True"),  # type: ignore[arg-type]
    (lambda: evaluate_rounds(MODEL, DATA, "mean"), "strategy must be a strategy"),  # type: ignore[arg-type]
    (lambda: simulate_rounds(MODEL, DATA, None), "user must be a function"),  # type: ignore[arg-type]
    (lambda: simulate_rounds(MODEL, DATA, lambda ids, _: (ids[0], "x")), "must return a Reply"),  # type: ignore[arg-type, return-value]
    (
        lambda: simulate_rounds(MODEL, DATA, lambda ids, _: Reply(ids[0], "x", liked="12")),
        "liked must be a list of strings, got the string '12'",
    ),
    (lambda: simulate_rounds(MODEL, DATA, nobody, rounds=0), "rounds must be a whole number"),
    (lambda: simulate_rounds(MODEL, DATA, nobody, shown=0), "shown must be a whole number"),
    (lambda: simulate_rounds(MODEL, DATA, nobody, ks=[0]), "k must be a whole number"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_arguments_are_refused(call: Callable[[], Any], message: str) -> None:
    assert message in own_error(call)


@pytest.mark.parametrize(
    ("sessions", "message"),
    [
        ([["a0/0", "nobody"]], "session 0 names 'nobody', which is no query of a task"),
        (["a0/0"], "session 0 must be a list of strings, got the string 'a0/0'"),
        (None, "sessions must be a list of lists of query ids, got the NoneType None"),
        ("a0/0", "sessions must be a list of lists of query ids, got the string 'a0/0'"),
        ([[["a0/0"]]], "session 0 must be a list of strings"),
        ([["a0/0"], []], "session 1 must have rounds of one task and one target, got []"),
        ([["a0/0", "a1/0"]], "one task and one target"),
        ([["a2/0", "b0/0"]], "one task and one target"),
        ([["a0/0"]], "no session is of task 'b'"),
    ],
)
def test_wrong_sessions_are_named(sessions: Sequence[Sequence[str]], message: str) -> None:
    class Wrong(Sessions):
        def sessions(self) -> Sequence[Sequence[str]]:
            return sessions

    assert message in own_error(evaluate_rounds, MODEL, Wrong(DATA.tasks(), CHAINS))


def test_a_query_of_two_tasks_and_one_of_two_texts_are_named() -> None:
    twice = Sessions([make_task("a", "12"), replace(make_task("a", "12"), name="b")], CHAINS)
    assert "two tasks have the query 'a0/0'" in own_error(evaluate_rounds, MODEL, twice)
    query = Triplet("0/0", "1", ("text 0", "text 1"), "2")
    both = Sessions([Task("", [query], IDS)], CHAINS)
    assert "query '0/0' has 2 texts" in own_error(evaluate_rounds, MODEL, both)


def nobody(shown: Sequence[str], target: str) -> Reply:
    raise AssertionError("the target was shown, and the user asked on")


def pointed(names: Sequence[str] = IDS) -> fc.ComposedEncoder:
    """Images are unit vectors; a text is the vector of the image that it names."""
    features = torch.eye(len(IDS))
    texts = [f"like {name}" for name in IDS]
    encoder = fc.CachedEncoder.from_arrays(IDS, features, texts, 10 * features)
    return fc.ComposedEncoder(encoder, fc.Sum())


def goals(*pairs: tuple[str, str, str]) -> Toy:
    queries = [
        Triplet(f"{number}", reference, (f"like {text}",), target)
        for number, (reference, text, target) in enumerate(pairs)
    ]
    return Toy([Task("", queries, IDS)])


def test_the_user_asks_until_the_target_is_shown() -> None:
    heard = []

    def user(shown: Sequence[str], target: str) -> Reply:
        heard.append((*shown, target))
        text = target if shown[0] == "6" else str(int(shown[0]) + 1)
        return Reply(shown[0], f"like {text}")

    found = simulate_rounds(pointed(), goals(("1", "5", "9"), ("1", "2", "2")), user)
    # 5 is shown, then 6, then 9; the second one finds 2 at once.
    assert heard == [("5", "9"), ("6", "9")]
    ranks, asked = found.tasks[0].ranks, found.tasks[0].asked
    assert asked.tolist() == [3, 1]
    assert ranks[:, 2:].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert found["round 2/hits@1"] == 50.0
    assert found["round 3/hits@1"] == 100.0
    assert found.protocol == {
        "dataset": "Toy",
        "sessions": "towards a goal, simulated",
        "strategy": "LastRound()",
        "shown": "1",
        "reference": "excluded",
        "seen": "excluded",
    }


def test_it_ends_after_the_last_round_and_where_nothing_is_left() -> None:
    def lost(shown: Sequence[str], target: str) -> Reply:
        return Reply(shown[0], f"like {(int(shown[0]) + 2) % 20}")

    found = simulate_rounds(pointed(), goals(("0", "2", "1")), lost, rounds=4)
    assert found.tasks[0].asked.tolist() == [4]
    assert found["round 4/hits@1"] == 0.0


def test_a_user_who_sees_more_finds_more_at_once() -> None:
    data = goals(("1", "5", "2"))
    assert simulate_rounds(pointed(), data, nobody, shown=20).tasks[0].asked.tolist() == [1]


def test_likes_and_dislikes_move_the_query() -> None:
    def user(shown: Sequence[str], target: str) -> Reply:
        return Reply(shown[0], "like 0", liked=["7"], disliked=[shown[0]])

    strategy = Rocchio(1, 5, 1)
    model = pointed()
    found = simulate_rounds(model, goals(("1", "5", "9")), user, strategy, rounds=2)
    session = SearchSession(model, fc.Gallery.build(model, IDS), strategy)
    session.ask("1", "like 5")
    session.like("7")
    session.dislike("5")
    session.ask("5", "like 0")
    expected = session.results(20).ids.index("9") + 1
    assert found.tasks[0].ranks[0, 1] == expected
    with pytest.raises(ValueError, match="takes no likes"):
        simulate_rounds(model, goals(("1", "5", "9")), user, MeanOfRounds())


def test_a_reference_outside_the_gallery_is_opened(files: Callable[[str], Path]) -> None:
    class Files(Toy):
        @property
        def image_ids(self) -> Sequence[str]:
            return IDS

        def path(self, image_id: str) -> Path:
            return files(image_id)

    query = Triplet("0", "19", ("is red",), "1")
    data = Files([Task("", [query], IDS[:10])])
    model = fc.ComposedEncoder(live(), combiner())
    found = simulate_rounds(model, data, lambda shown, target: Reply(shown[0], "is long"), rounds=1)
    gallery = fc.Gallery.build(model, IDS[:10], files)
    hits = gallery.search(model.encode_query([files("19")], ["is red"]), 10)[0]
    assert found.tasks[0].ranks.tolist() == [[hits.ids.index("1") + 1]]
