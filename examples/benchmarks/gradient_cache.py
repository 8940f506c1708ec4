"""A step of an encoder that learns: at once, with the gradient cache, and with checkpointing.

    python examples/benchmarks/gradient_cache.py [--batch 256] [--chunks 8] [--rounds 5]

One encoder of two deep towers, InfoNCE over the whole batch, one step of the trainer on both sides.
The cache computes features twice: of a forward and a backward pass, 3 units of work, it makes 4.
All ways are timed in turns; ratios compare the best. Beside other jobs, look at the CPU's seconds,
and set OMP_NUM_THREADS=1, as waiting threads count.

Memory is the largest growth of a fresh process in a step after a small one, so that weights and
the optimiser's state are there already. The last row is a batch of one chunk; the cache has the
features beside it, and from the second chunk on the gradients of the weights. The difference is the
largest of a gradient, by the largest value of the same parameter's.
"""

import argparse
import os
import statistics
from functools import partial
from typing import Any

import stage2
import torch
from measure import growth, growths, lowest, print_table, turns
from torch import Tensor, nn

import fusecomp as fc

WIDTH, DEPTH, TOKENS = 128, 8, 16


class Block(nn.Module):
    """A residual layer of two, as in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, TOKENS, WIDTH] to the same."""
        added: Tensor = tokens + self.layers(tokens)
        return added


class Tower(nn.Module):
    """Blocks on tokens [B, TOKENS, WIDTH], and their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Features [B, WIDTH]."""
        features: Tensor = self.blocks(tokens).mean(dim=1)
        return features


def make_trainer(batch: int, **settings: Any) -> fc.Trainer:
    """The same weights each time."""
    torch.manual_seed(0)
    model = fc.ComposedEncoder(fc.encoders.DualEncoder(Tower(), Tower()), fc.Sum())
    config = fc.StageConfig(epochs=1, batch_size=batch, lr=1e-6, trainable="both", **settings)
    trainer = fc.Trainer(model, loss=fc.InfoNCE(temperature=0.1), config=config)
    trainer.prepare(stage2.synthetic_triplets())
    return trainer


def make_batch(rows: int) -> fc.types.Batch:
    """Random tokens for images and texts."""
    generator = torch.Generator().manual_seed(1)
    reference, texts, target = torch.randn(3, rows, TOKENS, WIDTH, generator=generator)
    every = torch.arange(rows)
    names = [str(row) for row in range(rows)]
    return fc.types.Batch(reference, texts, target, torch.ones_like(every), every, every, names)


def memory(rows: int, settings: dict[str, Any]) -> float:
    """MiB of a step on so many rows."""
    trainer, batch = make_trainer(rows, **settings), make_batch(rows)
    trainer.step(batch.rows(0, 2))
    return growth(partial(trainer.step, batch))


def gradients(trainer: fc.Trainer, batch: fc.types.Batch) -> list[Tensor]:
    """Measure the first step."""
    trainer.step(batch)
    return [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]


def difference(own: list[Tensor], others: list[Tensor]) -> float:
    """The largest by the largest value of the parameter's."""
    pairs = zip(own, others, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=256, help="rows of a step")
    parser.add_argument("--chunks", type=int, default=8, help="into how many it is cut")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed")
    args = parser.parse_args()
    chunk = args.batch // args.chunks
    settings: dict[str, dict[str, Any]] = {
        "at once": {},
        f"micro_batch_size={chunk}": {"micro_batch_size": chunk},
        "checkpointing": {"gradient_checkpointing": True},
    }
    batch = make_batch(args.batch)
    trainers = {way: make_trainer(args.batch, **of) for way, of in settings.items()}
    found = {way: gradients(trainer, batch) for way, trainer in trainers.items()}
    costs = turns(
        {way: partial(trainer.step, batch) for way, trainer in trainers.items()}, args.rounds
    )
    # The fresh processes' glibc gives freed tensors back at once, so that only living ones count.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    needed = growths(memory, *((args.batch, of) for of in settings.values()), (chunk, {}))
    size = sum(p.numel() for p in trainers["at once"].model.parameters()) * 4 / 2**20
    features = 3 * args.batch * WIDTH * 4 / 2**20
    print(
        f"batch {args.batch}, {torch.get_num_threads()} threads; the weights take {size:.1f} MiB, "
        f"the features {features:.1f}\n"
    )
    rows, first = [], lowest(costs["at once"])
    for way, mib in zip(settings, needed, strict=False):
        own, median = lowest(costs[way]), statistics.median(one.wall for one in costs[way])
        times = f"{own.wall:.2f}", f"{median:.2f}", f"{own.wall / first.wall:.2f}"
        of_cpu = f"{own.cpu:.2f}", f"{own.cpu / first.cpu:.2f}"
        apart = f"{difference(found[way], found['at once']):.0e}"
        rows.append([way, *times, *of_cpu, f"{mib:.0f}", f"{mib / needed[0]:.2f}", apart])
    alone = f"{needed[-1]:.0f}", f"{needed[-1] / needed[0]:.2f}"
    rows.append([f"a batch of {chunk}", *[""] * 5, *alone, ""])
    header = ["", "best s", "median s", "x first", "CPU s", "x first", "MiB", "x first"]
    print_table([*header, "difference"], rows)


if __name__ == "__main__":
    main()
