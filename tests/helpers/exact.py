"""A toy world in float64, and how far two trainings are apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from toy import DIM, Toy, WordText, load

import fusecomp as fc

CONFIG = fc.StageConfig(epochs=2, batch_size=10, lr=0.01, trainable=("both", "fusion"))


def load_wide(path: Path) -> Tensor:
    return load(path).double()


def composed(dropout: float = 0.0, batchnorm: bool = False) -> fc.ComposedEncoder:
    torch.manual_seed(0)
    image = nn.Sequential(nn.Linear(4, DIM), nn.Dropout(dropout))
    if batchnorm:
        image.append(nn.BatchNorm1d(DIM))
    encoder = fc.DualEncoder(image, WordText(dropout), load_wide)
    return fc.ComposedEncoder(encoder, fc.Combiner(DIM, dropout=dropout)).double()


class Scaled(nn.Module):
    """A loss with a learnable scale, that uses ids."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, query: Tensor, target: Tensor, *, target_ids: Tensor) -> Tensor:
        logits = self.scale * fc.fusions.Sum()(query, query) @ nn.functional.normalize(target).T
        same = target_ids[:, None] == target_ids
        logits = logits.masked_fill(same & ~torch.eye(len(query), dtype=torch.bool), -torch.inf)
        return nn.functional.cross_entropy(logits, torch.arange(len(query)))


def plain(query: Tensor, target: Tensor) -> Tensor:
    return (query - target).square().sum(1).mean()


LOSSES: dict[str, Callable[[], Any]] = {
    "InfoNCE": lambda: fc.InfoNCE(0.1),
    "references": lambda: fc.InfoNCE(0.1, include_references=True),
    "learnable": lambda: Scaled().double(),
    "function": lambda: plain,
}


def trained(
    root: Path, config: fc.StageConfig, loss: str, dropout: float = 0.0
) -> dict[str, Tensor]:
    """All weights after two epochs of a full and an uneven batch, the loss's own too."""
    model, chosen = composed(dropout), LOSSES[loss]()
    fc.Trainer(model, loss=chosen, config=config).fit(Toy(root, rows=17))
    return all_weights(model, chosen)


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(
        float((one[n] - other[n]).abs().max() / one[n].abs().max().clamp(min=1e-9)) for n in one
    )


def all_weights(model: Any, loss: Any, prefix: str = "") -> dict[str, Tensor]:
    of_loss = loss.named_parameters() if isinstance(loss, nn.Module) else ()
    return {prefix + name: p.detach() for name, p in (*model.named_parameters(), *of_loss)}
