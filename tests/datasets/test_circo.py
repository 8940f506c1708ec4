"""CIRCO: the published counts and metrics, and files that are not as they should be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluations import random_model
from verifying import image, kinds, named, reasons

import fusecomp as fc
from fusecomp.datasets import CIRCO, CIRR
from fusecomp.evaluation import Ranking, TaskRanking, compute_metrics, write_circo_submission
from fusecomp.types import Task

Shared = Callable[[str], Path]

INFO = "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"
IMAGES = "COCO2017_unlabeled/unlabeled2017"


def write(root: Path, name: str, content: Any) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))


def read(root: Path, split: str = "val") -> Any:
    return json.loads((root / f"annotations/{split}.json").read_text())


def info(ids: Any) -> dict[str, Any]:
    return {"images": [{"id": int(i), "file_name": f"{int(i):012}.jpg"} for i in ids]}


def query(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": number,
        "reference_img_id": 100 + number,
        "target_img_id": 200 + number,
        "relative_caption": f"has {number} dogs",
        "shared_concept": "a dog",
        "gt_img_ids": [200 + number, *range(300, 300 + number)],
        "semantic_aspects": ["cardinality", "negation"][: 1 + number % 2],
    } | fields


HIDDEN = ("target_img_id", "gt_img_ids", "semantic_aspects")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder in the published layout: 60 images, four queries a split."""
    ids = [*range(100, 104), *range(200, 204), *range(300, 352)]
    hidden = [{k: v for k, v in query(n).items() if k not in HIDDEN} for n in range(4)]
    write(tmp_path, INFO, info(ids))
    write(tmp_path, "annotations/val.json", [query(n) for n in range(4)])
    write(tmp_path, "annotations/test.json", hidden)
    return tmp_path


# The published annotations and numbers


@pytest.fixture
def published(shared: Shared, tmp_path: Path) -> CIRCO:
    """The real validation split, over the images that it and the predictions name."""
    predictions = json.loads(shared("parity/circo_val_predictions.json").read_text())
    rows = json.loads(shared("datasets/circo/annotations/val.json").read_text())
    ids = {i for names in predictions.values() for i in names}
    ids |= {i for row in rows for i in (row["reference_img_id"], *row["gt_img_ids"])}
    write(tmp_path, INFO, info(sorted(ids)))
    write(tmp_path, "annotations/val.json", rows)
    return CIRCO(tmp_path, "val")


def ranking_of(data: CIRCO, predictions: dict[str, list[int]]) -> Ranking:
    """The ranking in which each query finds these images first, and no other right answer."""
    (task,) = data.tasks()
    size, rows = (
        len(task.gallery),
        [[str(i) for i in predictions[q.query_id]] for q in task.queries],
    )
    ranks = [
        [row.index(i) + 1 if i in row else size for i in q.relevant_ids]
        for row, q in zip(rows, task.queries, strict=True)
    ]
    width = max(map(len, ranks))
    found = TaskRanking(
        task,
        torch.stack([task.positions(row) for row in rows]),
        torch.linspace(1, 0, 50).expand(len(rows), -1),
        torch.tensor([row[0] for row in ranks]),
        relevant_ranks=torch.tensor([row + [-1] * (width - len(row)) for row in ranks]),
    )
    return Ranking([found], data.protocol)


def test_the_metrics_are_the_published_ones(published: CIRCO, shared: Shared) -> None:
    predictions = json.loads(shared("parity/circo_val_predictions.json").read_text())
    expected = json.loads(shared("parity/circo_val_metrics.json").read_text())
    evaluation = compute_metrics(ranking_of(published, predictions))
    found = {name: evaluation[name] for name in expected if "/" not in name}
    for aspect, query_ids in published.semantic_aspects.items():
        found[f"map@10/{aspect}"] = evaluation.select(query_ids)["map@10"]
    assert found == pytest.approx(expected, abs=1e-9)
    assert len(expected) == 17


def test_the_server_file_is_the_published_one(
    published: CIRCO, shared: Shared, tmp_path: Path
) -> None:
    predictions = json.loads(shared("parity/circo_val_predictions.json").read_text())
    path = write_circo_submission(ranking_of(published, predictions), tmp_path / "file.json")
    assert json.loads(path.read_text()) == predictions


