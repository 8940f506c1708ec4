"""Comparing two runs over FashionIQ's 6,016 validation queries, and over CIRR's 4,181.

    python examples/benchmarks/bootstrap.py [--rounds 5]

Two rankings at random are saved, loaded and compared: 10,000 paired resamples, each metric of both
runs. Beside it, what draws every query of every resample one by one, vectorised, in blocks. The
median of each.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

import fusecomp as fc
from fusecomp.evaluation import Recall, SubsetRecall, TaskRanking, compare, compute_metrics
from fusecomp.types import Task

RESAMPLES, BLOCK = 10_000, 100
FASHIONIQ = {"dress": (2017, 3817), "shirt": (2038, 6346), "toptee": (1961, 5373)}
CIRR = {"": (4181, 2297)}


def make_run(tasks: dict[str, tuple[int, int]], seed: int) -> fc.Evaluation:
    """A ranking with ranks as a fair model has them; CIRR's has subsets."""
    rng = np.random.default_rng(seed)
    found = []
    for name, (count, size) in tasks.items():
        ids = [f"B{number:09d}" for number in range(size)]
        queries = [
            fc.Triplet(f"{name}/{n}", ids[n % size], (f"text {n}",), ids[(n + 1) % size])
            for n in range(count)
        ]
        ranks = np.minimum(size, np.exp(rng.normal(2.5, 2, size=count)).astype(np.int64) + 1)
        subsets, metrics = None, [Recall(10), Recall(50)]
        if not name:
            subsets = [tuple(ids[(n + m) % size] for m in range(5)) for n in range(count)]
            metrics = [*map(Recall, (1, 5, 10, 50)), *map(SubsetRecall, (1, 2, 3))]
        places = rng.integers(size, size=(count, 50))
        found.append(
            TaskRanking(
                Task(name, queries, ids, subsets=subsets, metrics=metrics),
                torch.from_numpy(places),
                torch.from_numpy(rng.random((count, 50), dtype=np.float32)),
                torch.from_numpy(ranks),
                None if name else torch.from_numpy(places[:, :5]),
                None if name else torch.from_numpy(rng.integers(1, 6, size=count)),
            )
        )
    protocol = {"dataset": "FashionIQ" if len(tasks) > 1 else "CIRR"}
    return compute_metrics(fc.Ranking(found, protocol))


def load_both(paths: list[Path]) -> list[fc.Evaluation]:
    """Two runs."""
    return [fc.Evaluation.load(path) for path in paths]


def draw_one_by_one(a: fc.Evaluation, b: fc.Evaluation) -> None:
    """The recalls of each task in resamples of its queries."""
    rng = np.random.default_rng(0)
    for name, task in a.ranking.items():
        both = [*task.metric_values().values(), *b.ranking[name].metric_values().values()]
        hits = torch.stack(both, 1).numpy().astype(np.float32)
        for _ in range(0, RESAMPLES, BLOCK):
            rows = rng.integers(len(hits), size=(BLOCK, len(hits)))
            hits[rows].mean(axis=1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed")
    rounds = parser.parse_args().rounds
    print(f"{'ms':<10} {'load two':>9} {'compare':>9} {'one by one':>11} {'file MB':>8}")
    for title, tasks in (("FashionIQ", FASHIONIQ), ("CIRR", CIRR)):
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{seed}.npz" for seed in (0, 1)]
            for seed, path in enumerate(paths):
                make_run(tasks, seed).save(path)
            a, b = load_both(paths)
            ways: list[Callable[[], object]] = [
                partial(load_both, paths),
                partial(compare, a, b),
                partial(draw_one_by_one, a, b),
            ]
            times: list[list[float]] = [[] for _ in ways]
            for turn in range(rounds + 1):
                for way, measured in zip(ways, times, strict=True):
                    start = time.perf_counter()
                    way()
                    if turn:  # the first is the warm-up
                        measured.append(1e3 * (time.perf_counter() - start))
            load, fast, slow = map(statistics.median, times)
            size = paths[0].stat().st_size / 1e6
            print(f"{title:<10} {load:>9.0f} {fast:>9.0f} {slow:>11.0f} {size:>8.1f}")


if __name__ == "__main__":
    main()
