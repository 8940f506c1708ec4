"""A small one of every loss, and what it is called with."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fusecomp.losses import (
    Bank,
    CombinedLoss,
    CosineAlignmentLoss,
    DistillationLoss,
    HardNegativeNCE,
    InfoNCE,
    LearnableTemperature,
    MultiPositiveNCE,
    Queue,
    SigmoidLoss,
    TripletMarginLoss,
)

# How one of each is made; the temperatures keep gradients of random features alive.
MAKE: dict[str, Callable[[], nn.Module]] = {
    "InfoNCE": lambda: InfoNCE(temperature=0.2),
    "InfoNCE, symmetric": lambda: InfoNCE(
        LearnableTemperature(0.2), True, exclude="target", label_smoothing=0.1, margin=0.1
    ),
    "InfoNCE, bank": lambda: InfoNCE(0.2, exclude=("target", "reference"), memory=bank()),
    "InfoNCE, queue": lambda: InfoNCE(LearnableTemperature(0.2), margin=0.1, memory=Queue(5, 6)),
    "CosineAlignmentLoss": CosineAlignmentLoss,
    "DistillationLoss": lambda: DistillationLoss(*teacher(), temperature=LearnableTemperature(0.2)),
    "HardNegativeNCE": lambda: HardNegativeNCE(0.2, beta=0.5),
    "HardNegativeNCE, bank": lambda: HardNegativeNCE(0.2, memory=bank()),
    "HardNegativeNCE, decoupled": lambda: HardNegativeNCE(
        LearnableTemperature(0.2), alpha=0.0, beta=1.0, exclude=("target", "reference")
    ),
    "MultiPositiveNCE": lambda: MultiPositiveNCE(LearnableTemperature(0.2)),
    "MultiPositiveNCE, bank": lambda: MultiPositiveNCE(0.2, memory=bank()),
    "SigmoidLoss": lambda: SigmoidLoss(0.2, bias=-1.0),
    "SigmoidLoss, as published": lambda: SigmoidLoss(exclude="target"),
    "SigmoidLoss, queue": lambda: SigmoidLoss(0.2, bias=-1.0, memory=Queue(5, 6)),
    "TripletMarginLoss": lambda: TripletMarginLoss(2.5, "hardest"),
    "TripletMarginLoss, semi-hard": lambda: TripletMarginLoss(2.5, exclude="target"),
    "TripletMarginLoss, all": lambda: TripletMarginLoss(2.5, "all"),
    "TripletMarginLoss, bank": lambda: TripletMarginLoss(2.5, "hardest", memory=bank()),
    "CombinedLoss": lambda: CombinedLoss(
        {"find": (0.3, InfoNCE(LearnableTemperature(0.2))), "align": (2.0, CosineAlignmentLoss())}
    ),
}


def make(name: str) -> nn.Module:
    return MAKE[name]()


def features(rows: int = 8, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    query, target = torch.randn(2, rows, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    return query.requires_grad_(), target.requires_grad_()


def bank() -> Bank:
    """No target of the contract is in it."""
    return Bank(features()[0], 50 + torch.arange(8))


def ids(rows: int) -> dict[str, Tensor]:
    """Every row has a target of its own, and no target is a reference."""
    return {"target_ids": torch.arange(rows), "reference_ids": 100 + torch.arange(rows)}


def teacher() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of all ids of the contract; wider than the features."""
    queries, targets = torch.randn(2, 8, 9, generator=torch.Generator().manual_seed(2))
    target_ids, reference_ids = ids(8).values()
    return queries, torch.stack((reference_ids, target_ids), dim=1), targets, target_ids


def call(module: Any, query: Tensor, target: Tensor) -> Tensor:
    loss: Tensor = module(query, target, **ids(len(query)))
    return loss
