"""Evaluations of any dataset by random features, for tests of what is made from them."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fusecomp as fc
from fusecomp._core.files import checksum
from fusecomp.evaluation import TaskRanking
from fusecomp.types import Dataset

WIDTH = 4
CIRR_METRICS = [
    *(f"recall@{k}" for k in (1, 5, 10, 50)),
    *(f"recall_subset@{k}" for k in (1, 2, 3)),
    "mean(recall@5, recall_subset@1)",
    "arithmetic_mean",
    "harmonic_mean",
    "geometric_mean",
]


def features_of(data: Dataset, seed: int = 0) -> fc.CachedEncoder:
    """Random features of every image and text."""
    generator = torch.Generator().manual_seed(seed)
    names = list(data.image_ids), list(data.texts())
    images, texts = (torch.randn(len(n), WIDTH, generator=generator) for n in names)
    return fc.CachedEncoder.from_arrays(names[0], images, names[1], texts)


def random_model(data: Dataset, seed: int = 0) -> fc.ComposedEncoder:
    """Sum on random features of every image and text."""
    return fc.ComposedEncoder(features_of(data, seed), fc.Sum())


def random_evaluation(data: Dataset, seed: int = 0) -> fc.Evaluation:
    """What that model is worth."""
    return fc.evaluate(random_model(data, seed), data)


def assert_equal(one: fc.Evaluation, other: fc.Evaluation) -> None:
    """Numbers, protocol, tasks and rankings are equal."""
    assert dict(one) == dict(other)
    assert list(one) == list(other)
    assert one.protocol == other.protocol
    assert str(one) == str(other)
    for name, here in one.ranking.items():
        there = other.ranking[name]
        for field in fields(TaskRanking):
            a, b = getattr(here, field.name), getattr(there, field.name)
            if isinstance(a, Tensor):
                assert a.dtype == b.dtype
                assert torch.equal(a, b), field.name
        assert here.top_ids() == there.top_ids()
        for field in fields(here.task):
            a, b = getattr(here.task, field.name), getattr(there.task, field.name)
            assert (a if isinstance(a, str | None) else list(a)) == (
                b if isinstance(b, str | None) else list(b)
            )


def rewrite(path: Path, change: Any) -> None:
    """Change the names or arrays of a file, and its checksum with them."""
    with np.load(path) as arrays:
        content = dict(arrays)
    about = json.loads(content.pop("about").tobytes())
    del content["checksum"]
    change(about, content)
    content["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    hashed = {name: array for name, array in sorted(content.items()) if array.dtype != object}
    np.savez(path, checksum=np.array(checksum(hashed)), **content)
