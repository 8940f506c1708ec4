"""Every loss in the trainer: it learns, and a run that was stopped goes on to the same bits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import DIM, IMAGES, Toy, encoder

import fusecomp as fc
from fusecomp import losses
from fusecomp.losses import Bank, InfoNCE, LearnableTemperature, Queue
from fusecomp.types import Batch

CONFIG = fc.StageConfig(epochs=2, batch_size=4, lr=0.05, optimizer="adam", save_every_steps=1)


def images(dim: int) -> Tensor:
    return torch.randn(IMAGES, dim, generator=torch.Generator().manual_seed(0))


def distill() -> nn.Module:
    every = torch.arange(IMAGES)
    pairs = torch.stack((every, (3 * every + 1) % IMAGES), dim=1)
    return losses.DistillationLoss(images(3), pairs, images(3), every)


MAKE: dict[str, Callable[[], nn.Module]] = {
    "InfoNCE": lambda: InfoNCE(LearnableTemperature(), True, exclude=("target", "reference")),
    "InfoNCE, bank": lambda: InfoNCE(memory=Bank(images(DIM), torch.arange(IMAGES))),
    "InfoNCE, queue": lambda: InfoNCE(0.07, exclude="target", memory=Queue(7, DIM)),
    "CosineAlignmentLoss": losses.CosineAlignmentLoss,
    "DistillationLoss": distill,
    "HardNegativeNCE": lambda: losses.HardNegativeNCE(exclude="target", memory=Queue(7, DIM)),
    "MultiPositiveNCE": losses.MultiPositiveNCE,
    "SigmoidLoss": losses.SigmoidLoss,
    "SigmoidLoss, bank": lambda: losses.SigmoidLoss(memory=Bank(images(DIM), torch.arange(IMAGES))),
    "TripletMarginLoss": lambda: losses.TripletMarginLoss(1.0, "all"),
    "CombinedLoss": lambda: losses.CombinedLoss(
        {"find": (1.0, losses.MultiPositiveNCE()), "align": (0.1, losses.CosineAlignmentLoss())}
    ),
}


class Stop(Exception):
    """An interruption."""


def train(name: str, root: Path, workdir: Path) -> tuple[fc.Run, nn.Module]:
    torch.manual_seed(0)
    model = fc.ComposedEncoder(encoder(), fc.Combiner(DIM))
    loss = MAKE[name]()
    return fc.Trainer(model, loss=loss, config=CONFIG, workdir=workdir).fit(Toy(root)), loss


@pytest.mark.parametrize("name", MAKE)
def test_it_trains_and_resumes_to_the_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {key: value.clone() for key, value in MAKE[name]().state_dict().items()}
    straight, loss = train(name, tmp_path, tmp_path / "straight")
    for key, parameter in loss.named_parameters():
        assert not torch.equal(parameter, before[key]), f"{key} did not learn"

    step = fc.Trainer.step

    def stopping(self: fc.Trainer, batch: Batch) -> Tensor:
        if self.steps == 4:
            raise Stop
        return step(self, batch)

    monkeypatch.setattr(fc.Trainer, "step", stopping)
    with pytest.raises(Stop):
        train(name, tmp_path, tmp_path / "broken")
    monkeypatch.undo()
    resumed, again = train(name, tmp_path, tmp_path / "broken")
    assert resumed.history == straight.history
    for one, other in ((straight.model, resumed.model), (loss, again)):
        pairs: Any = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
        for (key, value), (_, twin) in pairs:
            assert torch.equal(value, twin), key


@pytest.mark.parametrize("mining", ["hardest", "semi-hard", "all"])
def test_copies_of_a_target_train_alike_cached_live_and_in_parts(
    mining: Any, tmp_path: Path
) -> None:
    """A batch holds targets twice, whose features differ in their last bits where they are live."""
    data = Toy(tmp_path, rows=23)
    ways: list[dict[str, Any]] = [{}, {"cache": False}, {"micro_batch_size": 3}]
    ways += [{"micro_batch_size": 2, "cache": False}]
    found = []
    for way in ways:
        model = fc.ComposedEncoder(encoder(), fc.Combiner(DIM, dropout=0.0))
        settings: dict[str, Any] = {
            "epochs": 6,
            "batch_size": 7,
            "lr": 5e-3,
            "eps": 1e-3,
            "trainable": ("fusion", "text"),
        }
        config = replace(CONFIG, **settings, **way)
        fc.Trainer(model, loss=losses.TripletMarginLoss(mining=mining), config=config).fit(data)
        found.append(model.state_dict())
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-5)
