"""ARTEMIS's similarity against its four bare products, in time, memory and digits.

    OMP_NUM_THREADS=1 python examples/benchmarks/artemis.py [--rounds 15]

200 queries and 5,000 images at D = 512: the four matrix products alone (of images that are scaled
and squared beforehand), ``similarity``, ``search`` with it, and the formula, which applies each
query's attention to the images. All in turns, ten calls a turn, the least CPU time of each. Memory
is the largest growth of the process during each, in a process of its own; ``search`` again in ten
times as many images. The difference is that of ``similarity`` and of ``search`` in float64 to the
formula, query by query.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from measure import best, growth, growths, print_table
from torch import Tensor
from torch.nn import functional as F

from fusecomp.fusions import ARTEMIS
from fusecomp.retrieval import search

QUERIES, IMAGES, DIM, CALLS = 200, 5000, 512, 10
BARE, SIMILARITY, SEARCH, FORMULA = "four bare products", "`similarity`", "`search`", "the formula"


class Problem(NamedTuple):
    """A fusion and what it compares."""

    artemis: ARTEMIS
    image: Tensor
    text: Tensor
    gallery: Tensor

    def query(self) -> Tensor:
        """The queries of the fusion."""
        query: Tensor = self.artemis(self.image, self.text)
        return query


def draw(images: int = IMAGES, dtype: torch.dtype = torch.float32) -> Problem:
    """Draw weights and features."""
    torch.manual_seed(0)
    artemis = ARTEMIS(DIM).to(dtype).requires_grad_(False)
    image, text = torch.randn(2, QUERIES, DIM, dtype=dtype)
    return Problem(artemis, image, text, torch.randn(images, DIM, dtype=dtype))


def by_formula(problem: Problem) -> Tensor:
    """The scores [Q, N] of attentions that are applied to the images, query by query."""
    artemis, x = problem.artemis, F.normalize(problem.gallery, dim=1)
    r, m = F.normalize(problem.image, dim=1), F.normalize(problem.text, dim=1)
    a, b = (artemis.attentions[term](m).softmax(dim=1) for term in ("EM", "IS"))
    wish, own = F.normalize(artemis.transform(m), dim=1), F.normalize(b * r, dim=1)
    scores = x.new_empty(len(m), len(x))
    for q, row in enumerate(scores):
        row.copy_(F.normalize(a[q] * x, dim=1) @ wish[q] + F.normalize(b[q] * x, dim=1) @ own[q])
    return scores


def make_ways(problem: Problem) -> dict[str, Callable[[], Any]]:
    """The ways to compare, on the same queries and images."""
    query, gallery = problem.query(), problem.gallery
    unit = F.normalize(gallery, dim=1)
    halves = [half.contiguous() for half in query.chunk(4, dim=1)]
    columns = (unit, unit, unit.square(), unit.square())
    pairs = list(zip(halves, columns, strict=True))
    similarity = problem.artemis.similarity
    return {
        BARE: lambda: [rows @ images.T for rows, images in pairs],
        SIMILARITY: partial(similarity, query, gallery),
        SEARCH: partial(search, query, gallery, 50, similarity=similarity),
        FORMULA: partial(by_formula, problem),
    }


def memory(name: str, images: int) -> float:
    """Measure the memory that one way needs beyond its inputs, in MiB."""
    ways = make_ways(draw(images))
    ways[BARE]()  # the library's own buffers
    return growth(ways[name])


def repeated(work: Callable[[], Any], times: int) -> Callable[[], None]:
    """Return what does some work several times."""

    def run() -> None:
        for _ in range(times):
            work()

    return run


def differences() -> tuple[float, float]:
    """The largest differences of ``similarity`` and ``search`` to the formula, in float64."""
    problem = draw(dtype=torch.float64)
    query, gallery, expected = problem.query(), problem.gallery, by_formula(problem)
    similarity = problem.artemis.similarity
    scores, indices = search(query, gallery, IMAGES, similarity=similarity)
    whole = similarity(query, gallery) - expected
    found = scores - expected.gather(1, indices)
    return float(whole.abs().max()), float(found.abs().max())


def main() -> None:
    """Print the table and the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="how often each is timed")
    rounds = parser.parse_args().rounds
    ways = make_ways(draw())
    calls = {name: 1 if name == FORMULA else CALLS for name in ways}
    costs = best({name: repeated(way, calls[name]) for name, way in ways.items()}, rounds)
    seconds = {name: cost.cpu / calls[name] for name, cost in costs.items()}
    cases = [*((name, IMAGES) for name in ways), (SEARCH, 10 * IMAGES)]
    needed = dict(zip(cases, growths(memory, *cases), strict=True))
    rows = [
        [name, f"{1e3 * s:.0f}", f"{s / seconds[BARE]:.2f}", f"{needed[name, IMAGES]:.0f}"]
        for name, s in seconds.items()
    ]
    rows.append([f"{SEARCH}, {10 * IMAGES:,} images", "", "", f"{needed[cases[-1]]:.0f}"])
    print_table(["", "CPU ms", "x the products", "MiB"], rows)
    of_similarity, of_search = differences()
    print(f"difference in float64: similarity {of_similarity:.1e}, search {of_search:.1e}")


if __name__ == "__main__":
    main()
