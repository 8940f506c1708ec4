"""Stage 2 at the paper's size against its own matrix products, bare.

    python examples/benchmarks/stage2.py [--data-root fashionIQ_dataset] [--rounds 5]

The bare products and the training step are timed in turns, and the best of each counts. With
--data-root the triplets are the real ones (only the annotations are read); without it, as many
synthetic ones. The features are random.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from measure import cost
from torch import Tensor

import fusecomp as fc

DIM, BATCH, TRIPLETS = 640, 4096, 18_000
PROJECTION, HIDDEN = 4 * DIM, 8 * DIM


class SyntheticTriplets:
    """As many triplets as FashionIQ has, of distinct images."""

    def __init__(self) -> None:
        self.image_ids = [f"image {number}" for number in range(TRIPLETS)]

    def path(self, image_id: str) -> Path:
        """There are no pictures."""
        raise FileNotFoundError(image_id)

    def triplets(self, epoch: int = 0, seed: int = 0) -> list[fc.Triplet]:
        """Each image is once a reference and once a target."""
        ids = self.image_ids
        return [
            fc.Triplet(f"{row}", ids[row - 1], (f"text {row}",), image_id)
            for row, image_id in enumerate(ids)
        ]

    def texts(self) -> list[str]:
        """One for each triplet."""
        return [f"text {row}" for row in range(TRIPLETS)]

    def tasks(self) -> list[fc.records.Task]:
        """Nothing is evaluated."""
        return []

    def __len__(self) -> int:
        return TRIPLETS


def matrix_products() -> list[tuple[Tensor, Tensor]]:
    """The factors of every product of one step, forward and backward."""
    wide = 2 * PROJECTION
    layers = [  # input width, output width, whether the input needs a gradient
        (DIM, PROJECTION, False),
        (DIM, PROJECTION, False),
        (wide, HIDDEN, True),
        (wide, HIDDEN, True),
        (HIDDEN, DIM, True),
        (HIDDEN, 1, True),
        (DIM, BATCH, True),  # the loss: queries by targets, which are frozen
    ]
    pairs = []
    for width, out, needs_gradient in layers:
        x, w, grad = torch.randn(BATCH, width), torch.randn(out, width), torch.randn(BATCH, out)
        pairs.append((x, w.T))
        if needs_gradient:
            pairs.append((grad, w))
        if out != BATCH:
            pairs.append((grad.T, x))
    return pairs


def read_triplets(root: Path | None) -> fc.protocols.Dataset:
    """FashionIQ's training triplets, without a picture, or as many synthetic ones."""
    if root is None:
        return SyntheticTriplets()
    return fc.data.FashionIQ(root, "train", gallery="val")


def make_trainer(train: fc.protocols.Dataset, dropout: float) -> fc.Trainer:
    """Stage 2 of the paper on random features."""
    texts = list(train.texts())
    encoder = fc.CachedEncoder.from_arrays(
        train.image_ids, torch.randn(len(train.image_ids), DIM), texts, torch.randn(len(texts), DIM)
    )
    model = fc.ComposedEncoder(encoder, fc.Combiner(DIM, dropout=dropout))
    config = fc.StageConfig(epochs=1, batch_size=BATCH, lr=2e-5, optimizer="adam", drop_last=True)
    return fc.Trainer(model, train, fc.InfoNCE(), config)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, help="a FashionIQ folder, for its annotations")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed")
    args = parser.parse_args()
    torch.manual_seed(0)
    train = read_triplets(args.data_root)
    factors = matrix_products()
    outputs = [torch.empty(len(a), b.shape[1]) for a, b in factors]
    flops = sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b in factors)

    def bare() -> None:
        for (a, b), out in zip(factors, outputs, strict=True):
            torch.mm(a, b, out=out)

    print(f"{len(train)} triplets, batch {BATCH}, D {DIM}, {flops / 1e12:.2f} TFLOP a step")
    print(f"{'dropout':>8} {'products s':>11} {'step s':>8} {'share':>7} {'batch CPU ms':>13}")
    for dropout in (0.0, 0.5):
        trainer = make_trainer(train, dropout)
        make_batches(trainer)  # warm-up
        batches, cpu = make_batches(trainer)
        trainer.step(batches[0])  # warm-up
        bare()
        bares, steps = [], []
        for turn in range(args.rounds):
            bares.append(cost(bare).wall)
            steps.append(cost(partial(trainer.step, batches[turn % len(batches)])).wall)
        share = min(bares) / min(steps)
        print(
            f"{dropout:>8} {min(bares):>11.2f} {min(steps):>8.2f} {share:>7.1%} "
            f"{min(cpu[1:]):>13.1f}"
        )


def make_batches(trainer: fc.Trainer) -> tuple[list[fc.records.Batch], list[float]]:
    """An epoch of batches, and the CPU milliseconds of each with its features looked up.

    The first one's include the names of the whole epoch.
    """
    encoder, batches, cpu = trainer.encoder, [], []
    start = time.process_time()
    for batch in fc.training.batches(trainer.train, encoder, trainer.config, epoch=0):
        encoder.encode_image(batch.reference)
        encoder.encode_image(batch.target)
        encoder.encode_text(batch.texts)
        batches.append(batch)
        cpu.append(1e3 * (time.process_time() - start))
        start = time.process_time()
    return batches, cpu


if __name__ == "__main__":
    main()
