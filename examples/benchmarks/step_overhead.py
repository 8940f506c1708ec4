"""Measure what ``fit`` adds to a training step: a tiny model in ``fit`` and in a bare loop.

    python examples/benchmarks/step_overhead.py [--epochs 10] [--rounds 7]

Both loops look features up, fuse them, compute the loss, go back and update, on the same model,
loss and optimiser. ``fit`` also shuffles by seed, names its rows, isolates random numbers, checks
that loss and gradient are finite, and keeps records. The best round of each counts.
"""

import argparse
import time
from collections.abc import Callable

import torch

import fusecomp as fc

DIM, ROWS, BATCH = 16, 6400, 64


def make_data() -> fc.datasets.Triplets:
    """Make as many images as triplets, in memory."""
    ids = [f"image {number}" for number in range(ROWS)]
    triplets = [
        fc.Triplet(f"{row}", image_id, (f"text {row}",), ids[row - 1])
        for row, image_id in enumerate(ids)
    ]
    return fc.datasets.Triplets(triplets, gallery=ids)


def make_model(data: fc.Dataset) -> fc.ComposedEncoder:
    """A tiny Combiner on random features."""
    torch.manual_seed(0)
    images, texts = torch.randn(ROWS, DIM), torch.randn(ROWS, DIM)
    encoder = fc.CachedEncoder.from_arrays(data.image_ids, images, data.texts(), texts)
    return fc.ComposedEncoder(encoder, fc.Combiner(DIM))


def bare(model: fc.ComposedEncoder, data: fc.Dataset, loss: fc.InfoNCE, epochs: int) -> None:
    """The loop that one would write."""
    encoder, fusion = model.encoder, model.fusion.train()  # type: ignore[attr-defined]
    optimizer = torch.optim.Adam(fusion.parameters(), lr=1e-4, fused=True)
    targets = torch.arange(ROWS) - 1
    targets[0] = ROWS - 1
    for _ in range(epochs):
        for rows in torch.randperm(ROWS).split(BATCH):
            query = model.compose(encoder.encode_image(rows), encoder.encode_text(rows))
            value = loss(query, encoder.encode_image(targets[rows]))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()


def fit(model: fc.ComposedEncoder, data: fc.Dataset, loss: fc.InfoNCE, epochs: int) -> None:
    """The library's."""
    config = fc.StageConfig(epochs=epochs, batch_size=BATCH, lr=1e-4, optimizer="adam")
    fc.Trainer(model, loss=loss, config=config).fit(data)


def microseconds(loop: Callable[..., None], *arguments: object, steps: int) -> tuple[float, float]:
    """Wall and CPU time of a step."""
    wall, cpu = time.perf_counter(), time.process_time()
    loop(*arguments)
    return 1e6 * (time.perf_counter() - wall) / steps, 1e6 * (time.process_time() - cpu) / steps


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    data, loss, steps = make_data(), fc.InfoNCE(), args.epochs * ROWS // BATCH
    model = make_model(data)
    times: dict[str, list[tuple[float, float]]] = {"bare": [], "fit": []}
    for number in range(args.rounds + 1):
        for name, loop in (("bare", bare), ("fit", fit)):
            measured = microseconds(loop, model, data, loss, args.epochs, steps=steps)
            if number:  # the first round warms up
                times[name].append(measured)
    best = {
        name: [min(values) for values in zip(*rows, strict=True)] for name, rows in times.items()
    }
    print(f"Combiner, D {DIM}, batch {BATCH}, {steps} steps; microseconds a step")
    print(f"{'':>6} {'wall':>8} {'CPU':>8}")
    for name, (wall, cpu) in best.items():
        print(f"{name:>6} {wall:>8.0f} {cpu:>8.0f}")
    added = [one - other for one, other in zip(best["fit"], best["bare"], strict=True)]
    print(f"{'added':>6} {added[0]:>8.0f} {added[1]:>8.0f}")


if __name__ == "__main__":
    main()
