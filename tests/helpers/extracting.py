"""An encoder over numbered images, for tests that run in other processes too."""

import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from fusecomp.caching import CachedEncoder
from fusecomp.datasets import Triplets
from fusecomp.encoders import DualEncoder
from fusecomp.types import Triplet

IMAGES = 40


class Numbered(Triplets):
    """A dataset of images 0.png, 1.png, ...; each holds its number as text."""

    def __init__(self, root: Path, count: int = IMAGES) -> None:
        self.root = root
        files = {f"{number}": root / f"{number}.png" for number in range(count)}
        triplets = [Triplet(f"q{i}", i, (f"is {j}",), j) for i, j in pairwise(files)]
        super().__init__(triplets, files, ks=(1, 10), exclude_reference=False)


def draw(root: Path, count: int = IMAGES) -> Numbered:
    root.mkdir(exist_ok=True)
    for number in range(count):
        (root / f"{number}.png").write_text(str(number))
    return Numbered(root, count)


def load(path: Path) -> Tensor:
    number = int(path.read_text())
    return torch.sin(torch.arange(1.0, 9.0) * (number + 1))


class Texts(nn.Module):
    """A text's features from its letters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 6)

    def forward(self, texts: list[str]) -> Tensor:
        codes = [[ord(letter) / 100 for letter in text[:8].ljust(8)] for text in texts]
        out: Tensor = self.layer(torch.tensor(codes))
        return out


class Notes:
    """Notes how many images were seen, and may be slow; changes no feature, and says so."""

    def __init__(self, journal: Path | None, seconds: float) -> None:
        self.journal = journal
        self.seconds = seconds

    def __repr__(self) -> str:
        return "Notes()"

    def take(self, count: int) -> None:
        time.sleep(self.seconds)
        if self.journal is not None:
            with self.journal.open("a") as file:
                file.write(f"{count}\n")


class Images(nn.Module):
    """A layer with notes."""

    def __init__(self, journal: Path | None = None, seconds: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 6)
        self.notes = Notes(journal, seconds)

    def forward(self, images: Tensor) -> Tensor:
        self.notes.take(len(images))
        out: Tensor = self.layer(images)
        return out


def make(journal: Path | None = None, seconds: float = 0.0) -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(Images(journal, seconds), Texts(), load)


def seen(journal: Path) -> int:
    return sum(map(int, journal.read_text().split())) if journal.exists() else 0


def build(root: Path, path: Path | None, journal: Path | None, seconds: float) -> CachedEncoder:
    # Blocks of eight images.
    return CachedEncoder.build(make(journal, seconds), Numbered(root), path=path, batch_size=2)


def parts(path: Path) -> list[Path]:
    """The finished blocks that lie beside a file of features."""
    return sorted(path.with_name(f"{path.name}.partial").glob("*.safetensors"))


def full_disk(*_: object) -> None:
    """For the function that writes the file of features, once all blocks are there."""
    raise OSError("the disk is full")