@pytest.mark.parametrize(("split", "count"), [("val", 220), ("test", 800)])
def test_the_counts_are_the_published_ones(
    shared: Shared, tmp_path: Path, split: str, count: int
) -> None:
    rows = json.loads(shared(f"datasets/circo/annotations/{split}.json").read_text())
    ids = {i for r in rows for i in (r["reference_img_id"], *r.get("gt_img_ids", []))}
    write(tmp_path, INFO, info(sorted(ids)))
    write(tmp_path, f"annotations/{split}.json", rows)
    data = CIRCO(tmp_path, split)
    assert len(data) == count
    for row, found in zip(rows, data.triplets(), strict=True):
        assert found.texts == (row["relative_caption"],)
        assert found.relevant_ids == tuple(map(str, row.get("gt_img_ids", [])))
        assert found.reference_id == str(row["reference_img_id"])


def test_verify_finds_the_annotations_whole_and_the_images_missing(shared: Shared) -> None:
    report = CIRCO.verify(shared("datasets/circo"))
    assert kinds(report) == ["annotation", "missing"]
    assert named(report, "annotation") == (INFO,)
    assert {c.name: c.found for c in report.counts} == {"val queries": 220, "test queries": 800}


# A small folder of the same form


def test_an_entry_becomes_a_triplet(root: Path) -> None:
    data = CIRCO(root, "val")
    assert data.triplets()[2] == fc.Triplet(
        "2", "102", ("has 2 dogs",), "202", other_target_ids=("300", "301")
    )
    assert data.path("300") == root / IMAGES / "000000000300.jpg"
    assert data.shared_concepts["3"] == "a dog"
    assert data.semantic_aspects == {"cardinality": ("0", "1", "2", "3"), "negation": ("1", "3")}
    (task,) = data.tasks()
    assert (len(task.gallery), task.exclude) == (60, None)
    names = [*(f"map@{k}" for k in (5, 10, 25, 50)), *(f"recall@{k}" for k in (5, 10, 25, 50))]
    assert [metric.name for metric in task.metrics] == names
    assert task.decides == "mean(map@5, map@10, map@25, map@50)"


def test_the_protocol_says_what_makes_scores_comparable(root: Path) -> None:
    options = {"dataset": "CIRCO", "split": "val", "gallery": "60 images"}
    assert CIRCO(root, "val").protocol == options | {"reference": "kept"}
    assert CIRCO(root, "val", exclude_reference=True).protocol["reference"] == "excluded"
    assert repr(CIRCO(root, "val")) == f"CIRCO({str(root)!r}, 'val', 4 triplets)"


def test_it_is_evaluated_and_saved(root: Path, tmp_path: Path) -> None:
    data = CIRCO(root, "val")
    evaluation = fc.evaluate(random_model(data), data)
    evaluation.save(tmp_path / "evaluation.npz")
    back = fc.Evaluation.load(tmp_path)
    assert dict(back) == dict(evaluation)
    assert back.select(data.semantic_aspects["negation"])["map@50"] > 0


def test_without_a_list_the_folder_is_the_gallery(root: Path) -> None:
    expected = CIRCO(root, "val")
    (root / INFO).unlink()
    (root / IMAGES).mkdir()
    for image_id in expected.image_ids:
        expected.path(image_id).write_bytes(b"no image is opened")
    (root / IMAGES / "notes.txt").write_text("")
    data = CIRCO(root, "val")
    assert (data.image_ids, data.triplets()) == (expected.image_ids, expected.triplets())
    assert data.path("7" if "7" in data.image_ids else "100").exists()


def test_the_targets_of_test_are_hidden(root: Path) -> None:
    data = CIRCO(root, "test")
    assert {triplet.target_id for triplet in data.triplets()} == {None}
    assert data.semantic_aspects == {}
    with pytest.raises(ValueError, match="query '0' has no target"):
        fc.evaluate(random_model(data), data)


