"""The distributions of cosines against loops."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import random_model
from hypothesis import given, settings
from hypothesis import strategies as st

from fusecomp.datasets import CIRR, FashionIQ
from fusecomp.evaluation import Cosines, _cosines, cosines, feature_cosines


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[int], list[list[int]]]:
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    queries, size = draw(st.integers(1, 9)), draw(st.integers(2, 12))
    targets = rng.integers(size, size=queries).tolist()
    exclude = rng.integers(-1, size, size=(queries, draw(st.integers(1, 3)))).tolist()
    return rng.normal(size=(queries, 5)), rng.normal(size=(size, 5)), targets, exclude


def test_features_with_a_graph_are_compared_without_it() -> None:
    query, gallery = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    found = feature_cosines(query, gallery, torch.arange(3))
    plain = feature_cosines(query.detach(), gallery.detach(), torch.arange(3))
    assert found.to_dict() == plain.to_dict()


@settings(max_examples=60)
@given(problems(), st.integers(1, 5))
def test_they_equal_loops(
    problem: tuple[np.ndarray, np.ndarray, list[int], list[list[int]]], rows: int
) -> None:
    query, gallery, targets, exclude = problem
    target, others = [], []
    for number, q in enumerate(query):
        for index, image in enumerate(gallery):
            value = float(q @ image / np.linalg.norm(q) / np.linalg.norm(image))
            if index == targets[number]:
                target.append(value)
            elif index not in exclude[number]:
                others.append(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cosines, "_ROWS", rows)
        features = torch.from_numpy(query), torch.from_numpy(gallery)
        indices = torch.tensor(targets), torch.tensor(exclude)
        if not others:
            with pytest.raises(ValueError, match="holds nothing but targets"):
                feature_cosines(*features, *indices)
            return
        found = feature_cosines(*features, *indices)
    for values, part in ((target, found.target), (others, found.others)):
        assert part.pairs == len(values)
        counts = np.histogram(values, bins=200, range=(-1, 1))[0]
        assert part.counts.tolist() == counts.tolist()
        assert part.mean == pytest.approx(np.mean(values))
        assert part.std == pytest.approx(np.std(values), abs=1e-7)


@settings(max_examples=30)
@given(problems(), st.integers(1, 5))
def test_scores_of_a_similarity_have_bins_from_the_least_to_the_largest(
    problem: tuple[np.ndarray, np.ndarray, list[int], list[list[int]]], rows: int
) -> None:
    query, gallery, targets, exclude = problem
    distances = -((query[:, None] - gallery[None]) ** 2).sum(axis=2)
    counted = np.ones_like(distances, dtype=bool)
    for row, (target, excluded) in enumerate(zip(targets, exclude, strict=True)):
        counted[row, [index for index in (target, *excluded) if index >= 0]] = False
    if not counted.any():
        return
    of_targets, others = distances[np.arange(len(query)), targets], distances[counted]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cosines, "_ROWS", rows)
        found = feature_cosines(
            torch.from_numpy(query),
            torch.from_numpy(gallery),
            torch.tensor(targets),
            torch.tensor(exclude),
            similarity=lambda q, g: -(q[:, None] - g).square().sum(dim=2),
        )
    bounds = (min(of_targets.min(), others.min()), max(of_targets.max(), others.max()))
    for values, part in ((of_targets, found.target), (others, found.others)):
        assert part.bounds == pytest.approx(bounds)
        counts = np.histogram(values, bins=200, range=bounds)[0]
        assert np.abs((part.counts.numpy() - counts).cumsum()).max() <= 1  # on an edge
        assert part.mean == pytest.approx(np.mean(values))
        assert part.std == pytest.approx(np.std(values), abs=1e-6)


def test_equal_scores_are_in_the_middle_of_some_bins() -> None:
    found = feature_cosines(
        torch.ones(1, 2),
        torch.ones(3, 5),
        torch.tensor([0]),
        similarity=lambda q, g: q.new_full((len(q), len(g)), 7.0),
    )
    assert found.others.bounds == (6.0, 8.0)
    assert (found.others.mean, found.others.std) == (7.0, 0.0)
    assert found.others.counts[100] == 2


@pytest.mark.parametrize("score", [0.0, -1e3, 1e20, -3e38])
def test_scores_that_are_all_equal_share_the_middle_of_the_bins(score: float) -> None:
    query, gallery = torch.randn(2, 3), torch.randn(4, 3)
    found = feature_cosines(
        query,
        gallery,
        torch.tensor([0, 1]),
        similarity=lambda q, t: torch.full((len(q), len(t)), score),
    )
    low, high = found.target.bounds
    assert low < score < high
    assert found.target.mean == found.others.mean == pytest.approx(score)
    assert found.target.counts[[99, 100, 101]].sum() == 2
    assert found.others.counts[[99, 100, 101]].sum() == 6


def test_gap_and_separation() -> None:
    gallery = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    found = feature_cosines(gallery[:1].repeat(2, 1), gallery, torch.tensor([0, 1]))
    # Targets 1 and 0.6; others 0.6, 0, 1 and 0.
    assert found.target.mean == pytest.approx(0.8)
    assert found.others.mean == pytest.approx(0.4)
    assert found.gap == pytest.approx(0.4)
    others = np.std([0.6, 0, 1, 0])
    assert found.separation == pytest.approx(0.4 / math.sqrt((0.2**2 + others**2) / 2), rel=1e-6)


def test_a_model_is_what_its_features_are(tiny_cirr: Path) -> None:
    data = CIRR(tiny_cirr, "val")
    model = random_model(data)
    found = cosines(model, data)
    task = data.tasks()[0]
    place = {image_id: n for n, image_id in enumerate(task.gallery)}
    query = model.encode_query(
        [q.reference_id for q in task.queries], [q.texts[0] for q in task.queries]
    )
    expected = feature_cosines(
        query,
        model.encode_gallery(task.gallery),
        torch.tensor([place[q.target_id or ""] for q in task.queries]),
        torch.tensor([[place[q.reference_id]] for q in task.queries]),
    )
    assert found.protocol == data.protocol
    assert found.gap == pytest.approx(expected.gap, rel=1e-5)
    for here, there in ((found.target, expected.target), (found.others, expected.others)):
        assert here.mean == pytest.approx(there.mean, rel=1e-5)
        assert here.std == pytest.approx(there.std, rel=1e-5)
    assert found.others.pairs == 20 * 58  # neither target nor reference


def test_the_pairs_of_all_tasks_count_alike(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "val")
    model = random_model(data)
    whole = cosines(model, data)
    assert (whole.target.pairs, whole.others.pairs) == (24, 24 * 11)
    parts = [
        cosines(model, FashionIQ(tiny_fashioniq, "val", [name]))
        for name in ("dress", "shirt", "toptee")
    ]
    assert whole.target.counts.equal(torch.stack([p.target.counts for p in parts]).sum(0))
    assert whole.gap == pytest.approx(sum(p.gap for p in parts) / 3)


def test_unknown_targets_and_shapes_are_named(tiny_fashioniq: Path) -> None:
    data = FashionIQ(tiny_fashioniq, "test", ["dress"])
    with pytest.raises(ValueError, match=r"query .* has no target"):
        cosines(random_model(data), data)
    query, gallery = torch.ones(2, 3), torch.ones(4, 3)
    with pytest.raises(ValueError, match=re.escape("targets must lie in [0, 4), got 0 to 4")):
        feature_cosines(query, gallery, torch.tensor([0, 4]))
    with pytest.raises(ValueError, match=re.escape("targets must lie in [0, 4), got -1 to 3")):
        feature_cosines(query, gallery, torch.tensor([3, -1]))
    with pytest.raises(ValueError, match=re.escape("targets must be [2] or [2, M], got [1]")):
        feature_cosines(query, gallery, torch.tensor([0]))
    with pytest.raises(ValueError, match=re.escape("targets must be [Q], got [2, 1]")):
        feature_cosines(query, gallery, torch.tensor([[0], [1]]))
    with pytest.raises(ValueError, match=re.escape("exclude must be [2] or [2, M], got [3, 1]")):
        feature_cosines(query, gallery, torch.tensor([0, 1]), torch.zeros(3, 1).long())
    with pytest.raises(ValueError, match=re.escape("query must be [rows, D] and not empty")):
        feature_cosines(query[:0], gallery, torch.tensor([], dtype=torch.int64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.tensor([[math.nan, 1, 1], [1, 1, 1]])}, "query row 0 holds NaN"),
        ({"gallery": torch.full((4, 3), math.inf)}, "gallery row 0 holds NaN or infinity"),
        ({"gallery": torch.ones(4, 5)}, "differ in width"),
        ({"gallery": torch.ones(4, 3).double()}, "bring both to one dtype"),
        ({"targets": torch.tensor([0.0, 1.0])}, "targets must be int64"),
        ({"exclude": torch.tensor([[4], [2]])}, re.escape("exclude must lie in [-1, 4)")),
        ({"exclude": torch.tensor([[-2], [2]])}, re.escape("exclude must lie in [-1, 4)")),
    ],
)
def test_features_that_do_not_fit_are_named(change: dict[str, Any], message: str) -> None:
    good = {"query": torch.ones(2, 3), "gallery": torch.ones(4, 3), "targets": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=message):
        feature_cosines(**{**good, **change})


def test_one_exclusion_a_query_needs_no_columns() -> None:
    query, gallery = torch.randn(2, 3), torch.randn(4, 3)
    targets, exclude = torch.tensor([0, 1]), torch.tensor([2, -1])
    found, same = (feature_cosines(query, gallery, targets, e) for e in (exclude, exclude[:, None]))
    assert found.to_dict() == same.to_dict()
    assert found.others.pairs == 5


def test_without_any_spread_the_separation_is_infinite() -> None:
    gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert feature_cosines(gallery[:1], gallery, torch.tensor([0])).separation == math.inf
    assert feature_cosines(gallery[:1], gallery, torch.tensor([1])).separation == -math.inf


@pytest.fixture
def row(tiny_fashioniq: Path) -> Cosines:
    data = FashionIQ(tiny_fashioniq, "val")
    return cosines(random_model(data), data)


def test_json_and_repr(row: Cosines) -> None:
    content = json.loads(json.dumps(row.to_dict()))
    assert content["gap"] == row.target.mean - row.others.mean
    assert sum(content["others"]["counts"]) == content["others"]["pairs"] == 264
    assert content["protocol"]["gallery"] == "original"
    assert f"gap {row.gap:.3f}" in repr(row)


def test_a_gpu_counts_as_a_cpu_does(cuda: torch.device) -> None:
    torch.manual_seed(0)
    query, gallery = torch.randn(300, 8), torch.randn(50, 8)
    targets = torch.arange(300) % 50
    here = feature_cosines(query, gallery, targets)
    there = feature_cosines(query.to(cuda), gallery.to(cuda), targets.to(cuda))
    assert there.gap == pytest.approx(here.gap, abs=1e-5)
