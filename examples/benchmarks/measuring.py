"""How the benchmarks measure: in turns, and the best of each counts."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple


class Cost(NamedTuple):
    """Seconds on the wall, and of all processors in this process and its ended children.

    Unlike the wall's, the second hardly depends on what else the machine does.
    """

    wall: float
    cpu: float


def cost(work: Callable[[], object]) -> Cost:
    """What one call costs."""
    start, before = time.perf_counter(), sum(os.times()[:4])
    work()
    return Cost(time.perf_counter() - start, sum(os.times()[:4]) - before)


def best(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Cost]:
    """Call the ways in turns, once more than counts: the first time is the warm-up."""
    turns = [[cost(way) for way in ways.values()] for _ in range(rounds + 1)]
    return {n: lowest(of) for n, of in zip(ways, zip(*turns[1:], strict=True), strict=True)}


def lowest(costs: Iterable[Cost]) -> Cost:
    """The least of each kind of seconds."""
    return Cost(*map(min, zip(*costs, strict=True)))


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of each kind of seconds."""
    return Cost(*map(sum, zip(*costs, strict=True)))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in Markdown; all columns but the first hold numbers."""
    marks = ["---", *("---:" for _ in header[1:])]
    for row in (header, marks, *rows):
        print(f"| {' | '.join(row)} |")