# What is not as it should be


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": 1}, "query 1: the id is in the file already"),
        ({"id": "2"}, "entry 2: 'id' must be a int, got '2'"),
        ({"id": True}, "entry 2: 'id' must be a int, got True"),
        ({"reference_img_id": None}, "'reference_img_id' must be a int, got None"),
        ({"reference_img_id": 7}, "query 2: image '7' is none of the 60 images"),
        ({"reference_img_id": -100}, "query 2: image '-100' is none of the 60 images"),
        ({"reference_img_id": 10**300}, "is none of the 60 images"),
        ({"reference_img_id": 301}, "query 2: the reference 301 is among the right answers"),
        ({"target_img_id": 300}, r"target 300 is not the first of 'gt_img_ids', 202"),
        ({"target_img_id": 2.5}, "'target_img_id' must be a int, got 2.5"),
        ({"gt_img_ids": []}, r"'gt_img_ids' must be a list of image ids, at least one, got \[\]"),
        ({"gt_img_ids": [202, "300"]}, "'gt_img_ids' must be a list of image ids"),
        ({"gt_img_ids": [202, True]}, "'gt_img_ids' must be a list of image ids"),
        ({"gt_img_ids": [202, [300]]}, "'gt_img_ids' must be a list of image ids"),
        ({"gt_img_ids": 202}, "'gt_img_ids' must be a list, got 202"),
        ({"gt_img_ids": [202, 300, 300]}, "query 2: gt_img_ids names an image twice: 202 300 300"),
        ({"gt_img_ids": [202, 999]}, "query 2: image '999' is none of the 60 images of .*2017"),
        ({"relative_caption": 5}, "'relative_caption' must be a str, got 5"),
        ({"relative_caption": " "}, "query 2: the relative caption is blank"),
        ({"relative_caption": "['two dogs']"}, "relative_caption is a list that was printed"),
        ({"relative_caption": "\ud83d"}, "relative_caption holds half of a character"),
        ({"shared_concept": None}, "'shared_concept' must be a str, got None"),
        ({"semantic_aspects": "negation"}, "'semantic_aspects' must be a list of names"),
        ({"semantic_aspects": [1]}, "'semantic_aspects' must be a list of names"),
    ],
)
def test_an_entry_that_makes_no_query_is_named(root: Path, fields: Any, message: str) -> None:
    rows = read(root)
    write(root, "annotations/val.json", [*rows[:2], query(2, **fields), *rows[3:]])
    with pytest.raises(ValueError, match=rf"annotations/val.json.*{message}"):
        CIRCO(root, "val")


@pytest.mark.parametrize(
    "field", ["id", "reference_img_id", "target_img_id", "relative_caption", "gt_img_ids"]
)
def test_a_missing_field_is_named(root: Path, field: str) -> None:
    rows = read(root)
    del rows[1][field]
    write(root, "annotations/val.json", rows)
    with pytest.raises(ValueError, match=rf"val.json, entry 1: the field '{field}' is missing"):
        CIRCO(root, "val")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no queries"),
        ("{}", "must hold a list, got a dict"),
        ("[3]", "entry 0: expected an object, got 3"),
        ("[{", "not valid JSON"),
        ('[{"id": NaN}]', "NaN is no finite number in the field 'id'"),
        ('[{"id": 1, "id": 2}]', "the field 'id' occurs twice"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_hostile_annotations_are_named(root: Path, content: str, message: str) -> None:
    write(root, "annotations/val.json", content)
    with pytest.raises(ValueError, match=rf"annotations/val.json.*{message}"):
        CIRCO(root, "val")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must hold an object with a list of images"),
        ('{"images": []}', "must hold an object with a list of images"),
        ('{"images": [5]}', "image 0: expected an object, got 5"),
        ('{"images": [{"id": 5}]}', "image 0: the field 'file_name' is missing"),
        ('{"images": [{"id": "5", "file_name": "5.jpg"}]}', "'id' must be a int, got '5'"),
        ('{"images": [{"id": 5, "file_name": "../5.jpg"}]}', "must be a path below the folder"),
        (json.dumps({"images": info([5])["images"] * 2}), "image 1: the id 5 is in the file alre"),
    ],
)
def test_a_hostile_list_of_images_is_named(root: Path, content: str, message: str) -> None:
    write(root, INFO, content)
    with pytest.raises(ValueError, match=rf"image_info_unlabeled2017.json.*{message}"):
        CIRCO(root, "val")


