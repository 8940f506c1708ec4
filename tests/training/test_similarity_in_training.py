"""A fusion with a similarity of its own trains alike in parts and on many processes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exact import CONFIG, all_weights, composed, furthest
from processes import Processes
from torch import Tensor
from toy import DIM, IMAGES, Toy

import fusecomp as fc
from fusecomp import losses


def distillation() -> Any:
    generator, every = torch.Generator().manual_seed(0), torch.arange(IMAGES)
    features = torch.randn(IMAGES, 3, generator=generator, dtype=torch.float64)
    pairs = torch.cartesian_prod(every, every)
    return losses.DistillationLoss(
        features[pairs].sum(dim=1), pairs, features, every, temperature=0.5
    )


LOSSES: dict[str, Callable[[], Any]] = {
    "InfoNCE": lambda: fc.InfoNCE(0.5, symmetric=True),
    "HardNegativeNCE": lambda: losses.HardNegativeNCE(0.5, exclude="target"),
    "MultiPositiveNCE": lambda: losses.MultiPositiveNCE(0.5),
    "SigmoidLoss": losses.SigmoidLoss,
    "TripletMarginLoss": lambda: losses.TripletMarginLoss(1.0, "hardest"),
    "DistillationLoss": distillation,
}


def trained(root: Path, config: fc.StageConfig, loss: str) -> dict[str, Tensor]:
    """All weights of ARTEMIS and its encoder, the loss's own too."""
    torch.manual_seed(1)
    model = fc.ComposedEncoder(composed().encoder, fc.fusions.ARTEMIS(DIM)).double()
    chosen = LOSSES[loss]().double()
    fc.Trainer(model, loss=chosen, config=config).fit(Toy(root, rows=17))
    return all_weights(model, chosen)


@pytest.mark.parametrize("loss", LOSSES)
def test_parts_and_processes_give_the_gradient_of_the_whole(
    tmp_path: Path, two: Processes, loss: str
) -> None:
    one = trained(tmp_path, CONFIG, loss)
    parts = replace(CONFIG, micro_batch_size=3)
    assert furthest(one, trained(tmp_path, replace(CONFIG, epochs=1), loss)) > 1e-3
    assert furthest(one, trained(tmp_path, parts, loss)) < 1e-10
    for config in (CONFIG, parts):
        for weights in two.run(trained, tmp_path, config, loss):
            assert furthest(one, weights) < 1e-10
