"""Small image and text encoders that learn from images and their descriptions, as CLIP did.

They replace CLIP in the examples: two towers with features of one width, trained by a symmetric
contrastive loss, small enough to pretrain on a laptop's processor in seconds.
"""

import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from fusecomp.images import ImageLoader
from fusecomp.types import Tokens

WORD = re.compile(r"[a-z0-9]+")
BUCKETS = 4096


def to_tensor(image: Image.Image) -> Tensor:
    """Return an open image as float32 [3, 64, 64], with about zero mean and unit variance."""
    small = image.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)
    return (pixels.float() / 255 - 0.6) / 0.25


load_image = ImageLoader(to_tensor)


@lru_cache(maxsize=100_000)
def bucket_numbers(text: str) -> tuple[int, ...]:
    """Return the bucket of each word of a text: a number from 1 to 4095."""
    words = WORD.findall(text.lower())
    return tuple(1 + zlib.crc32(word.encode()) % (BUCKETS - 1) for word in words)


class TinyImageEncoder(nn.Module):
    """A convolutional network: images [B, 3, 64, 64] -> features [B, dim]."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in ((3, 16), (16, 32), (32, 64), (64, 96)):
            layers += [
                nn.Conv2d(width_in, width_out, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width_out),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.LayerNorm(96 * 4 * 4))
        self.project = nn.Sequential(nn.Linear(96 * 4 * 4, dim), nn.LayerNorm(dim))

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, 64, 64] -> [B, dim]."""
        features: Tensor = self.project(self.layers(images))
        return features


class TinyTextEncoder(nn.Module):
    """A recurrent network: B sentences -> features [B, dim].

    It has no vocabulary: the CRC-32 of a word gives one of 4096 buckets, also for unseen words.
    """

    def __init__(self, dim: int = 64, width: int = 96) -> None:
        super().__init__()
        self.words = nn.Embedding(BUCKETS, width, padding_idx=0)
        self.reader = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * width)
        self.project = nn.Sequential(nn.Linear(2 * width, dim), nn.LayerNorm(dim))

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Return sentences as bucket numbers [B, L], with 0 behind the last word."""
        rows = [bucket_numbers(text) for text in texts]
        length = max((len(row) for row in rows), default=0)
        padded = [row + (0,) * (max(length, 1) - len(row)) for row in rows]
        return torch.tensor(padded, device=self.words.weight.device)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """B sentences -> [B, dim]."""
        return self.encode_tokens(texts)[0]

    def encode_tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tokens]:
        """B sentences -> [B, dim], and the states of their words [B, L, 2 * width]."""
        tokens = self.tokens(texts)
        there = tokens.ne(0)
        lengths = there.sum(1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            self.words(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(self.reader(packed)[0], batch_first=True)
        lengths = lengths.to(states.device)[:, None]
        features: Tensor = self.project(self.norm(states.sum(1) / lengths))
        return features, Tokens(states, torch.arange(states.shape[1]).to(lengths) < lengths)


def read_pairs(root: str | Path) -> tuple[Tensor, list[str]]:
    """Return the images [N, 3, 64, 64] that a dataset describes, and their N descriptions."""
    root = Path(root)
    descriptions = json.loads((root / "descriptions.json").read_text(encoding="utf-8"))
    paths = {path.stem: path for path in root.rglob("*.png")}
    images = [load_image(paths[image_id]) for image_id in descriptions]
    stack = torch.stack(images).contiguous(memory_format=torch.channels_last)  # faster on CPUs
    return stack, list(descriptions.values())


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift a batch [B, 3, H, W] by up to four pixels, and mirror it with probability 1/2."""
    down, across = torch.randint(-4, 5, (2,), generator=generator).tolist()
    shifted = torch.roll(images, (down, across), dims=(2, 3))
    return shifted.flip(3) if torch.rand((), generator=generator) < 0.5 else shifted


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute each operation on so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def contrast(
    image: nn.Module,
    text: nn.Module,
    images: Tensor,
    sentences: Sequence[str],
    other: ThreadPoolExecutor,
) -> float:
    """Return the loss of a batch, and add its gradients to both encoders.

    The encoders need each other at the loss only, so the text encoder has a thread of its own.
    """
    coming = other.submit(lambda: F.normalize(text(sentences), dim=-1))
    left = F.normalize(image(images), dim=-1)
    right = coming.result()
    ends = [features.detach().requires_grad_() for features in (left, right)]
    logits = ends[0] @ ends[1].T / 0.07
    target = torch.arange(len(images), device=images.device)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    loss.backward()
    done = other.submit(right.backward, ends[1].grad)
    left.backward(ends[0].grad)
    done.result()
    return loss.item()


def pretrain(
    image: nn.Module,
    text: nn.Module,
    root: str | Path,
    epochs: int = 16,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Train both encoders, in place, on the images and descriptions of a dataset.

    The loss is CLIP's: cross entropy over the batch in both directions, at temperature 0.07.

    Args:
        image: images [B, 3, 64, 64] -> [B, D].
        text: B sentences -> [B, D].
        root: a folder that `drawn.minifashion.render` or `drawn.minicirr.render` wrote.
        epochs: passes over the descriptions.
        batch_size: pairs in a step; an incomplete last batch is dropped.
        lr: the highest learning rate of a one-cycle schedule.
        seed: of the order and the shifts of the pairs, not of the initial weights.
        progress: called with (epoch, mean loss) after each epoch.
    """
    images, texts = read_pairs(root)
    device = next(image.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    parameters = [*image.parameters(), *text.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.05, fused=True)
    steps = len(texts) // batch_size
    if steps < 1:
        raise ValueError(
            f"{root} has {len(texts)} descriptions, which make no batch of {batch_size}; draw more "
            "images, or take a smaller batch_size"
        )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps)
    image.train()
    text.train()
    with ThreadPoolExecutor(1) as other, torch_threads(1):  # two in all
        for epoch in range(epochs):
            order = torch.randperm(len(texts), generator=generator)[: steps * batch_size]
            total = 0.0
            for rows in order.split(batch_size):
                batch = jitter(images[rows], generator).to(device)
                optimizer.zero_grad()
                total += contrast(image, text, batch, [texts[row] for row in rows.tolist()], other)
                optimizer.step()
                schedule.step()
            if progress is not None:
                progress(epoch, total / steps)
    image.eval()
    text.eval()
