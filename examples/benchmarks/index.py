"""The exact index against faiss's flat index, on one thread, in turns.

    OMP_NUM_THREADS=1 python examples/benchmarks/index.py [--sizes 6000 100000 500000] [--rounds 15]

Random unit vectors at D = 640, k = 50: one query, and 2,000 queries where the gallery is no larger
than 100,000. Seconds are those of the processor, which what else the machine does hardly changes.
Memory is the peak memory of a process that draws the features, prepares them and searches with one
query, divided by the features and after taking away what it held before.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import faiss
import torch
from measure import growth, growths, print_table

from fusecomp.retrieval import ExactIndex

DIM, K, QUERIES, LARGEST_BATCH = 640, 50, 2000, 100_000


def draw(rows: int, seed: int) -> torch.Tensor:
    """Draw unit vectors, in place."""
    features = torch.empty(rows, DIM)
    features.normal_(generator=torch.Generator().manual_seed(seed))
    return features.div_(torch.linalg.vector_norm(features, dim=1, keepdim=True))


def memory(size: int) -> float:
    """The peak memory, divided by the features."""

    def work() -> None:
        ExactIndex(draw(size, 0)).search(query, K)

    query, small = draw(1, 1), ExactIndex(draw(1000, 2))
    for one in draw(40, 3).split(1):  # code that is loaded when it is first used, on every path
        small.search(one, K)
    return growth(work) * 2**20 / (size * DIM * 4)


def ways(size: int, queries: int) -> dict[str, Callable[[], object]]:
    """Search the same features in both."""
    features, query = draw(size, 0), draw(queries, 1)
    ours, theirs = ExactIndex(features), faiss.IndexFlatIP(DIM)
    theirs.add(features.numpy())
    array = query.numpy()
    found, expected = ours.search(query[:100], K)[1].numpy(), theirs.search(array[:100], K)[1]
    if (found == expected).mean() < 0.999:
        raise SystemExit("the two find other rows")
    return {"faiss": lambda: theirs.search(array, K), "fusecomp": lambda: ours.search(query, K)}


def seconds(work: Callable[[], object]) -> float:
    """The processor's seconds of one call."""
    before = time.process_time()
    work()
    return time.process_time() - before


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[6000, 100_000, 500_000])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    rows = []
    for size in options.sizes:
        for queries in (1, QUERIES) if size <= LARGEST_BATCH else (1,):
            rounds = options.rounds * (1 if queries > 1 else max(1, 600_000 // size))
            both = list(ways(size, queries).values())
            times = [[1e3 * seconds(way) for way in both] for _ in range(rounds + 1)]
            flat, exact = map(statistics.median, zip(*times[1:], strict=True))
            row = [f"{size:,}", f"{queries:,}", f"{flat:,.2f}", f"{exact:,.2f}"]
            height = f"{growths(memory, (size,))[0]:.2f}" if queries == 1 else ""
            rows.append([*row, f"{exact / flat:.2f}", height])
    print_table(("images", "queries", "faiss ms", "fusecomp ms", "x", "memory"), rows)


if __name__ == "__main__":
    main()
