"""An encoder over numbered images, for tests that run in other processes too."""

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from fusecomp.caching import CachedEncoder
from fusecomp.encoders import DualEncoder
from fusecomp.evaluation import Recall
from fusecomp.types import Task, Triplet

IMAGES = 40


class Numbered:
    """A dataset of images 0.png, 1.png, ...; each holds its number as text."""

    def __init__(self, root: Path, count: int = IMAGES) -> None:
        self.root = root
        self.image_ids = tuple(map(str, range(count)))

    def path(self, image_id: str) -> Path:
        return self.root / f"{image_id}.png"

    def triplets(self, epoch: int = 0, seed: int = 0) -> list[Triplet]:
        neighbours = zip(self.image_ids, self.image_ids[1:], strict=False)
        return [Triplet(f"q{i}", i, (f"is {j}",), j) for i, j in neighbours]

    def texts(self) -> list[str]:
        return [text for triplet in self.triplets() for text in triplet.texts]

    def tasks(self) -> list[Task]:
        return [Task("all", self.triplets(), self.image_ids, metrics=[Recall(1), Recall(10)])]

    def __len__(self) -> int:
        return len(self.image_ids) - 1


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
