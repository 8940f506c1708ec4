"""Time and memory of several ways to do the same, for the benchmarks beside this file."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


def interleaved(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Wall seconds of each way, all in turns; the first turn is the warm-up and does not count."""
    return {name: [one.wall for one in costs] for name, costs in turns(ways, rounds).items()}


def growths(function: Callable[..., float], *arguments: tuple[object, ...]) -> list[float]:
    """Return what ``function`` returns for each tuple of arguments, in a fresh process each."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.starmap(function, arguments, chunksize=1)


def growth(work: Callable[[], object]) -> float:
    """The largest growth of this process while ``work`` runs, in MiB; Linux only."""
    # Forget the height that imports and warm-up have reached.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """The resident memory now (VmRSS) or at its height (VmHWM), in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


class Cost(NamedTuple):
    """Seconds on the wall, and of all processors in this process and its ended children.

    Unlike the wall's, the second hardly depends on what else the machine does.
    """

    wall: float
    cpu: float


def cost(work: Callable[[], object]) -> Cost:
    """Measure one call."""
    start, before = time.perf_counter(), sum(os.times()[:4])
    work()
    return Cost(time.perf_counter() - start, sum(os.times()[:4]) - before)


def turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Cost]]:
    """Measure the cost of each way, all in turns, after a first turn as warm-up."""
    found = [[cost(way) for way in ways.values()] for _ in range(rounds + 1)]
    return {name: list(of) for name, of in zip(ways, zip(*found[1:], strict=True), strict=True)}


def best(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Cost]:
    """The least that each way costs in its turns."""
    return {name: lowest(costs) for name, costs in turns(ways, rounds).items()}


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
