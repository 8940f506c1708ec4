"""A toy encoder that gives tokens of both sides, and a fusion that needs all that there is."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from exact import load_wide
from torch import Tensor, nn
from toy import DIM, WORDS, Toy

import fusecomp as fc
from fusecomp.fusions import CIRPLANT
from fusecomp.types import Tokens

IMAGE_WIDTH, TEXT_WIDTH = 3, 4


class Patches(nn.Module):
    """An image of four numbers is two patches; the second one may be missing."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.patch, self.pool = nn.Linear(2, IMAGE_WIDTH), nn.Linear(2 * IMAGE_WIDTH, DIM)
        self.dropout = nn.Dropout(dropout)

    def encode_tokens(self, images: Tensor) -> tuple[Tensor, Tokens]:
        patches = self.dropout(self.patch(images.unflatten(1, (2, 2))))
        mask = torch.stack((images[:, 0] == images[:, 0], images[:, 0] > 0), dim=1)
        return self.pool(patches.flatten(1)), Tokens(patches, mask)

    def forward(self, images: Tensor) -> Tensor:
        return self.encode_tokens(images)[0]


class Letters(nn.Module):
    """A text "word 3" has four tokens; a batch is padded to its longest, with the number 9."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.letter, self.pool = nn.Embedding(WORDS, TEXT_WIDTH), nn.Linear(TEXT_WIDTH, DIM)
        self.dropout = nn.Dropout(dropout)

    def encode_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tokens]:
        numbers = torch.tensor([int(text.split()[1]) for text in texts])
        positions = torch.arange(int(numbers.max()) + 1)
        mask = positions <= numbers[:, None]
        letters = self.dropout(self.letter(positions)).expand(len(texts), -1, -1)
        values = letters.masked_fill(~mask[..., None], 9)
        mean = letters.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)
        return self.pool(mean), Tokens(values, mask)

    def forward(self, texts: Sequence[str]) -> Tensor:
        return self.encode_tokens(texts)[0]


def masked_mean(tokens: Tokens) -> Tensor:
    kept = tokens.values.masked_fill(~tokens.mask[..., None], 0)
    return kept.sum(dim=1) / tokens.mask.sum(dim=1, keepdim=True)


class Everything(nn.Module):
    """Adds up all that a fusion can get."""

    def __init__(self) -> None:
        super().__init__()
        self.of_images, self.of_texts = nn.Linear(IMAGE_WIDTH, DIM), nn.Linear(TEXT_WIDTH, DIM)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        *,
        image_tokens: Tokens,
        text_tokens: Tokens,
        reference_text: Tensor,
    ) -> Tensor:
        tokens = self.of_images(masked_mean(image_tokens)), self.of_texts(masked_mean(text_tokens))
        query: Tensor = image + text - reference_text + tokens[0].tanh() + tokens[1].tanh()
        return query


class Prompted(Toy):
    """The toy's rows, every third with two texts, and a prompt for each image."""

    @property
    def reference_texts(self) -> dict[str, str]:
        return {image_id: f"word {(3 * int(image_id)) % WORDS}" for image_id in self.image_ids}

    def triplets(self, epoch: int = 0, seed: int = 0) -> list[fc.Triplet]:
        return [
            replace(row, texts=(*row.texts, f"word {number % WORDS}")) if number % 3 == 0 else row
            for number, row in enumerate(super().triplets(epoch, seed))
        ]


def encoder(dropout: float = 0.0) -> fc.DualEncoder:
    torch.manual_seed(0)
    return fc.DualEncoder(Patches(dropout), Letters(dropout), load_wide).double()


FUSIONS: dict[str, Any] = {
    "Everything": Everything,
    "CIRPLANT": lambda: CIRPLANT(DIM, 1, 2, text_dim=TEXT_WIDTH, hidden_dim=5, dropout=0.0),
}


def composed(fusion: str = "Everything", dropout: float = 0.0) -> fc.ComposedEncoder:
    live = encoder(dropout)
    torch.manual_seed(1)
    return fc.ComposedEncoder(live, FUSIONS[fusion]()).double()


def trained(
    root: Path, fusion: str, config: fc.StageConfig, dropout: float = 0.0
) -> dict[str, Tensor]:
    """All weights after two epochs of a full and an uneven batch."""
    model = composed(fusion, dropout)
    fc.Trainer(model, loss=fc.InfoNCE(0.1), config=config).fit(Prompted(root, rows=17))
    return {name: weight.detach() for name, weight in model.named_parameters()}
