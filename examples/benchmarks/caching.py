"""Measure what caching saves at the paper's size: RN50x4 with random weights, D 640.

    python examples/benchmarks/caching.py [--data-root fashionIQ_dataset] [--rounds 4]

Stage 2: a whole epoch of the Combiner on cached features, each of its steps in turns with the
encoder on a batch of decoded images and on one of texts. The published code encodes the images
and texts of each step anew; what that would add to the epoch is scaled from the best of these
batches, not run.

Stage 1, text side alone: steps of the trainer with the images' features cached, in turns with
steps that encode the images from their files. Nothing is scaled, but the batch is a small one;
the best of each counts.

With --data-root the triplets and texts are the real ones; only the annotations are read.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import photos
import stage2
import torch
from measure import Cost, best, cost, lowest, print_table, total

import fusecomp as fc


def show(name: str, unit: str, costs: dict[str, Cost]) -> None:
    """Print the table; ratios are to the first way."""
    first, *_ = costs.values()
    header = [name, f"s {unit}", "x the first", f"CPU s {unit}", "x the first"]
    rows = [
        [
            way,
            f"{own.wall:,.2f}",
            f"{own.wall / first.wall:.1f}",
            f"{own.cpu:,.2f}",
            f"{own.cpu / first.cpu:.1f}",
        ]
        for way, own in costs.items()
    ]
    print_table(header, rows)


def run_stage2(clip: fc.encoders.OpenClipEncoder, train: fc.Dataset, rows: int) -> None:
    """An epoch of stage 2."""
    trainer = stage2.make_trainer(train, dropout=0.5)
    encoder, config = trainer.prepare(train), trainer.config
    trainer.step(next(fc.training.batches(train, encoder, config, epoch=0)))  # warm-up
    images, texts = torch.randn(rows, 3, 288, 288), list(islice(train.texts(), rows))
    batches: list[fc.types.Batch] = []
    steps = [cost(lambda: batches.extend(fc.training.batches(train, encoder, config, epoch=1)))]
    encodings: list[tuple[Cost, Cost]] = []
    for batch in batches:
        steps.append(cost(partial(trainer.step, batch)))
        with torch.no_grad():
            of_images = cost(partial(clip.encode_image, images))
            encodings.append((of_images, cost(partial(clip.encode_text, texts))))
    image, text = (lowest(costs) for costs in zip(*encodings, strict=True))
    seen = len(batches) * config.batch_size
    epoch = total(steps)
    again = Cost(
        *(e + (2 * p + t) * seen / rows for e, p, t in zip(epoch, image, text, strict=True))
    )
    print(
        f"\nAn epoch of stage 2, {len(batches)} steps of {config.batch_size}. Encoding was "
        f"measured on {len(batches)} batches of {rows} and scaled to {2 * seen:,} images "
        f"({rows / image.wall:.2f} a second) and {seen:,} texts ({rows / text.wall:.1f})\n"
    )
    show("stage 2", "an epoch", {"cached": epoch, "encoding at each step (scaled)": again})


def run_stage1(
    clip: fc.encoders.OpenClipEncoder, texts: Sequence[str], rows: int, rounds: int
) -> None:
    """Steps of stage 1 on the text side."""
    config = fc.StageConfig(
        epochs=1,
        batch_size=rows,
        lr=2e-6,
        trainable="text",
        eps=1e-7,
        drop_last=True,
        num_workers=0,
    )
    model, loss = fc.ComposedEncoder(clip, fc.Sum()), fc.InfoNCE()
    with tempfile.TemporaryDirectory() as folder:
        train = photos.make_dataset(photos.draw(Path(folder), 2 * rows), texts)
        cached, again = (
            fc.Trainer(model, loss=loss, config=replace(config, cache=cache))
            for cache in (True, False)
        )
        encoders: list[fc.Encoder] = []
        filling = cost(lambda: encoders.append(cached.prepare(train)))

        def step(trainer: fc.Trainer, encoder: fc.Encoder) -> None:
            trainer.step(next(fc.training.batches(train, encoder, config, epoch=0)))

        ways = {
            "cached": partial(step, cached, encoders[0]),
            "encoding at each step": partial(step, again, again.prepare(train)),
        }
        costs = best(ways, rounds)
    print(
        f"\nSteps of stage 1, text side alone, batch {rows}, best of {rounds}. The features of "
        f"{2 * rows} images took {filling.wall:.1f} s, once\n"
    )
    show("stage 1", "a step", costs)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, help="a FashionIQ folder, for its annotations")
    parser.add_argument("--batch-size", type=int, default=16, help="rows encoded at once")
    parser.add_argument("--rounds", type=int, default=4, help="how often stage 1 is timed")
    args = parser.parse_args()
    torch.manual_seed(0)
    clip = photos.make_clip().eval()
    train = stage2.read_triplets(args.data_root)
    print(f"{photos.BACKBONE}, {len(train)} triplets, {torch.get_num_threads()} threads")
    run_stage2(clip, train, args.batch_size)
    texts = [] if args.data_root is None else [t.texts[0] for t in train.triplets()]
    run_stage1(clip, texts, args.batch_size, args.rounds)


if __name__ == "__main__":
    main()