def test_what_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(ValueError, match="unknown split 'train'; valid: 'val', 'test'"):
        CIRCO(root, "train")
    (root / "annotations/val.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*annotations/val.json"):
        CIRCO(root, "val")
    (root / INFO).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"both .*info_unlabeled2017.json and .*2017 are mi"
    ):
        CIRCO(root, "test")
    (root / IMAGES).mkdir()
    with pytest.raises(FileNotFoundError, match=r"unlabeled2017 has no .jpg files"):
        CIRCO(root, "test")
    (root / IMAGES / "000000000100 (1).jpg").touch()
    with pytest.raises(ValueError, match=r"'000000000100 \(1\).jpg' is no number"):
        CIRCO(root, "test")


def test_verify_lists_all_of_it(root: Path) -> None:
    (root / IMAGES).mkdir()
    for number, image_id in enumerate(CIRCO(root, "val").image_ids):
        (root / IMAGES / f"{int(image_id):012}.jpg").write_bytes(image(number))
    assert kinds(CIRCO.verify(root)) == ["counts"]
    rows = read(root)
    rows[1] |= {"gt_img_ids": [201, 300, 300], "reference_img_id": 201}
    rows[2] |= {"id": 0, "reference_img_id": 999}
    write(root, "annotations/val.json", rows)
    (root / IMAGES / "000000000303.jpg").write_bytes(b"")
    report = CIRCO.verify(root)
    assert kinds(report) == ["query", "unlisted", "counts", "empty"]
    assert named(report, "query") == ("query 1", "query 1", "query 0")
    assert "names an image twice: 201 300 300" in reasons(report, "query")
    assert named(report, "unlisted") == ("999",)
    assert named(report, "empty") == ("303",)
    assert not report.ok


# The server's file


def found(root: Path, k: int = 50) -> TaskRanking:
    data = CIRCO(root, "test")
    return fc.rank(random_model(data), data, k=k)[""]


def test_every_query_has_its_images(root: Path, tmp_path: Path) -> None:
    ranked = found(root, 60)
    path = write_circo_submission(Ranking([ranked], {}), tmp_path / "new" / "file.json")
    content = json.loads(path.read_text())
    assert list(content) == ["0", "1", "2", "3"]
    for names, top in zip(content.values(), ranked.top_ids(), strict=True):
        assert names == [int(i) for i in top[:50]]


def test_a_ranking_that_the_server_would_refuse(root: Path, tiny_cirr: Path) -> None:
    def refused(ranking: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            write_circo_submission(ranking, root / "file.json")
        assert not (root / "file.json").exists()

    task = found(root).task
    refused(
        Ranking([found(root, 49)], {}), r"query 0 has 49 names and the server wants 50; call ra"
    )
    refused(Ranking([], {}), "the ranking has 0 tasks, expected the one of CIRCO")
    refused(Ranking([found(root).select([0, 2])], {}), "the queries are 2, from 0 to 2; the server")
    without = task.drop_images(["103"])
    data = CIRCO(root, "test")
    model = random_model(data)
    dropped = fc.datasets.drop_images(data, ["103"])
    assert without.missing_queries == ("3",)
    refused(fc.rank(model, dropped), "lacks 1 queries whose images are missing, the first: 3")
    cirr = CIRR(tiny_cirr, "test1")
    refused(fc.rank(random_model(cirr), cirr), "the queries are 20, from 2000 to")
    named_images = Task("", [fc.Triplet("0", "a", ("t",))], ["a", "b"])
    other = TaskRanking(named_images, torch.zeros(1, 50).long(), torch.zeros(1, 50), None)
    refused(Ranking([other], {}), "image 'a' has no number for its id; expected the ranking of a C")
    twice = found(root)
    twice.indices[2, 1] = twice.indices[2, 0]
    refused(Ranking([twice], {}), "query 2: its ranking names an image twice")
    with pytest.raises(
        TypeError, match="ranking must be a Ranking, got str; the order is ranking, p"
    ):
        write_circo_submission("x", root)  # type: ignore[arg-type]
