"""Evaluation at the size of both benchmarks, against the bare product and the usual way.

    python examples/benchmarks/evaluation.py [--rounds 7]

FashionIQ's shirts (2,038 queries, 6,346 images) and CIRR's validation split (4,181 queries,
2,297 images, references excluded, subsets of five), at D = 640. Three ways, timed in turns, the
median of each: the matrix product alone; evaluate() from cached features, all of it; and what
public code usually does, a whole-matrix argsort and arrays of string labels, for CIRR with a mask
of every query, image and member. Memory is the largest growth of the process during each way, in
a process of its own.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from measure import growth, growths, interleaved
from torch.nn import functional as F

import fusecomp as fc
from fusecomp.datasets import Triplets

DIM = 640


def draw_split(
    name: str, queries: int, size: int, ks: tuple[int, ...], grouped: bool = False
) -> Triplets:
    """Draw a validation split of random pairs, of the shape of a real one."""
    form = "dev-{:04d}-0-img0" if grouped else "B{:09d}"  # as long as the real ones
    ids = [form.format(number) for number in range(size)]
    rng = np.random.default_rng(0)
    drawn = [tuple(ids[i] for i in rng.permutation(size)[:6]) for _ in range(queries)]
    triplets = [
        fc.Triplet(f"{row}", six[0], (f"text {row}",), six[1], six if grouped else None)
        for row, six in enumerate(drawn)
    ]
    return Triplets(triplets, ks=ks, gallery=ids, exclude_reference=grouped, name=name)


SHIRTS = draw_split("FashionIQ's shirts", 2038, 6346, (10, 50))
CIRR = draw_split("CIRR, validation", 4181, 2297, (1, 5, 10, 50), grouped=True)


def make_ways(data: Triplets) -> dict[str, Callable[[], Any]]:
    """The three ways on the same features."""
    torch.manual_seed(0)
    cached = fc.CachedEncoder.from_arrays(
        data.image_ids,
        torch.randn(len(data.image_ids), DIM),
        data.texts(),
        torch.randn(len(data), DIM),
    )
    model = fc.ComposedEncoder(cached, fc.Sum())
    images, texts = cached.image.features, cached.text.features
    rows = cached.lookup["image"]([t.reference_id for t in data.triplets()])
    query = F.normalize(images[rows] + texts, dim=-1)
    gallery = F.normalize(images, dim=-1)
    return {
        "the product alone": lambda: query @ gallery.T,
        "evaluate()": lambda: list(fc.evaluate(model, data).values()),
        "argsort, string labels": partial(argsort_with_strings, data, query, gallery),
    }


def argsort_with_strings(data: Triplets, query: torch.Tensor, gallery: torch.Tensor) -> list[float]:
    """The recalls, by sorting everything and comparing names."""
    order = torch.argsort(1 - query @ gallery.T, dim=-1)
    names = np.array(data.image_ids)[order.numpy()]
    targets = np.array([t.target_id for t in data.triplets()])[:, None]
    if not data.exclude_reference:
        return recalls(names == targets, data.ks)
    references = np.array([t.reference_id for t in data.triplets()])[:, None]
    names = names[names != references].reshape(len(data), -1)
    labels = names == targets
    groups = np.array([t.group for t in data.triplets()])
    member = (names[..., None] == groups[:, None, :]).any(-1)
    among = labels[member].reshape(len(data), -1)
    return recalls(labels, data.ks) + recalls(among, (1, 2, 3))


def recalls(labels: np.ndarray, ks: tuple[int, ...]) -> list[float]:
    """From labels [Q, N], True where the target stands."""
    return [100 * float(labels[:, :k].any(1).mean()) for k in ks]


def memory(data: Triplets, name: str) -> float:
    """Measure the memory that one way needs beyond the features, in MiB."""
    return growth(make_ways(data)[name])


def measure(data: Triplets, rounds: int) -> None:
    """Print the table of one split."""
    ways = make_ways(data)
    _, found, expected = (way() for way in ways.values())
    if not np.allclose(found[: len(expected)], expected, rtol=0, atol=1e-9):
        raise SystemExit(f"evaluate() finds {found}, the usual way {expected}")
    times = interleaved(ways, rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    bare = medians["the product alone"]
    needed = growths(memory, *((data, name) for name in ways))
    print(f"{data.name}: {len(data)} queries, {len(data.image_ids)} images, D = {DIM}")
    print(f"{'':<24} {'ms':>8} {'x product':>10} {'memory MiB':>11}")
    for (name, seconds), mib in zip(medians.items(), needed, strict=True):
        print(f"{name:<24} {1e3 * seconds:>8.0f} {seconds / bare:>10.2f} {mib:>11.0f}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each is timed")
    rounds = parser.parse_args().rounds
    for data in (SHIRTS, CIRR):
        measure(data, rounds)


if __name__ == "__main__":
    main()
