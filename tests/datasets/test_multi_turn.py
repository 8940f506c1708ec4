"""Multi-turn FashionIQ: published counts and its leak, a small folder, and what is wrong."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluations import random_model
from raising import own_error
from verifying import beyond_counts, image, named

import fusecomp as fc
from fusecomp.datasets import FashionIQ, MultiTurnFashionIQ
from fusecomp.evaluation import evaluate_rounds
from fusecomp.retrieval import MeanOfRounds

Shared = Callable[[str], Path]
CATEGORIES = ("dress", "shirt", "toptee")
IDS = [f"D{number}" for number in range(6)]


def turn(image_id: str, *captions: str) -> list[Any]:
    return [f"http://shop/{image_id}.jpg", [*captions], image_id]


# D0 -> D1 -> D2 (D1 -> D2 is a training triplet), D3 -> D4 -> D0, and D5 -> D1.
SESSIONS = [
    {
        "target": ["http://shop/D2.jpg", "D2"],
        "reference": [turn("D0", " is blue.", "Is Long?"), turn("D1", "has dots")],
    },
    {
        "target": ["http://shop/D0.jpg", "D0"],
        "reference": [turn("D3", "is red", ".", "is short"), turn("D4", "is plain", "HAS a Belt")],
    },
    {"target": ["http://shop/D1.jpg", "D1"], "reference": [turn("D5", "is odd", "is new")]},
]
TRAIN = [
    {"candidate": "D1", "target": "D2", "captions": ["has dots", "is dotted"]},
    {"candidate": "D0", "target": "D4", "captions": ["is red", "is short"]},
]


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    root, fashioniq = tmp_path / "multi", tmp_path / "fashionIQ_dataset"
    for category in CATEGORIES:
        put(root / f"data/{category}.val.json", SESSIONS)
        put(root / f"image_splits/split.{category}.val.json", IDS)
        put(fashioniq / f"captions/cap.{category}.train.json", TRAIN)
    for number, name in enumerate(IDS):
        (fashioniq / "images").mkdir(exist_ok=True)
        (fashioniq / "images" / f"{name}.png").write_bytes(image(number, "PNG"))
    return root, fashioniq


def test_the_published_counts_and_the_leak(shared: Shared) -> None:
    roots = shared("datasets/multiturn_fashioniq"), shared("datasets/fashioniq")
    whole = MultiTurnFashionIQ(*roots)
    clean = MultiTurnFashionIQ(*roots, without_training_triplets=True)
    of = [Counter(s[0].partition("/")[0] for s in data.sessions()) for data in (whole, clean)]
    assert of[0] == {"dress": 1000, "shirt": 681, "toptee": 719}
    assert of[1] == {"dress": 214, "shirt": 191, "toptee": 191}
    assert Counter(map(len, whole.sessions())) == {2: 1752, 3: 483, 4: 165}
    assert [len(task.gallery) for task in whole.tasks()] == [2562, 1770, 1942]
    assert {*clean.sessions()} < {*whole.sessions()}
    trained = {(t.reference_id, t.target_id) for t in FashionIQ(roots[1], "train").triplets()}
    steps = {(t.reference_id, t.target_id) for t in clean.triplets()}
    leaking = [t for t in whole.triplets() if (t.reference_id, t.target_id) in trained]
    assert len(leaking) > 3000
    assert not steps & trained
    first, second = whole.triplets()[:2]
    assert first.query_id == "dress/0/0"
    assert (first.reference_id, first.target_id) == ("B0090KHN7E", "B009OCO9XO")
    assert first.texts == ("Has long sleeves and has same length and has longer sleeves",)
    assert second.texts == ("A paisley long sleeved short dress and is belted and is navy blue",)
    assert {q.target_id for q in whole.tasks()[0].queries[:2]} == {"B008VPNQCK"}


def test_sessions_steps_and_queries(folders: tuple[Path, Path]) -> None:
    data = MultiTurnFashionIQ(*folders, ["dress"])
    assert data.sessions() == [
        ("dress/0/0", "dress/0/1"),
        ("dress/1/0", "dress/1/1"),
        ("dress/2/0",),
    ]
    steps = [(t.reference_id, t.texts[0], t.target_id) for t in data.triplets(epoch=3, seed=1)]
    assert steps == [
        ("D0", "Is blue and Is Long", "D1"),
        ("D1", "Has dots", "D2"),
        ("D3", "Is red and is short", "D4"),
        ("D4", "Is plain and HAS a Belt", "D0"),
        ("D5", "Is odd and is new", "D1"),
    ]
    (task,) = data.tasks()
    assert [query.target_id for query in task.queries] == ["D2", "D2", "D0", "D0", "D1"]
    assert [query.texts for query in task.queries] == [t.texts for t in data.triplets()]
    assert (task.name, [*task.gallery], data.image_ids) == ("dress", IDS, tuple(IDS))
    assert data.texts() == [text for _, text, _ in steps]
    assert len(data) == 5
    assert data.path("D3") == folders[1] / "images" / "D3.png"
    assert "unknown image 'X'" in own_error(data.path, "X")
    assert repr(data).endswith("3 sessions of 5 rounds)")
    assert MultiTurnFashionIQ(*folders).categories == CATEGORIES


def test_without_training_triplets_the_protocol_says_so(folders: tuple[Path, Path]) -> None:
    kept, left = (
        MultiTurnFashionIQ(*folders, without_training_triplets=without) for without in (False, True)
    )
    assert kept.protocol["FashionIQ's training triplets"] == "kept"
    assert left.protocol["FashionIQ's training triplets"] == "left out"
    assert left.protocol["sessions"] == "chain"
    assert [ids[0] for ids in left.sessions()][:2] == ["dress/1/0", "dress/2/0"]
    assert left.image_ids == kept.image_ids
    found = evaluate_rounds(random_model(left), left, MeanOfRounds())
    assert found.protocol["FashionIQ's training triplets"] == "left out"
    assert found.tasks[0].asked.tolist() == [2, 1]
    evaluation = fc.evaluate(random_model(kept), kept)
    assert len(evaluation.ranking) == 3


def test_a_session_that_trains_alone_is_no_session(folders: tuple[Path, Path]) -> None:
    root, fashioniq = folders
    put(root / "data/dress.val.json", SESSIONS[:1])
    message = own_error(MultiTurnFashionIQ, root, fashioniq, without_training_triplets=True)
    assert "without_training_triplets leaves no session of" in message
    assert "dress.val.json" in message


def change(**fields: Any) -> Callable[[list[Any]], None]:
    return lambda sessions: sessions[1].update(fields)


BROKEN: list[tuple[Callable[[list[Any]], Any], str]] = [
    (lambda s: s.append("x"), "entry 3: expected an object"),
    (lambda s: s[1].pop("target"), "entry 1: the field 'target' is missing"),
    (change(target="D0"), "entry 1: 'target' must be a list"),
    (change(target=["D0"]), "entry 1: 'target' must be 2 values, the last an image id"),
    (change(target=["u", 3]), "entry 1: 'target' must be 2 values"),
    (change(target=["u", "D9"]), "entry 1, round 1: image 'D9' is not in"),
    (change(reference=[]), "entry 1: the session has no rounds"),
    (change(reference={"a": 1}), "entry 1: 'reference' must be a list"),
    (change(reference=["D3"]), "entry 1: 'reference' must be 3 values"),
    (change(reference=[["u", "is red", "D3"]]), "entry 1: captions must be a list of strings"),
    (change(reference=[["u", [1], "D3"]]), "entry 1: captions must be a list of strings"),
    (change(reference=[turn("D3", "[]")]), "entry 1: a caption is a list that was printed"),
    (change(reference=[turn("D3", " .", "")]), "entry 1, round 0: its captions say nothing"),
    (change(reference=[turn("D3")]), "entry 1, round 0: its captions say nothing"),
    (change(reference=[turn("D9", "is red")]), "entry 1, round 0: image 'D9' is not in"),
    (lambda s: s.clear(), "holds no sessions"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN)
def test_broken_sessions_are_named(
    folders: tuple[Path, Path], damage: Callable[[list[Any]], Any], message: str
) -> None:
    sessions = json.loads(json.dumps(SESSIONS))
    damage(sessions)
    put(folders[0] / "data/shirt.val.json", sessions)
    found = own_error(MultiTurnFashionIQ, *folders)
    assert message in found
    assert "shirt.val.json" in found


def test_missing_files_and_wrong_arguments(folders: tuple[Path, Path]) -> None:
    root, fashioniq = folders
    wrong: Any = 3
    with pytest.raises(TypeError, match="fashioniq_root must be a path"):
        MultiTurnFashionIQ(root, wrong)
    assert "unknown category 'hat'" in own_error(MultiTurnFashionIQ, root, fashioniq, ["hat"])
    without: dict[str, Any] = {"without_training_triplets": 1}
    assert "must be True or False" in own_error(MultiTurnFashionIQ, root, fashioniq, **without)
    (fashioniq / "captions/cap.dress.train.json").unlink()
    MultiTurnFashionIQ(root, fashioniq)
    with pytest.raises(FileNotFoundError, match=r"cap\.dress\.train\.json"):
        MultiTurnFashionIQ(root, fashioniq, without_training_triplets=True)


def test_verify_lists_all_that_is_wrong(folders: tuple[Path, Path]) -> None:
    root, fashioniq = folders
    report = MultiTurnFashionIQ.verify(root, fashioniq)
    assert {*beyond_counts(report)} == {"trained"}
    assert report.images == 6
    assert named(report, "trained") == ("dress/0",)
    broken = json.loads(json.dumps(SESSIONS))
    broken[0]["reference"][1][1] = ["."]
    broken[1]["target"] = ["u", "D9"]
    put(root / "data/dress.val.json", broken)
    (root / "image_splits/split.toptee.val.json").unlink()
    (fashioniq / "images/D4.png").write_bytes(b"")
    (fashioniq / "images/dress").mkdir()
    (fashioniq / "images/dress/D5.png").write_bytes(image(9, "PNG"))
    report = MultiTurnFashionIQ.verify(root, fashioniq, decode=True)
    kinds = {*beyond_counts(report)}
    assert kinds == {"annotation", "unlisted", "blank", "ambiguous", "empty", "trained"}
    assert named(report, "blank") == ("entry 0, round 1",)
    assert named(report, "ambiguous") == ("D5",)
    assert not report.ok
    (fashioniq / "captions/cap.dress.train.json").unlink()
    assert MultiTurnFashionIQ.verify(root, fashioniq).images == 5
    with pytest.raises(FileNotFoundError, match="no Multi-turn FashionIQ in"):
        MultiTurnFashionIQ.verify(fashioniq, root)
