"""Stage 2 at the paper's size against its own matrix products, bare.

    python examples/benchmarks/stage2.py [--data-root fashionIQ_dataset] [--rounds 5]

The step in float32 and in bf16 (autocast over float32 weights), and the bare products of each, are
timed in turns, and the best of each counts. The loss is computed in float32 either way. With
--data-root the triplets are the real ones (only the annotations are read); without it, as many
synthetic ones. The features are random.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from measure import best, print_table
from torch import Tensor

import fusecomp as fc

DIM, BATCH, TRIPLETS = 640, 4096, 18_000
PROJECTION, HIDDEN = 4 * DIM, 8 * DIM
PAPER = fc.StageConfig(epochs=1, batch_size=BATCH, lr=2e-5, optimizer="adam", drop_last=True)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def synthetic_triplets() -> fc.datasets.Triplets:
    """Make as many triplets as FashionIQ has; each image is once a reference and once a target."""
    ids = [f"image {number}" for number in range(TRIPLETS)]
    triplets = [
        fc.Triplet(f"{row}", ids[row - 1], (f"text {row}",), image_id)
        for row, image_id in enumerate(ids)
    ]
    return fc.datasets.Triplets(triplets, gallery=ids)


def matrix_products(dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
    """The factors of every product of one step, forward and backward."""
    wide = 2 * PROJECTION
    layers = [  # input width, output width, whether the input needs a gradient, precision
        (DIM, PROJECTION, False, dtype),
        (DIM, PROJECTION, False, dtype),
        (wide, HIDDEN, True, dtype),
        (wide, HIDDEN, True, dtype),
        (HIDDEN, DIM, True, dtype),
        (HIDDEN, 1, True, dtype),
        (DIM, BATCH, True, torch.float32),  # the loss: queries by targets, which are frozen
    ]
    pairs = []
    for width, out, needs_gradient, kind in layers:
        shapes = (BATCH, width), (out, width), (BATCH, out)
        x, w, grad = (torch.randn(shape).to(kind) for shape in shapes)
        pairs.append((x, w.T))
        if needs_gradient:
            pairs.append((grad, w))
        if out != BATCH:
            pairs.append((grad.T, x))
    return pairs


def flops_of(products: list[tuple[Tensor, Tensor]]) -> int:
    """Count the operations of multiplying all of them."""
    return sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b in products)


def multiply(products: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    """Return a function that computes the products into memory of its own."""
    outputs = [a.new_empty(len(a), b.shape[1]) for a, b in products]

    def run() -> None:
        for (a, b), out in zip(products, outputs, strict=True):
            torch.mm(a, b, out=out)

    return run


def read_triplets(root: Path | None) -> fc.Dataset:
    """FashionIQ's training triplets, without an image, or as many synthetic ones."""
    if root is None:
        return synthetic_triplets()
    return fc.datasets.FashionIQ(root, "train", gallery="val")


def make_trainer(
    train: fc.Dataset,
    dropout: float,
    device: str = "cpu",
    workdir: Path | None = None,
    callbacks: tuple[Any, ...] = (),
    **settings: Any,
) -> fc.Trainer:
    """Stage 2 of the paper on random features; ``settings`` replace those of the config."""
    texts = list(train.texts())
    encoder = fc.CachedEncoder.from_arrays(
        train.image_ids, torch.randn(len(train.image_ids), DIM), texts, torch.randn(len(texts), DIM)
    )
    model = fc.ComposedEncoder(encoder, fc.Combiner(DIM, dropout=dropout)).to(device)
    config = replace(PAPER, **settings)
    return fc.Trainer(model, loss=fc.InfoNCE(), config=config, workdir=workdir, callbacks=callbacks)


def step(trainer: fc.Trainer, batches: Iterator[fc.types.Batch]) -> None:
    """One step on the next batch."""
    trainer.step(next(batches))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, help="a FashionIQ folder, for its annotations")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed")
    args = parser.parse_args()
    torch.manual_seed(0)
    train = read_triplets(args.data_root)
    products = {name: matrix_products(dtype) for name, dtype in PRECISIONS.items()}
    flops = flops_of(products["fp32"])
    print(f"{len(train)} triplets, batch {BATCH}, D {DIM}, {flops / 1e12:.2f} TFLOP a step\n")
    rows = []
    for dropout in (0.0, 0.5):
        ways: dict[str, Callable[[], object]] = {}
        prepared = {}
        for name in PRECISIONS:
            trainer = make_trainer(train, dropout, precision=name)
            encoder = trainer.prepare(train)
            make_batches(trainer, train, encoder)  # warm-up
            batches, cpu = make_batches(trainer, train, encoder)
            prepared[name] = min(cpu[1:])
            ways[f"{name} products"] = multiply(products[name])
            ways[f"{name} step"] = partial(step, trainer, cycle(batches))
        seconds = {way: spent.wall for way, spent in best(ways, args.rounds).items()}
        for name in PRECISIONS:
            bare, own = seconds[f"{name} products"], seconds[f"{name} step"]
            faster = seconds["fp32 step"] / own
            numbers = f"{bare:.2f}", f"{own:.2f}", f"{bare / own:.1%}", f"{faster:.2f}"
            rows.append([f"{name}, dropout {dropout}", *numbers, f"{prepared[name]:.1f}"])
    print_table(["", "products s", "step s", "share", "x fp32", "CPU ms for a batch"], rows)


def make_batches(
    trainer: fc.Trainer, train: fc.Dataset, encoder: fc.Encoder
) -> tuple[list[fc.types.Batch], list[float]]:
    """An epoch of batches, and the CPU milliseconds of each with its features looked up.

    The first one's include the names of the whole epoch.
    """
    batches, cpu = [], []
    start = time.process_time()
    for batch in fc.training.batches(train, encoder, trainer.config, epoch=0):
        encoder.encode_image(batch.reference)
        encoder.encode_image(batch.target)
        encoder.encode_text(batch.texts)
        batches.append(batch)
        cpu.append(1e3 * (time.process_time() - start))
        start = time.process_time()
    return batches, cpu


if __name__ == "__main__":
    main()
