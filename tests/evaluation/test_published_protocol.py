"""Real annotations and random features: the published code's metrics, to the last hit."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusecomp.caching import CachedEncoder
from fusecomp.datasets import CIRR, FashionIQ
from fusecomp.evaluation import evaluate
from fusecomp.fusions import Sum
from fusecomp.model import ComposedEncoder

Shared = Callable[[str], Path]


@pytest.fixture
def published(shared: Shared) -> tuple[FashionIQ, CachedEncoder, dict[str, float]]:
    """The real validation split, random features for it, and the published code's metrics."""
    data = FashionIQ(shared("datasets/fashioniq"), "val")
    images: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    with np.load(shared("parity/protocol_features.npz")) as arrays:
        for task in data.tasks():
            rows = arrays[f"fashioniq/{task.name}/image"]
            images.update(zip(task.gallery, rows, strict=True))
            rows = arrays[f"fashioniq/{task.name}/text"]
            texts.update(zip([query.texts[0] for query in task.queries], rows, strict=True))
    encoder = CachedEncoder.from_arrays(
        list(images), np.stack(list(images.values())), list(texts), np.stack(list(texts.values()))
    )
    metrics = json.loads(shared("parity/protocol_metrics.json").read_text())
    expected = {
        f"{name.removeprefix('fashioniq/')}/{metric}": value
        for name, values in metrics.items()
        if name.startswith("fashioniq/")
        for metric, value in values.items()
    }
    return data, encoder, expected


def test_it_equals_the_published_evaluation_to_the_last_hit(
    published: tuple[FashionIQ, CachedEncoder, dict[str, float]],
) -> None:
    data, encoder, expected = published
    evaluation = evaluate(ComposedEncoder(encoder, Sum()), data)
    assert len(expected) == 6
    for name, value in expected.items():
        queries = len(evaluation.ranking[name.partition("/")[0]].task.queries)
        hits = value / 100 * queries
        assert abs(hits - round(hits)) < 0.01
        assert evaluation[name] == pytest.approx(100 * round(hits) / queries, abs=1e-9)
    for k in (10, 50):
        recalls = [expected[f"{name}/recall@{k}"] for name in ("dress", "shirt", "toptee")]
        assert evaluation[f"mean/recall@{k}"] == pytest.approx(sum(recalls) / 3, abs=1e-4)
    assert evaluation["mean"] == pytest.approx(sum(expected.values()) / 6, abs=1e-4)


def test_it_equals_the_published_evaluation_of_cirr_to_the_last_hit(
    published_cirr: Callable[[str], tuple[CIRR, ComposedEncoder]], shared: Shared
) -> None:
    data, model = published_cirr("val")
    evaluation = evaluate(model, data)
    expected = json.loads(shared("parity/protocol_metrics.json").read_text())["cirr/val"]
    names = [f"recall@{k}" for k in (1, 5, 10, 50)] + [f"recall_subset@{k}" for k in (1, 2, 3)]
    assert sorted(expected) == sorted(names)
    hits = {name: value / 100 * 4181 for name, value in expected.items()}
    assert all(abs(count - round(count)) < 0.01 for count in hits.values())
    for name, count in hits.items():
        assert evaluation[name] == pytest.approx(100 * round(count) / 4181, abs=1e-9)
    seven = list(expected.values())
    summaries = {
        "mean(recall@5, recall_subset@1)": (expected["recall@5"] + expected["recall_subset@1"]) / 2,
        "arithmetic_mean": statistics.mean(seven),
        "harmonic_mean": statistics.harmonic_mean(seven),
        "geometric_mean": statistics.geometric_mean(seven),
    }
    assert {**evaluation} == pytest.approx(expected | summaries, abs=1e-4)


def test_another_protocol_gives_other_numbers(
    published: tuple[FashionIQ, CachedEncoder, dict[str, float]],
) -> None:
    data, encoder, expected = published
    easier = FashionIQ(data.root, "val", ["dress"], gallery="val")
    metrics = evaluate(ComposedEncoder(encoder, Sum()), easier)
    assert metrics["dress/recall@10"] > expected["dress/recall@10"] + 1
