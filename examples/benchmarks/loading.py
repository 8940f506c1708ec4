"""Seeding before an image is loaded; reading features and galleries; writing evaluations.

    OMP_NUM_THREADS=1 python examples/benchmarks/loading.py [--rows 1000000] [--queries 400000]

Images: ``load_available`` with a ``load_image`` that draws nothing and opens nothing, without a key
and with one as in training, against torch's bare loader, in batches of 128. Features: a file of
float16 [rows, 640], against what its names alone take as JSON and in a dict. Evaluations: 50 images
of 10,000 for each query, against the same arrays in a compressed archive. Medians, in turns.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from measure import print_table, turns
from torch import Tensor
from torch.utils.data import DataLoader

import fusecomp as fc
from fusecomp.evaluation import TaskRanking, compute_metrics
from fusecomp.images import load_available
from fusecomp.types import Task

DIM, BATCH, GALLERY, K = 640, 128, 10_000, 50
IMAGE = torch.zeros(3, 8, 8)


def constant(path: Path) -> Tensor:
    """An image that costs nothing."""
    return IMAGE


def exhaust(batches: Iterable[object]) -> None:
    """Take and drop all."""
    for _ in batches:
        pass


class Bare(torch.utils.data.Dataset[Tensor]):
    """Images as torch's loader takes them."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __getitem__(self, position: int) -> Tensor:
        return constant(self.paths[position])


def image_ways(count: int) -> dict[str, Callable[[], object]]:
    """Load as many images."""
    paths = [Path(f"folder/{number}.jpg") for number in range(count)]
    batches = [list(range(start, min(start + BATCH, count))) for start in range(0, count, BATCH)]
    known, bare = dict(enumerate(paths)), Bare(paths)

    def load(key: tuple[int, ...]) -> None:
        exhaust(load_available(known, constant, batches, num_workers=0, key=key))

    return {
        "torch's loader": lambda: exhaust(DataLoader(bare, batch_sampler=batches)),
        "`load_available`": lambda: load(()),
        "`load_available`, with a key": lambda: load((3, 17)),
    }


def file_ways(rows: int, folder: Path) -> dict[str, Callable[[], object]]:
    """Write features and a gallery; read them."""
    features = torch.empty(rows, DIM, dtype=torch.float16).normal_()
    ids = [f"image-{number:07d}" for number in range(rows)]
    text = json.dumps(ids)
    texts, words = ["is red"], torch.ones(1, DIM)
    fc.CachedEncoder.from_arrays(ids, features, texts, words, "key").save(folder / "features")
    fc.Gallery(ids, features, key="key").save(folder / "gallery")
    return {
        "the names alone": lambda: {name: n for n, name in enumerate(json.loads(text))},
        "`CachedEncoder.load`": lambda: fc.CachedEncoder.load(folder / "features"),
        "`CachedEncoder.load(check=True)`": lambda: fc.CachedEncoder.load(
            folder / "features", check=True
        ),
        "`Gallery.load`": lambda: fc.Gallery.load(folder / "gallery"),
    }


def draw_evaluation(count: int) -> fc.Evaluation:
    """Random ranks and scores."""
    generator = torch.Generator().manual_seed(0)

    def integers(*size: int) -> Tensor:
        return torch.randint(GALLERY, size, generator=generator)

    # From any start on, in one of the steps that share no factor with the size of the gallery.
    steps = torch.tensor([1, 3, 7, 9, 11, 13])[integers(count, 1) % 6]
    indices = (integers(count, 1) + torch.arange(K) * steps) % GALLERY
    ids = [f"image-{number:06d}" for number in range(GALLERY)]
    ranks = torch.randint(1, K + 1, (count,), generator=generator)
    targets = indices.gather(1, ranks[:, None] - 1).flatten().tolist()
    queries = [
        fc.Triplet(
            f"{n}", ids[reference], (f"is blue as number {n % 997}", "is longer"), ids[target]
        )
        for n, (reference, target) in enumerate(zip(integers(count).tolist(), targets, strict=True))
    ]
    scores = torch.rand(count, K, generator=generator).sort(dim=1, descending=True).values
    found = TaskRanking(Task("drawn", queries, ids), indices, scores, ranks)
    return compute_metrics(fc.Ranking([found], {"dataset": "drawn"}))


def evaluation_ways(count: int, folder: Path) -> dict[str, Callable[[], object]]:
    """Save an evaluation."""
    evaluation, path = draw_evaluation(count), folder / "evaluation.npz"
    evaluation.save(path)
    with np.load(path) as arrays:
        content = dict(arrays)
    return {
        "`Evaluation.save`": lambda: evaluation.save(path),
        "its arrays, compressed": lambda: np.savez_compressed(folder / "small.npz", **content),
    }


def print_costs(
    title: str, ways: Mapping[str, Callable[[], object]], rounds: int, unit: str, scale: float
) -> None:
    """Print CPU and wall times, and the ratio of CPU times to the first way's."""
    costs = {name: list(zip(*of, strict=True)) for name, of in turns(ways, rounds).items()}
    medians = {name: [scale * statistics.median(kind) for kind in of] for name, of in costs.items()}
    first = next(iter(medians.values()))[1] or 1e-9
    rows = [
        [name, f"{cpu:.2f}", f"{wall:.2f}", f"{cpu / first:.2f}", f"{cpu - first:+.2f}"]
        for name, (wall, cpu) in medians.items()
    ]
    print_table([title, f"CPU {unit}", f"wall {unit}", "x", "more"], rows)
    print()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=51_200)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    name = f"{args.images:,} images"
    print_costs(name, image_ways(args.images), args.rounds, "us", 1e6 / args.images)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        print_costs(f"{args.rows:,} rows", file_ways(args.rows, folder), args.rounds, "s", 1)
        ways = evaluation_ways(args.queries, folder)
        print_costs(f"{args.queries:,} queries", ways, min(2, args.rounds), "s", 1)
        sizes = [(folder / f"{file}.npz").stat().st_size for file in ("evaluation", "small")]
        print(f"{sizes[0] / 1e6:.0f} MB, compressed {sizes[1] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
