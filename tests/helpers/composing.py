"""A live encoder, stored features and a Combiner, all small."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fusecomp.caching import CachedEncoder
from fusecomp.encoders import DualEncoder
from fusecomp.fusions import Combiner

TEXTS = ["is red", "has dots", "is long"]


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, texts: list[str]) -> Tensor:
        codes = [[ord(letter) / 64 for letter in text[:8].ljust(8)] for text in texts]
        out: Tensor = self.layer(torch.tensor(codes))
        return out


def load(path: Path) -> Tensor:
    numbers = [float(number) for number in path.read_text().split()]
    return torch.tensor(numbers)


def live(seed: int = 0, load: Callable[[Path], Tensor] | None = load) -> DualEncoder:
    torch.manual_seed(seed)
    return DualEncoder(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), Words(), load)


def combiner(seed: int = 0) -> Combiner:
    torch.manual_seed(seed)
    return Combiner(4, projection_dim=3, hidden_dim=5)


def cached() -> CachedEncoder:
    torch.manual_seed(0)
    return CachedEncoder.from_arrays(
        ["a", "b", "c"], torch.randn(3, 4), ["is red", "has dots"], torch.randn(2, 4)
    )
