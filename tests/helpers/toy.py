"""A toy world for training tests: images are named vectors, texts are words."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import fusecomp as fc
from fusecomp.evaluation import Recall
from fusecomp.training import batches
from fusecomp.types import Batch, Task

DIM, IMAGES, WORDS = 6, 24, 5
CONFIG = fc.StageConfig(epochs=3, batch_size=4, lr=0.05, optimizer="adam")


def load(path: Path) -> Tensor:
    """The image of a path is drawn from its number."""
    number = int(path.stem)
    return torch.randn(4, generator=torch.Generator().manual_seed(number))


class WordText(nn.Module):
    """One vector a word; with dropout, so that forgotten random states show."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, DIM)
        self.dropout = nn.Dropout(dropout)

    def forward(self, texts: Sequence[str]) -> Tensor:
        numbers = [int(text.split()[1]) for text in texts]
        words = torch.tensor(numbers, device=self.embedding.weight.device)
        features: Tensor = self.dropout(self.embedding(words))
        return features


class NormedSum(nn.Module):
    """A fusion with BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(DIM)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        normed: Tensor = self.norm(image + text)
        return normed


def encoder(seed: int = 0, dropout: float = 0.0) -> fc.DualEncoder:
    torch.manual_seed(seed)
    return fc.DualEncoder(image=nn.Linear(4, DIM), text=WordText(dropout), load_image=load)


def composed(dropout: float = 0.5) -> fc.ComposedEncoder:
    live = encoder()
    return fc.ComposedEncoder(live, fc.Combiner(DIM, dropout=dropout))


def headed() -> fc.ComposedEncoder:
    """Both towers have a width of their own; heads bring them to a third one."""
    torch.manual_seed(0)
    text = WordText()
    live = fc.DualEncoder(
        nn.Linear(4, 5), text, encoder().load_image, image_dim=5, text_dim=DIM, dim=DIM + 1
    )
    return fc.ComposedEncoder(live, fc.Combiner(DIM + 1, dropout=0.0))


class Toy:
    """Rows (reference, word, target); the image files must exist."""

    protocol: ClassVar = {"dataset": "toy"}

    def __init__(self, root: Path, rows: int = 10, start: int = 0) -> None:
        self.root = root
        self.image_ids = [str(number) for number in range(IMAGES)]
        for image_id in self.image_ids:
            (root / f"{image_id}.png").touch()
        self._rows = range(start, start + rows)

    def path(self, image_id: str) -> Path:
        return self.root / f"{image_id}.png"

    def triplets(self, epoch: int = 0, seed: int = 0) -> list[fc.Triplet]:
        """The word depends on the epoch, as the random captions of FashionIQ do."""
        return [
            fc.Triplet(
                str(row),
                str(row % IMAGES),
                (f"word {(row + epoch) % WORDS}",),
                str((3 * row + 1) % IMAGES),
            )
            for row in self._rows
        ]

    def texts(self) -> list[str]:
        return [f"word {word}" for word in range(WORDS)]

    def tasks(self) -> list[Task]:
        return [Task("", self.triplets(), self.image_ids, metrics=[Recall(1), Recall(5)])]

    def __len__(self) -> int:
        return len(self._rows)


def stepped(model: fc.ComposedEncoder, root: Path, **settings: Any) -> fc.Trainer:
    """A trainer that has made one step."""
    config = replace(CONFIG, **settings)
    trainer = fc.Trainer(model, loss=fc.InfoNCE(), config=config)
    trainer.step(next(first_epoch(trainer, Toy(root))))
    return trainer


def first_epoch(trainer: fc.Trainer, data: Any) -> Iterator[Batch]:
    """Prepare the trainer and yield the batches of epoch 0."""
    return batches(data, trainer.prepare(data), trainer.config, epoch=0)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def assert_equal_weights(one: nn.Module, other: nn.Module) -> None:
    assert not changed(weights(one), weights(other))


def assert_same(one: object, other: object, where: str = "") -> None:
    """Equal to the bit, however nested."""
    if isinstance(one, Tensor):
        assert isinstance(other, Tensor)
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys(), where
        for name in one:
            assert_same(one[name], other[name], f"{where}, {name}")
    elif isinstance(one, list | tuple):
        assert isinstance(other, list | tuple)
        assert len(one) == len(other), where
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{where}, {number}")
    else:
        assert one == other, where
