"""Parity with the published code: 25 steps of stage 2."""

from typing import Any

import numpy as np
import pytest
import torch
from golden import PUBLISHED
from torch import Tensor

import fusecomp as fc
from fusecomp.types import Batch


def published_stage2(numbers: Any, **settings: Any) -> tuple[list[float], dict[str, Tensor]]:
    """Repeat the published 25 steps with the library's own trainer, in float64."""
    steps, size, dim = numbers["image"].shape
    rows = steps * size
    image, text, target = (
        numbers[name].reshape(rows, dim).astype("float64") for name in ("image", "text", "target")
    )
    names = [f"{row}" for row in range(2 * rows)]
    cached = fc.CachedEncoder.from_arrays(
        names, np.concatenate([image, target]), names[:rows], text
    )
    initial = {
        name.removeprefix("initial/"): torch.from_numpy(numbers[name]).double()
        for name in numbers.files
        if name.startswith("initial/")
    }
    projection, hidden = (len(initial[f"{n}_layer.bias"]) for n in ("text_projection", "combiner"))
    combiner = fc.Combiner(dim, projection, hidden, dropout=0.0).double()
    combiner.load_state_dict(initial)

    triplets = [fc.Triplet(n, n, (n,), names[rows + i]) for i, n in enumerate(names[:rows])]
    data = fc.datasets.Triplets(triplets, gallery=names)
    settings = {"epochs": 1, "batch_size": size, "lr": float(numbers["lr"]), **settings}
    loss = settings.pop("loss", fc.InfoNCE())
    config = fc.StageConfig(**settings)
    model = fc.ComposedEncoder(cached, combiner)
    trainer = fc.Trainer(model, loss=loss, config=config)
    trainer.prepare(data)
    losses = []
    for start in range(0, rows, size):
        own = torch.arange(start, start + size)
        ones = torch.ones(size, dtype=torch.int64)
        batch = Batch(own, own, own + rows, ones, own, own, [names[i] for i in own.tolist()])
        losses.append(trainer.step(batch).item())
    return losses, combiner.state_dict()


def difference(numbers: Any, losses: list[float], final: dict[str, Tensor]) -> tuple[float, float]:
    by_loss = np.abs(np.array(losses) / numbers["losses"] - 1).max()
    by_weight = max(
        np.abs(tensor.numpy() - numbers[f"final/{name}"]).max() for name, tensor in final.items()
    )
    return float(by_loss), float(by_weight)


def test_25_published_steps() -> None:
    with np.load(PUBLISHED / "combiner_training.npz") as numbers:
        by_loss, by_weight = difference(numbers, *published_stage2(numbers, optimizer="adam"))
        assert by_loss < 1e-6
        assert by_weight < 1e-6


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw"},
        {"optimizer": "adam", "loss": lambda q, t: (fc.InfoNCE()(q, t) + fc.InfoNCE()(t, q)) / 2},
        {"optimizer": "adam", "lr": 0.0},
    ],
    ids=["adamw", "symmetric", "untrained"],
)
def test_other_settings_miss_the_published_numbers(settings: dict[str, Any]) -> None:
    with np.load(PUBLISHED / "combiner_training.npz") as numbers:
        _, by_weight = difference(numbers, *published_stage2(numbers, **settings))
        assert by_weight > 1e-4
