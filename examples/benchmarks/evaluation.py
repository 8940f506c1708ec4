"""Evaluation of one category at FashionIQ's size against the bare product and the usual way.

    python examples/benchmarks/evaluation.py [--rounds 7]

2,038 queries, 6,346 pictures, D = 640: FashionIQ's shirts. Three ways, timed in turns, the median
of each: the matrix product alone; evaluate() from cached features, all of it; and what public
code usually does, a whole-matrix argsort and an array of string labels. Memory is the largest
growth of the process during each way, in a process of its own.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import fusecomp as fc
from fusecomp.records import Task

QUERIES, GALLERY, DIM = 2038, 6346, 640


class Shirts:
    """The shape of FashionIQ's shirt validation split."""

    def __init__(self) -> None:
        self.image_ids = [f"B{number:09d}" for number in range(GALLERY)]
        rng = np.random.default_rng(0)
        pairs = rng.integers(GALLERY, size=(QUERIES, 2)).tolist()
        self._triplets = [
            fc.Triplet(f"{row}", self.image_ids[a], (f"text {row}",), self.image_ids[b])
            for row, (a, b) in enumerate(pairs)
        ]

    def path(self, image_id: str) -> Path:
        """There are no pictures."""
        raise FileNotFoundError(image_id)

    def triplets(self, epoch: int = 0, seed: int = 0) -> list[fc.Triplet]:
        """The queries."""
        return self._triplets

    def texts(self) -> list[str]:
        """One for each query."""
        return [f"text {row}" for row in range(QUERIES)]

    def tasks(self) -> list[Task]:
        """One task."""
        return [Task("shirt", self._triplets, self.image_ids)]

    def __len__(self) -> int:
        return QUERIES


def make_ways() -> dict[str, Callable[[], object]]:
    """The three ways on the same features."""
    torch.manual_seed(0)
    data = Shirts()
    cached = fc.CachedEncoder.from_arrays(
        data.image_ids, torch.randn(GALLERY, DIM), data.texts(), torch.randn(QUERIES, DIM)
    )
    model = fc.ComposedEncoder(cached, fc.Sum())
    images, texts = cached.image.features, cached.text.features
    rows = cached.lookup["image"]([t.reference_id for t in data.triplets()])
    query = F.normalize(images[rows] + texts, dim=-1)
    gallery = F.normalize(images, dim=-1)
    names = np.array(data.image_ids)
    targets = np.array([t.target_id for t in data.triplets()])

    def argsort_with_strings() -> list[float]:
        order = torch.argsort(1 - query @ gallery.T, dim=-1)
        labels = names[order.numpy()] == targets[:, None]
        return [100 * labels[:, :k].any(1).mean() for k in (10, 50)]

    return {
        "the product alone": lambda: query @ gallery.T,
        "evaluate()": lambda: fc.evaluate(model, data),
        "argsort, string labels": argsort_with_strings,
    }


def growth(name: str) -> float:
    """The largest growth of a fresh process during one way, in MiB."""
    ways = make_ways()
    before = resident("VmRSS")
    ways[name]()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """The resident memory now (VmRSS) or at its height (VmHWM), in MiB; Linux only."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each is timed")
    rounds = parser.parse_args().rounds
    ways = make_ways()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:  # the first is the warm-up
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    bare = medians["the product alone"]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = dict(zip(ways, pool.map(growth, ways, chunksize=1), strict=True))
    print(f"{QUERIES} queries, {GALLERY} pictures, D = {DIM}")
    print(f"{'':<24} {'ms':>8} {'x product':>10} {'memory MiB':>11}")
    for name, seconds in medians.items():
        print(f"{name:<24} {1e3 * seconds:>8.0f} {seconds / bare:>10.2f} {memory[name]:>11.0f}")


if __name__ == "__main__":
    main()
